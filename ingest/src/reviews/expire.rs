//! What nobody has appealed in time is taken away, and a review that nobody decides in time ends all the same: the driver is told to send a
//! new photo. It is turned down for no fault of theirs, and goes out as a person's decision does.

use std::time::Duration;

use chrono::TimeDelta;
use schemas::codec::CodecError;
use schemas::events::{OdometerRead, Review};
use schemas::ids::{Micros, UserId};
use schemas::reason::Reason;
use serde_json::json;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::decided;
use crate::outbox::{OutboxError, announce};
use crate::queries::appeal::DAYS;

/// Reviews of one transaction: some 4 KiB of a record each.
const PORTION: i64 = 100;

/// Why reviews were not ended; those of the transactions before are.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// A decision does not encode: a bug of ours.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Postgres.
    #[error("postgres")]
    Database(#[from] sqlx::Error),
}

impl From<OutboxError> for ExpireError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Codec(error) => error.into(),
            OutboxError::Database(error) => error.into(),
        }
    }
}

/// Takes away what was rejected too long ago to be appealed; ends the reviews that were opened `time_out` ago or earlier and that nobody
/// has decided, and returns how many. `schema_id` is the registry's of `OdometerRead`. It may be cut off, and run by several processes at
/// once.
///
/// # Errors
/// [`ExpireError`].
pub async fn expire(
    pool: &PgPool,
    schema_id: u32,
    now: Micros,
    time_out: Duration,
) -> Result<u64, ExpireError> {
    let age = i64::try_from(time_out.as_micros()).unwrap_or(i64::MAX);
    let opened_before = Micros(now.0.saturating_sub(age));
    forget(pool, now).await?;
    let mut count = 0;
    loop {
        let mut tx = pool.begin().await?;
        let ended = portion(&mut tx, schema_id, now, opened_before).await?;
        tx.commit().await?;
        count += ended;
        if ended < PORTION.unsigned_abs() {
            return Ok(count);
        }
    }
}

/// A driver may be asking at the same moment: a row that is locked is theirs.
async fn forget(pool: &PgPool, now: Micros) -> Result<(), sqlx::Error> {
    let before = now.to_utc() - TimeDelta::days(DAYS);
    loop {
        let done = sqlx::query(
            "delete from rejections where upload_id in (
                select upload_id from rejections where rejected_at < $1 order by rejected_at limit $2 for update skip locked)",
        )
        .bind(before)
        .bind(PORTION)
        .execute(pool)
        .await?;
        if done.rows_affected() < PORTION.unsigned_abs() {
            return Ok(());
        }
    }
}

/// Ends the reviews of a user that nobody has decided: their photos go. Returns how many.
///
/// # Errors
/// [`ExpireError`].
pub(crate) async fn expire_of(
    tx: &mut PgConnection,
    schema_id: u32,
    user: UserId,
    now: Micros,
) -> Result<u64, ExpireError> {
    let open: Vec<(Uuid, Json<OdometerRead>)> = sqlx::query_as(
        "select upload_id, record from reviews where user_id = $1 and decided_at is null order by upload_id for update",
    )
    .bind(user.0)
    .fetch_all(&mut *tx)
    .await?;
    expire_all(tx, schema_id, now, open).await
}

async fn portion(
    tx: &mut PgConnection,
    schema_id: u32,
    now: Micros,
    opened_before: Micros,
) -> Result<u64, ExpireError> {
    // One that somebody decides at this moment is theirs.
    let due: Vec<(Uuid, Json<OdometerRead>)> = sqlx::query_as(
        "select upload_id, record from reviews where decided_at is null and opened_at <= $1
         order by opened_at limit $2 for update skip locked",
    )
    .bind(opened_before.to_utc())
    .bind(PORTION)
    .fetch_all(&mut *tx)
    .await?;
    expire_all(tx, schema_id, now, due).await
}

async fn expire_all(
    tx: &mut PgConnection,
    schema_id: u32,
    now: Micros,
    due: Vec<(Uuid, Json<OdometerRead>)>,
) -> Result<u64, ExpireError> {
    sqlx::query(
        "update reviews set decided_at = $2, decision = $3, claimed_by = null, claimed_until = null
         where upload_id = any($1)",
    )
    .bind(due.iter().map(|(upload, _)| *upload).collect::<Vec<_>>())
    .bind(now.to_utc())
    .bind(json!({ "decision": "expire" }))
    .execute(&mut *tx)
    .await?;
    let review = Review {
        reviewer_id: Review::NOBODY,
        decided_at: now,
        mileage: None,
        unit: None,
        reason: Some(Reason::ReviewTimeout),
        notes: None,
    };
    let mut count = 0;
    for (_, record) in due {
        announce(tx, schema_id, &decided(record.0, review.clone()), now).await?;
        count += 1;
    }
    Ok(count)
}
