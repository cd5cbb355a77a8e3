use std::collections::BTreeMap;

use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::{BlockPlace, ChainLog, RewardGranted};
use schemas::ids::{EventId, Micros, RewardId, UploadId};

use super::super::rows::{Attempt, PaidClause};
use super::super::snapshot;
use super::*;

const POOL: &str = "0x6bee7ddab6c99d5b2af0554eaea484ce18f52631";
const SIGNER: &str = "0x435933c8064b4ae76be665428e0307ef2ccfbd68";
const TX: &str = "0x0101010101010101010101010101010101010101010101010101010101010101";

fn at(seconds: i64) -> DateTime<Utc> {
    Micros(1_772_438_400_000_000 + seconds * 1_000_000).to_utc()
}

/// The example of a whole grant, as reward `n`.
fn grant(n: u128) -> RewardGranted {
    let text = include_str!("../../../../schemas/examples/rewards.granted/normal-whole.json");
    let example: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut event: RewardGranted = serde_json::from_value(example["event"].clone()).unwrap();
    event.header.upload_id = UploadId(Uuid::from_u128(n));
    event.reward_id = RewardId::of(event.header.upload_id);
    event
}

fn payout(n: u128) -> Payout {
    granted(&grant(n), None, at(0)).unwrap().unwrap()
}

fn receiver(n: usize) -> String {
    format!("0x{:040x}", n + 1)
}

/// A signed transaction that pays `count` rewards.
pub(in crate::chain_submission) fn transaction(count: usize) -> Transaction {
    let payouts: Vec<Payout> = (0..count)
        .map(|n| Payout { state: PayoutState::InFlight, tx_id: Some(TX.into()), ..payout(n as u128) })
        .collect();
    let clauses = (0..).zip(&payouts).map(|(n, payout)| PaidClause {
        tx_id: TX.into(),
        clause_index: n,
        reward_id: payout.reward_id,
        attempt_no: 1,
        receiver: receiver(usize::try_from(n).unwrap()),
        amount_wei: payout.amount_wei,
        gas_weight: 140_000 + i64::from(n) * 1_000,
    });
    let attempt = Attempt {
        tx_id: TX.into(),
        genesis_id: "0x00".into(),
        signer: SIGNER.into(),
        gas_payer: SIGNER.into(),
        contract: POOL.into(),
        app_id: format!("0x{}", "0a".repeat(32)),
        method: "distributeRewardWithProof".into(),
        batch_id: "0x02".into(),
        block_ref: "0x0000000500000000".into(),
        expiration: 180,
        last_valid: 185,
        nonce: 7.into(),
        gas_limit: 500_000,
        estimated_gas: 400_000,
        max_fee_wei: 21_000_000_000_000_i64.into(),
        priority_wei: 1_000_000_000_000_i64.into(),
        strategy: "medium".into(),
        state: AttemptState::Signed,
        block_id: None,
        block_number: None,
        block_timestamp: None,
        reverted: None,
        gas_used: None,
        paid_wei: None,
        broadcast_count: 0,
        clause_count: i32::try_from(count).unwrap(),
        batch_wei: payouts.iter().map(|payout| payout.amount_wei).sum(),
        beneficiary_user: None,
        beneficiary_wallet: None,
        signed_at: at(1),
        sent_at: None,
        confirmations: 0,
        confirmed_at: None,
        finalized_at: None,
        error: None,
        history: Json(Vec::new()),
        revision: 0,
    };
    Transaction { attempt, clauses: clauses.collect(), payouts }
}

fn block(number: i64, branch: char) -> BlockAdopted {
    BlockAdopted {
        event_id: EventId(Uuid::nil()),
        occurred_at: at(number * 10).into(),
        seq: number,
        genesis_id: "0x00".into(),
        block: BlockPlace { id: format!("{number}{branch}"), number, timestamp: at(number * 10).into() },
        parent_id: format!("{}{branch}", number - 1),
        adoption: 1,
        finalized_number: 0,
        retold: false,
        transactions: Vec::new(),
    }
}

