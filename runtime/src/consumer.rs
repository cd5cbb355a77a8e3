//! The Kafka consumer on its own OS thread: it always polls, so a slow stage never costs the group membership. Records do not come
//! through it: each partition has a queue of its own, which its worker polls.
//!
//! A revoke drains the lane within a budget and commits before the partition goes. A client
//! that is frozen, fenced or failed is built anew, and the role goes on.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::consumer_watch::{Watched, watch};
pub use crate::lanes::Observer;
use crate::lanes::{COORDINATOR_TIMEOUT, Context, commit, tend};
use crate::probe::drop_aside;
use crate::source::Assignment;

/// One poll while there is something to look after; also the longest delay of a resume or a commit.
const POLL: Duration = Duration::from_millis(20);
/// One poll while there is nothing; also the longest delay of a stop or of a partition that begins anew.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// How often offsets are committed while records flow.
const COMMIT_EVERY: Duration = Duration::from_millis(250);
/// How often librdkafka reports its state.
const STATISTICS_EVERY: Duration = Duration::from_secs(5);
/// First and longest pause before a client is built anew.
const REBUILD_PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What waits of the partitions of a topic each, in KiB, where a role reads one topic, and at least: with less a quick stage waits for the
/// broker between two responses. A role that reads many topics has many partitions, which share it: twenty topics of four partitions
/// that all have a backlog are 80 MiB, beside the responses that filled them up (1 MiB each).
const PREFETCHED_KIB: (usize, usize) = (4_096, 1_024);
/// A client that has lived this long was sound: the next pause is the first again.
const SOUND: Duration = Duration::from_secs(60);
/// A member that is fenced again and again for this long has a rival: another process with the same name. Its own earlier self, after
/// a broker's restart, is gone within the session timeout.
pub const RIVAL: Duration = Duration::from_secs(300);

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
    /// A member that is fenced again and again for this long has a rival, and ends; [`RIVAL`] in production.
    pub rival_after: Duration,
}

/// How long a member has been fenced, from client to client.
#[derive(Debug, Default)]
struct Fenced(Option<Instant>);

impl Fenced {
    /// A client that began at `born` has ended for `cause`. For how long its name has been taken again and again, without a
    /// minute of peace.
    fn lasts(&mut self, cause: &str, born: Instant, now: Instant) -> Duration {
        if now.saturating_duration_since(born) >= SOUND {
            self.0 = None;
        }
        if cause == FENCED {
            return now.saturating_duration_since(*self.0.get_or_insert(now));
        }
        Duration::ZERO
    }
}

