//! What an upload costs the gateway, Postgres and Kafka, and how long it takes beside a floor: a bare handler that makes the same photo
//! durable, writes one row and waits for the same acknowledgement. Rounds of the two alternate, so that whatever the machine does
//! hits both.

#![allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devstack::{Part, Stack, Supervised};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::{Client, Photo, Posted};
use crate::deployment::{
    Deployment, DeploymentConfig, RoleSpec, free_address, make_folder, open_rates, sibling_binary,
};
use crate::measure::{family_cpu_seconds, median, quantile};
use crate::photos::with_comment;
use crate::scenario::driver_id;

/// Bytes of a photo.
const BYTES: usize = 116_000;
/// A photo of about that size; a comment fills it up and makes each copy another photo.
const SAMPLE: &str = "examples/photos/drum-2.jpg";
/// Bytes of a comment's marker and length.
const COMMENT_HEAD: usize = 4;
/// Uploads at once.
const AT_ONCE: usize = 16;
/// Drivers; each has uploaded before a round is measured.
const DRIVERS: usize = 64;
/// Longest wait for a process to listen.
const LIMIT: Duration = Duration::from_secs(60);

/// CPU milliseconds per upload that may be used at most.
const GATEWAY_MS: f64 = 0.7;
const POSTGRES_MS: f64 = 0.5;
/// What uploads a core-second of the gateway may be at least of the floor's.
const SHARE: f64 = 0.6;
/// The most that p99 may be of the floor's.
const TIMES_FLOOR: f64 = 2.0;

/// What a round of one arm showed.
struct Round {
    /// CPU milliseconds per upload of the server, Postgres and Kafka.
    server_ms: f64,
    postgres_ms: f64,
    kafka_ms: f64,
    /// Milliseconds, sorted.
    latencies: Vec<f64>,
    seconds: f64,
}

impl Round {
    fn print(&self, name: &str) {
        println!(
            "  {name:<8} CPU ms per upload: server {:.2}, Postgres {:.2}, Kafka {:.2}; p50 {:.1} ms, p99 {:.1} ms; {:.0} uploads per second",
            self.server_ms,
            self.postgres_ms,
            self.kafka_ms,
            quantile(&self.latencies, 0.5),
            quantile(&self.latencies, 0.99),
            self.latencies.len() as f64 / self.seconds
        );
    }
}

/// Runs the bench and prints it; true when the gateway is within its bounds.
///
/// # Errors
/// When a part does not start, or an upload is refused.
pub fn run(program: Option<&Path>, uploads: usize, rounds: usize) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tell = |line: &str| eprintln!("bench: {line}");
    // Parts of its own, since their processes are measured.
    let stack = Stack::start_own(Path::new(".local"), &[Part::Postgres, Part::Kafka, Part::Registry], &tell)?;
    let folder = make_folder(&stack.folder().join("gateway"))?;
    let mut deployment = deployment(program, &stack, &folder)?;
    deployment.start(RoleSpec::ingest())?;
    deployment.wait_ready()?;
    let floor = runtime.block_on(Floor::start(&stack, &folder))?;
    let bench = Arc::new(Bench::new(&deployment, &floor, &stack)?);
    println!(
        "{uploads} uploads of {BYTES} bytes a round, {AT_ONCE} at once, {rounds} rounds of each arm, alternating"
    );
    // Makes the drivers' vehicles and keys, and warms connections and code up on both sides.
    runtime.block_on(bench.round(Arm::Gateway, DRIVERS * 4))?;
    runtime.block_on(bench.round(Arm::Floor, DRIVERS * 4))?;
    let (mut gateway, mut floor_rounds) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        println!("round {round}:");
        for (arm, name, seen) in
            [(Arm::Gateway, "gateway", &mut gateway), (Arm::Floor, "floor", &mut floor_rounds)]
        {
            let round = runtime.block_on(bench.round(arm, uploads))?;
            round.print(name);
            seen.push(round);
        }
    }
    deployment.stop();
    drop(floor);
    stack.stop();
    Ok(judge(&gateway, &floor_rounds))
}

