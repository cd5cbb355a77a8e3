//! Empties the tables of a sink and fills them again from its topics, through the engine's worker of the same sink.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use runtime::backoff::Backoff;
use runtime::registry::{Registry, RegistryConfig, RegistryError};
use runtime::replay::{Replay, ReplayError};
use runtime::skips::Skips;
use runtime::{Sink, SinkError};
use schemas::reason::Reason;
use schemas::topic::Topic;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, query, query_scalar};
use tokio_util::sync::CancellationToken;

use crate::database::{Tables, is_retryable};

/// Records of a batch where a topic's partitions are read side by side and topics one after the other: ten of the live sink's, which
/// write a number once where that writes it ten times. Of four partitions 40,000 records wait, of 1.5 kB 60 MB.
const LARGE: usize = 5_000;
/// Attempts to empty the tables before the rebuild gives up: with waits of up to 5 s about two minutes.
const ATTEMPTS: u32 = 30;

/// Where the records are.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Brokers, TLS, SASL.
    pub kafka: &'a ClientConfig,
    /// The schema registry.
    pub registry: &'a RegistryConfig,
    /// In front of every topic's name.
    pub prefix: &'a str,
}

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The topic that is read.
    pub topic: Topic,
    /// Offsets of it that are done.
    pub done: u64,
    /// Offsets of it that are to be done; some may hold no record.
    pub total: u64,
    /// Offsets of all topics that are not done yet.
    pub left: u64,
    /// The time that these take at the mean speed so far; none before anything is done.
    pub remaining: Option<Duration>,
}

/// What a rebuild read from one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCount {
    /// The topic.
    pub topic: Topic,
    /// Records that were read.
    pub read: u64,
    /// Records that were written.
    pub written: u64,
    /// Records that the live sink has dead-lettered for the same reason.
    pub skipped: BTreeMap<Reason, u64>,
}

/// Why a rebuild ended early. The tables hold what was written so far; run it again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Another rebuild of this sink's tables in this schema is running.
    #[error("another rebuild of these tables is running")]
    Busy,
    /// A topic cannot be read to its end.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The registry's settings.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The database does not respond.
    #[error("postgres")]
    Postgres(#[from] sqlx::Error),
    /// The last rows were not written.
    #[error("the rows that were read last")]
    Write(#[from] SinkError),
}

/// Empties the sink's tables and writes every record of its topics again. What is not the sink's stays.
///
/// **Beside a live sink this is safe.** Emptying is one transaction that waits for the sink's batches in flight and holds
/// up the next; the topics' ends are read after it. So a record whose rows were emptied lies before the end and is read here;
/// a record that the live sink writes later is written there, and here too if it lies before the end: every write
/// can be repeated and comes in any order. Readers see the tables empty and filling meanwhile.
///
/// **Two rebuilds are not**: the second would empty what the first has filled. An advisory lock per schema and sink
/// refuses it; rebuilds of two sinks, which share no table, run side by side.
///
/// Topics are read one after the other, their partitions side by side. What the live sink dead-letters is skipped here and counted.
/// Memory: per partition 15,000 records that wait or are written, and at most 8 MiB prefetched.
///
/// # Errors
/// [`RebuildError`]; [`RebuildError::Busy`] and [`ReplayError::Incomplete`] before anything was emptied.
pub async fn rebuild<S: Sink>(
    sink: S,
    tables: &Tables,
    pool: &PgPool,
    source: Source<'_>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<TopicCount>, RebuildError> {
    let mut begun = Begun::new::<S>(tables, pool, source).await?;
    begun.topics = begun.topics.into_iter().map(|topic| topic.in_batches_of(LARGE)).collect();
    let (sink, mut counts) = (Arc::new(sink), Vec::new());
    let told = Told::new(&begun, progress);
    for topic in &begun.topics {
        counts.push(begun.read(topic, sink.clone(), &told).await?);
    }
    begun.end().await?;
    Ok(counts)
}

/// A rebuild whose tables are empty.
pub(crate) struct Begun {
    /// The topics, in the sink's order.
    pub(crate) topics: Vec<TopicReplay>,
    registry: Arc<Registry>,
    lock: PgConnection,
}

/// A topic to be read.
pub(crate) struct TopicReplay {
    pub(crate) topic: Topic,
    /// With the prefix.
    pub(crate) name: String,
    replay: Replay,
    total: u64,
}

impl TopicReplay {
    fn in_batches_of(self, batch: usize) -> Self {
        Self { replay: self.replay.in_batches_of(batch), ..self }
    }
}

impl Begun {
    /// Looks whether everything is there, and empties the tables.
    pub(crate) async fn new<S: Sink>(
        tables: &Tables,
        pool: &PgPool,
        source: Source<'_>,
    ) -> Result<Self, RebuildError> {
        let registry = Arc::new(Registry::new(source.registry)?);
        // A connection of its own: the lock goes with it, also when this future is dropped.
        let mut lock = pool.acquire().await?.detach();
        if !locked(&mut lock, S::NAME).await? {
            return Err(RebuildError::Busy);
        }
        let mut topics = Vec::new();
        for topic in S::TOPICS {
            let name = format!("{}{}", source.prefix, topic.name());
            let replay = Replay::new(source.kafka, &name);
            let replay = replay.map_err(ReplayError::from)?.with_skips(Skips::of(pool.clone()));
            let total = replay.complete().await?;
            topics.push(TopicReplay { topic: *topic, name, replay, total });
        }
        let mut backoff = Backoff::default();
        while let Err(error) = empty(pool, tables).await {
            if !is_retryable(&error) || !again(&mut backoff).await {
                return Err(error.into());
            }
        }
        Ok(Self { topics, registry, lock })
    }

    /// Hands a topic to a sink, up to the end that it has now.
    pub(crate) async fn read<S: Sink>(
        &self,
        topic: &TopicReplay,
        sink: Arc<S>,
        told: &Told<'_>,
    ) -> Result<TopicCount, RebuildError> {
        let tell = |done: u64| told.tell(topic, done);
        let replayed = topic.replay.run(sink, self.registry.clone(), &tell).await?;
        // Its last offsets may hold no record.
        told.tell(topic, topic.total);
        let written = replayed.read - replayed.skipped.values().sum::<u64>();
        Ok(TopicCount { topic: topic.topic, read: replayed.read, written, skipped: replayed.skipped })
    }

    /// Lets the next rebuild begin.
    pub(crate) async fn end(self) -> Result<(), RebuildError> {
        Ok(self.lock.close().await?)
    }
}

/// Tells how far all topics are.
pub(crate) struct Told<'a> {
    progress: &'a (dyn Fn(Progress) + Sync),
    began: Instant,
    all: u64,
    done: Mutex<BTreeMap<&'static str, u64>>,
}

