//! The partitions of one consumer, as lanes: opened when the group assigns them, committed, and drained when they are revoked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::failpoint::{self, Step};
use crate::partition_queue::PartitionQueue;
use crate::source::{Assignment, Lane, Records};

/// Group coordinator calls inside a rebalance.
pub(crate) const COORDINATOR_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts of a coordinator call inside a rebalance: a broker that restarts is back within a few seconds, and the
/// attempts together stay under the polling interval of librdkafka (`max.poll.interval.ms`, 5 minutes).
const COORDINATOR_ATTEMPTS: u32 = 6;

/// Topic and partition.
pub(crate) type Key = (Arc<str>, i32);
/// A partition with its first offset, and whether that was set just now.
type Start = ((String, i32), KafkaResult<(i64, bool)>);

struct LaneState {
    lane: Arc<Lane>,
    queue: Arc<PartitionQueue<Context>>,
    committed: i64,
}

impl LaneState {
    /// Whether there is anything to look after: somebody works on the partition, and an offset will be to commit.
    fn is_busy(&self) -> bool {
        // Who works on it holds the queue too.
        Arc::strong_count(&self.queue) > 1 && self.queue.next() > self.committed
    }
}

/// What the consumer thread and its watch report.
pub trait Observer: Send + Sync + 'static {
    /// The polling loop went round.
    fn polled(&self);
    /// A partition's committed frontier is this many records behind its end.
    fn lag(&self, topic: &str, partition: i32, records: i64);
    /// The client was built anew, because of `cause`.
    fn rebuilt(&self, cause: &'static str);
    /// Whether building it anew has not helped.
    fn hopeless(&self, is_hopeless: bool);
}

/// What librdkafka's statistics report of the client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    /// When they came; none yet at first.
    pub at: Option<Instant>,
    /// A broker is connected, and the group has a coordinator and this member's place in it.
    pub is_member: bool,
    /// Per partition the next offset to fetch, and whether nothing that was fetched waits to be polled.
    pub fetching: HashMap<Key, (i64, bool)>,
}

/// The state of one client, from its start to its end.
pub(crate) struct Context {
    client: OnceLock<Weak<BaseConsumer<Self>>>,
    lanes: Mutex<HashMap<Key, LaneState>>,
    /// None once the client is given up: who waits for assignments must not wait for what is left of it.
    assignments: Mutex<Option<mpsc::UnboundedSender<Assignment>>>,
    drain_budget: Duration,
    failed: Mutex<Option<KafkaError>>,
    status: Mutex<Status>,
    observer: Arc<dyn Observer>,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let is_up =
            statistics.brokers.values().any(|broker| broker.state == "UP" || broker.state == "UPDATE");
        let group = statistics.cgrp.as_ref();
        let is_member = group.is_some_and(|group| group.state == "up" && group.join_state == "steady");
        let mut fetching = HashMap::new();
        for key in self.lanes().keys() {
            let topic = statistics.topics.get(key.0.as_ref());
            if let Some(found) = topic.and_then(|topic| topic.partitions.get(&key.1)) {
                fetching.insert(key.clone(), (found.next_offset, found.fetchq_cnt == 0));
            }
        }
        *self.lock_status() = Status { at: Some(Instant::now()), is_member: is_up && is_member, fetching };
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
            tracing::error!(error = %error, "rebalance failed");
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
    pub(crate) fn new(
        assignments: mpsc::UnboundedSender<Assignment>,
        drain_budget: Duration,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (lanes, failed, status) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (client, assignments) = (OnceLock::new(), Mutex::new(Some(assignments)));
        Self { client, lanes, assignments, drain_budget, failed, status, observer }
    }

