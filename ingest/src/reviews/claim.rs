//! `POST /v1/reviews/{id}/claim`: a person takes an item of the queue for some minutes, so that no two look at one at a time. Nothing frees
//! it but time and the decision.

use std::sync::Arc;

use schemas::ids::Micros;

use super::desk::Desk;
use super::queue::{ReviewDocument, Reviewed, find};
use crate::auth::admission::Caller;
use crate::http::problem::ApiError;
use crate::http::reply::Json;
use crate::http::request::{Dependency, Path};

/// The route: the review, which is the caller's from now on. Claiming it again begins the time anew.
pub(crate) async fn claim(
    Dependency(desk): Dependency<Arc<Desk>>,
    caller: Caller,
    Path(Reviewed(upload)): Path<Reviewed>,
) -> Result<Json<ReviewDocument>, ApiError> {
    let mut tx = desk.pool.begin().await?;
    let now = desk.clock.now();
    let row = find(&mut tx, upload, true).await?;
    row.refuse_ended()?;
    row.refuse(&caller, now)?;
    let minutes = i64::try_from(desk.rules.claim.as_micros()).unwrap_or(i64::MAX);
    sqlx::query("update reviews set claimed_by = $2, claimed_until = $3 where upload_id = $1")
        .bind(upload.0)
        .bind(caller.user.0)
        .bind(Micros(now.0.saturating_add(minutes)).to_utc())
        .execute(&mut *tx)
        .await?;
    let document = find(&mut tx, upload, false).await?.document(&mut tx).await?;
    tx.commit().await?;
    Ok(Json(document))
}
