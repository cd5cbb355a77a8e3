//! The `postgres` sink: the topics become the tables that state what is known of uploads, rewards, payments, the chain and the models
//! that read photos.

mod chain_events;
mod config;
mod models;
mod payouts;
mod rewards;
mod rows;
mod score;
mod service;
mod sink;
pub(crate) use score::GRAMS_PER_KM;
pub use {config::*, rows::BadValue, service::is_retryable, sink::*};

use rdkafka::config::ClientConfig;
use runtime::registry::RegistryConfig;
use sqlx::PgPool;

use crate::rebuild::{Progress, RebuildError, Tables, TopicCount};

/// The sink's tables, and its columns of `users`.
pub const MATERIALIZED: Tables = Tables {
    emptied: &[
        "odometer_uploads",
        "mileage_data",
        "upload_verifications",
        "rewards",
        "reward_transactions",
        "blockchain_transactions",
        "chain_blocks",
        "blockchain_events",
        "ai_models",
    ],
    reset: Some(
        "update users set total_mileage = 0, total_rewards = 0, sustainability_score = null
         where total_mileage <> 0 or total_rewards <> 0 or sustainability_score is not null",
    ),
};

/// Empties [`MATERIALIZED`] and fills it again; accounts, keys and decision state stay. See [`crate::rebuild::rebuild`].
///
/// # Errors
/// [`RebuildError`].
pub async fn rebuild(
    pool: &PgPool,
    kafka: &ClientConfig,
    registry: &RegistryConfig,
    prefix: &str,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<TopicCount>, RebuildError> {
    let sink = PostgresSink::new(pool.clone(), PostgresConfig::default());
    crate::rebuild::rebuild(&sink, MATERIALIZED, pool, kafka, registry, prefix, progress).await
}
