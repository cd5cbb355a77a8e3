use chain::abi::topic;
use chain::hash::keccak256;
use proptest::prelude::*;
use schemas::events::{BlockPlace, BlockUndone};
use schemas::ids::{EventId, Micros};

use super::*;

#[path = "../../tests/logs.rs"]
mod logs;
use logs::{APP, POOL, SIGNER, amount_and_text, distributed, padded};

const RECEIVER: &str = "0x3333333333333333333333333333333333333333";
const REWARD: &str = "0190a5b2-7c1d-7e3f-8a4b-5c6d7e8f9a0b";

fn adopted(seq: i64, at: i64, logs: Vec<ChainLog>) -> ChainStep {
    ChainStep::Adopted(BlockAdopted {
        event_id: EventId(Uuid::from_u128(1)),
        occurred_at: Micros(at),
        seq,
        genesis_id: "0xg".into(),
        block: BlockPlace { id: "0xb".into(), number: 7, timestamp: Micros(0) },
        parent_id: "0xa".into(),
        adoption: 1,
        finalized_number: 0,
        retold: false,
        transactions: vec![ChainTransaction {
            id: "0xt".into(),
            index: 0,
            origin: SIGNER.into(),
            gas_payer: SIGNER.into(),
            gas_used: 1,
            paid_wei: "1".into(),
            reverted: false,
            logs,
        }],
    })
}

fn undone(seq: i64) -> ChainStep {
    ChainStep::Undone(BlockUndone {
        event_id: EventId(Uuid::from_u128(2)),
        occurred_at: Micros(9),
        seq,
        genesis_id: "0xg".into(),
        block_id: "0xb".into(),
        number: 7,
        adoption: 1,
    })
}

fn log(topics: Vec<String>, data: &str) -> ChainLog {
    ChainLog {
        clause_index: 2,
        log_index: 5,
        address: POOL.into(),
        topics,
        data: data.into(),
        balance_after_wei: None,
    }
}

/// The row of a log alone in its block.
fn row_of(log: ChainLog) -> EventRow {
    let step = adopted(1, 1, vec![log]);
    sorted(&[&step]).1.into_values().next().unwrap()
}

fn signature(text: &str) -> String {
    format!("0x{}", hex::encode(keccak256(text.as_bytes())))
}

