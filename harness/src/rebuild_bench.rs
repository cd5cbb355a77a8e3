//! Events a second of `milestream rebuild`: the Postgres sink's tables, then the aggregates, from topics on the local broker.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devstack::Stack;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use runtime::registry::{Registry, RegistryConfig};
use runtime::topics::{Layout, apply};
use schemas::codec;
use schemas::events::Event;
use sinks::rebuild::TopicCount;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, query};
use uuid::Uuid;

use crate::books_bench::events::Events;
use crate::measure::{cpu_seconds, family_cpu_seconds, parent};

/// Events a second that a rebuild of the Postgres sink's tables must reach, on two cores with broker and database.
const WANTED: f64 = 25_000.0;
/// Longest wait for the broker.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where everything is.
struct Bench {
    kafka: ClientConfig,
    registry: RegistryConfig,
    prefix: String,
    pool: PgPool,
}

/// Fills topics with the events of so many uploads, rebuilds from them and prints how fast; true when the bar is reached.
///
/// # Errors
/// When a part does not answer, or a record is lost.
pub fn run(stack: &Stack, uploads: u64) -> Result<bool> {
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    threads.block_on(async {
        let bench = Bench::new(stack).await?;
        let events = Events::new(0, uploads)?;
        query("insert into users (id) select unnest($1::uuid[])")
            .bind(events.users())
            .execute(&bench.pool)
            .await?;
        bench.fill(&events).await?;
        let tables = bench
            .measure(
                "postgres",
                uploads,
                sinks::postgres::rebuild(&bench.pool, &bench.kafka, &bench.registry, &bench.prefix, &|_| ()),
            )
            .await?;
        let numbers = bench
            .measure(
                "analytics",
                uploads,
                sinks::analytics::rebuild(&bench.pool, &bench.kafka, &bench.registry, &bench.prefix, &|_| ()),
            )
            .await?;
        bench.check(uploads).await?;
        println!("wanted: at least {WANTED:.0} events a second, {tables:.0} and {numbers:.0} were reached");
        Ok(tables >= WANTED && numbers >= WANTED)
    })
}

impl Bench {
    async fn new(stack: &Stack) -> Result<Self> {
        let name = format!("rebuild_{}", Uuid::now_v7().simple());
        let options: PgConnectOptions = stack.database_url().parse()?;
        let options = options.options([("search_path", name.as_str())]);
        // As many as a deployment has by default.
        let pool = PgPoolOptions::new().max_connections(10).connect_with(options).await?;
        query(AssertSqlSafe(format!("create schema {name}"))).execute(&pool).await?;
        migrations::MIGRATIONS.run(&pool).await?;
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", stack.kafka_brokers());
        let registry = RegistryConfig::open(stack.schema_registry_url());
        let prefix = format!("{name}.");
        apply(&kafka, &Registry::new(&registry)?, &Layout::local(&prefix)).await?;
        Ok(Self { kafka, registry, prefix, pool })
    }

    async fn fill(&self, events: &Events) -> Result<()> {
        self.publish(events, |n| events.received(n)).await?;
        self.publish(events, |n| events.graded(n)).await?;
        self.publish(events, |n| events.read(n)).await?;
        self.publish(events, |n| events.decided(n)).await?;
        self.publish(events, |n| events.calculated(n)).await?;
        self.publish(events, |n| events.granted(n)).await
    }

    async fn publish<E: Event>(&self, events: &Events, event: impl Fn(u64) -> E) -> Result<()> {
        let schema = Registry::new(&self.registry)?.id_of::<E>(&self.prefix).await?;
        let topic = format!("{}{}", self.prefix, E::TOPIC.name());
        let mut config = self.kafka.clone();
        config.set("linger.ms", "5").set("compression.type", "zstd").set("partitioner", "murmur2_random");
        let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
        for n in 0..events.count() {
            let event = event(n);
            let (key, payload) = (event.key(), codec::encode(schema, &event)?);
            let mut record = BaseRecord::to(&topic).key(&key).payload(&payload);
            while let Err((error, back)) = producer.send(record) {
                ensure!(error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull), "send: {error}");
                std::thread::park_timeout(Duration::from_millis(5));
                record = back;
            }
        }
        producer.flush(PATIENCE).context("fill a topic")
    }

    /// Events a second of one rebuild.
    #[allow(clippy::cast_precision_loss, reason = "a count of events")]
    async fn measure<E: std::error::Error + Send + Sync + 'static>(
        &self,
        name: &str,
        uploads: u64,
        rebuild: impl Future<Output = Result<Vec<TopicCount>, E>>,
    ) -> Result<f64> {
        let backend: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&self.pool).await?;
        let server = parent(u32::try_from(backend)?).context("PostgreSQL runs elsewhere")?;
        let (started, own, postgres) = (Instant::now(), cpu_seconds()?, family_cpu_seconds(server)?);
        let counts = rebuild.await?;
        let seconds = started.elapsed().as_secs_f64();
        let mut written = 0;
        for count in &counts {
            ensure!(count.read == count.written, "{count:?}");
            written += count.written;
        }
        let events = written as f64;
        println!(
            "{name}: {events:.0} events of {uploads} uploads in {seconds:.1} s, {:.0} a second; CPU seconds: process {:.1}, postgres {:.1}",
            events / seconds,
            cpu_seconds()? - own,
            family_cpu_seconds(server)? - postgres,
        );
        Ok(events / seconds)
    }

    /// Every upload, its reward and its driver's total are there.
    async fn check(&self, uploads: u64) -> Result<()> {
        let found: Vec<i64> = sqlx::query_scalar(
            "select count(*) from odometer_uploads where upload_status = 'verified'
             union all select count(*) from rewards where granted_amount is not null
             union all select count(*) from mileage_data where final_mileage is not null
             union all select count(*) from upload_verifications where ai_service_used is not null",
        )
        .fetch_all(&self.pool)
        .await?;
        let wanted = i64::try_from(uploads)?;
        ensure!(found.iter().all(|count| *count == wanted), "{found:?} rows of {uploads} uploads");
        let unscored: i64 = sqlx::query_scalar(
            "select count(*) from users where sustainability_score is null or total_rewards = 0",
        )
        .fetch_one(&self.pool)
        .await?;
        ensure!(unscored == 0, "{unscored} drivers without a score or a reward");
        Ok(())
    }
}
