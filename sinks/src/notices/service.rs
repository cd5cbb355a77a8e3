//! Talks to Postgres: rows that can be written again, leases that lapse, and marks.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::SinkError;
use runtime::outbox::OutboxRows;
use schemas::ids::natural;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use super::event::Told;
pub use crate::database::is_retryable;
use crate::database::{column, sink_error};

/// Reviewers who are told of one review at most.
const REVIEWERS: i64 = 1_000;
/// After so long of failures a notice is given up, and its way of telling is used no more.
const DAY: TimeDelta = TimeDelta::days(1);
/// Wait after the first failure; four times as long after each further one, up to the longest.
const FIRST_WAIT: TimeDelta = TimeDelta::seconds(30);
const LONGEST_WAIT: TimeDelta = TimeDelta::hours(6);

/// A notice to one receiver in one way.
struct New<'a> {
    id: Uuid,
    receiver: Uuid,
    channel: &'static str,
    told: &'a Told,
}

/// Writes what those want to know who are concerned: of a review also the reviewers. What is there already stays.
pub(super) async fn insert(
    pool: &PgPool,
    told: &[Told],
    channels: &[&'static str],
    now: DateTime<Utc>,
) -> Result<(), SinkError> {
    if told.is_empty() || channels.is_empty() {
        return Ok(());
    }
    let failed = |error| sink_error(error, "a notice", "notice_deliveries");
    let reviewers: Vec<Uuid> = if told.iter().any(|told| told.kind == "review_needed") {
        let found = sqlx::query_scalar(
            "select id from users where role in ('reviewer', 'operator') and is_active order by id limit $1",
        );
        found.bind(REVIEWERS).fetch_all(pool).await.map_err(failed)?
    } else {
        Vec::new()
    };
    let mut rows: Vec<New<'_>> = Vec::new();
    for told in told {
        let others: &[Uuid] = if told.kind == "review_needed" { &reviewers } else { &[] };
        for receiver in
            std::iter::once(told.user).chain(others.iter().copied().filter(|other| *other != told.user))
        {
            rows.extend(channels.iter().map(|channel| New {
                id: natural(&format!("notice/{}/{receiver}/{channel}", told.key)),
                receiver,
                channel,
                told,
            }));
        }
    }
    sqlx::query(
        "insert into notice_deliveries (id, user_id, channel, kind, document, occurred_at, created_at, due_at)
         select n.id, n.user_id, n.channel, n.kind, n.document, n.occurred_at, $7, $7
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::jsonb[], $6::timestamptz[])
             as n (id, user_id, channel, kind, document, occurred_at)
           join user_preferences p on p.user_id = n.user_id
         where (p.notification_preferences #>> array[n.channel, 'enabled'])::boolean
           and p.notification_preferences #> array[n.channel, 'events'] ? n.kind
         order by n.id on conflict (id) do nothing",
    )
    .bind(column(&rows, |row| row.id))
    .bind(column(&rows, |row| row.receiver))
    .bind(column(&rows, |row| row.channel))
    .bind(column(&rows, |row| row.told.kind))
    .bind(column(&rows, |row| Json(&row.told.document)))
    .bind(column(&rows, |row| row.told.occurred_at.to_utc()))
    .bind(now)
    .execute(pool)
    .await
    .map_err(failed)?;
    Ok(())
}

/// A notice that is sent now. It is not printed: it holds addresses and a secret.
#[derive(FromRow)]
pub(super) struct Delivery {
    pub(super) id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) channel: String,
    pub(super) kind: String,
    pub(super) document: Value,
    pub(super) occurred_at: DateTime<Utc>,
    pub(super) created_at: DateTime<Utc>,
    /// This one is counted.
    pub(super) attempts: i32,
    /// Whether its receiver still wants it this way, and it is in use.
    pub(super) wanted: bool,
    /// Where the preferences want it to go to.
    pub(super) target: Option<String>,
    /// The account's address, and whether a code has proven it.
    pub(super) email: Option<String>,
    pub(super) email_proven: bool,
    /// What its webhook is signed with.
    pub(super) secret: Option<Vec<u8>>,
}

