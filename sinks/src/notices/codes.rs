//! Codes that prove an e-mail address. The gateway asks for one; it is drawn here, where it is sent, so that nothing but its hash is ever
//! kept.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::StageError;
use runtime::one_time::OneTimeCode;
use runtime::outbox::OutboxRows;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

/// For how long a code is good, and for how long it is tried to be sent: whoever asked has gone by then.
const GOOD: TimeDelta = TimeDelta::minutes(10);
/// Wait after the first failure, since somebody waits in front of a page; it grows by as much with each further one.
const WAIT: TimeDelta = TimeDelta::seconds(20);

/// A code that was asked for. It is not printed: it holds an address.
#[derive(FromRow)]
pub(super) struct Asked {
    user_id: Uuid,
    email: Option<String>,
    proven: bool,
    asked_at: DateTime<Utc>,
    /// This one is counted.
    pub(super) attempts: i32,
}

impl Asked {
    /// Where a code goes to, or why none does, as `code: sentence`.
    pub(super) fn address(&self, now: DateTime<Utc>) -> Result<&str, &'static str> {
        if now - self.asked_at >= GOOD {
            return Err("too_late: the mail server has not taken it in ten minutes");
        }
        let email = self.email.as_deref().ok_or("no_target: the account has no e-mail address any more")?;
        if self.proven { Err("proven: the address is proven already") } else { Ok(email) }
    }
}

/// Takes the codes that are due for as long as `lease`.
pub(super) async fn take(
    pool: &PgPool,
    now: DateTime<Utc>,
    lease: Duration,
    limit: i64,
) -> sqlx::Result<Vec<Asked>> {
    sqlx::query_as(
        "with due as (
           select user_id from email_codes where due_at <= $1 order by due_at limit $3 for update skip locked
         ), taken as (
           update email_codes c set due_at = $2, attempts = c.attempts + 1 from due where c.user_id = due.user_id
           returning c.user_id, c.asked_at, c.attempts
         )
         select t.*, u.email, u.email_verified_at is not null as proven from taken t join users u on u.id = t.user_id
         order by t.asked_at",
    )
    .bind(now)
    .bind(now + lease)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Draws a code for an address and keeps its hash; none where the account has asked for another one meanwhile. Tries that were made with
/// the code before count on: a mail server that refuses gives nobody more of them.
pub(super) async fn draw(
    pool: &PgPool,
    asked: &Asked,
    address: &str,
    now: DateTime<Utc>,
) -> Result<Option<OneTimeCode>, StageError> {
    let (code, to) = (OneTimeCode::draw(), address.to_owned());
    let drawn = tokio::task::spawn_blocking(move || (code.digest(&to), code)).await;
    let (digest, code) = drawn.map_err(|error| StageError::new("a code", error))?;
    let kept = sqlx::query(
        "update email_codes set code_hash = $3, salt = $4, expires_at = $5 where user_id = $1 and asked_at = $2",
    )
    .bind(asked.user_id)
    .bind(asked.asked_at)
    .bind(&digest.hash[..])
    .bind(&digest.salt[..])
    .bind(now + GOOD)
    .execute(pool)
    .await?;
    Ok((kept.rows_affected() == 1).then_some(code))
}

/// Marks a code as sent, or to be drawn and sent again; `log` says how the attempt ended.
pub(super) async fn sent(
    pool: &PgPool,
    asked: &Asked,
    (why_not, log): (Option<String>, OutboxRows),
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query("update email_codes set due_at = $3, last_error = $4 where user_id = $1 and asked_at = $2")
        .bind(asked.user_id)
        .bind(asked.asked_at)
        .bind(why_not.as_ref().map(|_| now + WAIT * asked.attempts))
        .bind(why_not)
        .execute(&mut *tx)
        .await?;
    log.insert(&mut tx).await?;
    tx.commit().await
}

/// Marks a code that cannot be sent. A failure of the mail server that was noted before says more than that it took too long.
pub(super) async fn give_up(pool: &PgPool, asked: &Asked, why: &str) -> sqlx::Result<()> {
    sqlx::query("update email_codes set due_at = null, last_error = coalesce(last_error, $3) where user_id = $1 and asked_at = $2")
        .bind(asked.user_id)
        .bind(asked.asked_at)
        .bind(why)
        .execute(pool)
        .await?;
    Ok(())
}
