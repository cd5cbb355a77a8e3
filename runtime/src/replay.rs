//! Reads a topic whole, from its first record to the end that it has now, through the worker of a [`Sink`]: for rebuilds. No group,
//! no committed offset, and nothing is published.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use schemas::reason::Reason;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::clock::SystemClock;
use crate::consumer::bound_prefetch;
use crate::dead_letter::{DeadLetterLimit, header};
use crate::journal::Journal;
use crate::metrics::{Metrics, MetricsError};
use crate::producer::{Ack, Message, NotTaken, Outbound};
use crate::publish::Delivered;
use crate::registry::SchemaSource;
use crate::retry::RetryLimit;
use crate::sinking::{BATCH, SinkWorker};
use crate::skips::Skips;
use crate::source::{Assignment, Lane, RawRecord};
use crate::stage::Sink;
use crate::worker::{Halt, StageContext};

/// Longest wait for a response of Kafka about a topic.
const METADATA_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time without a record that is done: neither Kafka, the registry nor the sink may be away for longer.
const STALLED: Duration = Duration::from_secs(120);
/// How often progress is reported, and looked for.
const TICK: Duration = Duration::from_secs(1);

/// What was read of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Records.
    pub read: u64,
    /// Those of them that the worker would have dead-lettered.
    pub skipped: BTreeMap<Reason, u64>,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A topic does not begin at its first record any more.
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
    /// The worker needs an operator.
    #[error("topic {topic}")]
    Halted {
        /// The topic.
        topic: String,
        /// Why; never [`Halt::Stopped`].
        source: Halt,
    },
    /// Kafka does not respond.
    #[error("kafka")]
    Kafka(#[from] KafkaError),
    /// Nothing moves; the log says what was tried again.
    #[error("topic {0}: no record was done for {seconds} seconds, although its end is not reached", seconds = STALLED.as_secs())]
    Stalled(String),
    /// The engine's metrics do not register.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A thread or a worker died.
    #[error("thread")]
    Thread(#[from] JoinError),
}

/// Counts dead letters instead of publishing them: the live sink has done that.
#[derive(Debug, Default)]
struct Skipped(Mutex<BTreeMap<Reason, u64>>);

impl Outbound for Skipped {
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken> {
        let label = message.headers.iter().rev().find(|(name, _)| *name == header::REASON);
        let label = label.and_then(|(_, value)| *value).unwrap_or_default();
        if let Some(reason) = Reason::ALL.iter().find(|reason| reason.label().as_bytes() == label) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(*reason).or_default() += 1;
        }
        ack.settle(Ok(Delivered { partition: 0, offset: 0 }));
        Ok(())
    }
}

/// What waits of a topic, all partitions together.
const PREFETCHED_KIB: usize = 8_192;
/// A partition's first offset and its end, by partition.
type Ranges = HashMap<i32, (i64, i64)>;

/// A topic that is read whole, by manual assignment.
pub struct Replay {
    consumer: Arc<StreamConsumer>,
    topic: Arc<str>,
    skips: Skips,
    batch: usize,
}

impl Replay {
    /// A reader of a topic, named with its prefix.
    ///
    /// # Errors
    /// For settings that a client refuses.
    pub fn new(kafka: &ClientConfig, topic: &str) -> KafkaResult<Self> {
        let consumer = bound_prefetch(&mut kafka.clone(), PREFETCHED_KIB)
            // librdkafka wants a name even where no group is joined.
            .set("group.id", format!("{topic}-replay"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true")
            .create()?;
        Ok(Self { consumer: Arc::new(consumer), topic: topic.into(), skips: Skips::default(), batch: BATCH })
    }

    /// The same replay, which passes over the records that operators have set aside for the sink.
    #[must_use]
    pub fn with_skips(self, skips: Skips) -> Self {
        Self { skips, ..self }
    }

    /// The same replay, in batches of at most so many records. Twice as many wait for each partition's worker, so that it fills one
    /// batch while it writes the other: of 1.5 kB and 500 they are 1.5 MB.
    #[must_use]
    pub fn in_batches_of(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// Offsets from the topic's first records to its ends; some may hold no record.
    ///
    /// # Errors
    /// [`ReplayError::Incomplete`] where its oldest records are gone; [`ReplayError::Kafka`].
    pub async fn complete(&self) -> Result<u64, ReplayError> {
        let ranges = self.ranges().await?;
        match ranges.iter().find(|(_, (low, _))| *low > 0) {
            Some((&partition, &(low, _))) => {
                Err(ReplayError::Incomplete { topic: self.topic.to_string(), partition, low })
            }
            None => Ok(ranges.values().map(|(low, end)| u64::try_from(end - low).unwrap_or(0)).sum()),
        }
    }

    /// Hands every record before the ends that the topic has now to a worker of the sink per partition, and logs every second how
    /// many offsets are done. Dropped, it ends its workers.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub async fn run<S: Sink>(
        &self,
        sink: Arc<S>,
        schemas: Arc<dyn SchemaSource>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Replayed, ReplayError> {
        let mut ranges = self.ranges().await?;
        ranges.retain(|_, (low, end)| low < end);
        self.assign(&ranges)?;
        let skipped = Arc::new(Skipped::default());
        let worker = Arc::new(SinkWorker {
            sink,
            context: context(S::NAME, skipped.clone(), schemas, self.skips.clone())?,
        });
        let mut lanes = Lanes::begin(&self.topic, (&ranges, self.batch), worker, progress);
        let mut read = 0;
        while !lanes.open.is_empty() {
            match timeout(TICK, self.consumer.recv()).await {
                Err(_) => lanes.look()?,
                Ok(Ok(message)) => {
                    read += u64::from(lanes.take(RawRecord::of(&message, &self.topic)).await?);
                }
                // The last offsets before the end hold no record (markers of transactions).
                Ok(Err(KafkaError::PartitionEOF(partition))) => drop(lanes.open.remove(&partition)),
                Ok(Err(error)) if is_fatal(&error) => return Err(error.into()),
                Ok(Err(error)) => {
                    tracing::warn!(topic = %self.topic, %error, "kafka");
                    lanes.look()?;
                }
            }
        }
        lanes.finish().await?;
        let skipped = skipped.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Replayed { read, skipped })
    }

    async fn ranges(&self) -> Result<Ranges, ReplayError> {
        let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
        let ranges = tokio::task::spawn_blocking(move || -> KafkaResult<Ranges> {
            let metadata = consumer.fetch_metadata(Some(&topic), METADATA_TIMEOUT)?;
            let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
            if partitions.is_empty() {
                return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
            }
            let range = |id| Ok((id, consumer.fetch_watermarks(&topic, id, METADATA_TIMEOUT)?));
            partitions.iter().map(|partition| range(partition.id())).collect()
        });
        Ok(ranges.await??)
    }

    fn assign(&self, ranges: &Ranges) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (partition, (low, _)) in ranges {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*low))?;
        }
        self.consumer.assign(&list)
    }
}

