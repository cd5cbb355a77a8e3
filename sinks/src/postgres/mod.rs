//! The `postgres` sink: the topics become the tables that state what is known of uploads, rewards, payments, the chain and the models
//! that read photos.

mod chain_events;
mod config;
mod event;
mod fit;
mod models;
mod payouts;
mod rewards;
mod rows;
mod score;
mod service;
mod sink;
mod upload_rows;
mod uploads;
mod writer;
pub use config::{PostgresConfig, PostgresStartError};
pub use event::UploadEvent;
pub use fit::BadValue;
pub(crate) use score::GRAMS_PER_KM;
#[doc(hidden)]
pub use service::HISTORIES;
pub use sink::PostgresSink;

use rdkafka::config::ClientConfig;
use runtime::registry::RegistryConfig;
use sqlx::PgPool;

use self::writer::Writer;
use crate::database::Tables;
use crate::rebuild::{Progress, RebuildError, Source, TopicCount};

/// What writes the tables, in the order in which a batch locks them.
const WRITERS: &[&dyn Writer] = &[&uploads::Uploads, &chain_events::ChainEvents, &models::Models];

/// The sink's tables, and its columns of `users`.
#[must_use]
pub fn tables() -> Tables {
    Tables {
        emptied: WRITERS.iter().flat_map(|writer| writer.tables()).copied().collect(),
        resets: WRITERS.iter().filter_map(|writer| writer.reset()).collect(),
    }
}

/// Empties [`tables`] and fills them again; accounts, keys and decision state stay. See [`crate::rebuild::rebuild`].
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
    crate::rebuild::rebuild(sink, &tables(), pool, Source { kafka, registry, prefix }, progress).await
}
