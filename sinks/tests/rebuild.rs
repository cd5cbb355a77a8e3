//! The rebuild on Kafka, the registry and PostgreSQL.

use std::sync::Mutex;
use std::time::Duration;

use runtime::Sink as _;
use runtime::replay::ReplayError;
use schemas::events::{ChainStep, Verdict};
use schemas::reason::Reason;
use schemas::topic::Topic;
use sinks::postgres::{PostgresConfig, PostgresSink, UploadEvent, rebuild};
use sinks::rebuild::{Progress, RebuildError, TopicCount};

use crate::erased::erased;
use crate::models::deployments;
use crate::payments::{FINAL, Payment};
use crate::stories::Story;
use crate::support::{Schema, envelopes};
use crate::topics::Topics;

async fn publish(topics: &Topics, event: &UploadEvent) {
    match event {
        UploadEvent::Received(event) => topics.event(event).await,
        UploadEvent::Graded(event) => topics.event(event).await,
        UploadEvent::Read(event) => topics.event(event.as_ref()).await,
        UploadEvent::Decided(event) => topics.event(event).await,
        UploadEvent::Calculated(event) => topics.event(event).await,
        UploadEvent::Granted(event) => topics.event(event).await,
        UploadEvent::Claimed(event) => topics.event(event).await,
        UploadEvent::Corrected(event) => topics.event(event.as_ref()).await,
        UploadEvent::Abandoned(event) => topics.event(event.as_ref()).await,
        UploadEvent::Paid(event) => topics.event(event.as_ref()).await,
        UploadEvent::Chain(step) => match step.as_ref() {
            ChainStep::Adopted(step) => topics.event(step).await,
            ChainStep::Undone(step) => topics.event(step).await,
        },
        UploadEvent::Cancelled(event) => topics.event(event).await,
        UploadEvent::Deployed(event) => topics.event(event.as_ref()).await,
        UploadEvent::Erased(event) => topics.event(event).await,
        UploadEvent::Standing => {}
    }
}

