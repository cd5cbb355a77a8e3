//! Rewards whose reading was corrected: one that no transaction pays is cancelled whole, and its budgets get back what it was charged. What
//! is signed is followed to its end, and what was paid stays.

use chrono::{DateTime, Utc};
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
/// Rewards of one round: corrections are made by hand.
const ROUND: i64 = 100;

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

/// Cancels the rewards of corrected readings that no transaction pays. Returns how many.
///
/// # Errors
/// [`PlanError`]; what was cancelled before stays so.
pub async fn cancel(
    pool: &PgPool,
    lease: &Lease,
    publisher: &Publisher,
    now: DateTime<Utc>,
) -> Result<usize, PlanError> {
    // A look-up in the index of payouts for each correction that waits.
    let open: Vec<Uuid> = sqlx::query_scalar(
        "select c.reward_id from payout_corrections c cross join lateral (
            select 1 from payouts p where p.reward_id = c.reward_id and p.state = any($1) limit 1
         ) p where c.cancelled_at is null limit $2",
    )
    .bind(
        [PayoutState::Waiting, PayoutState::Ready, PayoutState::Quarantined].map(PayoutState::label).to_vec(),
    )
    .bind(ROUND)
    .fetch_all(pool)
    .await?;
    let mut cancelled = 0;
    for reward in open {
        let mut tx = pool.begin().await?;
        lease.hold(&mut tx).await?;
        let order = Order::Cancel { settled: false };
        match operate::carry_out(&mut tx, publisher, reward, (&order, WHY), now).await {
            Ok(_) => {}
            Err(Refused::Stage(error)) => return Err(error.into()),
            // A transaction that may yet pay it, or has: its end is awaited, and the row stays.
            Err(refused) => {
                tracing::debug!(%reward, %refused, "a corrected reading's reward is not cancelled yet");
                continue;
            }
        }
        sqlx::query("update payout_corrections set cancelled_at = $2 where reward_id = $1")
            .bind(reward)
            .bind(now)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        cancelled += 1;
    }
    Ok(cancelled)
}
