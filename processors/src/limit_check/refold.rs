//! The budgets after grants and refunds that were decided before. Rules are kept for ever and in force by acceptance, so that each grant is
//! worked out again and held against the one that was published.

use runtime::refold::{Recorded, Refolds};
use runtime::{Decision, StageError};
use schemas::events::RewardGranted;
use sqlx::PgConnection;

use super::{LimitCheck, LimitInput};

impl Refolds for LimitCheck {
    async fn refold(
        &self,
        tx: &mut PgConnection,
        batch: &[Recorded<LimitInput, RewardGranted>],
    ) -> Result<Vec<Option<Decision<RewardGranted>>>, StageError> {
        let records: Vec<_> = batch.iter().map(|one| one.record.clone()).collect();
        let published_at = |at: usize| {
            let output = batch.get(at).and_then(|one| one.output.as_ref());
            output.map_or_else(|| self.clock.now(), |granted| granted.header.occurred_at)
        };
        let decisions = self.decide_at(tx, &records, published_at).await?;
        decisions.into_iter().zip(batch).map(|(decision, one)| held(decision, one.output.as_ref())).collect()
    }
}

/// The decision, with the event that was published of it; none where something should have been and was not.
fn held(
    decision: Decision<RewardGranted>,
    published: Option<&RewardGranted>,
) -> Result<Option<Decision<RewardGranted>>, StageError> {
    match (&decision.outcome, published) {
        (Ok(again), Some(published)) if same(again, published) => {
            Ok(Some(Decision { outcome: Ok(published.clone()), ..decision }))
        }
        (Err(_), None) => Ok(Some(decision)),
        (Ok(_), None) => Ok(None),
        (Ok(_) | Err(_), Some(published)) => Err(StageError::new(
            "limit_check",
            format!(
                "{} B3TR were granted for reward {}, and by the rules and budgets of this database it would be otherwise: apply the \
                 rules that were in force, or restore an older state",
                published.granted, published.reward_id
            ),
        )),
    }
}

fn same(again: &RewardGranted, published: &RewardGranted) -> bool {
    (again.granted, &again.charges, &again.policy_version)
        == (published.granted, &published.charges, &published.policy_version)
}
