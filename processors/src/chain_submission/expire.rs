//! Rewards that their driver has to ask for and does not. Whoever is concerned is told until when; what is not claimed by then is
//! cancelled, and its budgets get back what it was charged. Of a claim and an end at the same moment one wins: both lock the payout's row.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use schemas::events::PayoutState;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::ledger::outbox::Outbox;
use super::ledger::publish::Publisher;
use super::ledger::rows;
use super::operate::{self, Order, Refused};

/// Rewards of one transaction that tells their drivers.
const PORTION: i64 = 100;

/// How long a reward waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimTerms {
    /// From its grant to its end.
    pub expires_after: Duration,
    /// From the notice to the end: also where the grant is older than all of that, so that none ends untold.
    pub notice: Duration,
}

/// Tells the drivers of rewards that expire within the notice, then cancels what nobody has claimed in time. Returns how many were
/// cancelled. It may be cut off, and run by several processes at once.
///
/// # Errors
/// [`Refused`]; what was done before stays.
pub async fn expire(
    pool: &PgPool,
    publisher: &Publisher,
    terms: ClaimTerms,
    now: DateTime<Utc>,
) -> Result<u64, Refused> {
    while tell(pool, publisher, terms, now).await? == PORTION.unsigned_abs() {}
    end(pool, publisher, now).await
}

/// Tells the drivers of some rewards; returns of how many.
async fn tell(
    pool: &PgPool,
    publisher: &Publisher,
    terms: ClaimTerms,
    now: DateTime<Utc>,
) -> Result<u64, Refused> {
    let silent = terms.expires_after.saturating_sub(terms.notice);
    let times = (TimeDelta::from_std(silent).ok(), TimeDelta::from_std(terms.notice).ok());
    let (Some(silent), Some(notice)) = times else { return Ok(0) };
    let (Some(granted_before), Some(at)) = (now.checked_sub_signed(silent), now.checked_add_signed(notice))
    else {
        return Ok(0);
    };
    let mut tx = pool.begin().await?;
    let due: Vec<Uuid> = sqlx::query_scalar(
        "select p.reward_id from payouts p
         where p.state = 'waiting' and p.stamp->>'auto_claim' = 'false' and p.claimed_at is null
           and (p.header->>'occurred_at')::bigint <= $1
           and not exists (select from claim_expiries e where e.reward_id = p.reward_id)
           and not exists (select from reward_claims c where c.reward_id = p.reward_id)
         order by (p.header->>'occurred_at')::bigint limit $2 for update of p skip locked",
    )
    .bind(granted_before.timestamp_micros())
    .bind(PORTION)
    .fetch_all(&mut *tx)
    .await?;
    let mut payouts = rows::payouts(&mut tx, &due).await?;
    let mut outbox = Outbox::default();
    for payout in &mut payouts {
        payout.revision += 1;
        payout.reason = Some(format!("claim_expires: {}", until(at)));
        publisher.payout(payout, now, &mut outbox)?;
    }
    rows::update_payouts(&mut tx, &payouts).await?;
    sqlx::query(
        "insert into claim_expiries (reward_id, told_at, expires_at)
         select reward_id, $3, $2 from unnest($1::uuid[]) as e (reward_id)",
    )
    .bind(payouts.iter().map(|payout| payout.reward_id).collect::<Vec<_>>())
    .bind(at)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    outbox.store(&mut tx).await?;
    tx.commit().await?;
    Ok(payouts.len() as u64)
}

/// What a driver is told before.
fn until(at: DateTime<Utc>) -> String {
    format!("claim it before {}, or it is cancelled", at.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// Cancels what is due; returns how many.
async fn end(pool: &PgPool, publisher: &Publisher, now: DateTime<Utc>) -> Result<u64, Refused> {
    let mut cancelled = 0;
    loop {
        let due: Vec<(Uuid, DateTime<Utc>)> = sqlx::query_as(
            "select reward_id, expires_at from claim_expiries where ended_at is null and expires_at <= $1
             order by expires_at limit $2",
        )
        .bind(now)
        .bind(PORTION)
        .fetch_all(pool)
        .await?;
        for (reward, at) in &due {
            let mut tx = pool.begin().await?;
            cancelled += u64::from(end_one(&mut tx, publisher, (*reward, *at), now).await?);
            sqlx::query("update claim_expiries set ended_at = $2 where reward_id = $1 and ended_at is null")
                .bind(reward)
                .bind(now)
                .execute(&mut *tx)
                .await?;
            tx.commit().await?;
        }
        if (due.len() as u64) < PORTION.unsigned_abs() {
            return Ok(cancelled);
        }
    }
}

/// Cancels a reward that still waits for its claim.
async fn end_one(
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
