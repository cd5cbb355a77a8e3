//! A review that nobody decides in time ends all the same: the driver is told to send a new photo. It is turned down for no fault of
//! theirs, and goes out as a person's decision does.

use std::time::Duration;

use schemas::codec::CodecError;
use schemas::events::{OdometerRead, Review};
use schemas::ids::Micros;
use schemas::reason::Reason;
use serde_json::json;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::decided;
use crate::outbox::{OutboxError, announce};

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

/// Ends the reviews that were opened `time_out` ago or earlier and that nobody has decided, and returns how many. `schema_id` is the
/// registry's of `OdometerRead`. It may be cut off, and run by several processes at once.
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
