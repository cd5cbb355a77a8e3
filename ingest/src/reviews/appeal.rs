//! `POST /v1/uploads/{id}/appeal`: a driver asks for a person to look at a photo that a rule has turned down. Once per upload: what a
//! person has decided stands.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::ids::UploadId;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::desk::Desk;
use crate::auth::admission::Caller;
use crate::claims::NoBody;
use crate::http::problem::{
    APPEAL_TOO_LATE, ApiError, MAINTENANCE, NOT_APPEALABLE, Problem, UPLOAD_NOT_FOUND,
};
use crate::http::reply::Taken;
use crate::http::request::{Dependency, Path};
use crate::queries::payout::instant;

/// What the route itself refuses.
pub(crate) const APPEAL_REFUSALS: &[Problem] = &[MAINTENANCE, NOT_APPEALABLE, APPEAL_TOO_LATE];
/// Days after the rejection in which it may be appealed.
pub(super) const DAYS: i64 = 14;

/// An appeal.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Appeal {
    upload_id: Uuid,
    #[schema(format = DateTime)]
    appealed_at: String,
}

/// The route: 202 for the first appeal, 200 for every other.
pub(crate) async fn appeal(
    Dependency(desk): Dependency<Arc<Desk>>,
    caller: Caller,
    Path(upload): Path<UploadId>,
    _: NoBody,
) -> Result<Taken<Appeal>, ApiError> {
    let mut tx = desk.pool.begin().await?;
    // Of two appeals at one moment the second waits here, and then finds the review that the first has opened.
    let rejected: Option<DateTime<Utc>> = sqlx::query_scalar(
        "select rejected_at from rejections where upload_id = $1 and user_id = $2 for update",
    )
    .bind(upload.0)
    .bind(caller.user.0)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(before) = before(&mut tx, &caller, upload).await? {
        return Ok(response(false, upload, before));
    }
    let Some(rejected) = rejected else { return Err(refusal(&mut tx, &caller, upload).await?) };
    let now = desk.clock.now().to_utc();
    if now - rejected > TimeDelta::days(DAYS) {
        return Err(APPEAL_TOO_LATE.error());
    }
    if !caller.writable {
        return Err(MAINTENANCE.error());
    }
    sqlx::query(
        "with appealed as (delete from rejections where upload_id = $1 returning *)
         insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record, risk, ranked_at, appealed_at)
         select upload_id, user_id, accepted_at, $2, reason, detail, signals, record, risk, ranked_at, $2 from appealed",
    )
    .bind(upload.0)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(response(true, upload, now))
}

fn response(now: bool, upload: UploadId, at: DateTime<Utc>) -> Taken<Appeal> {
    let document = Appeal { upload_id: upload.0, appealed_at: instant(at) };
    Taken { now, location: Some(format!("/v1/uploads/{upload}")), document }
}

/// When the driver has appealed before.
async fn before(
    tx: &mut PgConnection,
    caller: &Caller,
    upload: UploadId,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let appealed: Option<Option<DateTime<Utc>>> =
        sqlx::query_scalar("select appealed_at from reviews where upload_id = $1 and user_id = $2")
            .bind(upload.0)
            .bind(caller.user.0)
            .fetch_optional(tx)
            .await?;
    Ok(appealed.flatten())
}

/// Why there is nothing to appeal against: the upload is not the caller's, or was not turned down by a rule that a person may overturn.
async fn refusal(tx: &mut PgConnection, caller: &Caller, upload: UploadId) -> Result<ApiError, sqlx::Error> {
    let own: bool =
        sqlx::query_scalar("select exists (select 1 from odometer_uploads where id = $1 and user_id = $2)")
            .bind(upload.0)
            .bind(caller.user.0)
            .fetch_one(tx)
            .await?;
    Ok(if own { NOT_APPEALABLE.error() } else { UPLOAD_NOT_FOUND.error() })
}
