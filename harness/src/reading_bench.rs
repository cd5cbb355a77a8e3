//! Photos per second of the stage `odometer_reading`, beside two independent `milestream read` processes over photos that
//! show the same; and how long other users' photos take while one user's stands still. All records are on one partition:
//! what happens at once there happens inside it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use devstack::Stack;
use processors::odometer_reading::{OdometerReading, PostgresAnswers};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use runtime::registry::{Registry, RegistryConfig};
use runtime::{Clock as _, Processor, SystemClock};
use schemas::codec;
use schemas::events::{Event as _, OdometerRead, UploadGraded};
use schemas::ids::{Micros, UploadId};
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, of_a_load, sibling_binary};
use crate::measure::{median, peak_mib, quantile};
use crate::photos::with_comment;
use crate::scenario::{Scenario, driver_id};
use crate::topics::Tail;

/// The share of the two processes' rate that the stage must reach.
const WANTED_RATE: f64 = 0.9;
/// How much longer other users' photos may take at p99 while one user's stands still.
const WANTED_WAIT: f64 = 1.2;
/// Resident memory that the stage may reach; MiB.
const WANTED_MIB: f64 = 350.0;
/// How long one user's photo stands still.
const STALL: Duration = Duration::from_secs(60);
/// Photos of the other users come at this share of the rate that was measured before.
const LOAD: f64 = 0.5;
/// Longest wait for the last photo of a round.
const LIMIT: Duration = Duration::from_secs(300);
/// The stage.
const ROLE: &str = "odometer_reading-a";
/// The partition of every record.
const PARTITION: i32 = 0;

/// Runs the bench and prints it; true when all that is wanted was reached.
///
/// # Errors
/// When a part does not respond, or a photo is not read in time.
pub fn run(stack: &Stack, photos: usize, rounds: usize) -> Result<bool> {
    let mut bench = Bench::prepare(stack)?;
    println!(
        "one partition, {} photos of different users in work at most, one core each while they are decoded and read",
        <OdometerReading<PostgresAnswers> as Processor>::IN_FLIGHT
    );
    println!("{photos} photos a round, {rounds} rounds of each arm, alternating");
    let (mut stage, mut alone) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        alone.push(bench.processes_round(&format!("alone {round}"), photos)?);
        stage.push(bench.stage_round(&format!("stage {round}"), photos)?);
        println!(
            "round {}: two processes {:.2} photos a second, stage {:.2}, ratio {:.2}",
            round + 1,
            alone[round],
            stage[round],
            stage[round] / alone[round]
        );
    }
    let rate = median(&mut stage);
    let ratio = rate / median(&mut alone);
    let quick = ratio >= WANTED_RATE;
    println!("ratio of the medians: {ratio:.2} (wanted: at least {WANTED_RATE}): {}", verdict(quick));
    let steady = bench.stall(rate * LOAD, rounds)?;
    let peak = bench.peak_mib()?;
    println!(
        "most memory of the stage: {peak:.0} MiB (wanted: at most {WANTED_MIB}): {}",
        verdict(peak <= WANTED_MIB)
    );
    bench.deployment.stop();
    Ok(quick && steady && peak <= WANTED_MIB)
}

fn verdict(good: bool) -> &'static str {
    if good { "reached" } else { "MISSED" }
}

/// A photo that is read with certainty, and the event about it.
struct Picture {
    jpeg: Vec<u8>,
    graded: UploadGraded,
}

struct Bench {
    deployment: Deployment,
    folder: PathBuf,
    producer: BaseProducer,
    schema_id: u32,
    topic: String,
    pictures: Vec<Picture>,
    read: Tail<OdometerRead>,
    runtime: Runtime,
    database_url: String,
}