fn word(text: &str) -> String {
    format!("0x{:0>64}", text.strip_prefix("0x").unwrap())
}

/// The pool's log of a clause.
fn log(transaction: &Transaction, clause: usize) -> ChainLog {
    let clause = &transaction.clauses[clause];
    let proof = format!("{{\"proof\": {{\"text\":\"reward {}\"}}}}", clause.reward_id);
    let amount = wei(clause.amount_wei).unwrap().to_hex();
    // (uint256 amount, string proof): the amount, the string's offset, its length, its bytes padded to words.
    let mut data = word(&amount);
    data.push_str(&format!("{:064x}{:064x}", 64, proof.len()));
    let mut text = hex::encode(&proof);
    text.push_str(&"0".repeat((64 - text.len() % 64) % 64));
    data.push_str(&text);
    ChainLog {
        clause_index: clause.clause_index,
        log_index: clause.clause_index * 3,
        address: POOL.into(),
        topics: vec![
            chain::abi::topic::REWARD_DISTRIBUTED.to_string(),
            format!("0x{}", "0a".repeat(32)),
            word(&clause.receiver),
            word(SIGNER),
        ],
        data,
        balance_after_wei: None,
    }
}

fn found(transaction: &Transaction) -> ChainTransaction {
    ChainTransaction {
        id: TX.into(),
        index: 0,
        origin: SIGNER.into(),
        gas_payer: SIGNER.into(),
        gas_used: 333_333,
        paid_wei: "3499996500000000001".into(),
        reverted: false,
        logs: (0..transaction.clauses.len()).map(|clause| log(transaction, clause)).collect(),
    }
}

/// A transaction in block 10 of branch a.
fn included(count: usize) -> Transaction {
    let mut transaction = transaction(count);
    transaction.sent(at(2));
    let found = found(&transaction);
    assert_eq!(transaction.included(&block(10, 'a'), &found), Some(Change::Included));
    transaction
}

#[test]
fn a_claimed_grant_with_a_wallet_is_ready_and_one_of_nothing_is_no_payout() {
    let ready = payout(1);
    assert_eq!((ready.state, ready.ready_at, &ready.reason), (PayoutState::Ready, Some(at(0)), &None));
    assert_eq!(ready.amount_wei, "3244500000000000000".parse().unwrap());
    let nothing = RewardGranted { granted: Decimal::ZERO, ..grant(1) };
    assert_eq!(granted(&nothing, None, at(0)), Ok(None));
    for places in [9, 19] {
        let fine = RewardGranted { granted: Decimal::new(1, places), ..grant(1) };
        assert!(granted(&fine, None, at(0)).is_err(), "finer than the grid");
    }
}

#[test]
fn a_grant_without_claim_or_wallet_waits_and_the_claim_supplies_what_is_missing() {
    let mut event = grant(1);
    event.stamp.auto_claim = false;
    let mut waiting = granted(&event, None, at(0)).unwrap().unwrap();
    assert_eq!(waiting.state, PayoutState::Waiting);
    assert!(waiting.reason.as_deref().unwrap().starts_with("unclaimed: "));
    let claim = Claim { wallet_id: Uuid::from_u128(9), at: at(5) };
    assert!(waiting.claimed(claim, at(6)));
    assert_eq!((waiting.state, waiting.claimed_at, waiting.revision), (PayoutState::Ready, Some(at(5)), 1));
    assert_eq!(waiting.wallet_id, event.stamp.wallet_id, "the wallet stamped at acceptance stays");
    assert!(!waiting.claimed(claim, at(7)), "a second claim changes nothing");

    event.stamp.wallet_id = None;
    let early = granted(&event, Some(claim), at(0)).unwrap().unwrap();
    assert_eq!((early.state, early.wallet_id), (PayoutState::Ready, Some(claim.wallet_id)));
    event.stamp.auto_claim = true;
    let walletless = granted(&event, None, at(0)).unwrap().unwrap();
    assert!(walletless.reason.unwrap().starts_with("no_wallet: "));
}

