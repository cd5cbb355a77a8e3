//! Grants as `limit_check` publishes them, for drivers with wallets that nobody was paid to before.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devstack::Stack;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use runtime::registry::{Registry, RegistryConfig};
use rust_decimal::Decimal;
use schemas::codec;
use schemas::events::{Event as _, RewardGranted};
use schemas::ids::{EventId, Micros, RewardId, UploadId, UserId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::local_chain::wallet_of;

/// Longest wait for the broker.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rewards of each driver: as many as the raw arm pays to each receiver.
pub(super) const EACH: usize = 4;

/// Grants that wait to be published.
pub(super) struct Grants {
    producer: ThreadedProducer<DefaultProducerContext>,
    topic: String,
    records: Vec<(String, Vec<u8>)>,
    rewards: Vec<Uuid>,
}

impl Grants {
    /// Drivers, wallets, and a grant a reward, encoded.
    pub(super) async fn prepare(stack: &Stack, pool: &PgPool, prefix: &str, rewards: usize) -> Result<Self> {
        let registry = Registry::new(&RegistryConfig::open(stack.schema_registry_url()))?;
        let schema = registry.id_of::<RewardGranted>(prefix).await?;
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", stack.kafka_brokers()).set("partitioner", "murmur2_random");
        let mut found = Self {
            producer: config.create().context("kafka client")?,
            topic: format!("{prefix}{}", RewardGranted::TOPIC.name()),
            records: Vec::with_capacity(rewards),
            rewards: Vec::with_capacity(rewards),
        };
        let example = include_str!("../../../schemas/examples/rewards.granted/normal-whole.json");
        let mut example: serde_json::Value = serde_json::from_str(example)?;
        let example: RewardGranted = serde_json::from_value(example["event"].take())?;
        let drivers: Vec<(Uuid, Uuid)> =
            (0..rewards.div_ceil(EACH)).map(|_| (Uuid::now_v7(), Uuid::now_v7())).collect();
        for (user, wallet) in &drivers {
            sqlx::query(
                "with made as (insert into users (id) values ($1) returning id)
                 insert into user_wallets (id, user_id, wallet_address, wallet_type, network, is_primary)
                 select $2, id, $3, 'vechain', 'testnet', true from made",
            )
            .bind(user)
            .bind(wallet)
            .bind(wallet_of(*user).to_string())
            .execute(pool)
            .await?;
        }
        for n in 0..rewards {
            let (user, wallet) = drivers[n % drivers.len()];
            let mut grant = example.clone();
            grant.header.event_id = EventId(Uuid::now_v7());
            grant.header.user_id = UserId(user);
            grant.header.upload_id = UploadId(Uuid::now_v7());
            grant.header.occurred_at = Micros::from(chrono::Utc::now());
            grant.reward_id = RewardId::of(grant.header.upload_id);
            (grant.stamp.wallet_id, grant.stamp.auto_claim) = (Some(wallet), true);
            (grant.granted, grant.calculated) = (Decimal::new(309, 2), Decimal::new(309, 2));
            found.rewards.push(grant.reward_id.0);
            found.records.push((grant.key(), codec::encode(schema, &grant)?));
        }
        Ok(found)
    }

    /// The rewards.
    pub(super) fn rewards(&self) -> Vec<Uuid> {
        self.rewards.clone()
    }

    /// Publishes every grant and waits until the broker has them.
    pub(super) fn publish(&self) -> Result<()> {
        for (key, payload) in &self.records {
            let mut record = BaseRecord::to(&self.topic).key(key).payload(payload);
            while let Err((error, back)) = self.producer.send(record) {
                ensure!(error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull), "send: {error}");
                std::thread::park_timeout(Duration::from_millis(5));
                record = back;
            }
        }
        self.producer.flush(PATIENCE).context("publish grants")
    }
}
