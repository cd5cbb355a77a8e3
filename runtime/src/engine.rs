//! Runs a role: a consumer, and one supervised worker per assigned partition.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::config::ClientConfig;
use schemas::codec::{self, CodecError};
use schemas::events::{ActivityLogged, Event};
use schemas::topic::Topic;
use sqlx::PgPool;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::consumer::{self, ConsumerConfig, ConsumerError, Observer};
use crate::dead_letter::DeadLetterLimit;
use crate::deciding::DecidingWorker;
use crate::fence::Guards;
use crate::health::Health;
use crate::metrics::{Metrics, MetricsError};
use crate::producer::{DeliveryTimeout, KafkaProducer, Message, send_and_wait};
use crate::publish::PublishError;
use crate::pure::PureWorker;
use crate::registry::{Registry, RegistryConfig, RegistryError};
use crate::retry::RetryLimit;
use crate::sinking::SinkWorker;
use crate::source::Assignment;
use crate::stage::{Decider, Processor, Sink};
use crate::worker::{ErrorReport, Halt, StageContext, topic_name};

/// How long a fenced worker waits before it asks for its partition again: the group usually takes it away first.
const FENCED_WAIT: Duration = Duration::from_secs(1);

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
        let producer = Arc::new(KafkaProducer::new(&config.kafka, DeliveryTimeout::Unlimited)?);
        let registry = Arc::new(Registry::new(&config.registry)?);
        metrics.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self { config, producer, registry, metrics, health: Health::default(), clock, stop })
    }

    /// Runs a pure stage until stopped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn run_processor<P: Processor>(&self, processor: P) -> Result<(), EngineError> {
        let output_schema = self.schema_id::<P::Out>().await?;
        let worker = Arc::new(PureWorker {
            processor: Arc::new(processor),
            context: self.stage_context(P::NAME).await?,
            output: topic_name::<P::Out>(&self.config.prefix),
            output_schema,
            // The other half is for the acknowledgements. Of the default 6 s this leaves a hard photo its 3 s.
            grace: self.config.drain_budget / 2,
        });
        let run = move |mut assignment: Assignment| {
            let worker = worker.clone();
            async move { (worker.run(&mut assignment).await, assignment) }
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
            context: self.stage_context(D::NAME).await?,
            pool,
            output: topic_name::<D::Out>(&self.config.prefix),
            output_schema,
            owner,
            guards: self.config.guards,
        });
        let run = move |mut assignment: Assignment| {
            let worker = worker.clone();
            async move { (worker.run(&mut assignment).await, assignment) }
        };
        self.run(D::NAME, &[D::In::TOPIC], run).await
    }

    /// Runs a sink until stopped.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn run_sink<S: Sink>(&self, sink: S) -> Result<(), EngineError> {
        let worker =
            Arc::new(SinkWorker { sink: Arc::new(sink), context: self.stage_context(S::NAME).await? });
        let run = move |mut assignment: Assignment| {
            let worker = worker.clone();
            async move { (worker.run(&mut assignment).await, assignment) }
        };
        self.run(S::NAME, S::TOPICS, run).await
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

    async fn stage_context(&self, stage: &'static str) -> Result<StageContext, EngineError> {
        Ok(StageContext {
            stage,
            outbound: self.producer.clone(),
            schemas: self.registry.clone(),
            metrics: self.metrics.clone(),
            clock: self.clock.clone(),
            dead_letters: format!("{}{}", self.config.prefix, Topic::DeadLetters.name()),
            activity_logs: topic_name::<ActivityLogged>(&self.config.prefix),
            activity_schema: self.schema_id::<ActivityLogged>().await?,
            limit: DeadLetterLimit::default(),
            retry_limit: self.config.retry_limit,
            progress: Arc::default(),
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
        };
        let stop = self.stop.child_token();
        let observer =
            Arc::new(Observed { name, health: self.health.clone(), metrics: self.metrics.clone() });
        let (mut assignments, thread) = consumer::spawn(config, stop.clone(), observer)?;
        self.health.ready(name);
        let mut workers = JoinSet::new();
        let result = loop {
            tokio::select! {
                assignment = assignments.recv() => match assignment {
                    Some(assignment) => drop(workers.spawn(work(assignment))),
                    None => break Ok(()),
                },
                Some(ended) = workers.join_next() => {
                    if let Err(error) = self.settle(name, ended) {
                        break Err(error);
                    }
                }
            }
        };
        stop.cancel();
        while let Some(ended) = workers.join_next().await {
            self.settle(name, ended)?;
        }
        let joined = tokio::task::spawn_blocking(move || thread.join()).await;
        match joined {
            Ok(Ok(ended)) => ended?,
            _ => return Err(ConsumerError::Thread(name.to_owned()).into()),
        }
        result
    }

    /// One worker has ended: marks its lane, so that the consumer can go on.
    fn settle(
        &self,
        name: &'static str,
        ended: Result<(Result<(), Halt>, Assignment), tokio::task::JoinError>,
    ) -> Result<(), EngineError> {
        let Ok((result, assignment)) = ended else { return Err(EngineError::Panicked(name)) };
        let (lane, partition) = (assignment.lane.clone(), assignment.partition.to_string());
        let halted = self.metrics.halted.with_label_values(&[name, &assignment.topic, &partition]);
        halted.set(0);
        match result {
            Ok(()) | Err(Halt::Stopped) => lane.finish(false),
            Err(Halt::Fenced) => {
                tracing::warn!(stage = name, topic = %assignment.topic, partition, "fenced: another owner decides here");
                tokio::spawn(async move {
                    tokio::select! {
                        () = lane.stop.cancelled() => lane.finish(false),
                        () = tokio::time::sleep(FENCED_WAIT) => lane.finish(true),
                    }
                });
            }
            Err(Halt::Operator(detail)) => {
                // Kept assigned without progress: the lag shows, and nothing is skipped.
                tracing::error!(stage = name, topic = %assignment.topic, partition, offset = lane.frontier(), detail,
                    "partition halted");
                halted.set(1);
                lane.finish(false);
            }
            Err(Halt::Publish(error)) => {
                lane.finish(false);
                return Err(error.into());
            }
        }
        Ok(())
    }
}
