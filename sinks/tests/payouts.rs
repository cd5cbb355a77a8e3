//! Payments and the chain's events on PostgreSQL.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use runtime::{Sink as _, SinkError};
use rust_decimal::Decimal;
use schemas::events::{Adjustment, PayoutState, PayoutUpdated, RewardCalculated, RewardGranted};
use schemas::ids::{Micros, natural};
use schemas::payouts::transaction_row_id;
use serde_json::{Value, json};
use sinks::postgres::UploadEvent;

use crate::logs::{POOL, SIGNER};
use crate::payments::{
    FEE_WEI, FINAL, GAS, GENESIS, PAID_ON_A, PAID_ON_B, Payment, UNDONE, ready, sink, write,
};
use crate::stories::Story;
use crate::support::{Schema, envelopes};

fn one() -> Payment {
    Payment::of([Story::new(1, 1)])
}

/// Three rewards of two drivers in one transaction.
fn three() -> Payment {
    Payment::of([Story::new(1, 1), Story::new(1, 2), Story::new(2, 1)])
}

/// A column of a table's rows, in the rows' order.
async fn column(schema: &Schema, table: &str, name: &str) -> Vec<Value> {
    schema.rows(table).await.as_array().unwrap().iter().map(|row| row[name].clone()).collect()
}

#[tokio::test]
async fn every_column_of_a_payment_is_filled_as_the_lineage_says() {
    let payment = one();
    let (schema, sink) = ready(&payment).await;
    write(&sink, payment.events(FINAL)).await;
    let (reward, user, receiver) =
        (payment.reward(0), payment.stories[0].header.user_id, payment.wallet(0).1);
    let row = &schema.rows("rewards").await[0];
    assert_eq!((&row["status"], &row["status_reason"]), (&json!("distributed"), &Value::Null));
    assert_eq!((&row["distributed_at"], &row["revision"]), (&json!("2024-01-02T00:01:48+00:00"), &json!(11)));
    assert_eq!((&row["total_amount"], &row["base_amount"]), (&json!(0.168945), &json!(0.1609)));
    assert_eq!(row["updated_at"], "2024-01-02T00:01:49+00:00");
    let block = Payment::block('b');
    let paid = json!({
        "id": natural(&format!("{reward}/{}", payment.tx_id())), "reward_id": reward, "user_id": user,
        "blockchain_tx_hash": payment.tx_id(), "blockchain_network": "vechain_testnet", "contract_address": POOL,
        "from_address": SIGNER, "to_address": receiver, "amount": 0.168945, "gas_used": GAS,
        "gas_price": 0.0000105, "transaction_fee": 0.6405315, "block_number": 100, "confirmation_count": 12,
        "status": "confirmed", "error_message": null, "retry_count": 0, "max_retries": 3,
        "created_at": "2024-01-02T00:01:42+00:00", "confirmed_at": "2024-01-02T00:01:48+00:00", "clause_index": 0,
        "attempt_no": 1, "amount_wei": 168_945_000_000_000_000_u64, "block_id": block.id, "revision": 8,
    });
    assert_eq!(schema.rows("reward_transactions").await, json!([paid]));
    let transaction = json!({
        "id": transaction_row_id(GENESIS, &payment.tx_id()), "user_id": user,
        "transaction_type": "reward_distribution", "tx_hash": payment.tx_id(),
        "blockchain_network": "vechain_testnet", "from_address": SIGNER, "to_address": receiver,
        "amount": 0.168945, "gas_used": GAS, "gas_price": 0.0000105, "transaction_fee": 0.6405315,
        "block_number": 100, "block_timestamp": "2024-01-01T00:16:40+00:00", "confirmation_count": 12,
        "required_confirmations": 12, "status": "confirmed", "error_message": null, "retry_count": 0,
        "max_retries": 3, "created_at": "2024-01-02T00:01:42+00:00", "confirmed_at": "2024-01-02T00:01:48+00:00",
        "genesis_id": GENESIS, "block_id": block.id, "clause_count": 1, "gas_payer": SIGNER,
        "gas_price_wei": 10_500_000_000_000_u64, "fee_wei": u64::try_from(FEE_WEI).unwrap(),
        "attempt_state": "final", "broadcast_count": 4, "finalized_at": "2024-01-02T00:01:49+00:00", "revision": 8,
    });
    assert_eq!(schema.rows("blockchain_transactions").await, json!([transaction]));
    assert_eq!(schema.rows("users").await[0]["total_rewards"], json!(0.168945));
    schema.drop().await;
}

