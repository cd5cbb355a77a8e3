//! The `postgres` sink: the topics become the tables that state what is known of uploads, rewards, payments, the chain and the models
//! that read photos.

mod balances;
mod chain_events;
mod config;
mod erased;
mod event;
mod fit;
mod fold;
mod models;
mod payouts;
mod refill;
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

use std::sync::Arc;

use futures::future::try_join_all;
use rdkafka::config::ClientConfig;
use runtime::registry::RegistryConfig;
use schemas::reason::Reason;
use schemas::topic::Topic;
use sqlx::PgPool;

use self::refill::Refill;
use self::writer::Writer;
use crate::database::Tables;
use crate::rebuild::{Begun, Progress, RebuildError, Source, Told, TopicCount};

/// What writes the tables, in the order in which a batch locks them.
const WRITERS: &[&dyn Writer] =
    &[&uploads::Uploads, &chain_events::ChainEvents, &models::Models, &erased::Erased];

/// The sink's tables, and its columns of `users`.
#[must_use]
pub fn tables() -> Tables {
    Tables {
        emptied: WRITERS.iter().flat_map(|writer| writer.tables()).copied().collect(),
        resets: WRITERS.iter().filter_map(|writer| writer.reset()).collect(),
    }
}

/// Empties [`tables`] and fills them again; accounts, keys and decision state stay. As [`crate::rebuild::rebuild`], but with all
/// topics side by side, and in large sets: see `refill`.
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
    let begun = Begun::new::<Refill>(&tables(), pool, Source { kafka, registry, prefix }).await?;
    // Blocks, models and accounts are about no upload: nobody waits for them.
    let about =
        |topic: &Topic| !matches!(topic, Topic::ChainEvents | Topic::ModelsDeployed | Topic::AccountsEvents);
    let topics = begun.topics.iter().filter(|topic| about(&topic.topic));
    let names = topics.map(|topic| Arc::from(topic.name.as_str()));
    let refill = Arc::new(Refill::new(pool.clone(), PostgresConfig::default(), names));
    let told = Told::new(&begun, progress);
    let topics = begun.topics.iter().map(async |topic| {
        let count = begun.read(topic, refill.clone(), &told).await?;
        refill.ended(&topic.name);
        Ok::<_, RebuildError>(count)
    });
    let mut counts = try_join_all(topics).await?;
    let refused = refill.finish().await?;
    for (count, topic) in counts.iter_mut().zip(&begun.topics) {
        let refused = refused.get(topic.name.as_str()).copied().unwrap_or(0);
        if refused > 0 {
            count.written -= refused;
            *count.skipped.entry(Reason::BadRow).or_default() += refused;
        }
    }
    begun.end().await?;
    Ok(counts)
}