#[test]
fn rewards_below_what_the_driver_wants_wait_until_they_come_to_it_together() {
    let small = |n, least: Option<i64>| {
        let mut event = grant(n);
        event.stamp.min_claim = least.map(Decimal::from);
        granted(&event, None, at(0)).unwrap().unwrap()
    };
    // Each is 3.2445 B3TR.
    let (mut first, mut second, mut third) = (small(1, Some(7)), small(2, Some(7)), small(3, Some(7)));
    assert!(!gathered(&mut first, &mut [], at(1)));
    assert_eq!((first.state, first.claimed_at), (PayoutState::Waiting, None));
    assert!(first.reason.as_deref().unwrap().starts_with("below_min_claim: "));
    let mut waiting = [first];
    assert!(!gathered(&mut second, &mut waiting, at(2)));
    let [first] = waiting;
    let mut waiting = [first, second];
    assert!(gathered(&mut third, &mut waiting, at(3)), "9.7335 B3TR are 7");
    for payout in waiting.iter().chain([&third]) {
        assert_eq!((payout.state, payout.ready_at, &payout.reason), (PayoutState::Ready, Some(at(3)), &None));
        assert!(payout.claimed_at.is_some());
    }
    assert_eq!(waiting.map(|payout| payout.revision), [1, 1]);
    assert_eq!(third.revision, 0);

    // One that comes to it alone is claimed at once, and takes what waits along, as does one of somebody who wants nothing to wait.
    for least in [Some(3), None] {
        let (mut newest, mut waiting) = (small(4, least), [small(5, Some(1_000_000))]);
        assert_eq!(newest.state, PayoutState::Ready);
        assert!(gathered(&mut newest, &mut waiting, at(4)));
        assert_eq!(waiting[0].state, PayoutState::Ready);
    }

    // By hand it is claimed whatever it comes to, also before it is granted.
    let claim = Claim { wallet_id: Uuid::from_u128(9), at: at(5) };
    let mut by_hand = small(6, Some(7));
    assert!(by_hand.claimed(claim, at(6)));
    assert_eq!(by_hand.state, PayoutState::Ready);
    let mut event = grant(7);
    event.stamp.min_claim = Some(Decimal::from(7));
    assert_eq!(granted(&event, Some(claim), at(6)).unwrap().unwrap().state, PayoutState::Ready);

    // What is claimed by hand alone gathers nothing.
    event.stamp.auto_claim = false;
    let mut manual = granted(&event, None, at(7)).unwrap().unwrap();
    assert!(manual.reason.as_deref().unwrap().starts_with("unclaimed: "));
    let mut waiting = [small(8, Some(1))];
    assert!(!gathered(&mut manual, &mut waiting, at(8)));
}

#[test]
fn the_twelfth_block_on_top_makes_a_payment_paid_and_a_final_block_makes_it_final() {
    let mut transaction = included(2);
    for head in 11..22 {
        assert_eq!(transaction.deeper(head, at(head * 10)), Some(Change::Deeper), "{head}");
        assert!(transaction.payouts.iter().all(|payout| payout.state == PayoutState::InFlight));
    }
    assert_eq!(transaction.deeper(22, at(220)), Some(Change::Confirmed));
    assert!(transaction.payouts.iter().all(|payout| payout.state == PayoutState::Paid));
    assert!(transaction.payouts.iter().all(|payout| payout.paid_at == Some(at(220))));
    assert_eq!(transaction.deeper(23, at(230)), None);
    assert_eq!(transaction.finalized(9, at(230)), None);
    assert_eq!(transaction.finalized(10, at(230)), Some(Change::Final));
    assert!(transaction.payouts.iter().all(|payout| payout.state == PayoutState::Final));
}