#[tokio::test]
async fn every_column_of_a_log_is_filled_as_the_lineage_says() {
    let payment = one();
    let (schema, sink) = ready(&payment).await;
    write(&sink, payment.events(FINAL)).await;
    write(&sink, payment.chain()).await;
    let rows = schema.rows("blockchain_events").await;
    let block = Payment::block('b');
    let id = natural(&format!("{GENESIS}:{}:{}:0:4", block.id, payment.tx_id()));
    let mut row = rows.as_array().unwrap().iter().find(|row| row["block_id"] == block.id).unwrap().clone();
    let data = row["event_data"].take();
    let expected = json!({
        "id": id, "contract_address": POOL, "event_type": "RewardDistributed",
        "event_signature": chain::abi::topic::REWARD_DISTRIBUTED.to_string(), "block_number": 100,
        "block_timestamp": "2024-01-01T00:16:40+00:00", "tx_hash": payment.tx_id(), "log_index": 4,
        "event_data": null, "processed": true, "processed_at": "2024-01-02T00:01:48+00:00",
        "created_at": "2024-01-01T00:33:25+00:00", "genesis_id": GENESIS, "block_id": block.id,
        "clause_index": 0, "canonical": true,
    });
    assert_eq!(row, expected);
    assert_eq!(data["decoded"]["reward_id"], payment.reward(0).to_string());
    assert_eq!(data["decoded"]["amount_wei"], "168945000000000000");
    assert_eq!(data["topics"].as_array().unwrap().len(), 4);
    schema.drop().await;
}

#[tokio::test]
async fn the_shares_of_a_transactions_rewards_sum_to_its_gas_and_fee_and_amounts_to_its_amount() {
    let payment = three();
    let (schema, sink) = ready(&payment).await;
    write(&sink, payment.events(PAID_ON_A)).await;
    let sums: (i64, Decimal, Decimal, Decimal, Decimal) = sqlx::query_as(
        "select sum(gas_used)::bigint, sum(transaction_fee), sum(amount), sum(amount_wei),
            (select gas_used * gas_price_wei + 123 - fee_wei from blockchain_transactions) from reward_transactions",
    )
    .fetch_one(&schema.pool)
    .await
    .unwrap();
    let (fee, amount) = (Decimal::new(64_053_150, 8), Decimal::new(506_835, 6));
    let wei = Decimal::from(506_835_000_000_000_000_u64);
    assert_eq!(sums, (GAS, fee, amount, wei, Decimal::ZERO));
    let transaction = &schema.rows("blockchain_transactions").await[0];
    assert_eq!(
        (&transaction["amount"], &transaction["transaction_fee"]),
        (&json!(0.506835), &json!(0.6405315))
    );
    // Two drivers: no user and the called contract.
    assert_eq!((&transaction["user_id"], &transaction["to_address"]), (&Value::Null, &json!(POOL)));
    // The greatest of its rewards'.
    assert_eq!(transaction["retry_count"], 2);
    schema.drop().await;
}

#[tokio::test]
async fn an_undone_block_takes_status_block_gas_fee_and_confirmation_back() {
    let payment = one();
    let (schema, sink) = ready(&payment).await;
    write(&sink, payment.events(PAID_ON_A)).await;
    assert_eq!(schema.rows("rewards").await[0]["status"], "distributed");
    write(&sink, [payment.payout(0, UNDONE)]).await;
    let reward = &schema.rows("rewards").await[0];
    assert_eq!((&reward["status"], &reward["distributed_at"]), (&json!("pending"), &Value::Null));
    for table in ["reward_transactions", "blockchain_transactions"] {
        let row = &schema.rows(table).await[0];
        assert_eq!((&row["status"], &row["confirmation_count"]), (&json!("pending"), &json!(0)), "{table}");
        for name in ["block_number", "block_id", "gas_used", "gas_price", "transaction_fee", "confirmed_at"] {
            assert_eq!(row[name], Value::Null, "{table}.{name}");
        }
    }
    let row = &schema.rows("blockchain_transactions").await[0];
    assert_eq!((&row["block_timestamp"], &row["fee_wei"]), (&Value::Null, &Value::Null));
    assert_eq!(schema.rows("users").await[0]["total_rewards"], json!(0.168945), "still owed");
    schema.drop().await;
}

