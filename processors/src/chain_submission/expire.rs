//! Rewards that their driver has to ask for and does not. Whoever is concerned is told until when; what is not claimed by then is
//! cancelled, and its budgets get back what it was charged. Of a claim and an end at the same moment one wins: both lock the payout's row.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::TryStreamExt as _;
use runtime::timers::{JobError, PORTION, Ran, portions};
use schemas::events::PayoutState;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;

use super::ledger::outbox::Outbox;
use super::ledger::publish::Publisher;
use super::ledger::rows;
use super::operate::{self, Order, Refused};

/// Payouts that wait for their driver alone, who was not told yet.
const UNTOLD: &str = "p.state = 'waiting' and p.stamp->>'auto_claim' = 'false' and p.claimed_at is null
    and not exists (select from claim_expiries e where e.reward_id = p.reward_id)
    and not exists (select from reward_claims c where c.reward_id = p.reward_id)";

/// How long a reward waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimTerms {
    /// From its grant to its end.
    pub expires_after: Duration,
    /// From the notice to the end: also where the grant is older than all of that, so that none ends untold.
    pub notice: Duration,
}

/// Tells the drivers of rewards that expire within the notice, then cancels what nobody has claimed in time, and says how many were
/// cancelled. A reward of which that fails keeps no other waiting. It may be cut off, and run by several processes at once.
///
/// # Errors
/// Where the database is away; what was done before stays.
pub async fn expire(
    pool: &PgPool,
    publisher: &Publisher,
    terms: ClaimTerms,
    now: DateTime<Utc>,
) -> Result<Ran, JobError> {
    let mut ran = Ran::default();
    tell(pool, publisher, terms, now, &mut ran).await?;
    end(pool, publisher, now, &mut ran).await?;
    Ok(ran)
}

/// Tells the drivers of rewards.
async fn tell(
    pool: &PgPool,
    publisher: &Publisher,
    terms: ClaimTerms,
    now: DateTime<Utc>,
    ran: &mut Ran,
) -> Result<(), JobError> {
    let silent = terms.expires_after.saturating_sub(terms.notice);
    let times = (TimeDelta::from_std(silent).ok(), TimeDelta::from_std(terms.notice).ok());
    let (Some(silent), Some(notice)) = times else { return Ok(()) };
    let (Some(granted_before), Some(at)) = (now.checked_sub_signed(silent), now.checked_add_signed(notice))
    else {
        return Ok(());
    };
    let mut untold = portions(|behind: Option<(i64, Uuid)>| {
        let (granted_at, reward) = behind.unwrap_or((i64::MIN, Uuid::nil()));
        sqlx::query_as(AssertSqlSafe(format!(
            "select (p.header->>'occurred_at')::bigint, p.reward_id from payouts p
             where {UNTOLD} and (p.header->>'occurred_at')::bigint <= $1
               and ((p.header->>'occurred_at')::bigint, p.reward_id) > ($2, $3)
             order by (p.header->>'occurred_at')::bigint, p.reward_id limit $4",
        )))
        .bind(granted_before.timestamp_micros())
        .bind(granted_at)
        .bind(reward)
        .bind(PORTION)
        .fetch_all(pool)
    });
    while let Some(due) = untold.try_next().await? {
        let rewards: Vec<Uuid> = due.iter().map(|(_, reward)| *reward).collect();
        if tell_all(pool, publisher, &rewards, (now, at)).await.is_err() {
            // Of which it fails shows where each is told by itself.
            for reward in &rewards {
                let told = tell_all(pool, publisher, std::slice::from_ref(reward), (now, at)).await;
                ran.count(pool, format!("reward {reward}"), told.map(|()| 0)).await?;
            }
        }
    }
    Ok(())
}

/// Tells the drivers of these rewards in one transaction until when they can claim them, but of those that are another's at this moment.
async fn tell_all(
    pool: &PgPool,
    publisher: &Publisher,
    rewards: &[Uuid],
    times: (DateTime<Utc>, DateTime<Utc>),
) -> Result<(), Refused> {
    let mut tx = pool.begin().await?;
    let told = tell_in(&mut tx, publisher, rewards, times).await;
    // Waited for in either case: an attempt right after it would pass over the rows that this one still locks.
    match &told {
        Ok(()) => tx.commit().await?,
        Err(_) => tx.rollback().await?,
    }
    told
}

