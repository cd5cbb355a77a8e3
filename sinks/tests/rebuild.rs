//! The rebuild on Kafka, the registry and PostgreSQL.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::registry::{Registry, RegistryConfig};
use runtime::{Sink as _, topics};
use schemas::codec;
use schemas::events::{
    BlockAdopted, BlockUndone, ChainStep, Event, OdometerRead, PayoutUpdated, RewardCalculated,
    RewardClaimed, RewardGranted, UploadDecided, UploadGraded, UploadReceived, Verdict,
};
use schemas::reason::Reason;
use schemas::topic::Topic;
use sinks::postgres::{PostgresConfig, PostgresSink, UploadEvent, rebuild};
use sinks::rebuild::{Progress, RebuildError, TopicCount};
use uuid::Uuid;

use crate::payments::{FINAL, Payment};
use crate::stories::Story;
use crate::support::{RECORDED_MS, Schema, address, envelopes};

/// Topics of its own, and what writes to them.
struct Topics {
    kafka: ClientConfig,
    registry: RegistryConfig,
    prefix: String,
    producer: FutureProducer,
    ids: BTreeMap<&'static str, u32>,
}

impl Topics {
    async fn new() -> Self {
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", address("KAFKA_BROKERS"));
        let registry = RegistryConfig::open(&address("SCHEMA_REGISTRY_URL"));
        let prefix = format!("sinks-{}.", Uuid::now_v7().simple());
        let client = Registry::new(&registry).unwrap();
        topics::apply(&kafka, &client, &prefix, 1).await.unwrap();
        let ids = BTreeMap::from([
            (UploadReceived::NAME, client.id_of::<UploadReceived>(&prefix).await.unwrap()),
            (UploadGraded::NAME, client.id_of::<UploadGraded>(&prefix).await.unwrap()),
            (OdometerRead::NAME, client.id_of::<OdometerRead>(&prefix).await.unwrap()),
            (UploadDecided::NAME, client.id_of::<UploadDecided>(&prefix).await.unwrap()),
            (RewardCalculated::NAME, client.id_of::<RewardCalculated>(&prefix).await.unwrap()),
            (RewardGranted::NAME, client.id_of::<RewardGranted>(&prefix).await.unwrap()),
            (RewardClaimed::NAME, client.id_of::<RewardClaimed>(&prefix).await.unwrap()),
            (PayoutUpdated::NAME, client.id_of::<PayoutUpdated>(&prefix).await.unwrap()),
            (BlockAdopted::NAME, client.id_of::<BlockAdopted>(&prefix).await.unwrap()),
            (BlockUndone::NAME, client.id_of::<BlockUndone>(&prefix).await.unwrap()),
        ]);
        let producer = kafka.create().unwrap();
        Self { kafka, registry, prefix, producer, ids }
    }

    async fn bytes(&self, topic: Topic, key: &str, bytes: &[u8]) {
        let name = format!("{}{}", self.prefix, topic.name());
        let record = FutureRecord::to(&name).key(key).payload(bytes).timestamp(RECORDED_MS);
        self.producer.send(record, Duration::from_secs(30)).await.unwrap();
    }

    async fn publish(&self, event: &UploadEvent) {
        match event {
            UploadEvent::Received(event) => self.event(event).await,
            UploadEvent::Graded(event) => self.event(event).await,
            UploadEvent::Read(event) => self.event(event).await,
            UploadEvent::Decided(event) => self.event(event).await,
            UploadEvent::Calculated(event) => self.event(event).await,
            UploadEvent::Granted(event) => self.event(event).await,
            UploadEvent::Claimed(event) => self.event(event).await,
            UploadEvent::Paid(event) => self.event(event.as_ref()).await,
            UploadEvent::Chain(step) => match step.as_ref() {
                ChainStep::Adopted(step) => self.event(step).await,
                ChainStep::Undone(step) => self.event(step).await,
            },
        }
    }

