//! Runs a role: a consumer, and one supervised worker per assigned partition.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};
use rdkafka::config::ClientConfig;
use schemas::codec::{self, CodecError};
use schemas::events::{ActivityLogged, Event};
use schemas::topic::Topic;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::consumer::{self, ConsumerConfig, ConsumerError, Observer, Spawned};
use crate::dead_letter::DeadLetterLimit;
use crate::deciding::DecidingWorker;
use crate::fence::Guards;
use crate::health::Health;
use crate::journal::Journal;
use crate::metrics::{Metrics, MetricsError};
use crate::producer::{DeliveryTimeout, KafkaProducer, Message, ProducerObserver, send_and_wait};
use crate::publish::PublishError;
use crate::pure::PureWorker;
use crate::registry::{Registry, RegistryConfig, RegistryError, SchemaSource};
use crate::retry::RetryLimit;
use crate::sinking::SinkWorker;
use crate::skips::Skips;
use crate::source::Assignment;
use crate::stage::{Decided, Decider, Processor, Sink};
use crate::worker::{ErrorReport, Halt, StageContext, topic_name};

/// How long a fenced worker waits before it asks for its partition again: the group usually takes it away first.
const FENCED_WAIT: Duration = Duration::from_secs(1);
/// How long a partition whose results Kafka does not take, or whose next record fails alone, waits before it begins anew: a person
/// grants a permission or mends a table.
const HALTED_WAIT: Duration = Duration::from_secs(30);
/// Beyond the drain budget, how long the end of a role waits for the last commit.
const END_WAIT: Duration = Duration::from_secs(3);
/// One per partition that is worked on; its assignment comes back with the result.
type Workers = JoinSet<(Result<(), Halt>, Assignment)>;

/// What a role depends on.
#[derive(Clone)]
pub struct EngineConfig {
    /// Brokers, TLS, SASL.
    pub kafka: ClientConfig,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// In front of every topic and group name; empty in production.
    pub prefix: String,
    /// Unique and stable per instance.
    pub instance: Option<String>,
    /// See [`ConsumerConfig`].
    pub session_timeout: Duration,
    /// See [`ConsumerConfig`].
    pub drain_budget: Duration,
    /// When a record that fails alone is given up.
    pub retry_limit: RetryLimit,
    /// On, outside one test.
    pub guards: Guards,
}

/// Turns what the consumer thread reports into health and metrics.
struct Observed {
    name: &'static str,
    health: Health,
    metrics: Metrics,
}

impl Observer for Observed {
    fn polled(&self) {
        self.health.tick(self.name);
    }

    fn lag(&self, topic: &str, partition: i32, records: i64) {
        self.metrics.lag.with_label_values(&[self.name, topic, &partition.to_string()]).set(records);
    }

    fn rebuilt(&self, cause: &'static str) {
        self.metrics.client_rebuilds.with_label_values(&[self.name, "consumer", cause]).inc();
    }

    fn hopeless(&self, is_hopeless: bool) {
        self.health.hopeless(self.name, is_hopeless);
    }
}

/// Turns what a producer reports into health and metrics.
struct ObservedProducer {
    name: &'static str,
    health: Health,
    metrics: Metrics,
}

impl ProducerObserver for ObservedProducer {
    fn rebuilt(&self, cause: &'static str) {
        self.metrics.client_rebuilds.with_label_values(&[self.name, "producer", cause]).inc();
    }

    fn hopeless(&self, is_hopeless: bool) {
        self.health.hopeless(self.name, is_hopeless);
    }
}

/// Runs stages.
#[derive(Clone)]
pub struct Engine {
    config: EngineConfig,
    producer: Arc<KafkaProducer>,
    registry: Arc<Registry>,
    /// What is counted.
    pub metrics: Metrics,
    /// Liveness and readiness.
    pub health: Health,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    skips: Skips,
}