    /// The client whose context this is.
    pub(crate) fn belongs_to(&self, client: &Arc<BaseConsumer<Self>>) {
        // Weak, or the two would keep each other.
        let _ = self.client.set(Arc::downgrade(client));
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Key, LaneState>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest of librdkafka's statistics.
    pub(crate) fn status(&self) -> Status {
        self.lock_status().clone()
    }

    /// Each partition with its frontier.
    pub(crate) fn frontiers(&self) -> Vec<(Key, i64)> {
        self.lanes().iter().map(|(key, state)| (key.clone(), state.lane.frontier())).collect()
    }

    /// The error that ended a rebalance, once.
    pub(crate) fn take_failure(&self) -> Option<KafkaError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether no partition is assigned.
    pub(crate) fn is_empty(&self) -> bool {
        self.lanes().is_empty()
    }

    /// Whether a partition is waiting for its next look: the client is polled often then.
    pub(crate) fn is_busy(&self) -> bool {
        self.lanes().values().any(LaneState::is_busy)
    }

    /// Makes no assignments any more, and hands no records out: a client ends once nobody holds a queue of it.
    pub(crate) fn close(&self) {
        self.assignments.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.lanes().values().for_each(|state| state.queue.close());
    }

    /// What the client has said of its partitions in place of records, since it was last asked.
    pub(crate) fn take_errors(&self) -> Vec<KafkaError> {
        self.lanes().values().flat_map(|state| state.queue.take_errors()).collect()
    }

    /// Ends all lanes of a client that is given up, and waits for their workers within the drain budget. Nothing is committed: what
    /// they have finished since the last commit is repeated.
    pub(crate) fn abandon(&self) {
        self.close();
        let gone: Vec<_> = self.lanes().drain().collect();
        gone.iter().for_each(|(_, state)| state.lane.stop.cancel());
        let until = Instant::now() + self.drain_budget;
        for ((topic, partition), state) in gone {
            if !state.lane.wait_finished(until.saturating_duration_since(Instant::now())) {
                tracing::warn!(%topic, partition, "records in flight are left to the next client");
            }
            self.observer.polled();
        }
    }

    fn assign(&self, consumer: &BaseConsumer<Self>, list: &mut TopicPartitionList) -> KafkaResult<()> {
        let starts = starting_offsets(consumer, list, self.observer.as_ref());
        let mut assigned = TopicPartitionList::new();
        for ((topic, partition), start) in starts {
            match start {
                Ok((offset, bootstrapped)) => {
                    assigned.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
                    // Before the client fetches, so that nothing goes to the queue that all partitions share.
                    self.open(&topic, partition, offset, bootstrapped)?;
                }
                // Without a starting offset nothing may be consumed: the client is built anew.
                Err(error) => return Err(error),
            }
        }
        tracing::info!(partitions = assigned.count(), "partitions assigned");
        consumer.incremental_assign(&assigned)
    }

    /// Gives a partition a queue of its own, and a worker.
    fn open(&self, topic: &str, partition: i32, start: i64, bootstrapped: bool) -> KafkaResult<()> {
        let key: Key = (topic.into(), partition);
        if let Some(before) = self.lanes().remove(&key) {
            // Before the new one is made: both are the same queue of the client, and the end of one would take the other's callback.
            before.queue.close();
        }
        let client = self.client.get().and_then(Weak::upgrade);
        let split = client.and_then(|client| client.split_partition_queue(topic, partition));
        let no_queue = || KafkaError::Subscription(format!("no queue for partition {partition} of {topic}"));
        let queue = Arc::new(PartitionQueue::new(key.0.clone(), split.ok_or_else(no_queue)?, start));
        let (topic, lane, records) = (key.0.clone(), Lane::starting_at(start), Records::Queue(queue.clone()));
        self.lanes().insert(key, LaneState { lane: lane.clone(), queue, committed: start });
        let assignment = Assignment { topic, partition, start, bootstrapped, records, lane };
        let assignments = self.assignments.lock().unwrap_or_else(PoisonError::into_inner);
        if assignments.as_ref().is_none_or(|assignments| assignments.send(assignment).is_err()) {
            tracing::warn!(partition, "the engine is gone; nobody works on the partition");
        }
        Ok(())
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
            state.queue.close();
            // Somebody else's number from now on.
            self.observer.lag(&topic, partition, 0);
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
        tracing::info!(partitions = list.count(), lost, "partitions revoked");
        consumer.incremental_unassign(list)
    }
}

/// The committed offset of each partition; where the group has none it is set to the partition's beginning *now*, so
/// that "never started" and "offset expired" stay two things.
fn starting_offsets(
    consumer: &BaseConsumer<Context>,
    list: &TopicPartitionList,
    observer: &dyn Observer,
) -> Vec<Start> {
    let committed = with_retries(observer, || consumer.committed_offsets(list.clone(), COORDINATOR_TIMEOUT));
    list.elements()
        .iter()
        .map(|element| {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            let start = committed.as_ref().map_err(Clone::clone).and_then(|committed| {
                match committed.find_partition(&topic, partition).map(|found| found.offset()) {
                    Some(Offset::Offset(offset)) => Ok((offset, false)),
                    _ => bootstrap(consumer, &topic, partition, observer).map(|offset| (offset, true)),
                }
            });
            ((topic, partition), start)
        })
        .collect()
}

fn bootstrap(
    consumer: &BaseConsumer<Context>,
    topic: &str,
    partition: i32,
    observer: &dyn Observer,
) -> KafkaResult<i64> {
    let (low, _) =
        with_retries(observer, || consumer.fetch_watermarks(topic, partition, COORDINATOR_TIMEOUT))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(low))?;
    // Acknowledged before the first record is handed out: else a crash could leave decisions without a group offset,
    // which a deciding stage refuses to start on.
    with_retries(observer, || consumer.commit(&list, CommitMode::Sync))?;
    Ok(low)
}

