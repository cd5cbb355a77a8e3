//! The Kafka consumer on its own OS thread: it always polls, so a slow stage never costs the group membership.
//!
//! Full lanes pause their partition; a revoke drains the lane within a budget and commits before the partition goes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::source::{Assignment, LANE_RECORDS, Lane, RawRecord};

/// One poll; also the longest delay of a pause, a resume or a stop.
const POLL: Duration = Duration::from_millis(20);
/// How long a full lane is waited for before its partition is paused. A quick stage makes room within a millisecond, and a
/// pause would throw away what librdkafka has prefetched, to be fetched again; only a slow stage (a photo takes a second)
/// is worth one. Other partitions wait this long at most, once per pause.
const ROOM: Duration = Duration::from_millis(20);
/// Records between two looks at everything else while records flow: pauses, commits, liveness.
const TEND_EVERY: u32 = 64;
/// How often offsets are committed while records flow.
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// Group coordinator calls inside a rebalance.
const COORDINATOR_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts of a coordinator call inside a rebalance: a broker that restarts is back within a few seconds, and the
/// attempts together stay under the polling interval of librdkafka (`max.poll.interval.ms`, 5 minutes).
const COORDINATOR_ATTEMPTS: u32 = 6;
/// How often librdkafka reports the end of each partition, for the lag gauge.
const STATISTICS_EVERY: Duration = Duration::from_secs(5);

/// A consumer's settings.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// Brokers, TLS and SASL.
    pub base: ClientConfig,
    /// Consumer group.
    pub group: String,
    /// Static member name; unique and stable per instance, so that a restart keeps its partitions.
    pub instance: Option<String>,
    /// Topics, with their prefix.
    pub topics: Vec<String>,
    /// Without a heartbeat for this long a member's partitions are given to others.
    pub session_timeout: Duration,
    /// How long a revoke waits for records in flight; under the session timeout, or the group waits in vain.
    pub drain_budget: Duration,
}

/// Why a consumer ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// librdkafka cannot go on, e.g. another member with the same instance name.
    #[error("consumer of group {group} cannot go on: {source}")]
    Fatal {
        /// The group.
        group: String,
        /// Why.
        source: KafkaError,
    },
    /// Offsets that were committed are no longer on the topic.
    #[error(
        "group {group}: the committed offset is out of range; records were lost to retention or the topic was recreated. Restore the topic, or reset the group on purpose"
    )]
    OutOfRange {
        /// The group.
        group: String,
    },
    /// The thread could not be started or has panicked.
    #[error("consumer thread of group {0} has died")]
    Thread(String),
}

type Key = (Arc<str>, i32);
/// A partition with its first offset, and whether that was set just now.
type Start = ((String, i32), KafkaResult<(i64, bool)>);
/// Assignments, and the thread that makes them.
pub type Spawned = (mpsc::UnboundedReceiver<Assignment>, JoinHandle<Result<(), ConsumerError>>);

struct LaneState {
    lane: Arc<Lane>,
    sender: mpsc::Sender<RawRecord>,
    overflow: VecDeque<RawRecord>,
    paused: bool,
    committed: i64,
}

/// What the consumer thread reports of itself.
pub trait Observer: Send + Sync + 'static {
    /// The polling loop went round.
    fn polled(&self);
    /// A partition's committed frontier is this many records behind its end.
    fn lag(&self, topic: &str, partition: i32, records: i64);
}