#[tokio::test]
async fn an_older_revision_changes_nothing() {
    let payment = three();
    let (schema, sink) = ready(&payment).await;
    write(&sink, payment.events(FINAL)).await;
    write(&sink, payment.chain()).await;
    let newest = schema.dump().await;
    for older in 0..=FINAL {
        write(&sink, (0..3).map(|clause| payment.payout(clause, older))).await;
        assert_eq!(schema.dump().await, newest, "revision {older}");
    }
    for step in payment.chain() {
        write(&sink, [step]).await;
        assert_eq!(schema.dump().await, newest);
    }
    schema.drop().await;
}

#[tokio::test]
async fn a_payout_before_its_reward_makes_the_parents_and_the_total_is_owed_once() {
    let payment = one();
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    write(&sink, [payment.payout(0, PAID_ON_B)]).await;
    let reward = &schema.rows("rewards").await[0];
    assert_eq!((&reward["base_amount"], &reward["total_amount"]), (&Value::Null, &json!(0.168945)));
    assert_eq!(schema.rows("users").await[0]["total_rewards"], json!(0.168945));
    // The wallet's address is not known here: left out, rather than wrong.
    assert_eq!(column(&schema, "blockchain_transactions", "to_address").await, [Value::Null]);
    write(&sink, payment.events(FINAL)).await;
    assert_eq!(schema.rows("users").await[0]["total_rewards"], json!(0.168945));
    assert_eq!(schema.rows("rewards").await[0]["base_amount"], json!(0.1609));
    schema.drop().await;
}

