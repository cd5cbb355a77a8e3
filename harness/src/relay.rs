//! The stage of the benches `runtime` and `peers`, as programs that run until they are ended: on the engine, and as the loop that a
//! programmer would write by hand. `bench/peers` holds the same for Kafka Streams; all take their settings from the
//! environment, and are measured from outside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use runtime::metrics::Metrics;
use runtime::registry::RegistryConfig;
use runtime::{Engine, EngineConfig, Envelope, Processor, StageError, SystemClock, Verdict};
use schemas::codec;
use schemas::events::{Event as _, UploadGraded, UploadReceived};
use tokio_util::sync::CancellationToken;

/// The name of the stage, which is that of the engine's group behind the prefix.
pub const STAGE: &str = "relay";
/// How often the arms commit, as the engine does.
pub const COMMIT_EVERY: Duration = Duration::from_millis(250);

/// What an arm is told.
pub struct Settings {
    /// Kafka's bootstrap servers.
    pub brokers: String,
    /// The registry's base URL.
    pub registry: String,
    /// In front of the engine's topics and group.
    pub prefix: String,
    /// The raw loop's group, input and output.
    pub group: String,
    /// See above.
    pub input: String,
    /// See above.
    pub output: String,
    /// Schema id of the output.
    pub output_schema: u32,
}

impl Settings {
    /// As variables of the environment, which the Java program reads too.
    #[must_use]
    pub fn environment(&self, input_schema: u32) -> Vec<(&'static str, String)> {
        vec![
            ("BROKERS", self.brokers.clone()),
            ("REGISTRY", self.registry.clone()),
            ("PREFIX", self.prefix.clone()),
            ("GROUP", self.group.clone()),
            ("INPUT", self.input.clone()),
            ("OUTPUT", self.output.clone()),
            ("INPUT_SCHEMA", input_schema.to_string()),
            ("OUTPUT_SCHEMA", self.output_schema.to_string()),
            ("COMMIT_MS", COMMIT_EVERY.as_millis().to_string()),
        ]
    }

    /// What [`Settings::environment`] says.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn from_environment() -> Result<Self> {
        let get = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
        Ok(Self {
            brokers: get("BROKERS")?,
            registry: get("REGISTRY")?,
            prefix: get("PREFIX")?,
            group: get("GROUP")?,
            input: get("INPUT")?,
            output: get("OUTPUT")?,
            output_schema: get("OUTPUT_SCHEMA")?.parse()?,
        })
    }

    fn kafka(&self) -> ClientConfig {
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", &self.brokers);
        kafka
    }
}

/// The cheapest honest stage: carries the upload on.
struct Relay;

fn graded(received: &UploadReceived) -> UploadGraded {
    UploadGraded {
        header: received.header.clone(),
        stamp: received.stamp.clone(),
        image: None,
        quality: None,
        fault: None,
        pixel_hash: None,
    }
}

impl Processor for Relay {
    const NAME: &'static str = STAGE;
    type In = UploadReceived;
    type Out = UploadGraded;

    async fn process(&self, event: &Envelope<UploadReceived>) -> Result<Verdict<UploadGraded>, StageError> {
        Ok(Verdict::Emit(graded(&event.payload)))
    }
}

/// The stage on the engine, until SIGTERM.
///
/// # Errors
/// [`runtime::EngineError`].
pub async fn engine(settings: &Settings) -> Result<()> {
    let stop = CancellationToken::new();
    let config = EngineConfig {
        kafka: settings.kafka(),
        registry: RegistryConfig::open(&settings.registry),
        prefix: settings.prefix.clone(),
        // Dynamic: a static member would stay in the group for its session, and the group could not be rewound.
        instance: None,
        session_timeout: Duration::from_secs(10),
        drain_budget: Duration::from_secs(5),
        retry_limit: runtime::retry::RetryLimit::default(),
        guards: runtime::fence::Guards::On,
    };
    let engine = Engine::new(config, Metrics::new()?, Arc::new(SystemClock), stop.clone())?;
    let mut ends = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let role = engine.run_processor(Relay);
    tokio::pin!(role);
    tokio::select! {
        ended = &mut role => return Ok(ended?),
        _ = ends.recv() => stop.cancel(),
    }
    Ok(role.await?)
}

/// The loop that a programmer would write by hand: at least once, since what is committed was acknowledged before. Runs until it is
/// killed.
///
/// # Errors
/// When Kafka fails.
pub fn raw(settings: &Settings) -> Result<()> {
    let mut config = settings.kafka();
    config.set("group.id", &settings.group).set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest").set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create().context("consumer")?;
    consumer.subscribe(&[&settings.input])?;
    let producer = producer(&settings.brokers)?;
    let (mut committed, mut is_new) = (Instant::now(), false);
    loop {
        if let Some(message) = consumer.poll(COMMIT_EVERY) {
            let message = message?;
            let (id, datum) = codec::unframe(message.payload().unwrap_or_default())?;
            let received: UploadReceived = codec::decode(UploadReceived::schema(), id, datum)?;
            let event = graded(&received);
            let trace =
                message.headers().and_then(|headers| headers.iter().next()?.value).unwrap_or_default();
            let payload = codec::encode(settings.output_schema, &event)?;
            send(&producer, &settings.output, &event.key(), &payload, trace)?;
            is_new = true;
        }
        if is_new && committed.elapsed() >= COMMIT_EVERY {
            while producer.in_flight_count() > 0 {
                producer.poll(Duration::from_millis(5));
            }
            consumer.commit_consumer_state(CommitMode::Async)?;
            (committed, is_new) = (Instant::now(), false);
        }
    }
}

/// A producer that is set up as the engine's is.
///
/// # Errors
/// When librdkafka refuses the settings.
pub fn producer(brokers: &str) -> Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
    config.set("linger.ms", "5").set("compression.type", "zstd").set("compression.level", "1");
    config.set("queue.buffering.max.kbytes", "16384").set("queue.buffering.max.messages", "20000");
    config.create().context("producer")
}

/// Sends a record with its trace context, waiting while the queue is full.
///
/// # Errors
/// When the client refuses it.
pub fn send(producer: &BaseProducer, topic: &str, key: &str, payload: &[u8], trace: &[u8]) -> Result<()> {
    let headers = OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(trace) });
    let mut record = BaseRecord::to(topic).key(key).payload(payload).headers(headers);
    loop {
        match producer.send(record) {
            Ok(()) => break,
            Err((error, back)) => {
                let full = error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::QueueFull);
                ensure!(full, "send: {error}");
                producer.poll(Duration::from_millis(5));
                record = back;
            }
        }
    }
    producer.poll(Duration::ZERO);
    Ok(())
}
