//! What the role `timers` does of an erasure in Postgres: who is due, what is owed to them, where their traces are, and the end.

use std::time::Duration;

use chrono::{DateTime, Utc};
use runtime::outbox::tombstone;
use runtime::timers::PORTION;
use schemas::codec::CodecError;
use schemas::events::UserErased;
use schemas::ids::{EventId, Micros, UserId, natural};
use schemas::topic::Topic;
use serde_json::json;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::{delta, rows};
use crate::outbox::{OutboxError, announce};
use crate::reviews::{ExpireError, expire_of};

/// Why an account was not erased. Nothing of its rows has changed then.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// An event does not encode: a bug of ours.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Its reviews.
    #[error(transparent)]
    Reviews(#[from] ExpireError),
    /// Postgres.
    #[error("postgres")]
    Database(#[from] sqlx::Error),
}

impl From<OutboxError> for EraseError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Codec(error) => error.into(),
            OutboxError::Database(error) => error.into(),
        }
    }
}

/// An account to erase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Due {
    /// Whose.
    pub user_id: Uuid,
    /// When its grace ended.
    pub due_at: DateTime<Utc>,
    /// When it was erased: what came late is taken away once more.
    pub erased_at: Option<DateTime<Utc>>,
}

/// Accounts whose grace is over; then those that were erased within `again`, as requests and records that were on their way may have left
/// something. To those whose grace is over belong the ones that topics know as erased and that a database restored from before does not.
/// A portion of them, behind the last one of the portion before.
///
/// # Errors
/// Postgres'.
pub async fn due(
    pool: &PgPool,
    now: Micros,
    again: Duration,
    behind: Option<Due>,
) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query(
        "insert into erasures (user_id, requested_at, due_at)
         select e.user_id, e.erased_at, e.erased_at from erased_users e join users u on u.id = e.user_id
         on conflict (user_id) do update set due_at = least(erasures.due_at, excluded.due_at)
           where erasures.erased_at is null",
    )
    .execute(pool)
    .await?;
    sqlx::query_as(
        "select user_id, due_at, erased_at from erasures
         where ((erased_at is null and due_at <= $1) or (erased_at > $2 and erased_at < $1))
           and ($3::uuid is null or (erased_at is not null, due_at, user_id) > ($4, $5, $3))
         order by erased_at is not null, due_at, user_id limit $6",
    )
    .bind(now.to_utc())
    .bind(now.to_utc() - delta(again))
    .bind(behind.map(|due| due.user_id))
    .bind(behind.map(|due| due.erased_at.is_some()))
    .bind(behind.map(|due| due.due_at))
    .bind(PORTION)
    .fetch_all(pool)
    .await
}

/// Rewards of a user that are not paid, with the state of their payouts.
///
/// # Errors
/// Postgres'.
pub async fn owed(pool: &PgPool, user: UserId) -> Result<Vec<(Uuid, String)>, sqlx::Error> {
    sqlx::query_as(
        "select reward_id, state from payouts
         where user_id = $1 and state in ('waiting', 'ready', 'in_flight', 'quarantined') order by reward_id",
    )
    .bind(user.0)
    .fetch_all(pool)
    .await
}

/// By what a user is known in documents that do not name them: ids of their uploads, and addresses of their wallets.
///
/// # Errors
/// Postgres'.
pub async fn traces(pool: &PgPool, user: UserId) -> Result<(Vec<Uuid>, Vec<String>), sqlx::Error> {
    let uploads = sqlx::query_scalar(
        "select upload_id from photo_hashes where user_id = $1
         union select id from odometer_uploads where user_id = $1",
    )
    .bind(user.0)
    .fetch_all(pool)
    .await?;
    let wallets = sqlx::query_scalar(
        "select wallet_address from user_wallets where user_id = $1 and wallet_address is not null",
    )
    .bind(user.0)
    .fetch_all(pool)
    .await?;
    Ok((uploads, wallets))
}

/// Takes away the rows of an account, closes it for good and announces that, in one transaction; false where it was erased before, and
/// only what came late was taken away. Its documents and photos go before: by these rows they are found. Ids are those of the registry.
///
/// # Errors
/// [`EraseError`].
pub async fn erase(
    pool: &PgPool,
    (user_erased, odometer_read): (u32, u32),
    user: UserId,
    now: Micros,
) -> Result<bool, EraseError> {
    let mut tx = pool.begin().await?;
    // Whoever inserts something of this account waits here, and is found by the next run.
    sqlx::query("select from users where id = $1 for update").bind(user.0).execute(&mut *tx).await?;
    let first = sqlx::query(
        "update erasures set erased_at = $2 where user_id = $1 and erased_at is null and due_at <= $2",
    )
    .bind(user.0)
    .bind(now.to_utc())
    .execute(&mut *tx)
    .await?
    .rows_affected()
        == 1;
    let erased: bool = sqlx::query_scalar(
        "select exists (select from erasures where user_id = $1 and erased_at is not null)",
    )
    .bind(user.0)
    .fetch_one(&mut *tx)
    .await?;
    if !erased {
        // They have kept their account meanwhile.
        return Ok(false);
    }
    expire_of(&mut tx, odometer_read, user, now).await?;
    rows::erase(&mut tx, user.0, now.to_utc()).await?;
    if first {
        let event_id = EventId(natural(&format!("user-erased/{user}")));
        let event = UserErased { event_id, user_id: user, occurred_at: now };
        announce(&mut tx, user_erased, &event, now).await?;
        tombstone(&mut tx, Topic::AccountsChanged, &user.to_string(), now.to_utc()).await?;
        audit(&mut tx, user, now).await?;
    }
    tx.commit().await?;
    Ok(first)
}

async fn audit(tx: &mut PgConnection, user: UserId, now: Micros) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into system_audit_logs (id, action, module, action_details, timestamp, severity)
         values ($1, 'user.erase', 'users', $2, $3, 'critical')",
    )
    .bind(natural(&format!("user-erased/{user}/audit")))
    .bind(json!({ "target": user, "before": null, "after": null, "erased": true, "via": "timers" }))
    .bind(now.to_utc())
    .execute(tx)
    .await?;
    Ok(())
}
