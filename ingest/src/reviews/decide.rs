//! `POST /v1/reviews/{id}`: a person decides, once. The same decision of the same person again gives the same response.

use std::sync::Arc;

use runtime::clock::Clock;
use schemas::events::{OdometerRead, Review};
use schemas::ids::{Micros, UserId};
use schemas::sealed::{Sealed, UserKey};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use super::queue::{ReviewDocument, Reviewed, find};
use super::{Checked, Decision, decided};
use crate::auth::admission::Reviewer;
use crate::http::problem::{ApiError, INTERNAL, MAINTENANCE, OWN_UPLOAD, REVIEW_DECIDED, REVIEW_EXPIRED};
use crate::http::reply::Taken;
use crate::http::request::{Dependency, JsonBody, Path};
use crate::outbox::announce;

/// What deciding works with.
pub(crate) struct Desk {
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    /// The registry's id of `OdometerRead`.
    pub(crate) schema_id: u32,
}

/// The route: 202 for the first decision, 200 for the same again.
pub(crate) async fn post(
    Dependency(desk): Dependency<Arc<Desk>>,
    Reviewer(caller): Reviewer,
    Path(Reviewed(upload)): Path<Reviewed>,
    JsonBody(decision): JsonBody<Decision>,
) -> Result<Taken<ReviewDocument>, ApiError> {
    let checked = decision.checked()?;
    let decision = serde_json::to_value(&decision).map_err(|error| INTERNAL.caused_by(error))?;
    let mut tx = desk.pool.begin().await?;
    let row = find(&mut tx, upload, true).await?;
    if row.user_id == caller.user.0 {
        return Err(OWN_UPLOAD.error());
    }
    if row.decision.is_some() {
        if row.reviewer_id.is_none() {
            return Err(REVIEW_EXPIRED.error());
        }
        let same = row.reviewer_id == Some(caller.user.0) && row.decision.as_ref() == Some(&decision);
        let document = row.document(&mut tx).await?;
        return if same { Ok(response(false, document)) } else { Err(REVIEW_DECIDED.error()) };
    }
    if !caller.writable {
        return Err(MAINTENANCE.error());
    }
    let now = desk.clock.now();
    let review = review(&mut tx, &row.record, checked, caller.user, now).await?;
    settle(&mut tx, &row.record, caller.user, now, &decision).await?;
    announce(&mut tx, desk.schema_id, &decided(row.record.0, review), now).await?;
    let document = find(&mut tx, upload, false).await?.document(&mut tx).await?;
    tx.commit().await?;
    Ok(response(true, document))
}

fn response(now: bool, document: ReviewDocument) -> Taken<ReviewDocument> {
    Taken { now, location: None, document }
}

async fn review(
    tx: &mut PgConnection,
    record: &OdometerRead,
    checked: Checked,
    reviewer: UserId,
    now: Micros,
) -> Result<Review, ApiError> {
    let Checked { mileage, unit, reason, notes } = checked;
    let notes = match notes {
        Some(notes) => seal(tx, record, &notes).await?,
        None => None,
    };
    Ok(Review { reviewer_id: reviewer, decided_at: now, mileage, unit, reason, notes })
}

/// Notes are erased with the driver, by whose key they are sealed; of one who is erased already none are kept.
async fn seal(tx: &mut PgConnection, record: &OdometerRead, notes: &str) -> Result<Option<Sealed>, ApiError> {
    let header = &record.header;
    let key: Option<Vec<u8>> = sqlx::query_scalar("select key from user_keys where user_id = $1")
        .bind(header.user_id.0)
        .fetch_optional(tx)
        .await?;
    let Some(key) = key else { return Ok(None) };
    let key = UserKey::from_bytes(&key).map_err(|error| INTERNAL.caused_by(error))?;
    key.seal(header.upload_id, notes).map(Some).map_err(|error| INTERNAL.caused_by(error))
}

async fn settle(
    tx: &mut PgConnection,
    record: &OdometerRead,
    reviewer: UserId,
    now: Micros,
    decision: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query("update reviews set reviewer_id = $2, decided_at = $3, decision = $4 where upload_id = $1")
        .bind(record.header.upload_id.0)
        .bind(reviewer.0)
        .bind(now.to_utc())
        .bind(decision)
        .execute(tx)
        .await?;
    Ok(())
}
