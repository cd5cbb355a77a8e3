//! `GET /v1/uploads` and `GET /v1/uploads/{id}`.

use schemas::ids::UploadId;
use serde_json::Value;
use sqlx::PgPool;

use super::page::{Page, PageQuery};
use super::status::{Status, Upload, one, page};
use crate::auth::admission::Caller;
use crate::http::problem::{ApiError, Problem, UPLOAD_NOT_FOUND};
use crate::http::reply::Json;
use crate::http::request::{Dependency, NoQuery, Path, PathParameter, uuid_schema};

impl PathParameter for UploadId {
    const MISSING: Problem = UPLOAD_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// The list.
pub(crate) async fn list(
    Dependency(pool): Dependency<PgPool>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<Upload>, ApiError> {
    let rows = page(&pool, caller.user, query.after, query.rows()).await?;
    Ok(query.page(&rows, |row| (row.accepted_at, row.id), Status::document))
}

/// One upload.
pub(crate) async fn show(
    Dependency(pool): Dependency<PgPool>,
    caller: Caller,
    _: NoQuery,
    Path(id): Path<UploadId>,
) -> Result<Json<Upload>, ApiError> {
    let found = one(&pool, caller.user, id).await?.ok_or_else(|| UPLOAD_NOT_FOUND.error())?;
    Ok(Json(found.document()))
}
