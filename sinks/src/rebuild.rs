//! Empties the tables of a sink and fills them again from its topics, through the same sink.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use runtime::backoff::Backoff;
use runtime::registry::{Registry, RegistryConfig, RegistryError, SchemaSource as _};
use runtime::{Envelope, FromRecord, Position, Sink, SinkError, StageError};
use schemas::codec;
use schemas::reason::Reason;
use schemas::topic::Topic;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, query, query_scalar};
use tokio_util::sync::CancellationToken;

use crate::postgres::is_retryable;

/// What a sink fills.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// The tables that hold nothing but what topics say, parents first: the order in which the sink locks them, so that emptying
    /// and a batch wait for each other and never in a circle. A sink that fills one of them must also read the topics that it is
    /// filled from, or a rebuild leaves it empty.
    pub emptied: &'static [&'static str],
    /// A statement that takes back what the sink wrote elsewhere.
    pub reset: Option<&'static str>,
}

/// Records of one transaction. 500 of about 3 kB decoded are 1.5 MB.
const BATCH: usize = 500;
/// Longest wait for Kafka, whether for an answer or for the next record that is known to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// Attempts at a write or a schema before the rebuild gives up: with waits of up to 5 s about two minutes.
const ATTEMPTS: u32 = 30;

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The topic that is read.
    pub topic: Topic,
    /// Records of it that are done.
    pub read: u64,
    /// Offsets of it that are to be done; some may hold no record.
    pub total: u64,
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
    /// A topic does not begin at its first record any more; found before anything was emptied.
    #[error(
        "topic {topic}, partition {partition} begins at offset {low}: its oldest records are gone, and the rows made of them would be lost"
    )]
    Incomplete {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Its first offset.
        low: i64,
    },
    /// A record type that this release does not know.
    #[error("record {name} on {topic} is not known to this release: rebuild with the one that knows it")]
    UnknownRecord {
        /// The writer schema's full name.
        name: String,
        /// The topic.
        topic: String,
    },
    /// Kafka does not answer.
    #[error("kafka")]
    Kafka(#[from] KafkaError),
    /// Kafka gives no record although there are some.
    #[error("topic {0}: no record within a minute, although its end is not reached")]
    Stalled(String),
    /// The registry does not answer.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The database does not answer.
    #[error("postgres")]
    Postgres(#[from] sqlx::Error),
    /// A batch cannot be written.
    #[error(transparent)]
    Write(#[from] StageError),
    /// A thread died.
    #[error("thread")]
    Thread(#[from] tokio::task::JoinError),
}

/// Empties the sink's tables and writes every record of its topics again. What is not the sink's stays.
///
/// **Beside a live sink this is safe.** Emptying is one transaction that waits for the sink's batches in flight and holds
/// up the next; the topics' ends are read after it. So a record whose rows were emptied lies before the end and is read here;
/// a record that the live sink writes later is written there, and here too if it lies before the end: every write
/// can be repeated and comes in any order. Readers see the tables empty and filling meanwhile.
///
/// **Two rebuilds are not**: the second would empty what the first has filled. An advisory lock a schema and sink
/// refuses it; rebuilds of two sinks, which share no table, run side by side.
///
/// What the live sink dead-letters is skipped here and counted. Memory: one batch, and at most 8 MiB prefetched.
///
/// # Errors
/// [`RebuildError`]; [`RebuildError::Busy`] and [`RebuildError::Incomplete`] before anything was emptied.
pub async fn rebuild<S: Sink>(
    sink: &S,
    tables: Tables,
    pool: &PgPool,
    kafka: &ClientConfig,
    registry: &RegistryConfig,
    prefix: &str,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<TopicCount>, RebuildError> {
    let registry = Registry::new(registry)?;
    // A connection of its own: the lock goes with it, also when this future is dropped.
    let mut lock = pool.acquire().await?.detach();
    if !locked(&mut lock, S::NAME).await? {
        return Err(RebuildError::Busy);
    }
    let mut readers = Vec::new();
    for topic in S::TOPICS {
        let reader = Reader::new(kafka, prefix, *topic)?;
        reader.complete().await?;
        readers.push(reader);
    }
    let mut backoff = Backoff::default();
    while let Err(error) = empty(pool, tables).await {
        if !is_retryable(&error) || !again(&mut backoff).await {
            return Err(error.into());
        }
    }
    let mut counts = Vec::new();
    for reader in readers {
        counts.push(refill(&reader, &registry, sink, progress).await?);
    }
    lock.close().await?;
    Ok(counts)
}

async fn empty(pool: &PgPool, tables: Tables) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    query(AssertSqlSafe(format!("truncate {}", tables.emptied.join(", ")))).execute(&mut *tx).await?;
    if let Some(reset) = tables.reset {
        query(reset).execute(&mut *tx).await?;
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

async fn refill<S: Sink>(
    reader: &Reader,
    registry: &Registry,
    sink: &S,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<TopicCount, RebuildError> {
    let topic = reader.topic;
    let mut count = TopicCount { topic, read: 0, written: 0, skipped: BTreeMap::new() };
    let mut open = reader.begin().await?;
    let total = open.values().map(|(low, end)| u64::try_from(end - low).unwrap_or(0)).sum();
    let mut batch = Vec::new();
    while !open.is_empty() {
        if let Some(message) = reader.next(&mut open).await? {
            count.read += 1;
            match decode(registry, &message).await? {
                Ok(event) => batch.push(event),
                Err(reason) => skip(&mut count, reason, &message.topic().into(), message.offset(), ""),
            }
        }
        if batch.len() >= BATCH || open.is_empty() {
            write(sink, &batch, &mut count).await?;
            batch.clear();
            progress(Progress { topic, read: count.read, total });
        }
    }
    Ok(count)
}

fn skip(count: &mut TopicCount, reason: Reason, topic: &Arc<str>, offset: i64, detail: &str) {
    tracing::warn!(reason = reason.label(), %topic, offset, detail, "record skipped, as the sink dead-letters it");
    *count.skipped.entry(reason).or_default() += 1;
}

async fn decode<E: FromRecord>(
    registry: &Registry,
    message: &BorrowedMessage<'_>,
) -> Result<Result<Envelope<E>, Reason>, RebuildError> {
    let (id, datum) = match codec::unframe(message.payload().unwrap_or_default()) {
        Ok(parts) => parts,
        Err(error) => return Ok(Err(error.reason())),
    };
    let mut backoff = Backoff::default();
    let schema = loop {
        match registry.schema(id).await {
            Ok(schema) => break schema,
            Err(RegistryError::Unavailable(_)) if again(&mut backoff).await => {}
            Err(error @ RegistryError::Unavailable(_)) => return Err(error.into()),
            Err(_) => return Ok(Err(Reason::UnknownSchema)),
        }
    };
    let name = codec::full_name(&schema);
    let Some(payload) = E::from_record(&name, &schema, id, datum) else {
        return Err(RebuildError::UnknownRecord { name, topic: message.topic().to_owned() });
    };
    let position =
        Position { topic: message.topic().into(), partition: message.partition(), offset: message.offset() };
    let timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
    Ok(payload
        .map(|payload| Envelope { payload, position, timestamp_ms, redrive: 0, traceparent: None })
        .map_err(|error| error.reason()))
}

/// Writes a batch, unrolled where a row does not fit: as the engine does for the live sink.
async fn write<S: Sink>(
    sink: &S,
    batch: &[Envelope<S::In>],
    count: &mut TopicCount,
) -> Result<(), RebuildError> {
    if attempt(sink, batch).await?.is_ok() {
        count.written += batch.len() as u64;
        return Ok(());
    }
    for event in batch {
        match attempt(sink, std::slice::from_ref(event)).await? {
            Ok(()) => count.written += 1,
            Err(detail) => {
                skip(count, Reason::BadRow, &event.position.topic, event.position.offset, &detail);
            }
        }
    }
    Ok(())
}

async fn attempt<S: Sink>(sink: &S, batch: &[Envelope<S::In>]) -> Result<Result<(), String>, StageError> {
    let mut backoff = Backoff::default();
    loop {
        match sink.write(batch).await {
            Ok(()) => return Ok(Ok(())),
            Err(SinkError::BadRow(detail)) => return Ok(Err(detail)),
            Err(SinkError::Retry(error)) => {
                if !again(&mut backoff).await {
                    return Err(error);
                }
            }
        }
    }
}

async fn again(backoff: &mut Backoff) -> bool {
    backoff.attempts() < ATTEMPTS && backoff.wait(&CancellationToken::new()).await
}

/// A partition's first offset and its end, by partition.
type Ranges = HashMap<i32, (i64, i64)>;

/// Reads one topic whole by manual assignment: no group, no committed offset.
struct Reader {
    consumer: Arc<StreamConsumer>,
    topic: Topic,
    name: String,
}

impl Reader {
    fn new(kafka: &ClientConfig, prefix: &str, topic: Topic) -> KafkaResult<Self> {
        let consumer = kafka
            .clone()
            // librdkafka wants a name even where no group is joined.
            .set("group.id", format!("{prefix}rebuild"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", "8192")
            .create()?;
        Ok(Self { consumer: Arc::new(consumer), topic, name: format!("{prefix}{}", topic.name()) })
    }

    async fn ranges(&self) -> Result<Ranges, RebuildError> {
        let (consumer, name) = (self.consumer.clone(), self.name.clone());
        let ranges = tokio::task::spawn_blocking(move || -> KafkaResult<Ranges> {
            let metadata = consumer.fetch_metadata(Some(&name), PATIENCE)?;
            let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
            if partitions.is_empty() {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            let range = |id| Ok((id, consumer.fetch_watermarks(&name, id, PATIENCE)?));
            partitions.iter().map(|partition| range(partition.id())).collect()
        });
        Ok(ranges.await??)
    }

    /// Refuses a topic whose oldest records are gone.
    async fn complete(&self) -> Result<(), RebuildError> {
        match self.ranges().await?.into_iter().find(|(_, (low, _))| *low > 0) {
            Some((partition, (low, _))) => {
                Err(RebuildError::Incomplete { topic: self.name.clone(), partition, low })
            }
            None => Ok(()),
        }
    }

    /// Takes the topic's ends and begins at its first records.
    async fn begin(&self) -> Result<Ranges, RebuildError> {
        let mut ranges = self.ranges().await?;
        ranges.retain(|_, (low, end)| low < end);
        let mut list = TopicPartitionList::new();
        for (partition, (low, _)) in &ranges {
            list.add_partition_offset(&self.name, *partition, Offset::Offset(*low))?;
        }
        self.consumer.assign(&list)?;
        Ok(ranges)
    }

    /// The next record before its partition's end; partitions that are done leave `open`.
    async fn next(&self, open: &mut Ranges) -> Result<Option<BorrowedMessage<'_>>, RebuildError> {
        let received = tokio::time::timeout(PATIENCE, self.consumer.recv()).await;
        match received.map_err(|_| RebuildError::Stalled(self.name.clone()))? {
            Ok(message) => {
                let Some((_, end)) = open.get(&message.partition()).copied() else { return Ok(None) };
                if message.offset() + 1 >= end {
                    open.remove(&message.partition());
                }
                Ok((message.offset() < end).then_some(message))
            }
            // The last offsets before the end hold no record (markers of transactions).
            Err(KafkaError::PartitionEOF(partition)) => {
                open.remove(&partition);
                Ok(None)
            }
            Err(error) if is_fatal(&error) => Err(error.into()),
            Err(error) => {
                tracing::warn!(error = %error, "kafka");
                Ok(None)
            }
        }
    }
}

/// Everything else librdkafka mends by itself, or [`PATIENCE`] runs out.
fn is_fatal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}