#[tokio::test]
async fn a_cancelled_payout_is_owed_no_more_and_a_quarantined_one_still_is() {
    let payment = three();
    let (schema, sink) = ready(&payment).await;
    write(&sink, payment.events(0)).await;
    let ends = [payment.ended(0, PayoutState::Cancelled), payment.ended(1, PayoutState::Quarantined)];
    for _ in 0..2 {
        write(&sink, ends.clone()).await;
        let totals = column(&schema, "users", "total_rewards").await;
        assert_eq!(totals, [json!(0.168945), json!(0.168945)]);
    }
    let mut statuses: Vec<String> =
        column(&schema, "rewards", "status").await.iter().map(ToString::to_string).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [r#""calculated""#, r#""cancelled""#, r#""failed""#]);
    schema.drop().await;
}

#[tokio::test]
async fn a_cut_that_a_driver_was_told_of_stays_told_whatever_the_payout_says() {
    let payment = one();
    let [calculated, cut, waiting, ready_to_pay] = payment.cut().try_into().unwrap();
    let orders = [
        vec![calculated.clone(), cut.clone(), waiting.clone(), ready_to_pay.clone()],
        vec![waiting.clone(), ready_to_pay.clone(), calculated.clone(), cut.clone()],
        vec![waiting, cut, ready_to_pay, calculated],
    ];
    for events in orders {
        let (schema, sink) = ready(&payment).await;
        for event in events {
            write(&sink, [event]).await;
        }
        let reward = &schema.rows("rewards").await[0];
        assert_eq!(
            (&reward["status_reason"], &reward["revision"]),
            (&json!("over_limit: a sentence"), &json!(3))
        );
        schema.drop().await;
    }
    let (schema, sink) = ready(&payment).await;
    write(&sink, payment.cut().into_iter().take(3)).await;
    let told = json!("unclaimed: a sentence; over_limit: a sentence");
    assert_eq!(column(&schema, "rewards", "status_reason").await, [told]);
    schema.drop().await;
}

#[tokio::test]
async fn what_the_release_before_wrote_of_a_cut_stays_told_too() {
    let payment = one();
    let (schema, sink) = ready(&payment).await;
    write(&sink, payment.cut().into_iter().take(2)).await;
    // That release knows no such column.
    sqlx::query("update rewards set grant_reason = null").execute(&schema.pool).await.unwrap();
    write(&sink, payment.cut().into_iter().skip(2)).await;
    assert_eq!(column(&schema, "rewards", "status_reason").await, [json!("over_limit: a sentence")]);
    schema.drop().await;
}

#[tokio::test]
async fn a_claim_leaves_no_row() {
    let payment = one();
    let schema = Schema::new().await;
    let empty = schema.dump().await;
    write(&sink(&schema).await, [payment.claimed(0)]).await;
    assert_eq!(schema.dump().await, empty);
    schema.drop().await;
}

#[tokio::test]
async fn events_of_a_block_that_was_undone_before_they_came_do_not_count_until_it_is_adopted_again() {
    let payment = one();
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let canonical = async || column(&schema, "blockchain_events", "canonical").await;
    write(&sink, [Payment::undone(2, 'a', 1)]).await;
    write(&sink, [payment.adopted(1, 'a', 1)]).await;
    assert_eq!(canonical().await, [json!(false)]);
    write(&sink, [payment.adopted(3, 'a', 2)]).await;
    assert_eq!(canonical().await, [json!(true)]);
    write(&sink, [Payment::undone(2, 'a', 1)]).await;
    assert_eq!(canonical().await, [json!(true)]);
    assert_eq!(
        column(&schema, "blockchain_events", "created_at").await,
        [json!("2024-01-01T00:33:21+00:00")],
        "the first adoption's"
    );
    schema.drop().await;
}

#[tokio::test]
async fn an_event_is_processed_once_its_payment_is_confirmed_in_its_block_whichever_topic_is_first() {
    let payment = one();
    for chain_first in [true, false] {
        let (schema, sink) = ready(&payment).await;
        let processed = async || {
            let rows = schema.rows("blockchain_events").await;
            (rows[0]["processed"].clone(), rows[0]["processed_at"].clone())
        };
        let (adopted, paid) = ([payment.adopted(1, 'a', 1)], payment.events(PAID_ON_A));
        if chain_first {
            write(&sink, adopted).await;
            assert_eq!(processed().await, (json!(false), Value::Null));
            write(&sink, payment.events(PAID_ON_A - 1)).await;
            assert_eq!(processed().await, (json!(false), Value::Null), "included only");
            write(&sink, paid).await;
        } else {
            write(&sink, paid).await;
            write(&sink, adopted).await;
        }
        assert_eq!(processed().await, (json!(true), json!("2024-01-02T00:01:45+00:00")));
        write(&sink, [payment.payout(0, UNDONE)]).await;
        assert_eq!(processed().await, (json!(false), Value::Null));
        // Confirmed again, but on the other branch.
        write(&sink, [payment.payout(0, PAID_ON_B)]).await;
        assert_eq!(processed().await, (json!(false), Value::Null));
        schema.drop().await;
    }
}

#[tokio::test]
async fn a_step_with_a_height_that_does_not_fit_is_a_bad_row_and_leaves_nothing() {
    let payment = one();
    let schema = Schema::new().await;
    let UploadEvent::Chain(step) = payment.adopted(1, 'a', 1) else { panic!("a step") };
    let schemas::events::ChainStep::Adopted(mut block) = *step else { panic!("a block") };
    block.block.number = 1 << 31;
    let step = UploadEvent::Chain(Box::new(schemas::events::ChainStep::Adopted(block)));
    let refused = sink(&schema).await.write(&envelopes([step])).await;
    assert!(matches!(refused, Err(SinkError::BadRow(_))), "{refused:?}");
    assert_eq!(schema.rows("chain_blocks").await, json!([]));
    schema.drop().await;
}

#[test]
fn any_order_and_repetition_of_a_payments_events_gives_the_same_rows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let schema = runtime.block_on(Schema::new());
    let payments = prop_oneof![Just(one()), Just(three())];
    // Up to all in one batch.
    let batches = prop_oneof![1_usize..9, Just(usize::MAX)];
    // Mostly where something is confirmed or undone.
    let last = prop_oneof![Just(PAID_ON_A), Just(UNDONE), Just(FINAL), 0..=FINAL];
    let steps = prop_oneof![Just(1_usize), Just(5), 0_usize..=5];
    let cases = (payments, last, steps, batches);
    let orders = cases.prop_flat_map(|(payment, last, steps, batch)| {
        let mut events = payment.events(last);
        events.extend(payment.chain().into_iter().take(steps));
        // Another reward of the first driver, which is cancelled, and one that a person must look at.
        let others = Payment::of([Story::new(1, 5), Story::new(1, 6)]);
        events.extend(others.events(0));
        events.push(others.ended(0, PayoutState::Cancelled));
        events.push(others.ended(1, PayoutState::Quarantined));
        // One that its grant has cut.
        events.extend(Payment::of([Story::new(2, 7)]).cut());
        let repeated = proptest::sample::subsequence(events.clone(), 0..=events.len());
        let shuffled = repeated.prop_flat_map({
            let events = events.clone();
            move |repeated| Just([events.clone(), repeated].concat()).prop_shuffle()
        });
        (Just(payment), Just(events), shuffled, Just(batch))
    });
    let config = ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&orders, |(payment, events, shuffled, batch)| {
            let (expected, found) = runtime.block_on(async {
                let sink = sink(&schema).await;
                schema.empty().await;
                payment.accounts(&schema).await;
                // One after the other, so that no batch hides an order.
                for event in events {
                    write(&sink, [event]).await;
                }
                let expected = schema.dump().await;
                schema.empty().await;
                payment.accounts(&schema).await;
                for batch in shuffled.chunks(batch) {
                    write(&sink, batch.to_vec()).await;
                }
                (expected, schema.dump().await)
            });
            prop_assert_eq!(expected, found);
            Ok(())
        })
        .unwrap();
    runtime.block_on(schema.drop());
}

