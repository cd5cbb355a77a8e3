//! The rebuild of the aggregates on Kafka, the registry and PostgreSQL.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::registry::{Registry, RegistryConfig};
use runtime::{Sink as _, topics};
use schemas::codec;
use schemas::events::{
    Event, PayoutUpdated, RewardCalculated, RewardClaimed, RewardGranted, UploadDecided, UploadReceived,
    Verdict,
};
use schemas::reason::Reason;
use schemas::topic::Topic;
use serde_json::Value;
use sinks::analytics::{AnalyticsEvent, AnalyticsSink, rebuild};
use sinks::rebuild::TopicCount;
use uuid::Uuid;

use crate::analytics_oracle::fold;
use crate::analytics_stories::{HOUR, Step, counted, decided, empty, numbers, payouts, story};
use crate::payments::Payment;
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
            (UploadDecided::NAME, client.id_of::<UploadDecided>(&prefix).await.unwrap()),
            (RewardCalculated::NAME, client.id_of::<RewardCalculated>(&prefix).await.unwrap()),
            (RewardGranted::NAME, client.id_of::<RewardGranted>(&prefix).await.unwrap()),
            (RewardClaimed::NAME, client.id_of::<RewardClaimed>(&prefix).await.unwrap()),
            (PayoutUpdated::NAME, client.id_of::<PayoutUpdated>(&prefix).await.unwrap()),
        ]);
        let producer = kafka.create().unwrap();
        Self { kafka, registry, prefix, producer, ids }
    }

    async fn publish(&self, event: &AnalyticsEvent) {
        match event {
            AnalyticsEvent::Received(event) => self.event(event.as_ref()).await,
            AnalyticsEvent::Decided(event) => self.event(event.as_ref()).await,
            AnalyticsEvent::Calculated(event) => self.event(event.as_ref()).await,
            AnalyticsEvent::Granted(event) => self.event(event.as_ref()).await,
            AnalyticsEvent::Claimed(event) => self.event(event).await,
            AnalyticsEvent::Paid(event) => self.event(event.as_ref()).await,
        }
    }

    async fn event<E: Event>(&self, event: &E) {
        let bytes = codec::encode(self.ids[E::NAME], event).unwrap();
        let (name, key) = (format!("{}{}", self.prefix, E::TOPIC.name()), event.key());
        let record = FutureRecord::to(&name).key(&key).payload(&bytes).timestamp(RECORDED_MS);
        self.producer.send(record, Duration::from_secs(30)).await.unwrap();
    }

    async fn rebuild(&self, schema: &Schema) -> Vec<TopicCount> {
        rebuild(&schema.pool, &self.kafka, &self.registry, &self.prefix, &|_| ()).await.unwrap()
    }
}

/// Twenty-four uploads in three days: every third turned down, the others paid, undone and paid again.
fn world() -> Vec<AnalyticsEvent> {
    (1..=24_i64)
        .flat_map(|n| {
            let user = u128::try_from(n % 4 + 1).unwrap();
            let story = story(user, n, n * 3 * HOUR - (n - 1) * 24 * HOUR, ("electric", "basic", "DE"));
            if n % 3 == 0 {
                return decided(&story, Verdict::Rejected, Some(Reason::Rollback), n % 2 == 0);
            }
            let mut events = decided(&story, Verdict::Verified, None, n % 2 == 0);
            let payment = Payment::of([story]);
            events.push(counted(payment.claimed(0)));
            let steps = [Step::PaidOnA, Step::Undone, Step::PaidOnB, Step::Final];
            events.extend(
                payouts(&payment, &steps).into_iter().map(|event| AnalyticsEvent::Paid(Box::new(event))),
            );
            events
        })
        .collect()
}

async fn rows(schema: &Schema) -> Value {
    schema.rows("analytics_data").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_of_the_aggregates_leaves_equal_rows_and_counts_a_repeated_record_once() {
    let (schema, topics, events) = (Schema::new().await, Topics::new().await, world());
    let sink = AnalyticsSink::new(schema.pool.clone());
    for event in &events {
        topics.publish(event).await;
        sink.write(&envelopes([event.clone()])).await.unwrap();
    }
    assert_eq!(numbers(&schema.pool).await, fold(&events));
    let live = rows(&schema).await;
    for event in events.iter().step_by(5) {
        topics.publish(event).await;
    }
    // What must not survive: a lost row, a changed one, a wrong count of what was seen.
    for change in [
        "delete from analytics_data where time_period = 'day'",
        "update analytics_data set exact_value = 7, metric_value = 7, created_at = now()",
        "delete from analytics_seen",
        "update analytics_entities set revision = 99",
    ] {
        sqlx::query(change).execute(&schema.pool).await.unwrap();
    }
    let counts = topics.rebuild(&schema).await;
    assert_eq!(rows(&schema).await, live);
    let read: Vec<Topic> = counts.iter().map(|count| count.topic).collect();
    assert_eq!(read, AnalyticsSink::TOPICS);
    let total: u64 = counts.iter().map(|count| count.written).sum();
    assert_eq!(total, (events.len() + events.len().div_ceil(5)) as u64);
    assert!(counts.iter().all(|count| count.read == count.written && count.skipped.is_empty()));
    topics.rebuild(&schema).await;
    assert_eq!(rows(&schema).await, live);
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_of_the_aggregates_beside_a_live_sink_counts_nothing_twice() {
    let (schema, topics, events) = (Schema::new().await, Topics::new().await, world());
    let sink = AnalyticsSink::new(schema.pool.clone());
    empty(&schema.pool).await;
    let live = async {
        for event in &events {
            topics.publish(event).await;
            while sink.write(&envelopes([event.clone()])).await.is_err() {}
        }
    };
    tokio::join!(topics.rebuild(&schema), live);
    assert_eq!(numbers(&schema.pool).await, fold(&events));
    schema.drop().await;
}
