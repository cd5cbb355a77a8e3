//! Books that were lost, rebuilt from topics and chain.

use std::ops::ControlFlow;

use processors::chain_submission::ledger::publish::Publisher;
use processors::chain_submission::operate::{self, Order};
use processors::chain_submission::rebuild::{Rebuild, RebuildError, Topics};
use runtime::source::RawRecord;
use runtime::testing::record as encoded;
use schemas::codec;
use schemas::events::{Event as _, PayoutState, Stamp, UploadHeader};
use sqlx::types::Json;

use super::ends::Scripted;
use super::scripted::GENESIS;
use super::*;

/// The books.
const BOOKS: &str = "payouts, payout_attempts, payout_attempt_rewards, payout_budgets, payout_checkpoints, payout_incidents, \
    payout_heads, payout_blocks, submitter_leases, chain_cursors";

/// What the topics hold of these rewards and of the chain.
async fn topics(scripted: &Scripted, paid_by_topic: Uuid) -> Vec<RawRecord> {
    let pool = &scripted.world.database.pool;
    let granted: Vec<(Uuid, Json<UploadHeader>, Json<Stamp>, Decimal)> =
        sqlx::query_as("select reward_id, header, stamp, amount_wei from payouts")
            .fetch_all(pool)
            .await
            .unwrap();
    let mut records = Vec::new();
    for (reward, header, stamp, wei) in granted {
        let mut event = RewardGranted { header: header.0, stamp: stamp.0, ..example_grant() };
        event.reward_id = RewardId(reward);
        event.granted = wei / Decimal::from(1_000_000_000_000_000_000_i64);
        records.push(encoded(&event, 0).unwrap());
    }
    let told: Vec<Vec<u8>> =
        sqlx::query_scalar("select payload from outbox where topic = 'payouts.updated' order by id")
            .fetch_all(pool)
            .await
            .unwrap();
    for payload in told {
        let (id, datum) = codec::unframe(&payload).unwrap();
        let mut event: PayoutUpdated = codec::decode(PayoutUpdated::schema(), id, datum).unwrap();
        if event.reward_id.0 == paid_by_topic {
            event.state = PayoutState::Paid;
        }
        records.push(encoded(&event, 0).unwrap());
    }
    let chain = scripted.chain();
    let steps = (21..chain.blocks.len()).map(|number| encoded(&chain.adopted(number, GENESIS), 0).unwrap());
    records.extend(steps);
    records
}

/// The topics that hold these records.
fn reading(records: Vec<RawRecord>) -> Topics {
    Topics {
        each: Arc::new(move |topic, take| {
            for record in records.iter().filter(|record| &*record.position.topic == topic) {
                if let ControlFlow::Break(()) = take(record.clone()) {
                    break;
                }
            }
            Ok(())
        }),
        schemas: Arc::new(MemorySchemas),
        prefix: String::new(),
    }
}

/// Loses the books, and is refused before that and while an operator has paused payments.
async fn lose(scripted: &Scripted, rebuild: &Rebuild<'_>) {
    assert!(matches!(rebuild.run().await, Err(RebuildError::NotLost { payouts: 4, transactions: 1 })));
    scripted.world.sql(format!("truncate {BOOKS} cascade")).await;
    let pause = "insert into payout_pauses (genesis_id, reason) values ($1, 'an audit')";
    scripted.world.run(pause, &GENESIS.to_string()).await;
    assert!(
        matches!(rebuild.run().await, Err(RebuildError::Paused(_))),
        "it would go on behind the operator's back"
    );
    scripted.world.sql("delete from payout_pauses".into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_books_are_rebuilt_without_paying_what_was_paid_cancelled_or_is_called_paid() {
    let mut scripted = Scripted::new(1).await;
    let paid = scripted.world.grant(2, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "first");
    scripted.until_posted(1).await;
    signing.abort();
    scripted.chain().mine(false);
    scripted.chain().grow(13);
    scripted.deliver().await;
    scripted.until_state(paid, "paid").await;
    let cancelled = scripted.world.grant(1, wallet(0x12)).await;
    let unproven = scripted.world.grant(1, wallet(0x13)).await;
    let open = scripted.world.grant(1, wallet(0x14)).await;
    let pool = scripted.world.database.pool.clone();
    let now = SystemClock.now().to_utc();
    let publisher = Publisher { schemas: schemas(), gas_ceiling: 0 };
    let mut tx = pool.begin().await.unwrap();
    let order = Order::Cancel { settled: true };
    operate::carry_out(&mut tx, &publisher, cancelled, (&order, "a person says so"), now).await.unwrap();
    tx.commit().await.unwrap();
    let records = topics(&scripted, unproven).await;
    scripted.world.sql("delete from outbox".into()).await;
    let topics = reading(records);
    let terms = scripted.world.signing(SOLO_KEYS[1], "none", Arc::new(SystemClock)).settings.terms;
    let rebuild = Rebuild {
        pool: &pool,
        genesis: GENESIS,
        terms: &terms,
        topics: &topics,
        guard: &scripted.world.guard,
        schemas: schemas(),
        clock: Arc::new(SystemClock),
        metrics: PayoutMetrics::new().unwrap(),
        topics_whole: true,
    };
    lose(&scripted, &rebuild).await;

    let rebuilt = rebuild.run().await.unwrap();
    assert_eq!((rebuilt.transactions, rebuilt.unexplained, rebuilt.unproven), (1, 0, 1), "{rebuilt:?}");
    assert_eq!(rebuilt.signs_after, None);
    for (reward, state) in
        [(paid, "paid"), (cancelled, "cancelled"), (unproven, "quarantined"), (open, "ready")]
    {
        assert_eq!(scripted.world.state(reward).await.0, state);
    }
    let (_, reason) = scripted.world.state(unproven).await;
    assert!(reason.as_deref().unwrap().starts_with("unproven: it was paid"), "{reason:?}");
    let (seq, paused): (i64, i64) = sqlx::query_as(
        "select (select highest_seq from chain_cursors), (select count(*) from payout_pauses)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((seq, paused), (i64::try_from(scripted.chain().blocks.len() - 1).unwrap(), 0));
    assert!(scripted.chain().pool.is_empty(), "nothing is paid by it");

    let signing = scripted.world.submitter(SOLO_KEYS[1], "second");
    scripted.until_posted(1).await;
    assert_eq!(scripted.waiting_receivers(), [wallet(0x14)]);
    signing.abort();
    scripted.world.database.drop().await;
}
