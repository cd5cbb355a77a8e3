//! Topics of a test's own on Kafka, with their schemas in the registry.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::registry::{Registry, RegistryConfig};
use runtime::topics;
use schemas::codec;
use schemas::events::Event;
use schemas::topic::Topic;
use uuid::Uuid;

use crate::support::{RECORDED_MS, address};

/// Topics of its own, and what writes to them.
pub struct Topics {
    pub kafka: ClientConfig,
    pub registry: RegistryConfig,
    pub prefix: String,
    producer: FutureProducer,
    client: Registry,
    /// Schema ids by record type, as far as they were asked for.
    ids: Mutex<BTreeMap<&'static str, u32>>,
}

impl Topics {
    pub async fn new() -> Self {
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", address("KAFKA_BROKERS"));
        let registry = RegistryConfig::open(&address("SCHEMA_REGISTRY_URL"));
        let prefix = format!("sinks-{}.", Uuid::now_v7().simple());
        let client = Registry::new(&registry).unwrap();
        topics::apply(&kafka, &client, &topics::Layout::local(&prefix)).await.unwrap();
        let producer = kafka.create().unwrap();
        Self { kafka, registry, prefix, producer, client, ids: Mutex::default() }
    }

    /// Publishes a record as it is.
    pub async fn bytes(&self, topic: Topic, key: &str, bytes: &[u8]) {
        let name = format!("{}{}", self.prefix, topic.name());
        let record = FutureRecord::to(&name).key(key).payload(bytes).timestamp(RECORDED_MS);
        self.producer.send(record, Duration::from_secs(30)).await.unwrap();
    }

    /// Publishes an event to its topic.
    pub async fn event<E: Event>(&self, event: &E) {
        let bytes = codec::encode(self.id::<E>().await, event).unwrap();
        self.bytes(E::TOPIC, &event.key(), &bytes).await;
    }

    async fn id<E: Event>(&self) -> u32 {
        let known = self.ids.lock().unwrap().get(E::NAME).copied();
        if let Some(id) = known {
            return id;
        }
        let id = self.client.id_of::<E>(&self.prefix).await.unwrap();
        self.ids.lock().unwrap().insert(E::NAME, id);
        id
    }
}