/// Repeats a coordinator call: the group's coordinator may be restarting.
fn with_retries<T>(observer: &dyn Observer, call: impl Fn() -> KafkaResult<T>) -> KafkaResult<T> {
    let mut result = call();
    for _ in 1..COORDINATOR_ATTEMPTS {
        if result.is_ok() {
            break;
        }
        observer.polled();
        std::thread::park_timeout(Duration::from_secs(1));
        result = call();
    }
    result
}

/// Reopens lanes whose worker asks for it.
pub(crate) fn tend(consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
    let asking: Vec<Key> = {
        let lanes = consumer.context().lanes();
        lanes.iter().filter(|(_, state)| state.lane.take_restart()).map(|(key, _)| key.clone()).collect()
    };
    asking.iter().try_for_each(|key| reopen_lane(consumer, key))
}

fn reopen_lane(consumer: &BaseConsumer<Context>, key: &Key) -> KafkaResult<()> {
    // What the old worker had finished is committed first; then the lane begins at Kafka's own word.
    commit(consumer)?;
    let (_, start) =
        starting_offsets(consumer, &one(key)?, consumer.context().observer.as_ref()).swap_remove(0);
    let (offset, bootstrapped) = start?;
    tracing::info!(topic = %key.0, partition = key.1, offset, "partition begins anew");
    consumer.seek(&key.0, key.1, Offset::Offset(offset), COORDINATOR_TIMEOUT)?;
    consumer.context().open(&key.0, key.1, offset, bootstrapped)
}

/// Commits what is finished.
pub(crate) fn commit(consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), state) in consumer.context().lanes().iter_mut() {
        let frontier = state.lane.frontier();
        if frontier > state.committed {
            list.add_partition_offset(topic, *partition, Offset::Offset(frontier))?;
            state.committed = frontier;
        }
    }
    if list.count() > 0 {
        failpoint::at(Step::OffsetDue);
        consumer.commit(&list, CommitMode::Async)?;
        failpoint::at(Step::OffsetSent);
    }
    Ok(())
}

fn one((topic, partition): &Key) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, *partition);
    Ok(list)
}
