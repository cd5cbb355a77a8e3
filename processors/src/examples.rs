//! What several tests begin with.

use std::sync::LazyLock;

use proptest::prelude::*;
use schemas::events::RewardCalculated;

use crate::chain_submission::ledger::machine::PayoutEvent;

/// The reward of the checked-in example.
pub(crate) fn reward() -> RewardCalculated {
    static BASIC: LazyLock<RewardCalculated> = LazyLock::new(|| {
        let example = include_str!("../../schemas/examples/rewards.calculated/normal-basic.json");
        let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
        serde_json::from_value(example["event"].take()).unwrap()
    });
    BASIC.clone()
}

/// What may happen to a payout that is claimed.
pub(crate) fn payment() -> impl Strategy<Value = PayoutEvent> {
    prop_oneof![
        Just(PayoutEvent::Plan),
        Just(PayoutEvent::Free),
        Just(PayoutEvent::Confirm),
        Just(PayoutEvent::Undo),
        Just(PayoutEvent::Finalize),
        Just(PayoutEvent::Refuse),
        Just(PayoutEvent::Release),
    ]
}
