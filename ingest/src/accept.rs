//! `POST /v1/uploads`: admit, read, check, keep, reserve, publish, answer.

use schemas::ids::UploadId;
use serde_json::{Value, json};
use warp::http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue, LOCATION};
use warp::http::{HeaderMap, StatusCode};
use warp::reply::Response;

use crate::body::Body;
use crate::error::ApiError;
use crate::fields;
use crate::form::{Claims, FormReader};
use crate::gateway::{Caller, Gateway};
use crate::reserve::{Reserved, Wanted};
use crate::server::Peer;
use crate::store::{Incoming, PhotoStore};

/// Characters of a W3C `traceparent`, version 00.
const TRACEPARENT_CHARS: usize = 55;

impl Gateway {
    /// The route. After a refusal the rest of the body is thrown away, so that the client reads the answer.
    pub(crate) async fn post_upload(
        &self,
        headers: HeaderMap,
        peer: Option<Peer>,
        mut body: Body,
    ) -> Result<Response, ApiError> {
        let result = self.take_upload(&headers, peer, &mut body).await;
        if result.is_err() {
            body.discard(self.config().timeouts.drain, headers.contains_key(EXPECT)).await;
        }
        result
    }

    async fn take_upload(
        &self,
        headers: &HeaderMap,
        peer: Option<Peer>,
        body: &mut Body,
    ) -> Result<Response, ApiError> {
        let caller = self.admit(headers, peer).await?;
        self.admit_upload(&caller)?;
        let limits = self.config().limits;
        let length = text(headers, &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length > limits.photo_bytes + limits.form_overhead_bytes) {
            return Err(ApiError::PhotoTooLarge { limit: limits.photo_bytes });
        }
        let idempotency_key = match headers.get("idempotency-key") {
            Some(value) => Some(fields::idempotency_key(value.to_str().unwrap_or_default())?),
            None => None,
        };
        let place = self.upload_place().await?;
        let reader = FormReader { photos: &self.parts().photos, limits, now: self.now() };
        let (photo, claims) = reader.read(text(headers, &CONTENT_TYPE), body).await?;
        drop(place);
        let reserved = self.keep(&caller, &photo, &claims, idempotency_key.as_deref()).await;
        if !matches!(&reserved, Ok(reserved) if reserved.fresh) {
            self.parts().photos.discard(&photo).await;
        }
        let reserved = reserved?;
        let new = self.settle(&reserved, traceparent(headers)).await?;
        Ok(self.accepted(reserved.upload_id, new))
    }

    /// From a photo under its temporary key to a reservation.
    async fn keep(
        &self,
        caller: &Caller,
        photo: &Incoming,
        claims: &Claims,
        idempotency_key: Option<&str>,
    ) -> Result<Reserved, ApiError> {
        let user = caller.user;
        if let Some(reserved) = self.earlier(user, photo, claims, idempotency_key).await? {
            return Ok(reserved);
        }
        let mime = self.check_photo(photo).await?;
        let object_key = PhotoStore::key(user, &photo.sha256);
        // Before the reservation: a reserved event may be published at any time, and its photo must be there then. A reservation
        // that fails now leaves a photo without an upload, under a key that the same photo sent again will have.
        self.parts().photos.keep(photo, &object_key).await?;
        let wanted = Wanted { user, photo, mime, claims, idempotency_key, object_key: &object_key };
        self.reserve(&wanted).await
    }

    async fn check_photo(&self, photo: &Incoming) -> Result<&'static str, ApiError> {
        let place = self.check_place().await?;
        let bytes = self.parts().photos.read(&photo.key).await?;
        let check = self.parts().check.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let checked = check.check(&bytes);
            drop((bytes, place));
            checked
        });
        let checked = checked.await.map_err(|error| ApiError::Internal { source: error.into() })?;
        checked.map_err(ApiError::Photo)
    }

    /// 202 for an upload that is taken now, 200 for one that was taken before; the same document.
    fn accepted(&self, upload_id: UploadId, new: bool) -> Response {
        let status_url = format!("{}/v1/uploads/{upload_id}", self.config().base_url);
        let document = json!({
            "upload_id": upload_id,
            "status": "uploaded",
            "status_url": status_url,
            "events_url": format!("{status_url}/events"),
        });
        let mut response = json_response(&document);
        *response.status_mut() = if new { StatusCode::ACCEPTED } else { StatusCode::OK };
        if let Ok(location) = HeaderValue::from_str(&status_url) {
            response.headers_mut().insert(LOCATION, location);
        }
        response
    }
}

/// A 200 with a JSON document.
pub(crate) fn json_response(document: &Value) -> Response {
    let mut response = Response::new(document.to_string().into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text<'a>(headers: &'a HeaderMap, name: &warp::http::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The client's trace context, if it has the form of version 00.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(runtime::worker::TRACEPARENT)?.to_str().ok()?;
    let hex = |byte: u8| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (value.len() == TRACEPARENT_CHARS && value.starts_with("00-") && value.bytes().all(hex)).then_some(value)
}
