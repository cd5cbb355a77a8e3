//! What nobody has appealed in time is taken away, and a review that nobody decides in time ends all the same: the driver is told to send a
//! new photo. It is turned down for no fault of theirs, and goes out as a person's decision does.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures::TryStreamExt as _;
use runtime::timers::{JobError, PORTION, Ran, portions};
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

/// Why a review was not ended.
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
/// has decided, each in a transaction of its own, so that one which cannot be ended keeps no other waiting. `schema_id` is the registry's
/// of `OdometerRead`. It may be cut off, and run by several processes at once.
///
/// # Errors
/// Where the database is away; what was done before stays.
pub async fn expire(pool: &PgPool, schema_id: u32, now: Micros, time_out: Duration) -> Result<Ran, JobError> {
    let age = i64::try_from(time_out.as_micros()).unwrap_or(i64::MAX);
    let opened_before = Micros(now.0.saturating_sub(age)).to_utc();
    forget(pool, now).await?;
    let mut ran = Ran::default();
    let mut reviews = portions(|behind: Option<(DateTime<Utc>, Uuid)>| {
        let (opened_at, upload) = behind.unwrap_or_default();
        sqlx::query_as(
            "select opened_at, upload_id from reviews
             where decided_at is null and opened_at <= $1 and (opened_at, upload_id) > ($2, $3)
             order by opened_at, upload_id limit $4",
        )
        .bind(opened_before)
        .bind(opened_at)
        .bind(upload)
        .bind(PORTION)
        .fetch_all(pool)
    });
    while let Some(due) = reviews.try_next().await? {
        for (_, upload) in due {
            let ended = expire_one(pool, schema_id, upload, now).await;
            ran.count(pool, format!("review {upload}"), ended).await?;
        }
    }
    Ok(ran)
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

async fn expire_one(pool: &PgPool, schema_id: u32, upload: Uuid, now: Micros) -> Result<u64, ExpireError> {
    let mut tx = pool.begin().await?;
    // One that somebody decides at this moment is theirs.
    let open: Vec<(Uuid, Json<OdometerRead>)> = sqlx::query_as(
        "select upload_id, record from reviews where upload_id = $1 and decided_at is null for update skip locked",
    )
    .bind(upload)
    .fetch_all(&mut *tx)
    .await?;
    let count = expire_all(&mut tx, schema_id, now, open).await?;
    tx.commit().await?;
    Ok(count)
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