struct Context {
    lanes: Mutex<HashMap<Key, LaneState>>,
    assignments: mpsc::UnboundedSender<Assignment>,
    drain_budget: Duration,
    failed: Mutex<Option<KafkaError>>,
    observer: Arc<dyn Observer>,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        for ((topic, partition), state) in self.lanes().iter() {
            let end = statistics
                .topics
                .get(topic.as_ref())
                .and_then(|found| found.partitions.get(partition))
                .map_or(-1, |found| found.ls_offset);
            // -1 until the first fetch answer.
            if end >= 0 {
                self.observer.lag(topic, *partition, (end - state.lane.frontier()).max(0));
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The same error comes out of `poll`, where it is logged.
        tracing::debug!(error = %error, reason, "kafka client");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let result = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assign(consumer, list),
            _ => self.revoke(consumer, list),
        };
        if let Err(error) = result {
            tracing::error!(error = %error, "rebalance step failed");
            *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // Harmless: the next commit carries the same or later offsets; until then a restart repeats records.
            tracing::debug!(error = %error, "offset commit");
        }
    }
}

impl Context {
    fn lanes(&self) -> MutexGuard<'_, HashMap<Key, LaneState>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> KafkaResult<()> {
        let starts = starting_offsets(consumer, list);
        let mut assigned = TopicPartitionList::new();
        for ((topic, partition), start) in starts {
            match start {
                Ok((offset, bootstrapped)) => {
                    assigned.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
                    self.open(&topic, partition, offset, bootstrapped);
                }
                // Without a starting offset nothing may be consumed: the thread ends and the process starts anew.
                Err(error) => return Err(error),
            }
        }
        tracing::info!(partitions = assigned.count(), "partitions assigned");
        consumer.incremental_assign(&assigned)
    }

    fn open(&self, topic: &str, partition: i32, start: i64, bootstrapped: bool) {
        let (sender, records) = mpsc::channel(LANE_RECORDS);
        let lane = Lane::starting_at(start);
        let topic: Arc<str> = topic.into();
        let state = LaneState {
            lane: lane.clone(),
            sender,
            overflow: VecDeque::new(),
            paused: false,
            committed: start,
        };
        self.lanes().insert((topic.clone(), partition), state);
        let assignment = Assignment { topic, partition, start, bootstrapped, records, lane };
        if self.assignments.send(assignment).is_err() {
            tracing::warn!(partition, "the engine is gone; nobody works on the partition");
        }
    }

    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) -> KafkaResult<()> {
        let lost = consumer.assignment_lost();
        let mut gone = Vec::new();
        {
            let mut lanes = self.lanes();
            for element in list.elements() {
                if let Some(state) = lanes.remove(&(Arc::from(element.topic()), element.partition())) {
                    state.lane.stop.cancel();
                    gone.push((element.topic().to_owned(), element.partition(), state));
                }
            }
        }
        let until = Instant::now() + self.drain_budget;
        let mut commits = TopicPartitionList::new();
        for (topic, partition, state) in gone {
            if !state.lane.wait_finished(until.saturating_duration_since(Instant::now())) {
                tracing::warn!(%topic, partition, "records in flight at revoke are left to the next owner");
            }
            if state.lane.frontier() > state.committed {
                commits.add_partition_offset(&topic, partition, Offset::Offset(state.lane.frontier()))?;
            }
        }
        if !lost
            && commits.count() > 0
            && let Err(error) = consumer.commit(&commits, CommitMode::Sync)
        {
            tracing::warn!(error = %error, "commit at revoke; records will be repeated, not lost");
        }
        for element in list.elements() {
            // Somebody else's number from now on.
            self.observer.lag(element.topic(), element.partition(), 0);
        }
        tracing::info!(partitions = list.count(), lost, "partitions revoked");
        consumer.incremental_unassign(list)
    }
}

/// The committed offset of each partition; where the group has none it is set to the partition's beginning *now*, so
/// that "never started" and "offset expired" stay two things.
fn starting_offsets(consumer: &BaseConsumer<Context>, list: &TopicPartitionList) -> Vec<Start> {
    let committed = with_retries(|| consumer.committed_offsets(list.clone(), COORDINATOR_TIMEOUT));
    list.elements()
        .iter()
        .map(|element| {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            let start = committed.as_ref().map_err(Clone::clone).and_then(|committed| {
                match committed.find_partition(&topic, partition).map(|found| found.offset()) {
                    Some(Offset::Offset(offset)) => Ok((offset, false)),
                    _ => bootstrap(consumer, &topic, partition).map(|offset| (offset, true)),
                }
            });
            ((topic, partition), start)
        })
        .collect()
}

