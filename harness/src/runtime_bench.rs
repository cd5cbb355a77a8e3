//! Records per CPU second of a pure stage on the engine, beside a raw rdkafka loop that does the same decode, encode and
//! headers. Rounds of the two alternate, so that whatever the machine does hits both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devstack::Stack;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};
use runtime::metrics::Metrics;
use runtime::registry::{Registry, RegistryConfig};
use runtime::{Engine, EngineConfig, Envelope, Processor, StageError, SystemClock, Verdict};
use schemas::codec;
use schemas::events::{Event as _, UploadGraded, UploadReceived};
use schemas::ids::Micros;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::measure::{cpu_seconds, median};

/// The share of the raw loop's rate that the engine must reach.
const WANTED: f64 = 0.6;
/// Longest time of a round.
const LIMIT: Duration = Duration::from_secs(120);
/// A W3C trace context, as every record carries one.
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The cheapest honest stage: carries the upload on.
struct Relay;

fn graded(received: &UploadReceived) -> UploadGraded {
    UploadGraded {
        header: received.header.clone(),
        stamp: received.stamp.clone(),
        image: None,
        quality: None,
        fault: None,
    }
}

impl Processor for Relay {
    const NAME: &'static str = "relay";
    type In = UploadReceived;
    type Out = UploadGraded;

    async fn process(&self, event: &Envelope<UploadReceived>) -> Result<Verdict<UploadGraded>, StageError> {
        Ok(Verdict::Emit(graded(&event.payload)))
    }
}

/// Runs the bench and prints it; true when the engine reaches its share.
///
/// # Errors
/// When a part does not respond, or a round loses a record.
pub fn run(stack: &Stack, records: usize, rounds: usize) -> Result<bool> {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let prefix = format!("bench-{}-", Uuid::now_v7().simple());
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", stack.kafka_brokers());
    let registry_config = RegistryConfig::open(stack.schema_registry_url());
    let registry = Registry::new(&registry_config)?;
    let bench = Bench { kafka, registry: registry_config, prefix, records };
    threads.block_on(runtime::topics::apply(
        &bench.kafka,
        &registry,
        &runtime::topics::Layout::local(&bench.prefix),
    ))?;
    let (in_id, out_id) = threads.block_on(async {
        let received = registry.id_of::<UploadReceived>(&bench.prefix).await?;
        Ok::<_, anyhow::Error>((received, registry.id_of::<UploadGraded>(&bench.prefix).await?))
    })?;
    let bytes = bench.fill(in_id)?;
    println!("{records} records of {bytes} bytes a round, {rounds} rounds of each arm, alternating");
    let (mut engine, mut raw) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        raw.push(bench.raw_round(out_id, round)?);
        engine.push(threads.block_on(bench.engine_round())?);
        println!(
            "round {}: raw loop {:.0} records per CPU second, engine {:.0}, ratio {:.2}",
            round + 1,
            raw[round],
            engine[round],
            engine[round] / raw[round]
        );
    }
    let ratio = median(&mut engine) / median(&mut raw);
    println!("ratio of the medians: {ratio:.2} (wanted: at least {WANTED})");
    Ok(ratio >= WANTED)
}

struct Bench {
    kafka: ClientConfig,
    registry: RegistryConfig,
    prefix: String,
    records: usize,
}

impl Bench {
    fn input(&self) -> String {
        format!("{}{}", self.prefix, UploadReceived::TOPIC.name())
    }

    /// Fills the input topic; returns the size of a record.
    fn fill(&self, schema_id: u32) -> Result<usize> {
        let example = include_str!("../../schemas/examples/uploads.received/normal-claim.json");
        let example: serde_json::Value = serde_json::from_str(example)?;
        let mut event: UploadReceived =
            serde_json::from_value(example["event"].clone()).context("the example event")?;
        let producer = self.producer()?;
        let mut size = 0;
        for n in 0..self.records {
            event.header.event_id.0 = Uuid::from_u128(n as u128);
            event.header.user_id.0 = Uuid::from_u128(n as u128 % 1_000);
            event.header.occurred_at = Micros(i64::try_from(n)?);
            let payload = codec::encode(schema_id, &event)?;
            size = payload.len();
            Self::send(&producer, &self.input(), &event.key(), &payload, TRACEPARENT.as_bytes())?;
        }
        producer.flush(LIMIT).context("fill the input topic")?;
        Ok(size)
    }

