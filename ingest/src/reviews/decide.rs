//! `POST /v1/reviews/{id}`: a person decides, once, or says what another has to agree with. The same decision of the same person again
//! gives the same response.

use std::sync::Arc;

use schemas::events::{OdometerRead, Review};
use schemas::ids::{Micros, UploadId, UserId};
use schemas::sealed::{Sealed, UserKey};
use serde_json::Value;
use sqlx::PgConnection;

use super::desk::Desk;
use super::opinions::{Before, Effect, Opinion, effect};
use super::queue::{ReviewDocument, Reviewed, find};
use super::{Checked, Decision, decided};
use crate::auth::admission::Caller;
use crate::http::problem::{ApiError, INTERNAL, REVIEW_DECIDED};
use crate::http::reply::Taken;
use crate::http::request::{Dependency, JsonBody, Path};
use crate::outbox::announce;

/// The route: 202 for the first decision, 200 for the same again.
pub(crate) async fn post(
    Dependency(desk): Dependency<Arc<Desk>>,
    caller: Caller,
    Path(Reviewed(upload)): Path<Reviewed>,
    JsonBody(decision): JsonBody<Decision>,
) -> Result<Taken<ReviewDocument>, ApiError> {
    let checked = decision.checked()?;
    let decision = serde_json::to_value(&decision).map_err(|error| INTERNAL.caused_by(error))?;
    let mut tx = desk.pool.begin().await?;
    let row = find(&mut tx, upload, true).await?;
    row.refuse_own(&caller)?;
    if let Some(said) = row.said_by(caller.user) {
        let document = row.document(&mut tx).await?;
        return if *said == decision { Ok(response(false, document)) } else { Err(REVIEW_DECIDED.error()) };
    }
    row.refuse_ended()?;
    let now = desk.clock.now();
    row.refuse(&caller, now)?;
    let mut review = review(&mut tx, &row.record, checked, caller.user, now).await?;
    let (before, above_km) = (Before::of(&row.signals), desk.rules.second_person_above_km.into());
    match effect((caller.role, &review), &row.opinions, before, above_km) {
        Effect::Waits => {
            keep(&mut tx, upload, &Opinion { reviewer_id: caller.user, decision, review }).await?;
        }
        Effect::Decides => {
            // What those have noted who were asked before is not lost.
            let noted = |said: &Opinion| said.review.notes.clone();
            review.notes = review.notes.or_else(|| row.opinions.iter().find_map(noted));
            settle(&mut tx, &row.record, caller.user, now, &decision).await?;
            announce(&mut tx, desk.schema_id, &decided(row.record.0, review), now).await?;
        }
    }
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

/// Keeps what a person has said until another has looked, and frees the item for that one.
async fn keep(tx: &mut PgConnection, upload: UploadId, opinion: &Opinion) -> Result<(), ApiError> {
    let opinion = serde_json::to_value(opinion).map_err(|error| INTERNAL.caused_by(error))?;
    sqlx::query(
        "update reviews set opinions = opinions || jsonb_build_array($2::jsonb), claimed_by = null, claimed_until = null
         where upload_id = $1",
    )
    .bind(upload.0)
    .bind(opinion)
    .execute(tx)
    .await?;
    Ok(())
}

async fn settle(
    tx: &mut PgConnection,
    record: &OdometerRead,
    reviewer: UserId,
    now: Micros,
    decision: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update reviews set reviewer_id = $2, decided_at = $3, decision = $4, claimed_by = null, claimed_until = null
         where upload_id = $1",
    )
        .bind(record.header.upload_id.0)
        .bind(reviewer.0)
        .bind(now.to_utc())
        .bind(decision)
        .execute(tx)
        .await?;
    Ok(())
}