fn judge(gateway: &[Round], floor: &[Round]) -> bool {
    let of = |rounds: &[Round], value: fn(&Round) -> f64| {
        median(&mut rounds.iter().map(value).collect::<Vec<_>>())
    };
    let p99 = |round: &Round| quantile(&round.latencies, 0.99);
    let (server, postgres) = (of(gateway, |round| round.server_ms), of(gateway, |round| round.postgres_ms));
    let times = of(gateway, p99) / of(floor, p99);
    let share = of(floor, |round| round.server_ms) / server;
    println!(
        "medians: gateway {server:.2} ms of CPU per upload (wanted: at most {GATEWAY_MS}), Postgres {postgres:.2} ms (at most \
         {POSTGRES_MS}), Kafka {:.2} ms; uploads a core-second {share:.2} of the floor's (at least {SHARE}); p99 {times:.2} times the floor's (at most {TIMES_FLOOR})",
        of(gateway, |round| round.kafka_ms)
    );
    server <= GATEWAY_MS && share >= SHARE && postgres <= POSTGRES_MS && times <= TIMES_FLOOR
}

fn deployment(program: Option<&Path>, stack: &Stack, folder: &Path) -> Result<Deployment> {
    let mut settings = open_rates();
    settings
        .push(("MILESTREAM_KAFKA__TOPIC_PREFIX".to_owned(), format!("gateway-{}-", Uuid::now_v7().simple())));
    let program = program.map_or_else(|| sibling_binary("milestream"), |program| Ok(program.to_owned()))?;
    let logs = stack.logs().join("gateway");
    Deployment::prepare(stack, DeploymentConfig { program, folder: folder.to_owned(), logs, settings })
}

/// The process that is the floor.
struct Floor {
    process: Supervised,
    address: SocketAddr,
}

impl Floor {
    async fn start(stack: &Stack, folder: &Path) -> Result<Self> {
        let topic = format!("floor-{}", Uuid::now_v7().simple());
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", stack.kafka_brokers());
        let admin: AdminClient<DefaultClientContext> = kafka.create()?;
        let new = NewTopic::new(&topic, 4, TopicReplication::Fixed(1));
        for made in admin.create_topics([&new], &AdminOptions::new()).await? {
            made.map_err(|(topic, code)| anyhow::anyhow!("create {topic}: {code}"))?;
        }
        let address = free_address()?;
        let program = sibling_binary("upload_floor")?;
        ensure!(program.is_file(), "{} is missing: build the harness's binaries", program.display());
        let environment = [
            ("DATABASE_URL", stack.database_url().to_owned()),
            ("KAFKA_BROKERS", stack.kafka_brokers().to_owned()),
            ("FLOOR_TOPIC", topic),
            ("FLOOR_FOLDER", folder.join("floor").display().to_string()),
            ("FLOOR_LISTEN", address.to_string()),
        ];
        let log = stack.logs().join("gateway/floor.log");
        let command = [program.display().to_string()];
        let process = Supervised::spawn(&command, &environment, &log, folder.join("floor.pid"))?;
        let until = Instant::now() + LIMIT;
        while tokio::net::TcpStream::connect(address).await.is_err() {
            ensure!(Instant::now() < until, "the floor does not listen; its log is {}", log.display());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { process, address })
    }
}

#[derive(Clone, Copy)]
enum Arm {
    Gateway,
    Floor,
}

struct Bench {
    client: Client,
    tokens: Vec<String>,
    sample: Vec<u8>,
    floor_url: String,
    http: reqwest::Client,
    gateway_pid: u32,
    floor_pid: u32,
    postgres_pid: u32,
    kafka_pid: u32,
    photos: AtomicUsize,
}