/// What the worker of a replay uses; how many dead letters the live sink made is not judged again.
fn context(
    stage: &'static str,
    outbound: Arc<Skipped>,
    schemas: Arc<dyn SchemaSource>,
    skips: Skips,
) -> Result<StageContext, MetricsError> {
    Ok(StageContext {
        stage,
        outbound,
        schemas,
        metrics: Metrics::new()?,
        clock: Arc::new(SystemClock),
        dead_letters: String::new(),
        activity_logs: String::new(),
        activity_schema: 0,
        limit: DeadLetterLimit { consecutive: u32::MAX, share: 1.0 },
        retry_limit: RetryLimit::default(),
        progress: Arc::default(),
        refused: Arc::default(),
        skips,
        journal: Arc::new(Journal::silent(stage, Arc::new(SystemClock))),
    })
}

/// The partitions of a replay, each with its worker.
struct Lanes<'a> {
    topic: &'a Arc<str>,
    /// Where records go and where they end, of partitions that are not read to their end.
    open: HashMap<i32, (mpsc::Sender<RawRecord>, i64)>,
    /// First offsets, and how far the workers are.
    frontiers: Vec<(i64, Arc<Lane>)>,
    workers: JoinSet<Result<(), Halt>>,
    progress: &'a (dyn Fn(u64) + Sync),
    done: u64,
    moved: Instant,
    looked: Instant,
}

impl<'a> Lanes<'a> {
    fn begin<S: Sink>(
        topic: &'a Arc<str>,
        (ranges, batch): (&Ranges, usize),
        worker: Arc<SinkWorker<S>>,
        progress: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        let (mut open, mut frontiers, mut workers) = (HashMap::new(), Vec::new(), JoinSet::new());
        for (&partition, &(start, end)) in ranges {
            let (sender, records) = mpsc::channel(batch * 2);
            let (lane, worker) = (Lane::starting_at(start), worker.clone());
            open.insert(partition, (sender, end));
            frontiers.push((start, lane.clone()));
            let (topic, records) = (topic.clone(), records.into());
            let mut assignment = Assignment { topic, partition, start, bootstrapped: false, records, lane };
            workers.spawn(async move { worker.run_in(&mut assignment, batch).await });
        }
        let now = Instant::now();
        Self { topic, open, frontiers, workers, progress, done: 0, moved: now, looked: now }
    }

    /// Hands a record to its worker; false for one behind the end.
    async fn take(&mut self, record: RawRecord) -> Result<bool, ReplayError> {
        let partition = record.position.partition;
        let Some((sender, end)) = self.open.get(&partition).cloned() else { return Ok(false) };
        let (offset, mut taken) = (record.position.offset, false);
        if offset < end {
            loop {
                match timeout(TICK, sender.reserve()).await {
                    Ok(Ok(place)) => break place.send(record),
                    // Its worker has ended, and says why.
                    Ok(Err(_)) => self.ended().await?,
                    Err(_) => self.look()?,
                }
            }
            taken = true;
        }
        if offset + 1 >= end {
            self.open.remove(&partition);
        }
        if self.looked.elapsed() >= TICK {
            self.look()?;
        }
        Ok(taken)
    }

    /// Waits until everything that was taken is done.
    async fn finish(mut self) -> Result<(), ReplayError> {
        while !self.workers.is_empty() {
            match timeout(TICK, self.ended()).await {
                Ok(ended) => ended?,
                Err(_) => self.look()?,
            }
        }
        self.look()
    }

    async fn ended(&mut self) -> Result<(), ReplayError> {
        match self.workers.join_next().await {
            Some(ended) => {
                ended?.map_err(|source| ReplayError::Halted { topic: self.topic.to_string(), source })
            }
            None => Ok(()),
        }
    }

    /// Logs how far the workers are.
    fn look(&mut self) -> Result<(), ReplayError> {
        let done =
            self.frontiers.iter().map(|(start, lane)| u64::try_from(lane.frontier() - start).unwrap_or(0));
        let done = done.sum();
        self.looked = Instant::now();
        if done > self.done {
            (self.done, self.moved) = (done, self.looked);
        } else if self.moved.elapsed() >= STALLED {
            return Err(ReplayError::Stalled(self.topic.to_string()));
        }
        (self.progress)(done);
        Ok(())
    }
}

/// Everything else librdkafka mends by itself, or [`STALLED`] runs out.
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