impl Bench {
    fn prepare(stack: &Stack) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let folder = make_folder(&stack.folder().join("reading"))?;
        let prefix = format!("reading-{}-", Uuid::now_v7().simple());
        let mut settings = of_a_load();
        settings.push(("MILESTREAM_KAFKA__TOPIC_PREFIX".to_owned(), prefix.clone()));
        let program = sibling_binary("milestream")?;
        let logs = stack.logs().join("reading");
        let config = DeploymentConfig { program, folder: folder.clone(), logs, settings };
        let mut deployment = Deployment::prepare(stack, config)?;
        let registry = Registry::new(&RegistryConfig::open(stack.schema_registry_url()))?;
        let schema_id = runtime.block_on(registry.id_of::<UploadGraded>(&prefix))?;
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", stack.kafka_brokers());
        let read = Tail::follow(&kafka, &prefix)?;
        kafka.set("enable.idempotence", "true").set("linger.ms", "0");
        deployment.start(RoleSpec::stage("odometer_reading", "a"))?;
        deployment.wait_ready()?;
        let mut bench = Self {
            deployment,
            folder,
            producer: kafka.create().context("producer")?,
            schema_id,
            topic: format!("{prefix}{}", UploadGraded::TOPIC.name()),
            pictures: pictures(Path::new("examples/photos"))?,
            read,
            runtime,
            database_url: stack.database_url().to_owned(),
        };
        // From here on the group is joined, the networks are loaded and the memory is warm.
        bench.stage_round("first", 2 * bench.pictures.len())?;
        Ok(bench)
    }

    /// Photos a second of two `milestream read` processes, each with half of the photos. Each one's rate is taken from its
    /// first to its last answer, so that its start does not count.
    fn processes_round(&self, name: &str, photos: usize) -> Result<f64> {
        let mut halves = [Vec::new(), Vec::new()];
        for n in 0..photos {
            let file = self.folder.join(format!("{name} {n}.jpg"));
            std::fs::write(&file, self.different(n, &format!("{name} {n}"))?).context("write a photo")?;
            halves[n % 2].push(file);
        }
        let started = halves.iter().map(|files| reader(files)).collect::<Result<Vec<_>>>()?;
        let threads: Vec<_> = started.into_iter().map(|child| std::thread::spawn(|| rate(child))).collect();
        let mut sum = 0.0;
        for thread in threads {
            sum += thread.join().map_err(|_| anyhow::anyhow!("a thread has panicked"))??;
        }
        for file in halves.iter().flatten() {
            std::fs::remove_file(file).context("remove a photo")?;
        }
        Ok(sum)
    }

    /// Photos a second of the stage, from the first record to the last answer; each photo is another user's.
    fn stage_round(&mut self, name: &str, photos: usize) -> Result<f64> {
        let uploads =
            (0..photos).map(|n| self.upload(n, &format!("{name} {n}"))).collect::<Result<Vec<_>>>()?;
        let started = SystemClock.now();
        let sent = uploads.into_iter().map(|upload| self.send(upload)).collect::<Result<_>>()?;
        let answers = self.answers(&sent)?;
        let last = answers.iter().map(|read| read.header.occurred_at).max().context("no photo")?;
        #[allow(clippy::cast_precision_loss, reason = "a count of photos")]
        Ok(photos as f64 / (milliseconds(started, last) / 1_000.0))
    }

    /// Other users' photos at an even pace, with and without one user's that stands still; true when they do not feel it.
    fn stall(&mut self, a_second: f64, rounds: usize) -> Result<bool> {
        println!(
            "{STALL:?} of other users' photos, {a_second:.2} a second, without and with one that stands still:"
        );
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            without.extend(self.paced(&format!("free {round}"), a_second)?);
            with.extend(self.stalled(&format!("stall {round}"), a_second)?);
        }
        without.sort_by(f64::total_cmp);
        with.sort_by(f64::total_cmp);
        for (name, waits) in [("without", &without), ("with", &with)] {
            let (p50, p99) = (quantile(waits, 0.5), quantile(waits, 0.99));
            println!("  {name:<8} {:>4} photos, p50 {p50:>6.0} ms, p99 {p99:>6.0} ms", waits.len());
        }
        let ratio = quantile(&with, 0.99) / quantile(&without, 0.99);
        println!(
            "ratio of p99: {ratio:.2} (wanted: at most {WANTED_WAIT}): {}",
            verdict(ratio <= WANTED_WAIT)
        );
        Ok(ratio <= WANTED_WAIT)
    }

    /// One user's photo stands still as in reality, where the dependencies do not respond: its answer cannot be stored, since
    /// another transaction has written one under its key and does not end. A second photo of that user waits behind it.
    fn stalled(&mut self, name: &str, a_second: f64) -> Result<Vec<f64>> {
        let uploads = [self.upload(0, &format!("{name} still"))?, self.upload(1, &format!("{name} behind"))?];
        let [first, mut second] = uploads;
        second.header.user_id = first.header.user_id;
        let mut other = self.runtime.block_on(PgConnection::connect(&self.database_url))?;
        // A copy of any answer that was kept: the same reader's, so only the photo differs.
        let blocking = sqlx::query(
            "insert into reading_results select (jsonb_populate_record(kept, jsonb_build_object('image_hash', $1::text))).*
             from reading_results kept limit 1",
        )
        .bind(&first.header.image_hash);
        self.runtime.block_on(async {
            other.execute("begin").await?;
            other.execute(blocking).await
        })?;
        let begun = Instant::now();
        let still = [self.send(first)?, self.send(second)?];
        let waits = self.paced(name, a_second)?;
        ensure!(begun.elapsed() >= STALL, "the stall was shorter than the photos that it is measured by");
        let seen = self.read.seen();
        let ended = seen.iter().any(|read| still.contains(&read.header.upload_id));
        ensure!(!ended, "the photo that was to stand still was read");
        self.runtime.block_on(other.execute("rollback"))?;
        let answers = self.answers(&still.into())?;
        ensure!(answers[0].header.upload_id == still[0], "the photos of one user came out of order");
        Ok(waits)
    }

    /// Milliseconds from record to answer of photos of other users, for as long as a stall lasts.
    fn paced(&mut self, name: &str, a_second: f64) -> Result<Vec<f64>> {
        let mut sent = BTreeSet::new();
        let begun = Instant::now();
        for n in 0_u32.. {
            let due = Duration::from_secs_f64(f64::from(n) / a_second);
            if due >= STALL {
                break;
            }
            let upload = self.upload(n as usize, &format!("{name} {n}"))?;
            while let Some(wait) = due.checked_sub(begun.elapsed()).filter(|wait| !wait.is_zero()) {
                std::thread::park_timeout(wait);
            }
            sent.insert(self.send(upload)?);
        }
        while begun.elapsed() < STALL {
            std::thread::park_timeout(STALL.saturating_sub(begun.elapsed()));
        }
        let answers = self.answers(&sent)?;
        Ok(answers
            .iter()
            .map(|read| milliseconds(read.header.accepted_at, read.header.occurred_at))
            .collect())
    }

    /// Puts a photo into the store; the event about it is another user's than every other one's.
    fn upload(&self, n: usize, name: &str) -> Result<UploadGraded> {
        let jpeg = self.different(n, name)?;
        let mut graded = self.pictures[n % self.pictures.len()].graded.clone();
        let header = &mut graded.header;
        header.user_id.0 = driver_id(name);
        (header.upload_id.0, header.event_id.0) = (Uuid::now_v7(), Uuid::now_v7());
        header.image_hash = hex::encode(Sha256::digest(&jpeg));
        header.object_key = format!("photos/{}/{}", header.user_id, header.image_hash);
        header.file_size = i64::try_from(jpeg.len())?;
        let file = self.folder.join("photos").join(&header.object_key);
        std::fs::create_dir_all(file.parent().context("a folder")?).context("make a user's folder")?;
        std::fs::write(file, jpeg).context("write a photo")?;
        Ok(graded)
    }

    /// The bytes of a picture that nobody has seen before.
    fn different(&self, n: usize, name: &str) -> Result<Vec<u8>> {
        let picture = &self.pictures[n % self.pictures.len()];
        with_comment(&picture.jpeg, name).context("a JPEG")
    }

    /// Sends a record and waits until the broker has it; its `accepted_at` is when it was sent.
    fn send(&self, mut graded: UploadGraded) -> Result<UploadId> {
        graded.header.accepted_at = SystemClock.now();
        let (key, payload) = (graded.key(), codec::encode(self.schema_id, &graded)?);
        let record = BaseRecord::to(&self.topic).partition(PARTITION).key(&key).payload(&payload);
        self.producer.send(record).map_err(|(error, _)| error).context("send a record")?;
        self.producer.flush(Duration::from_secs(10)).context("send a record")?;
        Ok(graded.header.upload_id)
    }

    /// The answers to these uploads, once each has one.
    fn answers(&mut self, sent: &BTreeSet<UploadId>) -> Result<Vec<OdometerRead>> {
        let (until, count) = (Instant::now() + LIMIT, self.read.counter());
        loop {
            let before = count.load(Ordering::SeqCst);
            let mut answers = self.read.seen();
            answers.retain(|read| sent.contains(&read.header.upload_id));
            if answers.len() >= sent.len() {
                let unread = answers.iter().find_map(|read| read.fault.as_ref());
                ensure!(unread.is_none(), "a sample was not read: {unread:?}");
                return Ok(answers);
            }
            self.deployment.tend()?;
            ensure!(self.deployment.restarts == 0, "the stage died:\n{}", self.deployment.log_tail(ROLE));
            while count.load(Ordering::SeqCst) == before {
                ensure!(Instant::now() < until, "{} of {} photos were read", answers.len(), sent.len());
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
    }

    fn peak_mib(&self) -> Result<f64> {
        let pid = self.deployment.roles().into_iter().find_map(|(name, _, pid)| pid.filter(|_| name == ROLE));
        pid.and_then(peak_mib).context("the stage is gone")
    }
}

/// The samples that are read with certainty, measured as `quality_check` does.
fn pictures(folder: &Path) -> Result<Vec<Picture>> {
    let example = include_str!("../../schemas/examples/uploads.graded/normal-readable.json");
    let example: serde_json::Value = serde_json::from_str(example)?;
    let event: UploadGraded =
        serde_json::from_value(example["event"].clone()).context("the example event")?;
    let scenario = Scenario::read(folder)?;
    let pictures = scenario.verified_jpegs().map(|sample| {
        let jpeg = std::fs::read(folder.join(&sample.file)).with_context(|| sample.file.clone())?;
        let photo = reading::decode(&jpeg).map_err(|fault| anyhow::anyhow!("{}: {fault:?}", sample.file))?;
        let quality = Some(reading::grade(&photo).quality);
        Ok(Picture { jpeg, graded: UploadGraded { image: Some(photo.size()), quality, ..event.clone() } })
    });
    let pictures = pictures.collect::<Result<Vec<_>>>()?;
    ensure!(!pictures.is_empty(), "the scenario has no verified JPEG");
    Ok(pictures)
}

fn milliseconds(from: Micros, to: Micros) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a run stay far below 2^52")]
    let micros = (to.0 - from.0) as f64;
    micros / 1_000.0
}

fn reader(files: &[PathBuf]) -> Result<Child> {
    let mut command = Command::new(sibling_binary("milestream")?);
    command.args(["read", "--json"]).args(files).stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().context("start milestream read")
}

/// Photos a second of a reader, from its first answer to its last.
fn rate(mut child: Child) -> Result<f64> {
    let answers = BufReader::new(child.stdout.take().context("a pipe")?);
    let (mut first, mut last, mut photos) = (None, Instant::now(), 0_u32);
    for answer in answers.lines() {
        answer.context("read an answer")?;
        last = Instant::now();
        first.get_or_insert(last);
        photos += 1;
    }
    ensure!(child.wait()?.success(), "milestream read failed");
    let first = first.context("milestream read said nothing")?;
    Ok(f64::from(photos - 1) / (last - first).as_secs_f64())
}