impl Bench {
    fn new(deployment: &Deployment, floor: &Floor, stack: &Stack) -> Result<Self> {
        let drivers = (0..DRIVERS).map(|n| driver_id(&format!("gateway-{n}")));
        let gateway = deployment.roles().into_iter().find(|(name, ..)| name == "ingest");
        Ok(Self {
            client: Client::new(&deployment.gateway_url())?,
            tokens: drivers.map(|driver| deployment.token(driver)).collect::<Result<_>>()?,
            sample: std::fs::read(SAMPLE).context(SAMPLE)?,
            floor_url: format!("http://{}/", floor.address),
            http: reqwest::Client::new(),
            gateway_pid: gateway.and_then(|(_, _, pid)| pid).context("the gateway's process")?,
            floor_pid: floor.process.pid().context("the floor's process")?,
            postgres_pid: stack.pid(Part::Postgres).context("Postgres' process")?,
            kafka_pid: stack.pid(Part::Kafka).context("Kafka's process")?,
            photos: AtomicUsize::new(0),
        })
    }

    /// A photo that nobody has sent yet.
    fn photo(&self, n: usize) -> Result<Vec<u8>> {
        let room = BYTES.checked_sub(self.sample.len() + COMMENT_HEAD).context("the sample is too large")?;
        let photo = with_comment(&self.sample, &format!("{n:0room$}")).context("the sample is no JPEG")?;
        ensure!(photo.len() == BYTES, "a photo has {} bytes", photo.len());
        Ok(photo)
    }

    fn cpu(&self, arm: Arm) -> Result<[f64; 3]> {
        let server = match arm {
            Arm::Gateway => self.gateway_pid,
            Arm::Floor => self.floor_pid,
        };
        Ok([
            family_cpu_seconds(server)?,
            family_cpu_seconds(self.postgres_pid)?,
            family_cpu_seconds(self.kafka_pid)?,
        ])
    }

    async fn round(self: &Arc<Self>, arm: Arm, uploads: usize) -> Result<Round> {
        let (left, begun, before) = (Arc::new(AtomicUsize::new(uploads)), Instant::now(), self.cpu(arm)?);
        let mut senders = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (bench, left) = (self.clone(), left.clone());
            senders.spawn(async move {
                let mut latencies = Vec::new();
                let next =
                    || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                while next().is_ok() {
                    latencies.push(bench.upload(arm).await?);
                }
                Ok::<_, anyhow::Error>(latencies)
            });
        }
        let mut latencies = Vec::with_capacity(uploads);
        while let Some(sent) = senders.join_next().await {
            latencies.extend(sent??);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let after = self.cpu(arm)?;
        latencies.sort_by(f64::total_cmp);
        let per_upload = |at: usize| (after[at] - before[at]) * 1000.0 / uploads as f64;
        Ok(Round {
            server_ms: per_upload(0),
            postgres_ms: per_upload(1),
            kafka_ms: per_upload(2),
            latencies,
            seconds,
        })
    }

    /// Milliseconds that an upload took.
    async fn upload(&self, arm: Arm) -> Result<f64> {
        let n = self.photos.fetch_add(1, Ordering::SeqCst);
        let bytes = self.photo(n)?;
        let begun = Instant::now();
        match arm {
            Arm::Gateway => {
                let photo = Photo { file_name: format!("{n}.jpg"), bytes, ..Photo::default() };
                let posted = self.client.post(&self.tokens[n % DRIVERS], &photo).await?;
                ensure!(matches!(posted, Posted::Accepted { status: 202, .. }), "upload {n}: {posted:?}");
            }
            Arm::Floor => {
                let response =
                    self.http.post(&self.floor_url).body(bytes).send().await.context("ask the floor")?;
                ensure!(response.status().is_success(), "upload {n} on the floor: {}", response.status());
            }
        }
        Ok(begun.elapsed().as_secs_f64() * 1000.0)
    }
}
