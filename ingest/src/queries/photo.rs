//! `GET /v1/uploads/{id}/photo`: the photo of one's own upload, as it was received. A photo goes out piece by piece: however many are asked
//! for at once by those who read slowly, a few pieces of each are in memory.

use bytes::BytesMut;
use futures::StreamExt as _;
use futures::stream;
use reading::Format;
use schemas::ids::UploadId;
use sqlx::PgPool;
use warp::http::header::{CONTENT_LENGTH, HeaderValue};
use warp::reply::Response;

use super::heic;
use crate::auth::admission::Caller;
use crate::http::operation::Operation;
use crate::http::pieces::Pieces;
use crate::http::problem::{ApiError, INTERNAL, PHOTO_STORE_UNAVAILABLE, Problem, UPLOAD_NOT_FOUND};
use crate::http::reply::Reply;
use crate::http::request::{Dependency, NoQuery, Path};
use crate::uploads::store::PhotoStore;

/// What the route itself refuses.
pub(crate) const REFUSALS: &[Problem] = &[PHOTO_STORE_UNAVAILABLE];

/// A photo as it was received; one that browsers do not show, as a JPEG of the same pixels.
pub(crate) struct Photo {
    length: u64,
    mime_type: String,
    pieces: Pieces<object_store::Error>,
}

impl Photo {
    /// Opens it in the store; its type follows from its first bytes where it is not known.
    pub(crate) async fn open(
        photos: &PhotoStore,
        key: &str,
        mime_type: Option<String>,
    ) -> Result<Self, ApiError> {
        let (length, mut content) = photos.pieces(key).await?;
        let first =
            content.next().await.transpose().map_err(|error| PHOTO_STORE_UNAVAILABLE.caused_by(error))?;
        let sniffed = || {
            let format = Format::sniff(first.as_deref().unwrap_or_default());
            format.map_or("application/octet-stream", Format::mime).to_owned()
        };
        let mime_type = mime_type.unwrap_or_else(sniffed);
        // Browsers other than Safari do not show it.
        if mime_type == Format::Heic.mime() {
            let mut whole = BytesMut::from(first.as_deref().unwrap_or_default());
            while let Some(piece) = content.next().await {
                whole.extend_from_slice(&piece.map_err(|error| PHOTO_STORE_UNAVAILABLE.caused_by(error))?);
            }
            let jpeg = heic::to_jpeg(whole.freeze()).await?;
            return Ok(Self {
                length: jpeg.len() as u64,
                mime_type: Format::Jpeg.mime().to_owned(),
                pieces: Pieces::made_by(|outlet| async move { drop(outlet.send(Ok(jpeg)).await) }),
            });
        }
        let pieces = Pieces::made_by(|outlet| async move {
            let mut pieces = stream::iter(first.map(Ok)).chain(content);
            while let Some(piece) = pieces.next().await {
                // The client has gone, or what is left cannot be read.
                let is_last = piece.is_err();
                if outlet.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        });
        Ok(Self { length, mime_type, pieces })
    }
}

impl Reply for Photo {
    fn into_response(self) -> Result<Response, ApiError> {
        let kind = HeaderValue::from_str(&self.mime_type).map_err(|error| INTERNAL.caused_by(error))?;
        let mut response = self.pieces.into_response(kind);
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(self.length));
        Ok(response)
    }

    fn describe(operation: &mut Operation) {
        let binary = serde_json::json!({ "type": "string", "format": "binary" });
        let content = [Format::Jpeg, Format::Png, Format::Webp]
            .map(|format| (format.mime().to_owned(), serde_json::json!({ "schema": binary })));
        operation.response(200, "The photo", serde_json::Value::Object(content.into_iter().collect()));
    }
}

/// The route.
pub(crate) async fn show(
    Dependency(pool): Dependency<PgPool>,
    Dependency(photos): Dependency<PhotoStore>,
    caller: Caller,
    _: NoQuery,
    Path(upload): Path<UploadId>,
) -> Result<Photo, ApiError> {
    // A failed upload whose photo was sent again has no reservation any more, but its row in the tables.
    let hash: Option<String> = sqlx::query_scalar(
        "select image_hash from photo_hashes where upload_id = $2 and user_id = $1
         union select image_hash from odometer_uploads where id = $2 and user_id = $1 and image_hash is not null",
    )
    .bind(caller.user.0)
    .bind(upload.0)
    .fetch_optional(&pool)
    .await?;
    let hash = hash.ok_or_else(|| UPLOAD_NOT_FOUND.error())?;
    Photo::open(&photos, &PhotoStore::key(caller.user, &hash), None).await
}