fn bootstrap(consumer: &BaseConsumer<Context>, topic: &str, partition: i32) -> KafkaResult<i64> {
    let (low, _) = with_retries(|| consumer.fetch_watermarks(topic, partition, COORDINATOR_TIMEOUT))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(low))?;
    // Acknowledged before the first record is handed out: else a crash could leave decisions without a group offset,
    // which a deciding stage refuses to start on.
    with_retries(|| consumer.commit(&list, CommitMode::Sync))?;
    Ok(low)
}

/// Repeats a coordinator call: the group's coordinator may be restarting.
fn with_retries<T>(call: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let mut result = call();
    for _ in 1..COORDINATOR_ATTEMPTS {
        if result.is_ok() {
            break;
        }
        std::thread::park_timeout(Duration::from_secs(1));
        result = call();
    }
    result
}

/// Runs a consumer on its own thread until `stop`; assignments come out of the receiver.
///
/// # Errors
/// The join handle's result says why it ended early.
pub fn spawn(
    config: ConsumerConfig,
    stop: CancellationToken,
    observer: Arc<dyn Observer>,
) -> std::io::Result<Spawned> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new()
        .name(format!("kafka-{}", config.group))
        .spawn(move || run(&config, sender, &stop, observer))?;
    Ok((receiver, thread))
}

fn run(
    config: &ConsumerConfig,
    assignments: mpsc::UnboundedSender<Assignment>,
    stop: &CancellationToken,
    observer: Arc<dyn Observer>,
) -> Result<(), ConsumerError> {
    let fatal = |source: KafkaError| ConsumerError::Fatal { group: config.group.clone(), source };
    let context = Context {
        lanes: Mutex::new(HashMap::new()),
        assignments,
        drain_budget: config.drain_budget,
        failed: Mutex::new(None),
        observer: observer.clone(),
    };
    let consumer: BaseConsumer<Context> =
        client_config(config).create_with_context(context).map_err(fatal)?;
    let topics: Vec<&str> = config.topics.iter().map(String::as_str).collect();
    consumer.subscribe(&topics).map_err(fatal)?;
    let (mut last_commit, mut in_a_row) = (Instant::now(), 0);
    while !stop.is_cancelled() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                route(&consumer, &message).map_err(fatal)?;
                in_a_row = (in_a_row + 1) % TEND_EVERY;
                if in_a_row != 0 {
                    continue;
                }
            }
            Some(Err(error)) => log_or_end(&config.group, error)?,
            None => in_a_row = 0,
        }
        if let Some(error) = consumer.context().failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(fatal(error));
        }
        observer.polled();
        tend(&consumer).map_err(fatal)?;
        if last_commit.elapsed() >= COMMIT_EVERY {
            commit(&consumer).map_err(fatal)?;
            last_commit = Instant::now();
        }
    }
    // The revoke callback drains and commits. It runs inside poll.
    consumer.unsubscribe();
    let until = Instant::now() + config.drain_budget + COORDINATOR_TIMEOUT;
    while !consumer.context().lanes().is_empty() && Instant::now() < until {
        let _ = consumer.poll(POLL);
    }
    Ok(())
}

