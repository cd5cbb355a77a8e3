//! The same grants by the first rules, without partitions, batches or a database: what a run with faults is compared with.

use std::collections::BTreeMap;

use schemas::events::RewardCalculated;
use schemas::ids::{Micros, RewardId};

use super::LimitInput;
use super::books::Books;
use super::grant::{Budgets, Grant, grant};
use super::state::keys_of;
use crate::reward_rules::Rulebook;

/// Grants what was calculated, in order; nothing is cancelled.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a RewardCalculated>) -> BTreeMap<RewardId, Grant> {
    let mut folded = Folded::new();
    records.into_iter().for_each(|event| folded.calculated(event));
    folded.grants
}

/// Grants what was calculated and refunds what was cancelled, in order. A repeated reward is granted by its first record, as the effect
/// `grant:REWARD` has it; later ones are left out.
pub fn fold_all<'a>(records: impl IntoIterator<Item = &'a LimitInput>) -> BTreeMap<RewardId, Grant> {
    let mut folded = Folded::new();
    for record in records {
        match record {
            LimitInput::Calculated(event) => folded.calculated(event),
            LimitInput::Cancelled(event) => {
                folded.books.cancel(event, &mut folded.budgets);
            }
        }
    }
    folded.grants
}

struct Folded {
    book: Rulebook,
    budgets: Budgets,
    books: Books,
    grants: BTreeMap<RewardId, Grant>,
}

impl Folded {
    fn new() -> Self {
        let (budgets, books) = (Budgets::new(), Books::default());
        Self { book: Rulebook::first(), budgets, books, grants: BTreeMap::new() }
    }

    fn calculated(&mut self, event: &RewardCalculated) {
        if self.grants.contains_key(&event.reward_id) {
            return;
        }
        let policy = &self.book.in_force(event.header.accepted_at).policy;
        let Some(granted) = grant(event, &mut self.budgets, policy, Micros(0)) else { return };
        if !granted.amount.is_zero() {
            self.books.charge(event.reward_id, keys_of(event), granted.amount, &mut self.budgets);
        }
        self.grants.insert(event.reward_id, granted);
    }
}
