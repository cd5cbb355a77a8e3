//! What deciding costs, and how long it takes from an accepted reading to the granted reward, at a steady rate: the readings stand on
//! `uploads.readings` as the reader would have put them there, and `fraud_check`, `reward_calculation` and `limit_check` run as processes
//! of their own. Times are those of Kafka's records, so that none of the bench's own work is in them.

#![allow(clippy::cast_precision_loss, reason = "counts and milliseconds of a bench are far below 2^52")]

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devstack::{Part, Stack};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, Producer as _};
use runtime::registry::{Registry, RegistryConfig, SchemaSource as _};
use runtime::snapshot;
use schemas::codec;
use schemas::events::{Event, OdometerRead, RewardGranted};
use schemas::ids::UploadId;
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::books_bench::events::Events;
use crate::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, of_a_load, sibling_binary};
use crate::measure::{family_cpu_seconds, quantile};
use crate::relay::{producer, send};

/// Readings a second.
const RATE: u64 = 500;
/// Readings of one send: at the rate, one in 20 ms.
const BURST: u64 = 10;
/// Readings before those that are measured: connections, plans and code are warm after them.
const WARM_UP: u64 = 2_000;
/// The most milliseconds that 99 of 100 readings may take to their reward.
const P99_MS: f64 = 250.0;
/// Longest wait until everything is granted.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of five readings of a driver the first begins and earns nothing.
const EARN: (u64, u64) = (4, 5);
/// The stages that are run.
const STAGES: [&str; 3] = ["fraud_check", "reward_calculation", "limit_check"];

/// Runs the bench and prints it; true when the time is within its bound.
///
/// # Errors
/// When a part does not start, or not every reward is granted in time.
pub fn run(program: Option<&Path>, seconds: u64) -> Result<bool> {
    let tell = |line: &str| eprintln!("bench: {line}");
    let stack = Stack::start_own(Path::new(".local"), &[Part::Postgres, Part::Kafka, Part::Registry], &tell)?;
    let bench = Bench::prepare(&stack, program)?;
    let warm_up = Events::new(0, WARM_UP)?;
    bench.open_accounts(&warm_up)?;
    bench.publish(&warm_up)?;
    bench.granted(WARM_UP)?;
    let events = Events::new(1_000_000, RATE * seconds)?;
    bench.open_accounts(&events)?;
    println!("{} readings at {RATE} a second", events.count());
    let before = bench.cpu(&stack)?;
    bench.publish(&events)?;
    bench.granted(WARM_UP + events.count())?;
    let after = bench.cpu(&stack)?;
    for (name, before) in &before {
        let spent = after.get(name).context("a process is gone")? - before;
        println!("  {name:<18} {:.3} ms of CPU a reading", spent * 1_000.0 / events.count() as f64);
    }
    let times = bench.times(&events)?;
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    println!(
        "from the reading to the granted reward: p50 {p50:.0} ms, p99 {p99:.0} ms (wanted: at most {P99_MS:.0})"
    );
    bench.deployment.stop();
    stack.stop();
    Ok(p99 <= P99_MS)
}

struct Bench {
    deployment: Deployment,
    kafka: ClientConfig,
    producer: BaseProducer,
    prefix: String,
    registry: Registry,
    /// The registry's id of `OdometerRead`.
    schema: u32,
    database: String,
    runtime: Runtime,
}

