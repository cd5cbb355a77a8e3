//! `GET /v1/uploads` and `GET /v1/uploads/{id}`.

use schemas::ids::UploadId;
use serde_json::Value;
use sqlx::PgPool;

use super::page::{Page, PageQuery};
use super::status::{Status, Upload, one, page};
use crate::auth::admission::Caller;
use crate::http::problem::{ApiError, Problem, UPLOAD_NOT_FOUND};
use crate::http::reply::Json;
use crate::http::request::{NoQuery, Path, PathParameter, State, uuid_schema};

impl PathParameter for UploadId {
    const MISSING: Problem = UPLOAD_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// The list.
pub(crate) async fn list(
    State(pool): State<PgPool>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<Upload>, ApiError> {
    let rows = page(&pool, caller.user, query.after, query.rows()).await?;
    Ok(query.page(&rows, |row| (row.accepted_at, row.id), Status::document))
}

/// One upload.
pub(crate) async fn show(
    State(pool): State<PgPool>,
    caller: Caller,
    _: NoQuery,
    Path(id): Path<UploadId>,
) -> Result<Json<Upload>, ApiError> {
    let found = one(&pool, caller.user, id).await?.ok_or_else(|| UPLOAD_NOT_FOUND.error())?;
    Ok(Json(found.document()))
}