#[test]
fn a_final_block_that_is_undone_is_an_incident_and_takes_nothing_back() {
    let mut transaction = included(1);
    transaction.deeper(22, at(220));
    transaction.finalized(10, at(230));
    assert_eq!(transaction.undone("10a", at(240)), Some(Change::Incident));
    assert_eq!(transaction.attempt.state, AttemptState::Final);
    assert_eq!(transaction.payouts[0].state, PayoutState::Final);
    assert!(transaction.attempt.error.as_deref().unwrap().starts_with("incident: block 10a was final"));
    assert_eq!(transaction.undone("10a", at(250)), None, "it is told once");
}

#[test]
fn a_dead_transaction_frees_its_rewards_and_its_inclusion_afterwards_is_an_incident() {
    let mut transaction = transaction(2);
    transaction.sent(at(2));
    transaction.expired(at(3));
    assert_eq!(transaction.dead(at(4)), Some(Change::Dead));
    assert_eq!(transaction.dead(at(5)), None);
    for payout in &transaction.payouts {
        assert_eq!((payout.state, payout.ready_at, &payout.reason), (PayoutState::Ready, Some(at(4)), &None));
    }
    let late = found(&transaction);
    assert_eq!(transaction.included(&block(180, 'a'), &late), Some(Change::Incident));
    assert_eq!(transaction.attempt.state, AttemptState::Stray);
    let waits = |payout: &Payout| payout.state == PayoutState::Quarantined && payout.ready_at.is_none();
    assert!(transaction.payouts.iter().all(waits), "neither taken for paid nor paid again");
    assert_eq!(included(1).dead(at(5)), None, "what is in a block is not dead");
}

/// A transaction of `count` rewards that is reverted for good.
fn reverted_for_good(count: usize) -> Transaction {
    let mut transaction = transaction(count);
    transaction.sent(at(2));
    let reverted = ChainTransaction { reverted: true, logs: Vec::new(), ..found(&transaction) };
    transaction.included(&block(10, 'a'), &reverted);
    assert_eq!(transaction.replanned(None, at(20)), None, "another branch may hold it");
    transaction.deeper(22, at(220));
    assert_eq!(transaction.replanned(None, at(220)), None, "it may still be undone");
    transaction.finalized(10, at(230));
    transaction
}

#[test]
fn of_a_final_revert_the_culprit_is_quarantined_in_the_contracts_words_and_the_others_are_ready_again() {
    let mut transaction = reverted_for_good(3);
    let refusal = Refusal::decode(&[], "it does not like this one");
    assert_eq!(transaction.replanned(Some((1, &refusal)), at(240)), Some(Change::Replanned));
    let states: Vec<PayoutState> = transaction.payouts.iter().map(|payout| payout.state).collect();
    assert_eq!(states, [PayoutState::Ready, PayoutState::Quarantined, PayoutState::Ready]);
    let reason = transaction.payouts[1].reason.as_deref();
    assert_eq!(reason, Some("poisoned_clause: it does not like this one"));
    assert!(transaction.payouts.iter().all(|payout| payout.splits == 0 && payout.strikes == 0));
}

#[test]
fn final_reverts_without_a_culprit_split_the_batch_and_one_that_fails_alone_again_and_again_is_quarantined() {
    let mut several = reverted_for_good(2);
    several.replanned(None, at(240));
    assert!(several.payouts.iter().all(|payout| payout.state == PayoutState::Ready && payout.splits == 1));
    let mut alone = reverted_for_good(1);
    for strikes in 1..=3 {
        alone.replanned(None, at(240));
        assert_eq!((alone.payouts[0].state, alone.payouts[0].strikes), (PayoutState::Ready, strikes));
        alone.payouts[0].state = PayoutState::InFlight;
    }
    alone.replanned(None, at(240));
    assert_eq!(alone.payouts[0].state, PayoutState::Quarantined);
}

