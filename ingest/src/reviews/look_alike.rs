//! `GET /v1/reviews/{id}/look-alike`: the photo of another vehicle that an upload in doubt may be a copy of.

use schemas::events::LookAlike;
use sqlx::{PgConnection, PgPool};

use super::queue::{Reviewed, find};
use crate::http::problem::{ApiError, NO_LOOK_ALIKE};
use crate::http::request::{Dependency, Path};
use crate::queries::photo::Photo;
use crate::uploads::store::PhotoStore;

/// The handler.
pub(crate) async fn look_alike(
    Dependency(pool): Dependency<PgPool>,
    Dependency(photos): Dependency<PhotoStore>,
    Path(Reviewed(upload)): Path<Reviewed>,
) -> Result<Photo, ApiError> {
    let mut connection = pool.acquire().await?;
    let row = find(&mut connection, upload, false).await?;
    let other = row.record.look_alike.ok_or_else(|| NO_LOOK_ALIKE.error())?;
    let (image_hash, mime_type) =
        file(&mut connection, &other).await?.ok_or_else(|| NO_LOOK_ALIKE.error())?;
    drop(connection);
    Photo::open(&photos, &PhotoStore::key(other.user_id, &image_hash), Some(mime_type)).await
}

/// Hash and type of the other photo's file; none until the sink has seen its upload.
async fn file(
    connection: &mut PgConnection,
    other: &LookAlike,
) -> Result<Option<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "select image_hash, mime_type from odometer_uploads
         where id = $1 and image_hash is not null and mime_type is not null",
    )
    .bind(other.upload_id.0)
    .fetch_optional(connection)
    .await
}
