//! A photo as a browser can show it.

use bytes::Bytes;
use tokio::sync::Semaphore;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::reply::Response;

use crate::http::operation::Operation;
use crate::http::problem::{ApiError, INTERNAL};
use crate::http::reply::Reply;

/// What browsers other than Safari do not show.
const HEIC: &str = "image/heic";
/// One such photo at a time is made a JPEG: it takes up to 200 MB and two seconds of a core.
static ROOM: Semaphore = Semaphore::const_new(1);

/// A photo as it was received; one that browsers do not show, as a JPEG of the same pixels, upright.
pub(crate) struct Photo {
    bytes: Bytes,
    mime_type: String,
}

impl Photo {
    /// # Errors
    /// [`INTERNAL`] where a photo that was accepted can no longer be decoded, or the program is ending.
    pub async fn shown(bytes: Bytes, mime_type: &str) -> Result<Self, ApiError> {
        if mime_type != HEIC {
            return Ok(Self { bytes, mime_type: mime_type.to_owned() });
        }
        let room = ROOM.acquire().await.map_err(|error| INTERNAL.caused_by(error))?;
        let work = move || reading::decode(&bytes).and_then(|photo| photo.to_jpeg(u32::MAX));
        let made = tokio::task::spawn_blocking(work).await.map_err(|error| INTERNAL.caused_by(error))?;
        drop(room);
        let jpeg = made.map_err(|fault| INTERNAL.caused_by(std::io::Error::other(fault.detail)))?;
        Ok(Self { bytes: jpeg.bytes.into(), mime_type: "image/jpeg".to_owned() })
    }
}

impl Reply for Photo {
    fn into_response(self) -> Result<Response, ApiError> {
        let kind = HeaderValue::from_str(&self.mime_type).map_err(|error| INTERNAL.caused_by(error))?;
        let mut response = Response::new(self.bytes.into());
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, kind);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        let binary = serde_json::json!({ "type": "string", "format": "binary" });
        let content = ["image/jpeg", "image/png", "image/webp"]
            .map(|kind| (kind.to_owned(), serde_json::json!({ "schema": binary })));
        operation.response(200, "The photo", serde_json::Value::Object(content.into_iter().collect()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_phones_photo_is_shown_as_a_jpeg_and_any_other_as_it_came() {
        let heic = include_bytes!("../../../reading/tests/phone/tiles.heic").as_slice();
        let shown = Photo::shown(Bytes::from_static(heic), "image/heic").await.unwrap();
        assert_eq!(shown.mime_type, "image/jpeg");
        let info = reading::inspect(&shown.bytes).unwrap();
        assert_eq!((info.format, info.width, info.height), (reading::Format::Jpeg, 1280, 960));
        let other = Photo::shown(Bytes::from_static(b"as it came"), "image/png").await.unwrap();
        assert_eq!((other.bytes.as_ref(), other.mime_type.as_str()), (b"as it came".as_slice(), "image/png"));
    }
}