#[tokio::test]
async fn an_adjusted_reward_is_owed_as_its_newest_payout_says_and_worked_out_as_its_newest_adjustment_says() {
    let payment = one();
    let cut = payment.cut();
    let [
        UploadEvent::Calculated(calculated),
        UploadEvent::Granted(granted),
        _,
        UploadEvent::Paid(ready_to_pay),
    ] = &cut[..]
    else {
        panic!("{cut:?}")
    };
    let adjusted = |number: i32, hundredths: i64| -> [UploadEvent; 3] {
        let amount = Decimal::new(hundredths, 2);
        let adjustment = Some(Adjustment {
            number,
            promotion: "march".to_owned(),
            calculated_before: calculated.total(),
            granted_before: granted.granted,
            granted: amount,
            detail: None,
            adjusted_at: Micros(7),
        });
        let (base, bonus, tariff_version) = (amount, Decimal::ZERO, format!("tariff {number}"));
        let again = RewardCalculated {
            base,
            bonus,
            tariff_version,
            adjustment: adjustment.clone(),
            ..calculated.clone()
        };
        let answer = RewardGranted {
            calculated: amount,
            granted: amount,
            reason: None,
            detail: None,
            adjustment,
            ..granted.clone()
        };
        let payout = PayoutUpdated {
            amount,
            revision: ready_to_pay.revision + i64::from(number),
            adjustment: Some(number),
            ..(**ready_to_pay).clone()
        };
        [UploadEvent::Calculated(again), UploadEvent::Granted(answer), UploadEvent::Paid(Box::new(payout))]
    };
    let [first, second] = [adjusted(1, 5), adjusted(2, 20)];
    let forth: Vec<UploadEvent> = cut.iter().cloned().chain(first).chain(second).collect();
    let back: Vec<UploadEvent> = forth.iter().rev().cloned().collect();
    let mixed: Vec<UploadEvent> = [6, 0, 9, 2, 4, 7, 1, 5, 3, 8].map(|at| forth[at].clone()).to_vec();
    for events in [forth, back, mixed] {
        let (schema, sink) = ready(&payment).await;
        for event in events.iter().chain(&events) {
            write(&sink, [event.clone()]).await;
        }
        let reward = &schema.rows("rewards").await[0];
        let row = ["granted_amount", "base_amount", "bonus_amount", "adjustment", "revision"]
            .map(|name| &reward[name]);
        assert_eq!(row, [&json!(0.2), &json!(0.2), &json!(0.0), &json!(2), &json!(5)]);
        assert_eq!(reward["calculation_factors"]["tariff_version"], "tariff 2");
        assert_eq!(column(&schema, "users", "total_rewards").await, [json!(0.2)]);
        schema.drop().await;
    }
}
