//! What rewards were charged, and which of them are cancelled: a cancelled reward's charges are refunded once, to the periods that were
//! charged, whether its grant or its cancellation is decided first. One that is adjusted is charged the new amount.

use std::collections::{BTreeMap, BTreeSet};

use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::RewardCancelled;
use schemas::ids::RewardId;
use sqlx::PgConnection;

use super::grant::{BudgetKey, Budgets};

/// What a reward was charged to a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The reward.
    pub reward_id: RewardId,
    /// The budget.
    pub key: BudgetKey,
    /// B3TR.
    pub amount: Decimal,
    /// Whether the budget has it back.
    pub refunded: bool,
}

/// The charges and cancellations of the rewards of a batch.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// Charges of each reward: as they were read, then as they are decided.
    charges: BTreeMap<RewardId, Vec<Charge>>,
    /// Rewards that are cancelled.
    cancelled: BTreeSet<RewardId>,
    /// Rewards that this batch charges.
    charged_now: Vec<RewardId>,
    /// Rewards that this batch refunds and an earlier one charged.
    refunded_now: Vec<RewardId>,
    /// Rewards whose charge this batch changes and an earlier one has made.
    adjusted_now: BTreeSet<RewardId>,
    /// Cancellations of this batch.
    cancelled_now: Vec<RewardCancelled>,
}

impl Books {
    /// What was decided before.
    #[must_use]
    pub fn new(charges: Vec<Charge>, cancelled: impl IntoIterator<Item = RewardId>) -> Self {
        let mut books = Self { cancelled: cancelled.into_iter().collect(), ..Self::default() };
        for charge in charges {
            books.charges.entry(charge.reward_id).or_default().push(charge);
        }
        books
    }

    /// The budgets that a reward was charged to.
    #[must_use]
    pub fn keys_of(&self, reward: RewardId) -> Vec<BudgetKey> {
        self.charges.get(&reward).into_iter().flatten().map(|charge| charge.key).collect()
    }

    /// Notes what a reward was charged; one that is cancelled already gets it back at once.
    pub fn charge(&mut self, reward: RewardId, keys: [BudgetKey; 3], amount: Decimal, budgets: &mut Budgets) {
        let charge = |key| Charge { reward_id: reward, key, amount, refunded: false };
        self.charges.entry(reward).or_default().extend(keys.map(charge));
        self.charged_now.push(reward);
        if self.cancelled.contains(&reward) {
            self.refund(reward, budgets);
        }
    }

    /// Notes that a reward is cancelled, and refunds what it was charged. Returns how much one budget got back: nothing where the reward
    /// was not charged yet, or has it back.
    pub fn cancel(&mut self, event: &RewardCancelled, budgets: &mut Budgets) -> Decimal {
        if self.cancelled.insert(event.reward_id) {
            self.cancelled_now.push(event.clone());
        }
        let refunded = self.refund(event.reward_id, budgets);
        if !refunded.is_zero() && !self.charged_now.contains(&event.reward_id) {
            self.refunded_now.push(event.reward_id);
        }
        refunded
    }

    /// What each budget was charged for a reward, whether or not it has it back; none where nothing was charged.
    #[must_use]
    pub fn charged(&self, reward: RewardId) -> Option<Decimal> {
        self.charges.get(&reward)?.first().map(|charge| charge.amount)
    }

    /// Whether a reward is cancelled.
    #[must_use]
    pub fn is_cancelled(&self, reward: RewardId) -> bool {
        self.cancelled.contains(&reward)
    }

    /// Sets what a reward is charged, and moves the budgets that do not have it back by the difference.
    pub fn recharge(&mut self, reward: RewardId, amount: Decimal, budgets: &mut Budgets) {
        for charge in self.charges.get(&reward).into_iter().flatten().filter(|charge| !charge.refunded) {
            if let Some(budget) = budgets.get_mut(&charge.key) {
                budget.current = (budget.current + amount - charge.amount).normalize();
            }
        }
        self.rewrite(reward, amount);
    }

