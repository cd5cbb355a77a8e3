use proptest::prelude::*;
use schemas::events::{BlockPlace, RewardGranted};
use schemas::ids::Micros;

use super::*;

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn payout(state: PayoutState, transaction: Option<PayoutTransaction>) -> PayoutUpdated {
    let text = include_str!("../../../schemas/examples/rewards.granted/edge-none.json");
    let mut example: serde_json::Value = serde_json::from_str(text).unwrap();
    let grant: RewardGranted = serde_json::from_value(example["event"].take()).unwrap();
    PayoutUpdated {
        header: grant.header,
        stamp: grant.stamp,
        reward_id: grant.reward_id,
        revision: 4,
        state,
        amount: dec("1.5"),
        wallet_id: None,
        claimed_at: None,
        reason: Some("code: a sentence".into()),
        strikes: 1,
        max_retries: 3,
        adjustment: None,
        paid_at: Some(Micros(9)),
        transaction,
    }
}

fn included() -> PayoutTransaction {
    PayoutTransaction {
        tx_id: format!("0x{}", "7a".repeat(32)),
        revision: 3,
        genesis_id: format!("0x{}", "ab".repeat(32)),
        state: AttemptState::Included,
        signer: "0x1".into(),
        gas_payer: "0x1".into(),
        contract: "0x2".into(),
        batch_id: "0x3".into(),
        clause_count: 2,
        batch_amount: dec("2"),
        beneficiary_user: None,
        beneficiary_wallet: None,
        estimated_gas: 60_000,
        gas_limit: 70_000,
        gas_strategy: "medium".into(),
        max_fee_wei: "20000000000000".into(),
        priority_fee_wei: "0".into(),
        block_ref: "0x4".into(),
        expiration: 180,
        nonce: "1".into(),
        broadcast_count: 1,
        signed_at: Micros(5),
        block: Some(BlockPlace { id: "0xb".into(), number: 7, timestamp: Micros(6) }),
        gas_used: Some(61_003),
        gas_price_wei: Some("10500000000000".into()),
        fee_wei: Some("640531509999999999".into()),
        confirmations: 1,
        confirmed_at: None,
        finalized_at: None,
        error: None,
        clause_index: 0,
        attempt_no: 1,
        reward_gas_used: Some(30_501),
        reward_fee: Some(dec("0.32026525")),
    }
}

fn row_of(transaction: PayoutTransaction) -> Result<TransactionRow, BadValue> {
    Ok(updated(&payout(PayoutState::InFlight, Some(transaction)))?.transaction.unwrap())
}

#[test]
fn a_rewards_status_follows_its_payout_and_only_a_paid_one_is_distributed_at_a_time() {
    let expected =
        ["calculated", "calculated", "pending", "distributed", "distributed", "failed", "cancelled"];
    for (state, status) in PayoutState::ALL.into_iter().zip(expected) {
        let reward = updated(&payout(state, None)).unwrap().reward.unwrap();
        assert_eq!((reward.status, reward.revision), (status, 6));
        assert_eq!(reward.distributed_at.is_some(), status == "distributed");
        assert_eq!(reward.payout_reason.as_deref(), Some("code: a sentence"));
        assert_eq!(reward.granted, Some(dec("1.5")));
    }
}

#[test]
fn a_transactions_status_follows_its_attempt() {
    let expected = [
        "pending",
        "pending",
        "pending",
        "confirmed",
        "reverted",
        "confirmed",
        "reverted",
        "failed",
        "confirmed",
    ];
    for (state, status) in AttemptState::ALL.into_iter().zip(expected) {
        assert_eq!(row_of(PayoutTransaction { state, ..included() }).unwrap().status, status);
    }
}

#[test]
fn a_fee_is_cut_to_its_column_toward_zero_and_kept_exact_in_wei() {
    let row = row_of(included()).unwrap();
    assert_eq!((row.fee, row.fee_wei), (Some(dec("0.64053150")), Some(dec("640531509999999999"))));
    assert_eq!((row.gas_price, row.gas_price_wei), (Some(dec("0.0000105")), Some(dec("10500000000000"))));
    assert_eq!((row.gas_used, row.reward_gas), (Some(61_003), Some(30_501)));
    assert_eq!(row.reward_fee, Some(dec("0.32026525")));
}

#[test]
fn a_transaction_in_no_block_has_neither_block_nor_gas_nor_fee() {
    let none = PayoutTransaction {
        state: AttemptState::Sent,
        block: None,
        gas_used: None,
        gas_price_wei: None,
        fee_wei: None,
        reward_gas_used: None,
        reward_fee: None,
        ..included()
    };
    let row = row_of(none).unwrap();
    assert_eq!((row.gas_used, row.reward_gas, row.gas_price, row.block_number), (None, None, None, None));
    assert_eq!((row.gas_price_wei, row.fee, row.fee_wei, row.reward_fee), (None, None, None, None));
}

#[test]
fn what_a_column_cannot_hold_is_refused_by_its_name() {
    let bad = |change: fn(&mut PayoutTransaction)| {
        let mut transaction = included();
        change(&mut transaction);
        row_of(transaction).unwrap_err().to_string()
    };
    let texts = [
        bad(|attempt| attempt.gas_used = Some(1 << 31)),
        bad(|attempt| attempt.reward_gas_used = Some(-1)),
        bad(|attempt| attempt.fee_wei = Some("1.5".into())),
        bad(|attempt| attempt.gas_price_wei = Some("-1".into())),
        bad(|attempt| attempt.fee_wei = Some("9".repeat(40))),
        bad(|attempt| attempt.fee_wei = Some(format!("1{}", "0".repeat(28)))),
        bad(|attempt| attempt.reward_fee = Some(dec("0.000000001"))),
        bad(|attempt| attempt.batch_amount = dec("10000000000")),
        bad(|attempt| {
            attempt.block = Some(BlockPlace { id: "0xb".into(), number: 1 << 31, timestamp: Micros(0) })
        }),
    ];
    let expected = [
        "blockchain_transactions.gas_used does not fit 32 bits",
        "reward_transactions.gas_used is negative",
        "blockchain_transactions.fee_wei is no number of wei",
        "blockchain_transactions.gas_price_wei is no number of wei",
        "blockchain_transactions.fee_wei is no number of wei",
        "blockchain_transactions.transaction_fee is not below 10000000000",
        "reward_transactions.transaction_fee has more than 8 decimals",
        "blockchain_transactions.amount is not below 10000000000",
        "blockchain_transactions.block_number does not fit 32 bits",
    ];
    for (text, expected) in texts.iter().zip(expected) {
        assert!(text.ends_with(expected), "{text}");
    }
}

proptest! {
    #[test]
    fn any_wei_are_coins_within_a_grid_step_below_or_refused_by_column(
        wei in prop_oneof![any::<u64>().prop_map(u128::from), any::<u128>()], text: String,
    ) {
        match row_of(PayoutTransaction { fee_wei: Some(wei.to_string()), ..included() }) {
            Ok(row) => {
                let (fee, exact) = (row.fee.unwrap(), row.fee_wei.unwrap());
                prop_assert_eq!(exact.to_string(), wei.to_string());
                let cut = exact - fee / WEI;
                prop_assert!(cut >= Decimal::ZERO && cut < dec("10000000000"), "{}", cut);
            }
            Err(bad) => prop_assert!(bad.column.starts_with("blockchain_transactions.")),
        }
        let _ = row_of(PayoutTransaction { fee_wei: Some(text), ..included() });
    }
}