async fn rebuilt(
    topics: &Topics,
    schema: &Schema,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<TopicCount>, RebuildError> {
    rebuild(&schema.pool, &topics.kafka, &topics.registry, &topics.prefix, progress).await
}

/// Two rewards of two drivers, which the uploads' stories do not have, in one transaction.
fn payment() -> Payment {
    Payment::of([Story::new(50, 1), Story::new(51, 1)])
}

fn stories() -> Vec<UploadEvent> {
    let mut events: Vec<UploadEvent> = (1..=40_i64)
        .flat_map(|day| {
            let story = Story::new(u128::try_from(day % 7 + 1).unwrap(), day);
            match day % 4 {
                0 => story.events(Verdict::Rejected, Some(Reason::Rollback), false),
                1 => story.events(Verdict::Verified, None, true),
                2 if day == 10 => story.abandoned(),
                2 => story.events(Verdict::Failed, Some(Reason::ProcessingFailed), false),
                _ => story.events(Verdict::Verified, None, false),
            }
        })
        .collect();
    events.extend(payment().events(FINAL));
    events.extend(payment().chain());
    events.extend(Payment::of([Story::new(52, 1)]).cut());
    events.extend([Story::new(1, 7).corrected(1), Story::new(53, 1).corrected(1)]);
    events.extend(Story::new(53, 1).events(Verdict::Verified, None, false));
    // One of them has left.
    events.push(erased(Story::new(3, 1).header.user_id));
    events.extend(deployments().map(|event| UploadEvent::Deployed(Box::new(event))));
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_leaves_equal_rows_and_counts_what_the_sink_dead_letters() {
    let (schema, topics, events) = (Schema::new().await, Topics::new().await, stories());
    payment().accounts(&schema).await;
    let sink = PostgresSink::new(schema.pool.clone(), PostgresConfig::default());
    for event in &events {
        publish(&topics, event).await;
        sink.write(&envelopes([event.clone()])).await.unwrap();
    }
    let live = schema.dump().await;
    // What the live sink has dead-lettered: no framing, an id that nobody knows, a value that does not fit.
    topics.bytes(Topic::UploadsReceived, "k", b"\x01no framing").await;
    topics.bytes(Topic::UploadsGraded, "k", &[0, 0x7f, 0xff, 0xff, 0xff, 1]).await;
    let mut bad = Story::new(99, 1);
    bad.header.file_size = i64::MAX;
    publish(&topics, &bad.received()).await;
    // What must not survive: a lost row, a changed one, a wrong total.
    sqlx::query("delete from upload_verifications where error_details is null")
        .execute(&schema.pool)
        .await
        .unwrap();
    sqlx::query("update odometer_uploads set updated_at = now(), image_url = 'x'")
        .execute(&schema.pool)
        .await
        .unwrap();
    sqlx::query("delete from blockchain_events where canonical").execute(&schema.pool).await.unwrap();
    sqlx::query("update chain_blocks set seq = 99, canonical = false").execute(&schema.pool).await.unwrap();
    sqlx::query("update ai_models set is_active = true, deployment_date = now()")
        .execute(&schema.pool)
        .await
        .unwrap();
    for table in ["reward_transactions", "blockchain_transactions"] {
        let sql = format!("update {table} set revision = 99, status = 'failed', confirmed_at = now()");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&schema.pool).await.unwrap();
    }
    sqlx::query("update users set total_mileage = 5, total_rewards = 6, sustainability_score = 1")
        .execute(&schema.pool)
        .await
        .unwrap();

    let seen = Mutex::new(Vec::new());
    let counts = rebuilt(&topics, &schema, &|progress| seen.lock().unwrap().push(progress)).await.unwrap();
    assert_eq!(schema.dump().await, live);
    let count = |topic, read, written, skipped: &[(Reason, u64)]| TopicCount {
        topic,
        read,
        written,
        skipped: skipped.iter().copied().collect(),
    };
    let expected = [
        count(Topic::UploadsReceived, 43, 41, &[(Reason::BadFraming, 1), (Reason::BadRow, 1)]),
        count(Topic::UploadsGraded, 42, 41, &[(Reason::UnknownSchema, 1)]),
        count(Topic::UploadsReadings, 42, 42, &[]),
        count(Topic::UploadsDecided, 53, 53, &[]),
        count(Topic::RewardsCalculated, 24, 24, &[]),
        // Two of them are claims.
        count(Topic::RewardsGranted, 26, 26, &[]),
        count(Topic::PayoutsUpdated, 22, 22, &[]),
        count(Topic::ChainEvents, 5, 5, &[]),
        count(Topic::ModelsDeployed, 4, 4, &[]),
        count(Topic::AccountsEvents, 1, 1, &[]),
    ];
    assert_eq!(counts, expected);
    let seen = seen.into_inner().unwrap();
    let decided = seen.iter().filter(|progress| progress.topic == Topic::UploadsDecided);
    assert!(decided.clone().any(|progress| (progress.done, progress.total) == (53, 53)), "{seen:?}");
    let last = seen.last().unwrap();
    assert_eq!((last.left, last.remaining), (0, Some(Duration::ZERO)));

    let again = rebuilt(&topics, &schema, &|_| ()).await.unwrap();
    assert_eq!((again, schema.dump().await), (expected.to_vec(), live));
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_beside_a_live_sink_loses_nothing_and_a_second_rebuild_is_refused() {
    let (schema, topics, events) = (Schema::new().await, Topics::new().await, stories());
    payment().accounts(&schema).await;
    let sink = PostgresSink::new(schema.pool.clone(), PostgresConfig::default());
    for event in &events {
        sink.write(&envelopes([event.clone()])).await.unwrap();
    }
    let expected = schema.dump().await;
    schema.empty().await;
    payment().accounts(&schema).await;
    let live = async {
        for event in &events {
            publish(&topics, event).await;
            while sink.write(&envelopes([event.clone()])).await.is_err() {}
        }
    };
    let quiet = |_| ();
    let (first, second, ()) =
        tokio::join!(rebuilt(&topics, &schema, &quiet), rebuilt(&topics, &schema, &quiet), live);
    let busy = |result: &Result<_, RebuildError>| matches!(result, Err(RebuildError::Busy));
    assert!(busy(&first) != busy(&second), "{first:?} {second:?}");
    assert_eq!(schema.dump().await, expected);
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_topics_a_rebuild_empties_nothing() {
    let schema = Schema::new().await;
    let sink = PostgresSink::new(schema.pool.clone(), PostgresConfig::default());
    sink.write(&envelopes([Story::new(1, 1).received()])).await.unwrap();
    let before = schema.dump().await;
    let mut topics = Topics::new().await;
    topics.prefix = "nobody-made-these.".into();
    assert!(matches!(
        rebuilt(&topics, &schema, &|_| ()).await,
        Err(RebuildError::Replay(ReplayError::Kafka(_)))
    ));
    assert_eq!(schema.dump().await, before);
    schema.drop().await;
}