    /// Sets what a reward is charged, where its budgets are charged for it already.
    pub(super) fn rewrite(&mut self, reward: RewardId, amount: Decimal) {
        for charge in self.charges.get_mut(&reward).into_iter().flatten() {
            charge.amount = amount;
        }
        if !self.charged_now.contains(&reward) {
            self.adjusted_now.insert(reward);
        }
    }

    fn refund(&mut self, reward: RewardId, budgets: &mut Budgets) -> Decimal {
        let mut refunded = Decimal::ZERO;
        let open = self.charges.get_mut(&reward).into_iter().flatten().filter(|charge| !charge.refunded);
        for charge in open {
            if let Some(budget) = budgets.get_mut(&charge.key) {
                budget.current = (budget.current - charge.amount).normalize();
                charge.refunded = true;
                refunded = charge.amount;
            }
        }
        refunded
    }

    /// Every charge.
    pub fn all(&self) -> impl Iterator<Item = &Charge> {
        self.charges.values().flatten()
    }

    /// Writes what this batch charged, refunded and cancelled. The primary keys are the last guard: one reward is charged and cancelled
    /// once, whoever asks.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn store(&self, tx: &mut PgConnection) -> Result<(), StageError> {
        let new: Vec<&Charge> =
            self.all().filter(|charge| self.charged_now.contains(&charge.reward_id)).collect();
        sqlx::query(
            "insert into limit_charges (reward_id, limit_type, user_id, period_start, amount, refunded)
             select reward_id, limit_type::reward_limits_limit_type, user_id, period_start, amount, refunded
             from unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::numeric[], $6::bool[])
                as r (reward_id, limit_type, user_id, period_start, amount, refunded)",
        )
        .bind(new.iter().map(|charge| charge.reward_id.0).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.key.1.label()).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.key.0.0).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.key.2.to_utc()).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.amount).collect::<Vec<_>>())
        .bind(new.iter().map(|charge| charge.refunded).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
        self.store_adjusted(&mut *tx).await?;
        if self.cancelled_now.is_empty() {
            return Ok(());
        }
        sqlx::query("update limit_charges set refunded = true where reward_id = any($1)")
            .bind(self.refunded_now.iter().map(|reward| reward.0).collect::<Vec<_>>())
            .execute(&mut *tx)
            .await?;
        let cancelled = &self.cancelled_now;
        sqlx::query(
            "insert into limit_refunds (reward_id, reason, event_id, occurred_at)
             select * from unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[])",
        )
        .bind(cancelled.iter().map(|event| event.reward_id.0).collect::<Vec<_>>())
        .bind(cancelled.iter().map(|event| event.reason.clone()).collect::<Vec<_>>())
        .bind(cancelled.iter().map(|event| event.header.event_id.0).collect::<Vec<_>>())
        .bind(cancelled.iter().map(|event| event.header.occurred_at.to_utc()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
        Ok(())
    }

    async fn store_adjusted(&self, tx: &mut PgConnection) -> Result<(), StageError> {
        if self.adjusted_now.is_empty() {
            return Ok(());
        }
        let adjusted: Vec<&Charge> =
            self.all().filter(|charge| self.adjusted_now.contains(&charge.reward_id)).collect();
        sqlx::query(
            "update limit_charges c set amount = r.amount
             from unnest($1::uuid[], $2::text[], $3::numeric[]) as r (reward_id, limit_type, amount)
             where c.reward_id = r.reward_id and c.limit_type = r.limit_type::reward_limits_limit_type",
        )
        .bind(adjusted.iter().map(|charge| charge.reward_id.0).collect::<Vec<_>>())
        .bind(adjusted.iter().map(|charge| charge.key.1.label()).collect::<Vec<_>>())
        .bind(adjusted.iter().map(|charge| charge.amount).collect::<Vec<_>>())
        .execute(tx)
        .await?;
        Ok(())
    }
}