#[test]
fn an_incident_in_a_final_block_ends_and_its_rewards_wait_for_a_person() {
    let mut transaction = transaction(1);
    let mut listed = found(&transaction);
    listed.logs.clear();
    transaction.included(&block(10, 'a'), &listed);
    assert_eq!(transaction.deeper(22, at(220)), Some(Change::Incident));
    assert_eq!(transaction.finalized(10, at(230)), Some(Change::Final));
    assert_eq!(transaction.attempt.state, AttemptState::Stray);
    assert_eq!(transaction.payouts[0].state, PayoutState::Quarantined);
    assert!(transaction.payouts[0].reason.as_deref().unwrap().starts_with("incident: "));
}

#[test]
fn an_undone_block_takes_everything_back_and_the_same_bytes_may_count_on_another_branch() {
    let mut transaction = included(1);
    transaction.deeper(22, at(220));
    assert_eq!(transaction.undone("11a", at(230)), None, "another block's undoing is not its own");
    assert_eq!(transaction.undone("10a", at(230)), Some(Change::Undone));
    let attempt = &transaction.attempt;
    assert_eq!(
        (attempt.state, &attempt.block_id, attempt.gas_used, attempt.confirmations),
        (AttemptState::Sent, &None, None, 0)
    );
    assert_eq!((transaction.payouts[0].state, transaction.payouts[0].paid_at), (PayoutState::InFlight, None));
    let again = found(&transaction);
    assert_eq!(transaction.included(&block(12, 'b'), &again), Some(Change::Included));
    assert_eq!(transaction.deeper(24, at(240)), Some(Change::Confirmed));
}

#[test]
fn a_reverted_transaction_pays_nothing_and_stays_pending_with_its_reason() {
    let mut transaction = transaction(2);
    let reverted = ChainTransaction { reverted: true, logs: Vec::new(), ..found(&transaction) };
    transaction.included(&block(10, 'a'), &reverted);
    assert_eq!(transaction.deeper(22, at(220)), Some(Change::Reverted));
    assert_eq!(transaction.attempt.state, AttemptState::Reverted);
    for payout in &transaction.payouts {
        assert_eq!(payout.state, PayoutState::InFlight);
        assert!(payout.reason.as_deref().unwrap().starts_with("reverted: "));
    }
    assert_eq!(transaction.finalized(10, at(230)), Some(Change::Final));
    assert_eq!(transaction.attempt.state, AttemptState::RevertedFinal);
}

#[test]
fn a_transaction_that_paid_otherwise_than_planned_is_never_confirmed() {
    type Tamper = fn(&mut ChainTransaction);
    let tampers: [Tamper; 7] = [
        |found| found.origin = receiver(7),
        |found| found.logs.truncate(1),
        |found| found.logs[1].topics[2] = word(&receiver(7)),
        |found| found.logs[0].data.replace_range(60..66, "ffffff"),
        |found| found.logs[0].address = receiver(7),
        |found| found.logs[1].clause_index = 0,
        |found| found.logs[1].data = "no hex".into(),
    ];
    for (n, tamper) in tampers.into_iter().enumerate() {
        let mut transaction = transaction(2);
        let mut listed = found(&transaction);
        tamper(&mut listed);
        transaction.included(&block(10, 'a'), &listed);
        assert_eq!(transaction.deeper(22, at(220)), Some(Change::Incident), "tamper {n}");
        assert_eq!(transaction.attempt.state, AttemptState::Included);
        assert!(transaction.payouts.iter().all(|payout| payout.state == PayoutState::InFlight), "tamper {n}");
        assert!(transaction.attempt.error.as_deref().unwrap().starts_with("incident: "));
    }
}

#[test]
fn an_expired_transaction_stays_pending_until_it_is_seen_after_all() {
    let mut transaction = transaction(1);
    transaction.sent(at(2));
    assert_eq!(transaction.expired(at(3)), Some(Change::Expired));
    assert_eq!(transaction.expired(at(4)), None);
    assert!(transaction.payouts[0].reason.as_deref().unwrap().starts_with("expired at 185"));
    let late = found(&transaction);
    assert_eq!(transaction.included(&block(180, 'a'), &late), Some(Change::Included));
    assert_eq!((&transaction.attempt.error, &transaction.payouts[0].reason), (&None, &None));
}

