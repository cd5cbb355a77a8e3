//! What a deployment costs that has nothing to do: CPU of every role, of Kafka and of Postgres, beside Kafka's with a plain consumer
//! group in each role's place. Rounds of the two alternate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use devstack::{Part, Stack};
use processors::pipeline::STAGES;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use runtime::Sink;
use schemas::topic::Topic;
use sinks::analytics::AnalyticsSink;
use sinks::mongo::MongoSink;
use sinks::postgres::PostgresSink;
use uuid::Uuid;

use crate::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, sibling_binary};
use crate::measure::{family_cpu_seconds, median};

/// The most that a role may take, CPU milliseconds per second.
const WANTED: f64 = 3.0;
/// How much of Kafka's share with plain consumer groups the roles may cause: no more, but for the noise of a JVM that does next to
/// nothing (rounds of one arm differed by up to a tenth).
const OF_PLAIN: f64 = 1.1;
/// After the start: groups have joined, pools are filled, the JVM has compiled.
const SETTLE: Duration = Duration::from_secs(15);
/// How long is measured: of 1 ms per second 30 ms, three of the kernel's ticks.
const SPAN: Duration = Duration::from_secs(30);

/// Runs the bench and prints it; true when every role and Kafka's share stay within their bars.
///
/// # Errors
/// When a part or a role does not start.
pub fn run(stack: &Stack, rounds: usize) -> Result<bool> {
    let folder = make_folder(&stack.folder().join("idle"))?;
    let prefix = format!("idle-{}-", Uuid::now_v7().simple());
    let settings = vec![("MILESTREAM_KAFKA__TOPIC_PREFIX".to_owned(), prefix.clone())];
    let logs = stack.logs().join("idle");
    let config = DeploymentConfig { program: sibling_binary("milestream")?, folder, logs, settings };
    let mut deployment = Deployment::prepare(stack, config)?;
    let mut rows: Vec<(String, Vec<f64>)> = Vec::new();
    let (mut kafka, mut postgres, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    // The round 0 does not count: in it Kafka's JVM compiles what both arms have it do.
    for round in 0..=rounds {
        for role in RoleSpec::without_chain() {
            deployment.start(role)?;
        }
        deployment.wait_ready()?;
        let roles: Vec<(String, u32)> =
            deployment.roles().into_iter().filter_map(|(name, _, pid)| Some((name, pid?))).collect();
        let parts = [Part::Kafka, Part::Postgres].map(|part| stack.pid(part));
        let pids = roles.iter().map(|(_, pid)| Some(*pid)).chain(parts).collect::<Vec<_>>();
        let mut took = idle(&pids)?;
        let (of_postgres, of_kafka) = (took.pop(), took.pop());
        for (name, _) in &roles {
            deployment.terminate(name, Duration::from_secs(10))?;
        }
        let consumers = PlainConsumers::start(stack.kafka_brokers(), &prefix)?;
        let beside = idle(&[parts[0]])?;
        drop(consumers);
        if round == 0 {
            continue;
        }
        postgres.extend(of_postgres);
        kafka.extend(of_kafka);
        plain.extend(beside);
        for ((name, _), took) in roles.iter().zip(took) {
            match rows.iter_mut().find(|(known, _)| known == name) {
                Some((_, values)) => values.push(took),
                None => rows.push((name.clone(), vec![took])),
            }
        }
        println!(
            "round {round}: Kafka {:.1} ms per second, {:.1} with plain consumer groups",
            last(&kafka),
            last(&plain)
        );
    }
    println!("idle, CPU ms per second (medians):");
    let mut good = true;
    for (name, values) in &mut rows {
        let took = median(values);
        println!("  {name:<22} {took:>6.1}  (wanted: at most {WANTED})");
        good &= took <= WANTED;
    }
    let (kafka, plain) = (median(&mut kafka), median(&mut plain));
    println!("  {:<22} {kafka:>6.1}  ({plain:.1} with a plain consumer group in each role's place)", "Kafka");
    println!("  {:<22} {:>6.1}", "Postgres", median(&mut postgres));
    println!("Kafka's share to that with plain groups: {:.2} (wanted: at most {OF_PLAIN})", kafka / plain);
    deployment.stop();
    Ok(good && kafka <= plain * OF_PLAIN)
}

fn last(values: &[f64]) -> f64 {
    values.last().copied().unwrap_or(f64::NAN)
}

/// CPU milliseconds per second of processes with their children, after they have settled; NaN for one that is not there.
fn idle(pids: &[Option<u32>]) -> Result<Vec<f64>> {
    let cpu = || -> Result<Vec<f64>> {
        pids.iter().map(|pid| pid.map_or(Ok(f64::NAN), family_cpu_seconds)).collect()
    };
    std::thread::park_timeout(SETTLE);
    let (start, begun) = (cpu()?, Instant::now());
    std::thread::park_timeout(SPAN);
    let seconds = begun.elapsed().as_secs_f64();
    Ok(cpu()?.into_iter().zip(start).map(|(end, start)| (end - start) * 1_000.0 / seconds).collect())
}

/// A consumer group of the client's default settings for each role, with the topics that the role reads; the gateway's has the topic
/// that it writes.
struct PlainConsumers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl PlainConsumers {
    fn start(brokers: &str, prefix: &str) -> Result<Self> {
        let stages = STAGES.iter().filter(|row| row.kind != processors::pipeline::Kind::Paying);
        let stages = stages.map(|row| (row.name, row.inputs));
        let others: [(&str, &[Topic]); 4] = [
            ("ingest", &[Topic::UploadsReceived]),
            (PostgresSink::NAME, PostgresSink::TOPICS),
            (MongoSink::NAME, MongoSink::TOPICS),
            (AnalyticsSink::NAME, AnalyticsSink::TOPICS),
        ];
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (name, topics) in stages.chain(others) {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", brokers).set("group.id", format!("{prefix}plain-{name}"));
            let consumer: BaseConsumer = config.create().context("a plain consumer")?;
            let topics: Vec<String> =
                topics.iter().map(|topic| format!("{prefix}{}", topic.name())).collect();
            consumer.subscribe(&topics.iter().map(String::as_str).collect::<Vec<_>>())?;
            let stop = stop.clone();
            let poll = move || {
                while !stop.load(Ordering::SeqCst) {
                    drop(consumer.poll(Duration::from_millis(100)));
                }
            };
            threads.push(std::thread::Builder::new().name(format!("plain-{name}")).spawn(poll)?);
        }
        Ok(Self { stop, threads })
    }
}

impl Drop for PlainConsumers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // Err means that it panicked: what it polled says nothing.
            let _ = thread.join();
        }
    }
}