/// Why a role ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The consumer.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// The producer.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The registry refuses a schema.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// An event does not fit its own schema.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A role's metrics do not register.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The operating system refuses a thread.
    #[error("thread")]
    Thread(#[from] std::io::Error),
    /// A stage panicked.
    #[error("a worker of {0} panicked")]
    Panicked(&'static str),
}

impl Engine {
    /// An engine that ends when `stop` is cancelled.
    ///
    /// # Errors
    /// For settings that a client refuses.
    pub fn new(
        config: EngineConfig,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, EngineError> {
        let (health, registry) = (Health::default(), Arc::new(Registry::new(&config.registry)?));
        let observer =
            Arc::new(ObservedProducer { name: "engine", health: health.clone(), metrics: metrics.clone() });
        let producer =
            Arc::new(KafkaProducer::observed(&config.kafka, DeliveryTimeout::Unlimited, observer)?);
        metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self { config, producer, registry, metrics, health, clock, stop, skips: Skips::default() })
    }

    /// The same engine, which heeds the records that operators have set aside.
    #[must_use]
    pub fn with_skips(self, skips: Skips) -> Self {
        Self { skips, ..self }
    }

    /// A producer of its own for `name`, whose records fail after `timeout`; it is watched as the engine's is.
    ///
    /// # Errors
    /// For settings that the client refuses.
    pub fn producer(&self, name: &'static str, timeout: Duration) -> Result<KafkaProducer, EngineError> {
        let (health, metrics) = (self.health.clone(), self.metrics.clone());
        let observer = Arc::new(ObservedProducer { name, health, metrics });
        Ok(KafkaProducer::observed(&self.config.kafka, DeliveryTimeout::After(timeout), observer)?)
    }

    /// Runs a pure stage until stopped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn run_processor<P: Processor>(&self, processor: P) -> Result<(), EngineError> {
        let output_schema = self.schema_id::<P::Out>().await?;
        let worker = Arc::new(PureWorker {
            processor: Arc::new(processor),
            context: self.stage_context(P::NAME, None).await?,
            output: topic_name::<P::Out>(&self.config.prefix),
            output_schema,
            // The other half is for the acknowledgements. Of the default 6 s this leaves a hard photo its 3 s.
            grace: self.config.drain_budget / 2,
        });
        let run = move |mut assignment: Assignment| {
            let worker = worker.clone();
            async move {
                let result = worker.run(&mut assignment).await;
                worker.context.ended(&result);
                (result, assignment)
            }
        };
        self.run(P::NAME, &[P::In::TOPIC], run).await
    }

    /// Runs a deciding stage until stopped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn run_decider<D: Decider>(&self, decider: D, pool: PgPool) -> Result<(), EngineError> {
        let output_schema = self.schema_id::<D::Out>().await?;
        let owner = self.config.instance.clone().unwrap_or_else(|| format!("pid-{}", std::process::id()));
        let worker = Arc::new(DecidingWorker {
            decider: Arc::new(decider),
            context: self.stage_context(D::NAME, Some(&pool)).await?,
            pool,
            output: topic_name::<D::Out>(&self.config.prefix),
            output_schema,
            owner,
            guards: self.config.guards,
        });
        let run = move |mut assignment: Assignment| {
            let worker = worker.clone();
            async move {
                let result = worker.run(&mut assignment).await;
                worker.context.ended(&result);
                (result, assignment)
            }
        };
        self.run(D::NAME, &[D::In::READS], run).await
    }

    /// Runs a sink until stopped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn run_sink<S: Sink>(&self, sink: S) -> Result<(), EngineError> {
        let worker =
            Arc::new(SinkWorker { sink: Arc::new(sink), context: self.stage_context(S::NAME, None).await? });
        let run = move |mut assignment: Assignment| {
            let worker = worker.clone();
            async move {
                let result = worker.run(&mut assignment).await;
                worker.context.ended(&result);
                (result, assignment)
            }
        };
        self.run(S::NAME, S::TOPICS, run).await
    }

    /// In front of every topic and group name.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// Brokers, TLS, SASL: for what a role reads beside its consumer.
    #[must_use]
    pub fn kafka(&self) -> &ClientConfig {
        &self.config.kafka
    }

    /// Schemas by their ids: for what a role reads beside its consumer.
    #[must_use]
    pub fn schema_source(&self) -> Arc<dyn SchemaSource> {
        self.registry.clone()
    }

    /// Cancelled when the process is to end: for what a role runs beside its consumer.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Waits for outstanding acknowledgements at the end of the process, at most two seconds: what is not acknowledged
    /// by then is published again by the next start, since its offset has not moved.
    pub fn flush(&self) {
        self.producer.flush(Duration::from_secs(2));
    }

    /// Schema id of an event type, waiting while the registry is not reachable.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`].
    pub async fn schema_id<E: Event>(&self) -> Result<u32, EngineError> {
        let mut backoff = crate::backoff::Backoff::default();
        loop {
            match self.registry.id_of::<E>(&self.config.prefix).await {
                Ok(id) => return Ok(id),
                Err(error @ RegistryError::Unavailable(_)) => {
                    tracing::warn!(error = %ErrorReport(&error), "waiting for the schema registry");
                    if !backoff.wait(&self.stop).await {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Publishes what no input record causes, and waits until Kafka has it or the engine is stopped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn publish<E: Event>(&self, events: &[E]) -> Result<(), EngineError> {
        let (topic, schema) = (topic_name::<E>(&self.config.prefix), self.schema_id::<E>().await?);
        for event in events {
            let (key, payload) = (event.key(), codec::encode(schema, event)?);
            let message = Message {
                topic: &topic,
                key: Some(key.as_bytes()),
                payload: Some(payload.as_slice()),
                headers: &[],
            };
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                sent = send_and_wait(self.producer.as_ref(), &message) => sent?,
            };
        }
        Ok(())
    }

    /// A journal of what a part of this process calls; waits while the registry is not reachable.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`].
    pub async fn journal(&self, module: &'static str) -> Result<Journal, EngineError> {
        Ok(self.journal_of(module, self.schema_id::<ActivityLogged>().await?))
    }

    fn journal_of(&self, module: &'static str, activity_schema: u32) -> Journal {
        let (outbound, clock) = (self.producer.clone(), self.clock.clone());
        Journal::new(module, outbound, clock, &self.config.prefix, activity_schema)
    }

    async fn stage_context(
        &self,
        stage: &'static str,
        pool: Option<&PgPool>,
    ) -> Result<StageContext, EngineError> {
        let activity_logs = topic_name::<ActivityLogged>(&self.config.prefix);
        let activity_schema = self.schema_id::<ActivityLogged>().await?;
        let mut journal = self.journal_of(stage, activity_schema);
        if let Some(pool) = pool {
            journal = journal.with_pool(pool.clone());
        }
        Ok(StageContext {
            stage,
            outbound: self.producer.clone(),
            schemas: self.registry.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            dead_letters: format!("{}{}", self.config.prefix, Topic::DeadLetters.name()),
            activity_logs,
            activity_schema,
            limit: DeadLetterLimit::default(),
            retry_limit: self.config.retry_limit,
            progress: Arc::default(),
            refused: Arc::default(),
            skips: self.skips.clone(),
            journal: Arc::new(journal),
        })
    }

    async fn run<F>(
        &self,
        name: &'static str,
        topics: &[Topic],
        work: impl Fn(Assignment) -> F,
    ) -> Result<(), EngineError>
    where
        F: Future<Output = (Result<(), Halt>, Assignment)> + Send + 'static,
    {
        let config = ConsumerConfig {
            base: self.config.kafka.clone(),
            group: format!("{}{name}", self.config.prefix),
            instance: self.config.instance.clone().map(|instance| format!("{name}-{instance}")),
            topics: topics.iter().map(|topic| format!("{}{}", self.config.prefix, topic.name())).collect(),
            session_timeout: self.config.session_timeout,
            drain_budget: self.config.drain_budget,
            rival_after: consumer::RIVAL,
        };
        let stop = self.stop.child_token();
        let observer =
            Arc::new(Observed { name, health: self.health.clone(), metrics: self.metrics.clone() });
        let (mut assignments, thread) = consumer::spawn(config, stop.clone(), observer)?;
        self.health.ready(name);
        let (mut workers, mut pauses) = (Workers::new(), FuturesUnordered::new());
        let mut halts = HashSet::new();
        let result = loop {
            tokio::select! {
                assignment = assignments.recv() => match assignment {
                    Some(assignment) => {
                        self.unhalt(name, &assignment, &mut halts);
                        workers.spawn(work(assignment));
                    }
                    None => break Ok(()),
                },
                Some(ended) = workers.join_next() => match ended {
                    Ok((result, assignment)) => {
                        pauses.extend(self.settle(name, result, assignment, &mut halts));
                    }
                    Err(_) => break Err(EngineError::Panicked(name)),
                },
                Some(()) = pauses.next() => {}
                () = stop.cancelled() => break Ok(()),
            }
        };
        stop.cancel();
        self.end(name, workers, pauses, (assignments, thread)).await?;
        result
    }

    /// Waits for workers and consumer, within the drain budget and what the consumer may need for its last commit: with Kafka
    /// away neither would ever end.
    async fn end(
        &self,
        name: &'static str,
        mut workers: Workers,
        mut pauses: FuturesUnordered<impl Future<Output = ()>>,
        (mut assignments, thread): Spawned,
    ) -> Result<(), EngineError> {
        let until = Instant::now() + self.config.drain_budget + END_WAIT;
        let mut consumes = true;
        while consumes || !workers.is_empty() {
            tokio::select! {
                Some(ended) = workers.join_next(), if !workers.is_empty() => match ended {
                    Ok((_, assignment)) => assignment.lane.finish(false),
                    Err(_) => return Err(EngineError::Panicked(name)),
                },
                Some(()) = pauses.next(), if !pauses.is_empty() => {}
                assignment = assignments.recv(), if consumes => match assignment {
                    // Too late: nobody begins to work on it.
                    Some(assignment) => assignment.lane.finish(false),
                    None => consumes = false,
                },
                () = tokio::time::sleep_until(until) => {
                    tracing::warn!(stage = name, workers = workers.len(),
                        "kafka does not respond: what is in flight is left to the next owner");
                    workers.abort_all();
                    return Ok(());
                }
            }
        }
        // The consumer's last act was to let go of its assignments.
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(ended)) => Ok(ended?),
            _ => Err(ConsumerError::Thread(name.to_owned()).into()),
        }
    }

    /// A partition waits, visibly: its role is not ready until it begins anew.
    fn halt(
        &self,
        name: &'static str,
        topic: &Arc<str>,
        partition: i32,
        halts: &mut HashSet<(Arc<str>, i32)>,
    ) {
        self.metrics.halted.with_label_values(&[name, topic, &partition.to_string()]).set(1);
        halts.insert((topic.clone(), partition));
        self.health.unready(name);
    }

    /// A partition begins anew: it is halted no more.
    fn unhalt(&self, name: &'static str, assignment: &Assignment, halts: &mut HashSet<(Arc<str>, i32)>) {
        let partition = assignment.partition.to_string();
        self.metrics.halted.with_label_values(&[name, &assignment.topic, &partition]).set(0);
        if halts.remove(&(assignment.topic.clone(), assignment.partition)) && halts.is_empty() {
            self.health.ready(name);
        }
    }

    /// One worker has ended: marks its lane, so that the consumer can go on; at once, or after the pause that comes back.
    fn settle(
        &self,
        name: &'static str,
        result: Result<(), Halt>,
        assignment: Assignment,
        halts: &mut HashSet<(Arc<str>, i32)>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let Assignment { lane, topic, partition, .. } = assignment;
        let offset = lane.frontier();
        let halted = self.metrics.halted.with_label_values(&[name, &topic, &partition.to_string()]);
        halted.set(0);
        let wait = match result {
            Ok(()) | Err(Halt::Stopped) => {
                lane.finish(false);
                return None;
            }
            Err(Halt::Operator(detail)) => {
                // Kept assigned without progress: the lag shows, and nothing is skipped, until an operator does.
                tracing::error!(stage = name, %topic, partition, offset, detail, "partition halted");
                halted.set(1);
                None
            }
            Err(Halt::Refused(offset)) => {
                tracing::error!(stage = name, %topic, partition, offset, "its results are refused: partition begins anew");
                Some(Duration::ZERO)
            }
            Err(Halt::Fenced) => {
                tracing::warn!(stage = name, %topic, partition, offset, "fenced: another owner decides here");
                Some(FENCED_WAIT)
            }
            Err(Halt::Publish(error)) => {
                tracing::error!(stage = name, %topic, partition, offset, error = %error,
                    "partition halted: kafka takes nothing of it; it begins anew in {} s", HALTED_WAIT.as_secs());
                self.halt(name, &topic, partition, halts);
                Some(HALTED_WAIT)
            }
            Err(Halt::Blocked(offset, error)) => {
                tracing::error!(stage = name, %topic, partition, offset, error,
                    "partition halted: this record must not be left out, and fails while others succeed; it is tried again in {} s",
                    HALTED_WAIT.as_secs());
                self.halt(name, &topic, partition, halts);
                Some(HALTED_WAIT)
            }
        };
        let skips = self.skips.clone();
        let over = async move {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => skips.added(name, &topic, partition).await,
            }
        };
        Some(async move {
            tokio::select! {
                () = lane.stop.cancelled() => lane.finish(false),
                () = over => lane.finish(true),
            }
        })
    }
}