#[test]
fn the_snapshot_of_a_clause_carries_its_share_and_the_shares_sum_to_the_whole() {
    let transaction = included(3);
    let snapshots: Vec<_> = (0..3)
        .map(|clause| {
            snapshot::updated(&transaction.payouts[clause], Some((&transaction, clause)), Micros(0))
                .transaction
                .unwrap()
        })
        .collect();
    let gas: i64 = snapshots.iter().map(|snapshot| snapshot.reward_gas_used.unwrap()).sum();
    let fee: Decimal = snapshots.iter().map(|snapshot| snapshot.reward_fee.unwrap()).sum();
    assert_eq!(gas, 333_333);
    assert_eq!(fee, "3.49999650".parse().unwrap());
    assert_eq!(snapshots[0].batch_amount, "9.7335".parse().unwrap());
    // 3499996500000000001 / 333333, cut.
    assert_eq!(snapshots[0].gas_price_wei.as_deref(), Some("10500000000000"));
}

/// What can happen to a transaction.
#[derive(Clone, Copy, Debug)]
enum Event {
    Sent,
    Include,
    Grow,
    Undo,
    Finalize,
    Expire,
    Die,
    Replan,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Sent),
        1 => Just(Event::Include),
        6 => Just(Event::Grow),
        1 => Just(Event::Undo),
        1 => Just(Event::Finalize),
        1 => Just(Event::Expire),
        1 => Just(Event::Die),
        1 => Just(Event::Replan)
    ]
}

proptest! {
    #[test]
    fn whatever_happens_a_payout_is_paid_exactly_while_its_block_has_twelve_on_top_and_revisions_only_rise(
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut transaction = transaction(2);
        let (mut head, mut revisions) = (10_i64, BTreeMap::<(usize, i64), PayoutState>::new());
        for event in events {
            let before: Vec<i64> = transaction.payouts.iter().map(|payout| payout.revision).collect();
            let change = match event {
                Event::Sent => transaction.sent(at(head)),
                Event::Include => {
                    let found = found(&transaction);
                    transaction.included(&block(head, 'a'), &found)
                }
                Event::Grow => {
                    head += 1;
                    transaction.deeper(head, at(head))
                }
                Event::Undo => {
                    let id = transaction.attempt.block_id.clone().unwrap_or_default();
                    let undone = transaction.undone(&id, at(head));
                    if undone == Some(Change::Undone) {
                        head -= 1;
                    }
                    undone
                }
                Event::Finalize => transaction.finalized(head - 12, at(head)),
                Event::Expire => transaction.expired(at(head)),
                Event::Die => transaction.dead(at(head)),
                Event::Replan => transaction.replanned(None, at(head)),
            };
            for (n, payout) in transaction.payouts.iter().enumerate() {
                prop_assert_eq!(payout.revision, before[n] + i64::from(change.is_some()));
                if change.is_some() {
                    prop_assert_eq!(revisions.insert((n, payout.revision), payout.state), None);
                }
                let settled = matches!(payout.state, PayoutState::Paid | PayoutState::Final);
                let decided = matches!(transaction.attempt.state, AttemptState::Confirmed | AttemptState::Final);
                prop_assert_eq!(settled, decided);
                prop_assert_eq!(settled, payout.paid_at.is_some());
                prop_assert!(!settled || transaction.attempt.confirmations == 12);
            }
        }
    }

    #[test]
    fn the_shares_of_any_total_sum_to_it_and_none_is_negative(
        total in 0_u128..1 << 60, weights in prop::collection::vec(1_i64..1 << 26, 1..41),
    ) {
        let shares: Vec<u128> = (0..weights.len()).map(|at| share(total, &weights, at)).collect();
        prop_assert_eq!(shares.iter().sum::<u128>(), total);
    }
}