/// Takes what is due for as long as `lease`: a process that dies leaves it to be taken again then.
pub(super) async fn take(
    pool: &PgPool,
    now: DateTime<Utc>,
    lease: Duration,
    limit: i64,
) -> sqlx::Result<Vec<Delivery>> {
    sqlx::query_as(
        "with due as (
           select id, user_id, channel from notice_deliveries
           where delivered_at is null and given_up_at is null and due_at <= $1 order by due_at limit $3 for update skip locked
         ), taken as (
           update notice_deliveries d set due_at = $2, attempts = d.attempts + 1 from due where d.id = due.id
           returning d.id, d.user_id, d.channel, d.kind, d.document, d.occurred_at, d.created_at, d.attempts
         )
         select t.*, p.notification_preferences #>> array[t.channel, 'to'] as target,
                u.email, u.email_verified_at is not null as email_proven, s.secret,
                coalesce((p.notification_preferences #>> array[t.channel, 'enabled'])::boolean, false)
                  and (f.disabled_at is null or f.disabled_at < p.updated_at) as wanted
         from taken t left join users u on u.id = t.user_id left join user_preferences p on p.user_id = t.user_id
           left join notice_secrets s on s.user_id = t.user_id
           left join notice_failures f on f.user_id = t.user_id and f.channel = t.channel
         order by t.created_at, t.id",
    )
    .bind(now)
    .bind(now + lease)
    .bind(limit)
    .fetch_all(pool)
    .await
}

/// Marks a notice as delivered; `log` says how.
pub(super) async fn delivered(
    pool: &PgPool,
    delivery: &Delivery,
    log: OutboxRows,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    sqlx::query(
        "update notice_deliveries set delivered_at = $2, given_up_at = null, last_error = null where id = $1",
    )
    .bind(delivery.id)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    sqlx::query("delete from notice_failures where user_id = $1 and channel = $2")
        .bind(delivery.user_id)
        .bind(&delivery.channel)
        .execute(&mut *tx)
        .await?;
    log.insert(&mut tx).await?;
    tx.commit().await
}

/// Marks a notice that nobody wants any more, or that cannot be sent.
pub(super) async fn give_up(
    pool: &PgPool,
    delivery: &Delivery,
    why: &str,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query("update notice_deliveries set given_up_at = $2, last_error = $3 where id = $1 and delivered_at is null")
        .bind(delivery.id)
        .bind(now)
        .bind(why)
        .execute(pool)
        .await?;
    Ok(())
}

/// What became of a notice that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) given_up: bool,
    /// With this failure its receiver is told nothing more in this way.
    pub(super) disabled: bool,
}

/// Marks a failure: the notice is sent again later, or given up after a day; a way of telling that has failed for a day is used no more.
pub(super) async fn failed(
    pool: &PgPool,
    delivery: &Delivery,
    (why, log): (&str, OutboxRows),
    now: DateTime<Utc>,
) -> sqlx::Result<Failed> {
    let over = now - delivery.created_at >= DAY;
    let mut tx = pool.begin().await?;
    sqlx::query(
        "update notice_deliveries set last_error = $3, due_at = $4, given_up_at = case when $5 then $2 end
         where id = $1 and delivered_at is null and attempts = $6",
    )
    .bind(delivery.id)
    .bind(now)
    .bind(why)
    .bind(now + wait(delivery.attempts))
    .bind(over)
    .bind(delivery.attempts)
    .execute(&mut *tx)
    .await?;
    let disabled: Option<bool> = sqlx::query_scalar(
        "insert into notice_failures as f (user_id, channel, failing_since) values ($1, $2, $3)
         on conflict (user_id, channel) do update set disabled_at = coalesce(f.disabled_at, case when f.failing_since <= $4 then $3 end)
         returning disabled_at = $3",
    )
    .bind(delivery.user_id)
    .bind(&delivery.channel)
    .bind(now)
    .bind(now - DAY)
    .fetch_one(&mut *tx)
    .await?;
    log.insert(&mut tx).await?;
    tx.commit().await?;
    Ok(Failed { given_up: over, disabled: disabled.unwrap_or(false) })
}

/// Wait after so many attempts.
fn wait(attempts: i32) -> TimeDelta {
    let times = 4_i32.saturating_pow(u32::try_from(attempts - 1).unwrap_or(0));
    FIRST_WAIT.checked_mul(times).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wait_is_four_times_the_one_before_up_to_six_hours() {
        let waits: Vec<i64> = (1..8).map(|attempts| wait(attempts).num_seconds()).collect();
        assert_eq!(waits, [30, 120, 480, 1_920, 7_680, 21_600, 21_600]);
        assert_eq!(wait(i32::MAX), LONGEST_WAIT);
    }
}
