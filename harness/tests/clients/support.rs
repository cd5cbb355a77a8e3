//! Consumers and producers as the engine makes them, with workers that only remember.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devstack::{Part, Stack};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use runtime::consumer::{self, ConsumerConfig, ConsumerError, Observer, RIVAL};
use runtime::producer::{DeliveryTimeout, KafkaProducer, Message, ProducerObserver, send_and_wait};
use runtime::source::Assignment;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything: suspicion, proof and a rebuild take under a minute.
pub const LIMIT: Duration = Duration::from_secs(240);
/// The least that Kafka allows by default.
const SESSION: Duration = Duration::from_secs(6);

/// A Kafka of the test's own.
pub fn own_kafka() -> Stack {
    own(&[Part::Kafka])
}

pub fn own(parts: &[Part]) -> Stack {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local");
    Stack::start_own(&root, parts, &|line| eprintln!("clients: {line}")).unwrap()
}

pub fn kafka(brokers: &str, client: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", client);
    config
}

pub fn create_topic(kafka: &ClientConfig, topic: &str, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = kafka.create().unwrap();
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let created = futures::executor::block_on(admin.create_topics([&topic], &AdminOptions::new()));
    assert!(created.unwrap().iter().all(Result::is_ok));
}

pub async fn until(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "waited {limit:?} for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What clients report.
#[derive(Default)]
pub struct Reports {
    pub rebuilt: Mutex<Vec<&'static str>>,
    pub hopeless: AtomicBool,
    pub lag: Mutex<BTreeMap<(String, i32), i64>>,
}

impl Reports {
    pub fn rebuilt(&self) -> Vec<&'static str> {
        self.rebuilt.lock().unwrap().clone()
    }
}

impl Observer for Reports {
    fn polled(&self) {}

    fn lag(&self, topic: &str, partition: i32, records: i64) {
        self.lag.lock().unwrap().insert((topic.to_owned(), partition), records);
    }

    fn rebuilt(&self, cause: &'static str) {
        self.rebuilt.lock().unwrap().push(cause);
    }

    fn hopeless(&self, is_hopeless: bool) {
        self.hopeless.store(is_hopeless, Ordering::SeqCst);
    }
}

impl ProducerObserver for Reports {
    fn rebuilt(&self, cause: &'static str) {
        Observer::rebuilt(self, cause);
    }

    fn hopeless(&self, is_hopeless: bool) {
        Observer::hopeless(self, is_hopeless);
    }
}

/// A role's consumer.
pub fn config(base: ClientConfig, group: &str, topic: &str) -> ConsumerConfig {
    ConsumerConfig {
        base,
        group: group.to_owned(),
        instance: Some(format!("{group}-a")),
        topics: vec![topic.to_owned()],
        session_timeout: SESSION,
        drain_budget: SESSION / 2,
        rival_after: RIVAL,
    }
}

/// A role: a consumer with a worker per partition that remembers what it saw.
pub struct Role {
    pub seen: Arc<Mutex<BTreeSet<String>>>,
    pub reports: Arc<Reports>,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<Result<(), ConsumerError>>,
}

impl Role {
    pub fn start(base: ClientConfig, group: &str, topic: &str) -> Self {
        Self::start_for(base, group, topic, RIVAL)
    }

    /// The same, which ends where its name is taken again and again for `rival_after`.
    pub fn start_for(base: ClientConfig, group: &str, topic: &str, rival_after: Duration) -> Self {
        let config = ConsumerConfig { rival_after, ..config(base, group, topic) };
        let (stop, reports) = (CancellationToken::new(), Arc::<Reports>::default());
        let (mut assignments, thread) = consumer::spawn(config, stop.clone(), reports.clone()).unwrap();
        let seen = Arc::<Mutex<BTreeSet<String>>>::default();
        let remembered = seen.clone();
        tokio::spawn(async move {
            while let Some(assignment) = assignments.recv().await {
                tokio::spawn(remember(assignment, remembered.clone()));
            }
        });
        Self { seen, reports, stop, thread }
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    pub fn end(self) -> Result<(), ConsumerError> {
        self.stop.cancel();
        self.thread.join().unwrap()
    }
}

async fn remember(mut assignment: Assignment, seen: Arc<Mutex<BTreeSet<String>>>) {
    let lane = assignment.lane.clone();
    loop {
        let record = tokio::select! {
            () = lane.stop.cancelled() => None,
            record = assignment.records.recv() => record,
        };
        let Some(record) = record else { break };
        seen.lock().unwrap().insert(String::from_utf8(record.payload.unwrap()).unwrap());
        lane.advance(record.position.offset + 1);
    }
    lane.finish(false);
}

/// A producer whose records fail after ten seconds, as the relay's and the gateway's.
pub fn producer(base: &ClientConfig) -> (Arc<KafkaProducer>, Arc<Reports>) {
    let reports = Arc::<Reports>::default();
    let timeout = DeliveryTimeout::After(Duration::from_secs(10));
    (Arc::new(KafkaProducer::observed(base, timeout, reports.clone()).unwrap()), reports)
}

/// Publishes until it is acknowledged, as the owner of a record does.
pub async fn publish(producer: &KafkaProducer, topic: &str, payload: &str) {
    let (key, payload) = (Some(payload.as_bytes()), Some(payload.as_bytes()));
    let started = Instant::now();
    while let Err(error) = send_and_wait(producer, &Message { topic, key, payload, headers: &[] }).await {
        assert!(started.elapsed() < LIMIT, "not published within {LIMIT:?}: {error}");
    }
}