impl Bench {
    fn prepare(stack: &Stack, program: Option<&Path>) -> Result<Self> {
        let folder = make_folder(&stack.folder().join("decide"))?;
        let prefix = format!("decide-{}-", Uuid::now_v7().simple());
        let mut settings = of_a_load();
        settings.push(("MILESTREAM_KAFKA__TOPIC_PREFIX".to_owned(), prefix.clone()));
        let program =
            program.map_or_else(|| sibling_binary("milestream"), |program| Ok(program.to_owned()))?;
        let logs = stack.logs().join("decide");
        let mut deployment =
            Deployment::prepare(stack, DeploymentConfig { program, folder, logs, settings })?;
        for stage in STAGES {
            deployment.start(RoleSpec::stage(stage, "a"))?;
        }
        deployment.wait_ready()?;
        let registry = Registry::new(&RegistryConfig::open(stack.schema_registry_url()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let schema = runtime.block_on(registry.id_of::<OdometerRead>(&prefix))?;
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", stack.kafka_brokers());
        let producer = producer(stack.kafka_brokers())?;
        let database = stack.database_url().to_owned();
        Ok(Self { deployment, kafka, producer, prefix, registry, schema, database, runtime })
    }

    /// Makes the drivers' accounts, as the gateway does before it takes a photo.
    fn open_accounts(&self, events: &Events) -> Result<()> {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.database).await?;
            let insert = "insert into users (id) select unnest($1::uuid[]) on conflict do nothing";
            sqlx::query(insert).bind(events.users()).execute(&mut connection).await?;
            Ok(())
        })
    }

    /// Publishes the readings at the rate.
    fn publish(&self, events: &Events) -> Result<()> {
        let (topic, begun) = (format!("{}{}", self.prefix, OdometerRead::TOPIC.name()), Instant::now());
        for n in 0..events.count() {
            let event = events.read(n);
            let payload = codec::encode(self.schema, &event)?;
            send(&self.producer, &topic, &event.key(), &payload, b"")?;
            if (n + 1).is_multiple_of(BURST) {
                let due = Duration::from_secs_f64((n + 1) as f64 / RATE as f64);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
                self.producer.poll(Duration::ZERO);
            }
        }
        self.producer.flush(PATIENCE).context("publish the readings")
    }

    /// Waits until what so many readings earn is granted.
    fn granted(&self, readings: u64) -> Result<()> {
        let (topic, until) =
            (format!("{}{}", self.prefix, RewardGranted::TOPIC.name()), Instant::now() + PATIENCE);
        let wanted = readings * EARN.0 / EARN.1;
        loop {
            let granted = snapshot::read(&self.kafka, &topic)?.len() as u64;
            if granted >= wanted {
                return Ok(());
            }
            ensure!(Instant::now() < until, "{granted} of {wanted} rewards were granted within {PATIENCE:?}");
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// CPU seconds of each process so far.
    fn cpu(&self, stack: &Stack) -> Result<HashMap<String, f64>> {
        let roles = self.deployment.roles().into_iter().filter_map(|(name, _, pid)| Some((name, pid?)));
        let parts = [("Postgres", Part::Postgres), ("Kafka", Part::Kafka)];
        let parts = parts.into_iter().filter_map(|(name, part)| Some((name.to_owned(), stack.pid(part)?)));
        roles.chain(parts).map(|(name, pid)| Ok((name, family_cpu_seconds(pid)?))).collect()
    }

    /// Milliseconds from each reading of the events to its reward, sorted.
    fn times(&self, events: &Events) -> Result<Vec<f64>> {
        let first = events.read(0).header.upload_id;
        let read = self.stamped::<OdometerRead>(|event| event.header.upload_id)?;
        let granted = self.stamped::<RewardGranted>(|event| event.header.upload_id)?;
        let measured = granted.iter().filter(|(upload, _)| **upload >= first);
        let times = measured.map(|(upload, at)| {
            read.get(upload).map(|read| (at - read) as f64).context("a reward without a reading")
        });
        let mut times = times.collect::<Result<Vec<f64>>>()?;
        times.sort_by(f64::total_cmp);
        Ok(times)
    }

    /// When each event was first put on its topic, in milliseconds.
    fn stamped<E: Event>(&self, upload: impl Fn(&E) -> UploadId) -> Result<HashMap<UploadId, i64>> {
        let mut stamped = HashMap::new();
        for record in snapshot::read(&self.kafka, &format!("{}{}", self.prefix, E::TOPIC.name()))? {
            let (id, datum) = codec::unframe(record.payload.as_deref().unwrap_or_default())?;
            // A program of another release writes by a schema of its own.
            let schema = self.runtime.block_on(self.registry.schema(id))?;
            let event: E = codec::decode(&schema, id, datum)?;
            stamped.entry(upload(&event)).or_insert(record.timestamp_ms);
        }
        Ok(stamped)
    }
}
