//! `limit_check`: the one place where a reward is granted. [`grant`](grant::grant) is the decision; the rest carries
//! budgets in and grants out. A reward is charged to its budgets in the transaction that decides about it.

pub mod grant;
pub mod policy;
pub mod state;

use std::sync::Arc;

use runtime::{Clock, Decider, Decision, Envelope, StageError};
use schemas::events::{RewardCalculated, RewardGranted, Root};
use schemas::ids::Micros;
use schemas::reason::Reason;
use sqlx::PgConnection;

use self::grant::{Grant, grant};
use self::policy::Policy;
use self::state::{Charge, keys_of};

/// Grants rewards within the budgets.
pub struct LimitCheck(Arc<dyn Clock>);

impl LimitCheck {
    /// The clock stamps `occurred_at` and is no input of a grant.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(clock)
    }
}

impl Decider for LimitCheck {
    const NAME: &'static str = "limit_check";
    type In = RewardCalculated;
    type Out = RewardGranted;

    fn effect_of(&self, event: &RewardCalculated) -> Option<String> {
        Some(format!("grant:{}", event.reward_id))
    }

    async fn decide(
        &self,
        tx: &mut PgConnection,
        batch: &[Envelope<RewardCalculated>],
    ) -> Result<Vec<Decision<RewardGranted>>, StageError> {
        let keys = batch.iter().flat_map(|record| keys_of(&record.payload)).collect();
        let before = state::load(tx, &keys).await?;
        let (mut budgets, mut charges) = (before.clone(), Vec::new());
        let mut decisions = Vec::with_capacity(batch.len());
        for record in batch {
            let (event, now) = (&record.payload, self.0.now());
            let policy = Policy::in_force(event.header.accepted_at);
            let granted = grant(event, &mut budgets, policy, now);
            if let Some(granted) = granted.as_ref().filter(|granted| !granted.amount.is_zero()) {
                let of = |key| Charge { reward_id: event.reward_id, key, amount: granted.amount };
                charges.extend(keys_of(event).map(of));
            }
            decisions.push(Decision {
                effect_id: self.effect_of(event),
                rules_version: policy.version.to_owned(),
                reason: granted.as_ref().map_or(Some(Reason::BadDatum), |granted| granted.reason),
                evidence: granted
                    .as_ref()
                    .map_or(serde_json::Value::Null, |granted| granted.evidence.clone()),
                logs: Vec::new(),
                outcome: granted
                    .map(|granted| reward_granted(record, granted, policy, now))
                    .ok_or(Reason::BadDatum),
            });
        }
        state::store(tx, &before, &budgets, &charges).await?;
        Ok(decisions)
    }
}

/// The event of a grant.
fn reward_granted(
    record: &Envelope<RewardCalculated>,
    grant: Grant,
    policy: &Policy,
    now: Micros,
) -> RewardGranted {
    let (event, position) = (&record.payload, &record.position);
    let root = Root { partition: position.partition, offset: position.offset };
    RewardGranted {
        header: event.header.next(LimitCheck::NAME, crate::VERSION, now, root),
        stamp: event.stamp.clone(),
        reward_id: event.reward_id,
        calculated: event.total(),
        granted: grant.amount,
        reason: grant.reason,
        detail: grant.detail,
        remaining: grant.remaining,
        charges: grant.charges,
        policy_version: policy.version.to_owned(),
    }
}

#[cfg(test)]
mod tests;