/// Why a consumer ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum ConsumerError {
    /// librdkafka refuses the settings.
    #[error("consumer of group {group} cannot be made: {source}")]
    Settings {
        /// The group.
        group: String,
        /// Why.
        source: KafkaError,
    },
    /// Another process has the same name in the group.
    #[error(
        "group {group}: another process joins as {instance}, again and again. Give every process an engine.instance of its own"
    )]
    Rival {
        /// The group.
        group: String,
        /// The name.
        instance: String,
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

/// Assignments, and the thread that makes them.
pub type Spawned = (mpsc::UnboundedReceiver<Assignment>, JoinHandle<Result<(), ConsumerError>>);

/// How one client's life ended.
enum End {
    /// The role was asked to stop.
    Stopped,
    /// It is of no more use, for this cause.
    Useless(&'static str, String),
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
    let watched = Arc::new(Watched::default());
    let (base, group) = (config.base.clone(), config.group.clone());
    let topic = config.topics.first().cloned().unwrap_or_default();
    let (shared, watcher, until) = (watched.clone(), observer.clone(), stop.clone());
    std::thread::Builder::new()
        .name(format!("watch-{group}"))
        .spawn(move || watch(&base, (&group, &topic), &shared, watcher.as_ref(), &until))?;
    let thread = std::thread::Builder::new()
        .name(format!("kafka-{}", config.group))
        .spawn(move || Consumer { config, stop, observer, watched }.run(&sender))?;
    Ok((receiver, thread))
}

struct Consumer {
    config: ConsumerConfig,
    stop: CancellationToken,
    observer: Arc<dyn Observer>,
    watched: Arc<Watched>,
}

impl Consumer {
    /// One client after the other, until the role is stopped.
    fn run(&self, assignments: &mpsc::UnboundedSender<Assignment>) -> Result<(), ConsumerError> {
        let (mut pause, mut fenced) = (REBUILD_PAUSE.0, Fenced::default());
        loop {
            let context = Context::new(assignments.clone(), self.config.drain_budget, self.observer.clone());
            let created = client_config(&self.config).create_with_context(context);
            let group = self.config.group.clone();
            let consumer: BaseConsumer<Context> =
                created.map_err(|source| ConsumerError::Settings { group, source })?;
            let consumer = Arc::new(consumer);
            consumer.context().belongs_to(&consumer);
            *self.watched.client() = Some(consumer.context().clone());
            // An order for the client before it.
            let _ = self.watched.take_order();
            let born = Instant::now();
            let end = self.live(&consumer);
            *self.watched.client() = None;
            let End::Useless(cause, detail) = end.inspect_err(|_| consumer.context().abandon())? else {
                consumer.context().close();
                // Here, so that the group knows of it when the role has ended.
                drop(consumer);
                return Ok(());
            };
            tracing::warn!(group = self.config.group, cause, detail, "the consumer is built anew");
            self.observer.rebuilt(cause);
            consumer.context().abandon();
            drop_aside(consumer);
            if born.elapsed() >= SOUND {
                pause = REBUILD_PAUSE.0;
            }
            self.check_rival(fenced.lasts(cause, born, Instant::now()))?;
            self.wait(pause);
            pause = (pause * 2).min(REBUILD_PAUSE.1);
        }
    }

    fn check_rival(&self, fenced: Duration) -> Result<(), ConsumerError> {
        match self.config.instance.clone() {
            Some(instance) if fenced >= self.config.rival_after => {
                Err(ConsumerError::Rival { group: self.config.group.clone(), instance })
            }
            _ => Ok(()),
        }
    }

    fn wait(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.is_cancelled() {
            self.observer.polled();
            std::thread::park_timeout(POLL);
        }
    }

    /// One client's life.
    fn live(&self, consumer: &BaseConsumer<Context>) -> Result<End, ConsumerError> {
        let useless = |error: KafkaError| Ok(End::Useless("error", error.to_string()));
        let topics: Vec<&str> = self.config.topics.iter().map(String::as_str).collect();
        if let Err(error) = consumer.subscribe(&topics) {
            return useless(error);
        }
        let mut last_commit = Instant::now();
        while !self.stop.is_cancelled() {
            let wait = if consumer.context().is_busy() { POLL } else { IDLE_POLL };
            let mut errors = consumer.context().take_errors();
            match consumer.poll(wait) {
                Some(Err(error)) => errors.push(error),
                Some(Ok(message)) => {
                    let detail = format!("a record of partition {} without its queue", message.partition());
                    return Ok(End::Useless("queue", detail));
                }
                None => {}
            }
            for error in errors {
                if let Some(end) = self.after(error)? {
                    return Ok(end);
                }
            }
            if let Some(error) = consumer.context().take_failure() {
                return Ok(End::Useless("rebalance", error.to_string()));
            }
            if let Some(cause) = self.watched.take_order() {
                return Ok(End::Useless(cause, "the brokers respond to a fresh client".to_owned()));
            }
            self.observer.polled();
            let mut tended = tend(consumer);
            if last_commit.elapsed() >= COMMIT_EVERY {
                tended = tended.and_then(|()| commit(consumer));
                last_commit = Instant::now();
            }
            if let Err(error) = tended {
                return useless(error);
            }
        }
        // The revoke callback drains and commits. It runs inside poll.
        consumer.unsubscribe();
        let until = Instant::now() + self.config.drain_budget + COORDINATOR_TIMEOUT;
        while !consumer.context().is_empty() && Instant::now() < until {
            let _ = consumer.poll(POLL);
        }
        Ok(End::Stopped)
    }

    /// What an error of `poll` means.
    fn after(&self, error: KafkaError) -> Result<Option<End>, ConsumerError> {
        let group = &self.config.group;
        Ok(match (&error, error.rdkafka_error_code()) {
            (_, Some(RDKafkaErrorCode::AutoOffsetReset)) => {
                return Err(ConsumerError::OutOfRange { group: group.clone() });
            }
            (_, Some(RDKafkaErrorCode::FencedInstanceId)) => Some(End::Useless(FENCED, error.to_string())),
            (KafkaError::MessageConsumptionFatal(_), _) | (_, Some(RDKafkaErrorCode::Fatal)) => {
                Some(End::Useless("fatal", error.to_string()))
            }
            _ => {
                // Brokers down, a leader on the move: librdkafka reconnects by itself.
                tracing::warn!(error = %error, group, "kafka");
                None
            }
        })
    }
}

/// The cause of a client whose name another member has taken: most often its own earlier self, after a broker's restart.
const FENCED: &str = "fenced";

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
        // A long poll that ends with the first record: the time only says how often an idle one is asked again.
        .set("fetch.wait.max.ms", "500")
        .set("fetch.error.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "1000")
        .set("statistics.interval.ms", STATISTICS_EVERY.as_millis().to_string())
        .set("topic.metadata.refresh.interval.ms", "30000")
        .set_log_level(RDKafkaLogLevel::Warning);
    let (most, least) = PREFETCHED_KIB;
    bound_prefetch(&mut client, (most / config.topics.len().max(1)).max(least));
    if let Some(instance) = &config.instance {
        client.set("group.instance.id", instance);
    }
    client
}

/// Has a queue of the client prefetch at most `kib` KiB, and ask for more 5 ms after it found so much queued. By default it waits for a
/// second then, and a quick stage empties the queue in a hundredth of that: it stood still for most of the time.
pub(crate) fn bound_prefetch(client: &mut ClientConfig, kib: usize) -> &mut ClientConfig {
    client.set("queued.max.messages.kbytes", kib.to_string()).set("fetch.queue.backoff.ms", "5")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_was_full_is_filled_again_before_a_quick_stage_has_emptied_it() {
        let mut client = ClientConfig::new();
        bound_prefetch(&mut client, PREFETCHED_KIB.1);
        let of = |name: &str| client.get(name).unwrap().parse::<u32>().unwrap();
        // 200,000 records of 600 bytes a second are the most that a stage was seen to take.
        let emptied_ms = of("queued.max.messages.kbytes") * 1024 / 600 / 200;
        assert!(of("fetch.queue.backoff.ms") <= emptied_ms);
    }

    #[test]
    fn a_name_that_is_taken_again_and_again_for_five_minutes_has_a_rival_and_a_minute_of_peace_begins_anew() {
        let (start, mut fenced) = (Instant::now(), Fenced::default());
        let at = |second: u64| start + Duration::from_secs(second);
        // Each client lives for ten seconds before its name is taken.
        let lasts = |fenced: &mut Fenced, now: u64| fenced.lasts(FENCED, at(now - 10), at(now));
        let first = (1..100).map(|n| n * 40).find(|now| lasts(&mut fenced, *now) >= RIVAL);
        assert_eq!(first, Some(40 + 320));
        // What another cause ends neither counts nor is peace.
        assert_eq!(fenced.lasts("frozen", at(390), at(400)), Duration::ZERO);
        assert_eq!(lasts(&mut fenced, 410), Duration::from_secs(370));
        assert_eq!(fenced.lasts(FENCED, at(440), at(500)), Duration::ZERO);
    }
}