fn client_config(config: &ConsumerConfig) -> ClientConfig {
    let mut client = config.base.clone();
    client
        .set("group.id", &config.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("partition.assignment.strategy", "cooperative-sticky")
        // A range that retention has deleted must stop us, not be skipped.
        .set("auto.offset.reset", "error")
        .set("session.timeout.ms", config.session_timeout.as_millis().to_string())
        .set("heartbeat.interval.ms", (config.session_timeout.as_millis() / 4).to_string())
        // 8 MiB prefetched per consumer, all partitions together.
        .set("queued.max.messages.kbytes", "8192")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.error.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set("statistics.interval.ms", STATISTICS_EVERY.as_millis().to_string())
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set_log_level(RDKafkaLogLevel::Warning);
    if let Some(instance) = &config.instance {
        client.set("group.instance.id", instance);
    }
    client
}

fn log_or_end(group: &str, error: KafkaError) -> Result<(), ConsumerError> {
    let fatal = matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId)
    );
    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset) {
        return Err(ConsumerError::OutOfRange { group: group.to_owned() });
    }
    if fatal {
        return Err(ConsumerError::Fatal { group: group.to_owned(), source: error });
    }
    // Brokers down, a leader on the move: librdkafka reconnects by itself.
    tracing::warn!(error = %error, group, "kafka");
    Ok(())
}

fn route(consumer: &BaseConsumer<Context>, message: &BorrowedMessage<'_>) -> KafkaResult<()> {
    let mut lanes = consumer.context().lanes();
    // A handful of lanes: looking through them is cheaper than making a key of the borrowed topic.
    let found = lanes.iter_mut().find(|((topic, partition), _)| {
        *partition == message.partition() && topic.as_ref() == message.topic()
    });
    let Some((key, state)) = found else { return Ok(()) };
    let mut record = RawRecord::of(message, &key.0);
    if state.paused {
        // Already queued inside librdkafka when the pause came: a handful.
        state.overflow.push_back(record);
        return Ok(());
    }
    let until = Instant::now() + ROOM;
    while let Err(mpsc::error::TrySendError::Full(back)) = state.sender.try_send(record) {
        if Instant::now() >= until {
            state.overflow.push_back(back);
            state.paused = true;
            return consumer.pause(&one(key)?);
        }
        record = back;
        std::thread::park_timeout(ROOM / 100);
    }
    Ok(())
}

/// Refills and resumes lanes that have room again, and reopens lanes whose worker asks for it.
fn tend(consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
    let mut reopen = Vec::new();
    {
        let mut lanes = consumer.context().lanes();
        for (key, state) in lanes.iter_mut() {
            if state.lane.take_restart() {
                reopen.push(key.clone());
                continue;
            }
            if !state.paused || state.lane.is_finished() || state.sender.capacity() < LANE_RECORDS / 2 {
                continue;
            }
            while let Some(record) = state.overflow.pop_front() {
                if let Err(mpsc::error::TrySendError::Full(record)) = state.sender.try_send(record) {
                    state.overflow.push_front(record);
                    break;
                }
            }
            if state.overflow.is_empty() {
                state.paused = false;
                consumer.resume(&one(key)?)?;
            }
        }
    }
    for key in reopen {
        reopen_lane(consumer, &key)?;
    }
    Ok(())
}

fn reopen_lane(consumer: &BaseConsumer<Context>, key: &Key) -> KafkaResult<()> {
    // What the old worker had finished is committed first; then the lane begins at Kafka's own word.
    commit(consumer)?;
    let (_, start) = starting_offsets(consumer, &one(key)?).swap_remove(0);
    let (offset, bootstrapped) = start?;
    tracing::info!(topic = %key.0, partition = key.1, offset, "partition begins anew");
    consumer.seek(&key.0, key.1, Offset::Offset(offset), COORDINATOR_TIMEOUT)?;
    consumer.resume(&one(key)?)?;
    consumer.context().open(&key.0, key.1, offset, bootstrapped);
    Ok(())
}

fn commit(consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), state) in consumer.context().lanes().iter_mut() {
        let frontier = state.lane.frontier();
        if frontier > state.committed {
            list.add_partition_offset(topic, *partition, Offset::Offset(frontier))?;
            state.committed = frontier;
        }
    }
    if list.count() > 0 {
        consumer.commit(&list, CommitMode::Async)?;
    }
    Ok(())
}

fn one((topic, partition): &Key) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, *partition);
    Ok(list)
}