impl<'a> Told<'a> {
    /// From now on.
    pub(crate) fn new(begun: &Begun, progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        let all = begun.topics.iter().map(|topic| topic.total).sum();
        Self { progress, began: Instant::now(), all, done: Mutex::default() }
    }

    fn tell(&self, topic: &TopicReplay, done: u64) {
        let mut all = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(topic.topic.name(), done);
        let sum: u64 = all.values().sum();
        let left = self.all.saturating_sub(sum);
        let remaining = remaining(sum, left, self.began.elapsed());
        (self.progress)(Progress { topic: topic.topic, done, total: topic.total, left, remaining });
    }
}

/// The time for what is left at the mean speed so far.
fn remaining(done: u64, left: u64, took: Duration) -> Option<Duration> {
    let per_million = took.as_micros().checked_mul(1_000_000)?.checked_div(done.into())?;
    let micros = per_million.checked_mul(left.into())? / 1_000_000;
    Some(Duration::from_micros(u64::try_from(micros).ok()?))
}

async fn empty(pool: &PgPool, tables: &Tables) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    query(AssertSqlSafe(format!("truncate {}", tables.names().join(", ")))).execute(&mut *tx).await?;
    for reset in &tables.resets {
        query(*reset).execute(&mut *tx).await?;
    }
    tx.commit().await
}

async fn locked(connection: &mut PgConnection, sink: &str) -> sqlx::Result<bool> {
    query_scalar(
        "select pg_try_advisory_lock(
            hashtextextended('milestream rebuild ' || current_schema() || ' ' || $1::text, 0))",
    )
    .bind(sink)
    .fetch_one(connection)
    .await
}

async fn again(backoff: &mut Backoff) -> bool {
    backoff.attempts() < ATTEMPTS && backoff.wait(&CancellationToken::new()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remaining_time_is_what_is_left_at_the_mean_speed() {
        assert_eq!(remaining(0, 10, Duration::from_secs(1)), None);
        assert_eq!(remaining(2_000, 500, Duration::from_secs(8)), Some(Duration::from_secs(2)));
        assert_eq!(remaining(10, 0, Duration::from_secs(8)), Some(Duration::ZERO));
    }
}
