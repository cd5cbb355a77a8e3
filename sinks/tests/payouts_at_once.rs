//! Payments and the chain's events, written by several at once.

use runtime::{Sink as _, SinkError};
use serde_json::json;
use sinks::postgres::{UploadEvent, tables};
use sqlx::AssertSqlSafe;

use crate::payments::{FINAL, PAID_ON_B, Payment, ready, sink, write};
use crate::stories::Story;
use crate::support::{Schema, envelopes};

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_comes_while_its_payment_is_being_written_waits_and_is_processed() {
    let payment = Payment::of([Story::new(1, 1)]);
    let (schema, sink) = ready(&payment).await;
    let mut holder = schema.pool.begin().await.unwrap();
    // The payout has looked for events when it comes to the totals, and stands there uncommitted.
    sqlx::query("select 1 from users for no key update").execute(&mut *holder).await.unwrap();
    let paying = tokio::spawn({
        let (sink, paid) = (sink.clone(), payment.payout(0, PAID_ON_B));
        async move { write(&sink, [paid]).await }
    });
    schema.waiting(1).await;
    let mut adopting = tokio::spawn({
        let (sink, adopted) = (sink.clone(), payment.adopted(5, 'b', 1));
        async move { write(&sink, [adopted]).await }
    });
    tokio::select! {
        done = &mut adopting => panic!("the block did not wait: {done:?}"),
        () = schema.waiting(2) => {}
    }
    holder.rollback().await.unwrap();
    paying.await.unwrap();
    adopting.await.unwrap();
    assert_eq!(schema.rows("blockchain_events").await[0]["processed"], json!(true));
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emptying_waits_for_steps_in_flight_and_never_in_a_circle() {
    let payment = Payment::of([Story::new(1, 1)]);
    let (schema, sink) = ready(&payment).await;
    write(&sink, [payment.adopted(1, 'a', 1)]).await;
    let mut holder = schema.pool.begin().await.unwrap();
    sqlx::query("select 1 from blockchain_events for update").execute(&mut *holder).await.unwrap();
    let undoing = tokio::spawn({
        let sink = sink.clone();
        async move { sink.write(&envelopes([Payment::undone(2, 'a', 1)])).await }
    });
    schema.waiting(1).await;
    let emptying = tokio::spawn({
        let (pool, tables) = (schema.pool.clone(), tables().names().join(", "));
        async move { sqlx::query(AssertSqlSafe(format!("truncate {tables}"))).execute(&pool).await }
    });
    schema.waiting(2).await;
    holder.rollback().await.unwrap();
    undoing.await.unwrap().unwrap();
    emptying.await.unwrap().unwrap();
    assert_eq!(schema.rows("blockchain_events").await, json!([]));
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payouts_and_the_chain_written_at_once_leave_the_rows_of_one_after_the_other() {
    let payments: Vec<Payment> = (0..12)
        .map(|n| {
            Payment::of((0..3).map(|clause| Story::new(1 + (n + clause) % 5, i64::try_from(n).unwrap())))
        })
        .collect();
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    // All of them are in the same blocks: one step each lists every transaction.
    let steps: Vec<UploadEvent> = merged(&payments);
    let events: Vec<UploadEvent> = payments.iter().flat_map(|payment| payment.events(FINAL)).collect();
    let reversed = |events: &[UploadEvent]| events.iter().rev().cloned().collect::<Vec<_>>();
    let topics = [events.clone(), steps.clone(), reversed(&events), reversed(&steps)];
    let accounts = async || {
        for payment in &payments {
            payment.accounts(&schema).await;
        }
    };
    accounts().await;
    write(&sink, events.clone()).await;
    write(&sink, steps.clone()).await;
    let expected = schema.dump().await;
    assert_eq!(expected["blockchain_events"].as_array().unwrap().len(), 2 * 3 * 12);
    for _ in 0..4 {
        schema.empty().await;
        accounts().await;
        let writers = topics.iter().map(|events| {
            let (sink, batches) = (sink.clone(), events.chunks(11).map(<[_]>::to_vec).collect::<Vec<_>>());
            tokio::spawn(async move {
                for batch in batches {
                    let batch = envelopes(batch);
                    while let Err(error) = sink.write(&batch).await {
                        assert!(matches!(error, SinkError::Retry(_)), "{error}");
                        eprintln!("again: {error:?}");
                    }
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        assert_eq!(schema.dump().await, expected);
    }
    schema.drop().await;
}

/// The chain's story with every payment in its blocks, the logs numbered through each block.
fn merged(payments: &[Payment]) -> Vec<UploadEvent> {
    use schemas::events::ChainStep::Adopted;
    let mut steps = payments[0].chain();
    for (n, step) in steps.iter_mut().enumerate() {
        let UploadEvent::Chain(step) = step else { continue };
        let Adopted(block) = step.as_mut() else { continue };
        for payment in &payments[1..] {
            if let UploadEvent::Chain(other) = &payment.chain()[n]
                && let Adopted(other) = other.as_ref()
            {
                block.transactions.extend(other.transactions.clone());
            }
        }
        let logs = block.transactions.iter_mut().flat_map(|transaction| &mut transaction.logs);
        for (index, log) in (0..).zip(logs) {
            log.log_index = index;
        }
    }
    steps
}