async fn tell_in(
    tx: &mut PgConnection,
    publisher: &Publisher,
    rewards: &[Uuid],
    (now, at): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(), Refused> {
    let due: Vec<Uuid> = sqlx::query_scalar(AssertSqlSafe(format!(
        "select p.reward_id from payouts p where p.reward_id = any($1) and {UNTOLD}
         order by p.reward_id for update of p skip locked",
    )))
    .bind(rewards)
    .fetch_all(&mut *tx)
    .await?;
    let mut payouts = rows::payouts(tx, &due).await?;
    let mut outbox = Outbox::default();
    for payout in &mut payouts {
        payout.revision += 1;
        payout.reason = Some(format!("claim_expires: {}", until(at)));
        publisher.payout(payout, now, &mut outbox)?;
    }
    rows::update_payouts(tx, &payouts).await?;
    sqlx::query(
        "insert into claim_expiries (reward_id, told_at, expires_at)
         select reward_id, $3, $2 from unnest($1::uuid[]) as e (reward_id)",
    )
    .bind(payouts.iter().map(|payout| payout.reward_id).collect::<Vec<_>>())
    .bind(at)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    outbox.store(tx).await?;
    Ok(())
}

/// What a driver is told before.
fn until(at: DateTime<Utc>) -> String {
    format!("claim it before {}, or it is cancelled", at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// Cancels what is due, each reward in a transaction of its own.
async fn end(
    pool: &PgPool,
    publisher: &Publisher,
    now: DateTime<Utc>,
    ran: &mut Ran,
) -> Result<(), JobError> {
    let mut expired = portions(|behind: Option<(DateTime<Utc>, Uuid)>| {
        let (expires_at, reward) = behind.unwrap_or_default();
        sqlx::query_as(
            "select expires_at, reward_id from claim_expiries
             where ended_at is null and expires_at <= $1 and (expires_at, reward_id) > ($2, $3)
             order by expires_at, reward_id limit $4",
        )
        .bind(now)
        .bind(expires_at)
        .bind(reward)
        .bind(PORTION)
        .fetch_all(pool)
    });
    while let Some(due) = expired.try_next().await? {
        for (at, reward) in due {
            let ended = end_one(pool, publisher, (reward, at), now).await;
            ran.count(pool, format!("reward {reward}"), ended.map(u64::from)).await?;
        }
    }
    Ok(())
}

/// Ends the wait for a claim; whether the reward was cancelled by that.
async fn end_one(
    pool: &PgPool,
    publisher: &Publisher,
    (reward, at): (Uuid, DateTime<Utc>),
    now: DateTime<Utc>,
) -> Result<bool, Refused> {
    let mut tx = pool.begin().await?;
    let cancelled = cancel(&mut tx, publisher, (reward, at), now).await?;
    sqlx::query("update claim_expiries set ended_at = $2 where reward_id = $1 and ended_at is null")
        .bind(reward)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(cancelled)
}

/// Cancels a reward that still waits for its claim.
async fn cancel(
    tx: &mut PgConnection,
    publisher: &Publisher,
    (reward, at): (Uuid, DateTime<Utc>),
    now: DateTime<Utc>,
) -> Result<bool, Refused> {
    let payout = rows::payout(&mut *tx, reward).await?;
    let waits = |payout: &rows::Payout| payout.state == PayoutState::Waiting && payout.claimed_at.is_none();
    if !payout.as_ref().is_some_and(waits) {
        return Ok(false);
    }
    // The gateway locks the payout before it stores a claim: what it has stored by now is seen here, and what comes later finds
    // it cancelled.
    let claimed: bool = sqlx::query_scalar("select exists (select from reward_claims where reward_id = $1)")
        .bind(reward)
        .fetch_one(&mut *tx)
        .await?;
    if claimed {
        return Ok(false);
    }
    let why = format!("it was not claimed before {}", at.to_rfc3339_opts(SecondsFormat::Secs, true));
    operate::carry_out(tx, publisher, reward, (&Order::Expire, &why), now).await?;
    Ok(true)
}
