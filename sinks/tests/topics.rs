//! Topics of a test's own on Kafka, with their schemas in the registry.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::registry::{Registry, RegistryConfig};
use runtime::topics;
use schemas::codec;
use schemas::events::{
    BlockAdopted, BlockUndone, Event, ModelDeployed, OdometerRead, PayoutUpdated, RewardCalculated,
    RewardClaimed, RewardGranted, UploadDecided, UploadGraded, UploadReceived,
};
use schemas::topic::Topic;
use uuid::Uuid;

use crate::support::{RECORDED_MS, address};

/// Topics of its own, and what writes to them.
pub struct Topics {
    pub kafka: ClientConfig,
    pub registry: RegistryConfig,
    pub prefix: String,
    producer: FutureProducer,
    ids: BTreeMap<&'static str, u32>,
}

impl Topics {
    pub async fn new() -> Self {
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
            (ModelDeployed::NAME, client.id_of::<ModelDeployed>(&prefix).await.unwrap()),
        ]);
        let producer = kafka.create().unwrap();
        Self { kafka, registry, prefix, producer, ids }
    }

    /// Publishes a record as it is.
    pub async fn bytes(&self, topic: Topic, key: &str, bytes: &[u8]) {
        let name = format!("{}{}", self.prefix, topic.name());
        let record = FutureRecord::to(&name).key(key).payload(bytes).timestamp(RECORDED_MS);
        self.producer.send(record, Duration::from_secs(30)).await.unwrap();
    }

    /// Publishes an event to its topic.
    pub async fn event<E: Event>(&self, event: &E) {
        let bytes = codec::encode(self.ids[E::NAME], event).unwrap();
        self.bytes(E::TOPIC, &event.key(), &bytes).await;
    }
}