    /// One round of the loop that a programmer would write by hand.
    fn raw_round(&self, schema_id: u32, round: usize) -> Result<f64> {
        let output = format!("{}raw-{round}", self.prefix);
        self.create(&output)?;
        let (consumer, producer) = (self.consumer()?, self.producer()?);
        let started = cpu_seconds()?;
        let until = Instant::now() + LIMIT;
        for _ in 0..self.records {
            let message = loop {
                ensure!(Instant::now() < until, "the raw loop did not end within {LIMIT:?}");
                if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                    break message?;
                }
            };
            let (id, datum) = codec::unframe(message.payload().unwrap_or_default())?;
            let received: UploadReceived = codec::decode(UploadReceived::schema(), id, datum)?;
            let event = graded(&received);
            let trace =
                message.headers().and_then(|headers| headers.iter().next()?.value).unwrap_or_default();
            Self::send(&producer, &output, &event.key(), &codec::encode(schema_id, &event)?, trace)?;
        }
        producer.flush(LIMIT).context("flush")?;
        self.rate(started)
    }

    /// One round of the engine, from a fresh group to the last acknowledged record.
    async fn engine_round(&self) -> Result<f64> {
        let stop = CancellationToken::new();
        let config = EngineConfig {
            kafka: self.kafka.clone(),
            registry: self.registry.clone(),
            prefix: self.prefix.clone(),
            // Dynamic: a static member would stay in the group for its session, and the group could not be rewound.
            instance: None,
            session_timeout: Duration::from_secs(10),
            drain_budget: Duration::from_secs(5),
            retry_limit: runtime::retry::RetryLimit::default(),
            guards: runtime::fence::Guards::On,
        };
        self.rewind("relay")?;
        let engine = Engine::new(config, Metrics::new()?, Arc::new(SystemClock), stop.clone())?;
        let emitted = engine.metrics.outcomes.with_label_values(&["relay", "emit", "none"]);
        let started = cpu_seconds()?;
        let running = engine.clone();
        let mut role = JoinSet::new();
        role.spawn(async move { running.run_processor(Relay).await });
        let until = Instant::now() + LIMIT;
        while emitted.get() < self.records as u64 {
            ensure!(
                Instant::now() < until && role.try_join_next().is_none(),
                "the engine stopped at {}",
                emitted.get()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
        role.join_all().await.into_iter().collect::<Result<(), _>>()?;
        self.rate(started)
    }

    fn rate(&self, started: f64) -> Result<f64> {
        #[allow(clippy::cast_precision_loss, reason = "a count of records")]
        let records = self.records as f64;
        Ok(records / (cpu_seconds()? - started))
    }

    /// Sets a group back to the beginning, for the next round.
    fn rewind(&self, stage: &str) -> Result<()> {
        let mut config = self.kafka.clone();
        config.set("group.id", format!("{}{stage}", self.prefix));
        let consumer: BaseConsumer = config.create()?;
        let list = self.partitions(&consumer, Offset::Offset(0))?;
        consumer.commit(&list, rdkafka::consumer::CommitMode::Sync).context("rewind the group")
    }

    fn partitions(&self, consumer: &BaseConsumer, offset: Offset) -> Result<TopicPartitionList> {
        let metadata = consumer.fetch_metadata(Some(&self.input()), Duration::from_secs(10))?;
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            list.add_partition_offset(&self.input(), partition.id(), offset)?;
        }
        Ok(list)
    }

    fn create(&self, topic: &str) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.kafka.create()?;
        let topic = NewTopic::new(topic, 4, TopicReplication::Fixed(1));
        let created = futures::executor::block_on(admin.create_topics([&topic], &AdminOptions::new()))?;
        for result in created {
            result.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        Ok(())
    }

    fn consumer(&self) -> Result<BaseConsumer> {
        let mut config = self.kafka.clone();
        config.set("group.id", "raw").set("enable.auto.commit", "false").set("fetch.wait.max.ms", "50");
        let consumer: BaseConsumer = config.create()?;
        consumer.assign(&self.partitions(&consumer, Offset::Beginning)?)?;
        Ok(consumer)
    }

    /// As the engine's producer is set up.
    fn producer(&self) -> Result<BaseProducer> {
        let mut config = self.kafka.clone();
        config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
        config.set("linger.ms", "5").set("compression.type", "zstd");
        config.set("queue.buffering.max.kbytes", "16384").set("queue.buffering.max.messages", "20000");
        config.create().context("producer")
    }

    fn send(producer: &BaseProducer, topic: &str, key: &str, payload: &[u8], trace: &[u8]) -> Result<()> {
        let headers = OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(trace) });
        let mut record = BaseRecord::to(topic).key(key).payload(payload).headers(headers);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((error, back)) => {
                    let full =
                        error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull);
                    ensure!(full, "send: {error}");
                    producer.poll(Duration::from_millis(5));
                    record = back;
                }
            }
        }
        producer.poll(Duration::ZERO);
        Ok(())
    }
}