    async fn event<E: Event>(&self, event: &E) {
        let bytes = codec::encode(self.ids[E::NAME], event).unwrap();
        self.bytes(E::TOPIC, &event.key(), &bytes).await;
    }

    async fn rebuild(
        &self,
        schema: &Schema,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Vec<TopicCount>, RebuildError> {
        rebuild(&schema.pool, &self.kafka, &self.registry, &self.prefix, progress).await
    }
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
                0 => story.told(Verdict::Rejected, Some(Reason::Rollback), false),
                1 => story.told(Verdict::Verified, None, true),
                2 => story.told(Verdict::Failed, Some(Reason::ProcessingFailed), false),
                _ => story.told(Verdict::Verified, None, false),
            }
        })
        .collect();
    events.extend(payment().told(FINAL));
    events.extend(payment().chain());
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_leaves_equal_rows_and_counts_what_the_sink_dead_letters() {
    let (schema, topics, events) = (Schema::new().await, Topics::new().await, stories());
    payment().accounts(&schema).await;
    let sink = PostgresSink::new(schema.pool.clone(), PostgresConfig::default());
    for event in &events {
        topics.publish(event).await;
        sink.write(&envelopes([event.clone()])).await.unwrap();
    }
    let live = schema.dump().await;
    // What the live sink has dead-lettered: no framing, an id that nobody knows, a value that does not fit.
    topics.bytes(Topic::UploadsReceived, "k", b"\x01no framing").await;
    topics.bytes(Topic::UploadsGraded, "k", &[0, 0x7f, 0xff, 0xff, 0xff, 1]).await;
    let mut bad = Story::new(99, 1);
    bad.header.file_size = i64::MAX;
    topics.publish(&bad.received()).await;
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
    for table in ["reward_transactions", "blockchain_transactions"] {
        let sql = format!("update {table} set revision = 99, status = 'failed', confirmed_at = now()");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&schema.pool).await.unwrap();
    }
    sqlx::query("update users set total_mileage = 5, total_rewards = 6, sustainability_score = 1")
        .execute(&schema.pool)
        .await
        .unwrap();

    let seen = Mutex::new(Vec::new());
    let counts = topics.rebuild(&schema, &|progress| seen.lock().unwrap().push(progress)).await.unwrap();
    assert_eq!(schema.dump().await, live);
    let count = |topic, read, written, skipped: &[(Reason, u64)]| TopicCount {
        topic,
        read,
        written,
        skipped: skipped.iter().copied().collect(),
    };
    let expected = [
        count(Topic::UploadsReceived, 42, 40, &[(Reason::BadFraming, 1), (Reason::BadRow, 1)]),
        count(Topic::UploadsGraded, 41, 40, &[(Reason::UnknownSchema, 1)]),
        count(Topic::UploadsReadings, 40, 40, &[]),
        count(Topic::UploadsDecided, 50, 50, &[]),
        count(Topic::RewardsCalculated, 22, 22, &[]),
        // Two of them are claims.
        count(Topic::RewardsGranted, 24, 24, &[]),
        count(Topic::PayoutsUpdated, 20, 20, &[]),
        count(Topic::ChainEvents, 5, 5, &[]),
    ];
    assert_eq!(counts, expected);
    assert!(seen.into_inner().unwrap().contains(&Progress {
        topic: Topic::UploadsDecided,
        read: 50,
        total: 50
    }));

    let again = topics.rebuild(&schema, &|_| ()).await.unwrap();
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
            topics.publish(event).await;
            while sink.write(&envelopes([event.clone()])).await.is_err() {}
        }
    };
    let quiet = |_| ();
    let (first, second, ()) =
        tokio::join!(topics.rebuild(&schema, &quiet), topics.rebuild(&schema, &quiet), live);
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
    let topics = Topics { prefix: "nobody-made-these.".into(), ..Topics::new().await };
    assert!(matches!(topics.rebuild(&schema, &|_| ()).await, Err(RebuildError::Kafka(_))));
    assert_eq!(schema.dump().await, before);
    schema.drop().await;
}
