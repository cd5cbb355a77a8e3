//! Rewards whose reading was corrected: one that no transaction pays is cancelled whole, and its budgets get back what it was charged. What
//! is signed is followed to its end, and what was paid stays.

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use runtime::StageError;
use runtime::timers::{PORTION, Ran, portions};
use schemas::events::{PayoutState, UploadDecided};
use schemas::ids::RewardId;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::ledger::publish::Publisher;
use super::operate::{self, Order, Refused};
use super::submit::lease::Lease;
use super::submit::plan::PlanError;

/// Why a reward is cancelled, in its record and its payout.
const WHY: &str = "its reading was corrected";

/// Notes that the reward of a corrected upload is not to be paid any more: nothing plans it from then on. A decision that corrects nothing
/// is passed over.
///
/// # Errors
/// Postgres'.
pub async fn note(tx: &mut PgConnection, decided: &UploadDecided) -> sqlx::Result<()> {
    let Some(correction) = &decided.correction else { return Ok(()) };
    sqlx::query(
        "insert into payout_corrections (reward_id, event_id, corrected_at) values ($1, $2, $3)
         on conflict (reward_id) do nothing",
    )
    .bind(RewardId::of(decided.header.upload_id).0)
    .bind(decided.header.event_id.0)
    .bind(correction.corrected_at.to_utc())
    .execute(tx)
    .await?;
    Ok(())
}

/// Cancels the rewards of corrected readings that no transaction pays, each in a database transaction of its own. One of which that fails
/// keeps no other waiting.
///
/// # Errors
/// [`PlanError`] where the lease is lost or the database is away; what was cancelled before stays so.
pub async fn cancel(
    pool: &PgPool,
    lease: &Lease,
    publisher: &Publisher,
    now: DateTime<Utc>,
) -> Result<Ran, PlanError> {
    settle(pool, now).await?;
    let mut ran = Ran::default();
    // A look-up in the index of payouts for each correction that waits.
    let mut open = portions(|behind: Option<Uuid>| {
        sqlx::query_scalar(
            "select c.reward_id from payout_corrections c cross join lateral (
                select 1 from payouts p where p.reward_id = c.reward_id and p.state = any($1) limit 1
             ) p where c.cancelled_at is null and c.settled_at is null and c.reward_id > $2
             order by c.reward_id limit $3",
        )
        .bind(labels([PayoutState::Waiting, PayoutState::Ready, PayoutState::Quarantined]))
        .bind(behind.unwrap_or_default())
        .bind(PORTION)
        .fetch_all(pool)
    });
    while let Some(rewards) = open.try_next().await? {
        for reward in rewards {
            match cancel_one(pool, lease, publisher, reward, now).await {
                // Whoever has it now cancels what is left.
                Err(error @ PlanError::Lease(_)) => return Err(error),
                cancelled => ran
                    .count(pool, format!("corrected reward {reward}"), cancelled.map(u64::from))
                    .await
                    .map_err(|error| StageError::new("cancel a corrected reading's reward", error))?,
            }
        }
    }
    Ok(ran)
}

/// Notes of which corrections nothing can come: their rewards are paid for good, or were cancelled for another reason.
async fn settle(pool: &PgPool, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query(
        "update payout_corrections c set settled_at = $2 from payouts p
         where c.cancelled_at is null and c.settled_at is null and p.reward_id = c.reward_id and p.state = any($1)",
    )
    .bind(labels([PayoutState::Final, PayoutState::Cancelled]))
    .bind(now)
    .execute(pool)
    .await?;
    Ok(())
}

fn labels<const N: usize>(states: [PayoutState; N]) -> Vec<&'static str> {
    states.map(PayoutState::label).to_vec()
}

/// Cancels the reward of a corrected reading; whether it is cancelled.
async fn cancel_one(
    pool: &PgPool,
    lease: &Lease,
    publisher: &Publisher,
    reward: Uuid,
    now: DateTime<Utc>,
) -> Result<bool, PlanError> {
    let mut tx = pool.begin().await?;
    lease.hold(&mut tx).await?;
    let order = Order::Cancel { settled: false };
    match operate::carry_out(&mut tx, publisher, reward, (&order, WHY), now).await {
        Ok(_) => {}
        Err(Refused::Stage(error)) => return Err(error.into()),
        // A transaction that may yet pay it, or has: its end is awaited, and the row stays.
        Err(refused) => {
            tracing::debug!(%reward, %refused, "a corrected reading's reward is not cancelled yet");
            return Ok(false);
        }
    }
    sqlx::query("update payout_corrections set cancelled_at = $2 where reward_id = $1")
        .bind(reward)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(true)
}
