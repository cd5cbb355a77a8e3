//! The budgets after grants and refunds, by what their events say and not by granting again: for what a replay does not decide. Its budgets
//! may have been charged otherwise before, where other rules or other rewards came.

use runtime::{Envelope, StageError};
use schemas::events::{RewardCalculated, RewardGranted};
use schemas::ids::RewardId;
use sqlx::PgConnection;

use super::books::Books;
use super::grant::{Budgets, recharge};
use super::state::{self, keys_of};
use super::{LimitCheck, LimitInput};

impl LimitCheck {
    /// Charges what was granted and refunds what was cancelled, in order. A reward without its grant charges nothing.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn follow(
        tx: &mut PgConnection,
        records: &[(Envelope<LimitInput>, Option<RewardGranted>)],
    ) -> Result<(), StageError> {
        let rewards: Vec<RewardId> = records.iter().map(|(record, _)| record.payload.reward_id()).collect();
        let mut books = state::charges(tx, &rewards).await?;
        let keys = records.iter().flat_map(|(record, _)| record.payload.keys(&books));
        let before = state::load(tx, &keys.collect()).await?;
        let mut budgets = before.clone();
        for (record, granted) in records {
            match (&record.payload, granted) {
                (LimitInput::Calculated(event), Some(granted)) if event.adjustment.is_some() => {
                    adjusted(event, granted, &mut budgets, &mut books);
                }
                (LimitInput::Calculated(event), Some(granted)) if !granted.granted.is_zero() => {
                    let (user, at) = (granted.header.user_id, granted.header.occurred_at);
                    recharge(&mut budgets, user, &granted.charges, at);
                    books.charge(event.reward_id, keys_of(event), granted.granted, &mut budgets);
                }
                (LimitInput::Calculated(_), _) => {}
                (LimitInput::Cancelled(event), _) => {
                    books.cancel(event, &mut budgets);
                }
            }
        }
        state::store(tx, &before, &budgets).await?;
        books.store(tx).await
    }
}

/// Charges for a reward what was owed of it after an adjustment; one that was charged nothing is charged like a grant.
fn adjusted(event: &RewardCalculated, granted: &RewardGranted, budgets: &mut Budgets, books: &mut Books) {
    let (user, at) = (granted.header.user_id, granted.header.occurred_at);
    if books.charged(event.reward_id).is_some() {
        books.recharge(event.reward_id, granted.granted, budgets);
    } else if !granted.granted.is_zero() {
        recharge(budgets, user, &granted.charges, at);
        books.charge(event.reward_id, keys_of(event), granted.granted, budgets);
    }
}
