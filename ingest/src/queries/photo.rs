//! `GET /v1/uploads/{id}/photo`: the photo of one's own upload, as it was received.

use std::sync::Arc;

use bytes::Bytes;
use schemas::ids::UploadId;
use sqlx::PgPool;
use warp::http::StatusCode;
use warp::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use warp::reply::Response;

use crate::auth::admission::Caller;
use crate::http::operation::Operation;
use crate::http::problem::{ApiError, INTERNAL, PHOTO_STORE_UNAVAILABLE, Problem, UPLOAD_NOT_FOUND};
use crate::http::reply::Reply;
use crate::http::request::{Dependency, NoQuery, Path};
use crate::uploads::post::Uploads;
use crate::uploads::store::PhotoStore;

/// What the route itself refuses.
pub(crate) const REFUSALS: &[Problem] = &[PHOTO_STORE_UNAVAILABLE];

/// A photo as it was received.
pub(crate) struct Photo {
    pub(crate) bytes: Bytes,
    pub(crate) mime_type: String,
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

/// The route.
pub(crate) async fn show(
    Dependency(pool): Dependency<PgPool>,
    Dependency(uploads): Dependency<Arc<Uploads>>,
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
    let bytes = uploads.photos.read(&PhotoStore::key(caller.user, &hash)).await?;
    // It passed this check when it was taken.
    let mime_type = uploads.check.check(&bytes).map_err(|fault| INTERNAL.caused_by(fault.detail))?;
    Ok(Photo { bytes, mime_type: mime_type.to_owned() })
}