#[test]
fn a_reward_paid_is_decoded_with_its_reward_and_exact_wei() {
    let proof = format!(r#"{{"version": 2,"description": "{REWARD}","impact": {{"carbon":12}}}}"#);
    let row = row_of(distributed((2, 5), RECEIVER, 168_945_000_000_000_000, &proof));
    assert_eq!(row.kind, "RewardDistributed");
    assert_eq!(row.signature, Some(topic::REWARD_DISTRIBUTED.to_string()));
    assert_eq!((row.clause_index, row.log_index, row.block_number), (2, 5, 7));
    assert_eq!(row.id, natural("0xg:0xb:0xt:2:5"));
    let decoded = json!({
        "name": "RewardDistributed", "app_id": APP, "receiver": RECEIVER, "amount_wei": "168945000000000000",
        "distributor": SIGNER, "reward_id": REWARD,
    });
    assert_eq!(row.data["decoded"], decoded);
    assert_eq!(row.data["topics"][1], APP);
}

#[test]
fn an_amount_beyond_64_bits_keeps_every_digit() {
    let row = row_of(distributed((0, 0), RECEIVER, u128::MAX, ""));
    assert_eq!(row.data["decoded"]["amount_wei"], u128::MAX.to_string());
    assert_eq!(row.data["decoded"].get("reward_id"), None);
}

#[test]
fn every_event_of_the_contracts_is_named_and_told_as_far_as_it_has_the_fields() {
    let (app, who) = (APP.to_owned(), padded(RECEIVER));
    let word = |value: u128| format!("{value:064x}");
    let cases = [
        (
            log(vec![topic::TRANSFER.to_string(), padded(POOL), who.clone()], &format!("0x{}", word(5))),
            json!({"name": "Transfer", "receiver": RECEIVER, "amount_wei": "5"}),
        ),
        (
            log(
                vec![topic::REWARD_METADATA.to_string(), app.clone(), who.clone(), padded(SIGNER)],
                &amount_and_text(6, REWARD),
            ),
            json!({
                "name": "RewardMetadata", "app_id": APP, "receiver": RECEIVER, "amount_wei": "6",
                "distributor": SIGNER, "reward_id": REWARD,
            }),
        ),
        (
            log(
                vec![signature("NewDeposit(uint256,bytes32,address)"), app.clone(), who.clone()],
                &format!("0x{}", word(7)),
            ),
            json!({"name": "NewDeposit", "app_id": APP, "amount_wei": "7"}),
        ),
        (
            log(vec![signature("AppPaused(bytes32,address)"), app.clone(), who.clone()], "0x"),
            json!({"name": "AppPaused", "app_id": APP}),
        ),
        (
            log(vec![signature("AppUnpaused(bytes32,address)"), app.clone(), who], "0x"),
            json!({"name": "AppUnpaused", "app_id": APP}),
        ),
        (
            log(
                vec![signature("RewardsPoolBalanceUpdated(bytes32,uint256,uint256,uint256)"), app],
                &format!("0x{}{}{}", word(8), word(9), word(10)),
            ),
            json!({"name": "RewardsPoolBalanceUpdated", "app_id": APP, "amount_wei": "8"}),
        ),
    ];
    for (log, expected) in cases {
        let row = row_of(log);
        assert_eq!(row.data["decoded"], expected);
        assert_eq!(row.kind, expected["name"]);
    }
}

#[test]
fn a_log_that_is_not_known_is_kept_undecoded_and_an_anonymous_one_has_no_signature() {
    let unknown = row_of(log(vec![signature("Other()")], "0x00ff"));
    assert_eq!((unknown.kind, unknown.data.get("decoded")), ("Unknown", None));
    assert_eq!(unknown.data["data"], "0x00ff");
    let anonymous = row_of(log(vec![], "0x"));
    assert_eq!((anonymous.kind, anonymous.signature), ("Unknown", None));
}

#[test]
fn of_a_blocks_steps_the_newest_counts_and_of_its_adoptions_the_earliest_dates_the_events() {
    let paid = || vec![distributed((0, 0), RECEIVER, 1, "")];
    let steps = [adopted(3, 30, paid()), undone(2), adopted(1, 10, paid())];
    let (blocks, events) = sorted(&steps.iter().collect::<Vec<_>>());
    assert_eq!(blocks.into_values().collect::<Vec<_>>(), [(3, true)]);
    assert_eq!(events.into_values().map(|row| row.created_at).collect::<Vec<_>>(), [Micros(10).to_utc()]);
    let (blocks, _) = sorted(&steps[1..].iter().collect::<Vec<_>>());
    assert_eq!(blocks.into_values().collect::<Vec<_>>(), [(2, false)]);
}

#[test]
fn a_reward_is_found_anywhere_in_a_text_and_only_a_whole_id_is_one() {
    assert_eq!(reward_id(&format!("\u{20ac}{REWARD}\u{20ac}")), Uuid::try_parse(REWARD).ok());
    assert_eq!(reward_id(&REWARD[1..]), None);
    assert_eq!(reward_id(""), None);
}

proptest! {
    #[test]
    fn any_log_makes_a_row_and_none_a_panic(
        address: String, topics in prop::collection::vec(any::<String>(), 0..5), data: String, text: String,
    ) {
        let row = row_of(ChainLog { clause_index: 0, log_index: 0, address, topics: topics.clone(), data, balance_after_wei: None });
        prop_assert_eq!(row.kind, "Unknown");
        prop_assert_eq!(row.signature.as_ref(), topics.first());
        reward_id(&text);
    }
}
