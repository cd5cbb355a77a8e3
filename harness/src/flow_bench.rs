//! Where an upload's time goes, from 202 to the confirmed payment, stage by stage, at one upload per second.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chrono::Utc;
use devstack::{Part, Stack};
use rdkafka::config::ClientConfig;
use schemas::events::{
    OdometerRead, PayoutUpdated, RewardCalculated, RewardGranted, UploadDecided, UploadGraded, UploadReceived,
};
use schemas::ids::{Micros, UploadId};

use crate::client::{Client, Photo, Posted};
use crate::deployment::Deployment;
use crate::local_chain::{start_every_role, wallet_of};
use crate::measure::{family_cpu_seconds, quantile};
use crate::photos::another_picture;
use crate::scenario::{Scenario, driver_id, vehicle_id};
use crate::topics::read_all;

/// Time between two uploads.
const PACE: Duration = Duration::from_secs(1);
/// Longest wait for the last payment's 12 blocks.
const LIMIT: Duration = Duration::from_secs(120);
/// All stages but the reading may take this share of the reading's own time, at p50.
const WANTED: f64 = 0.5;
/// The most that a photo may cost beside what everything costs idle, CPU milliseconds of all roles but the one that reads, of Kafka
/// and of Postgres.
const CPU_MS: f64 = 60.0;
/// From the reading to the decision, milliseconds at p50.
const DECIDED_MS: f64 = 40.0;
/// The stage whose work is not that of the others.
const READING: &str = "odometer_reading";
/// How long everything settles, and then is measured idle.
const IDLE: Duration = Duration::from_secs(15);

/// Runs `uploads` uploads and prints a line a stage; whether the stages around the reading are quick enough.
///
/// # Errors
/// When the parts do not start or payments are not confirmed in time.
pub fn run(stack: &Stack, uploads: usize) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (deployment, prefix) = runtime.block_on(start_every_role(stack, "flow"))?;
    std::thread::park_timeout(IDLE);
    let (first, begun) = (Costs::of(&deployment, stack)?, Instant::now());
    std::thread::park_timeout(IDLE);
    let (idle, idle_seconds) = (Costs::of(&deployment, stack)?, begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    runtime.block_on(post(&deployment, uploads))?;
    let (busy, busy_seconds) = (Costs::of(&deployment, stack)?, begun.elapsed().as_secs_f64());
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", stack.kafka_brokers());
    let until = Instant::now() + LIMIT;
    let times = loop {
        let times = Times::read(&kafka, &prefix)?;
        if times.decided.len() >= uploads && times.open() == 0 {
            break times;
        }
        ensure!(Instant::now() < until, "{} payments are not confirmed within {LIMIT:?}", times.open());
        std::thread::park_timeout(Duration::from_secs(1));
    };
    deployment.stop();
    let is_quick = times.print()?;
    let is_cheap = print_costs(&idle.since(&first), idle_seconds, &busy.since(&idle), busy_seconds, uploads);
    Ok(is_quick && is_cheap)
}

/// CPU seconds by role and part.
struct Costs(BTreeMap<String, f64>);

impl Costs {
    fn of(deployment: &Deployment, stack: &Stack) -> Result<Self> {
        let mut costs = BTreeMap::new();
        for (name, _, pid) in deployment.roles() {
            costs.insert(name, family_cpu_seconds(pid.context("a role's process")?)?);
        }
        for part in [Part::Kafka, Part::Postgres] {
            let pid = stack.pid(part).with_context(|| format!("the process of {part:?}"))?;
            costs.insert(format!("{part:?}"), family_cpu_seconds(pid)?);
        }
        Ok(Self(costs))
    }

    fn since(&self, before: &Self) -> Self {
        let of = |(name, value): (&String, &f64)| (name.clone(), value - before.0.get(name).unwrap_or(&0.0));
        Self(self.0.iter().map(of).collect())
    }
}

/// Prints what a photo costs where; whether all of it but the reading stays within its bar.
#[allow(clippy::cast_precision_loss, reason = "a count of uploads")]
fn print_costs(idle: &Costs, idle_seconds: f64, busy: &Costs, busy_seconds: f64, uploads: usize) -> bool {
    println!("CPU ms: of a photo beside the idle cost, idle a second");
    let mut sum = 0.0;
    for (name, seconds) in &busy.0 {
        let idle = idle.0.get(name).unwrap_or(&0.0) / idle_seconds;
        let photo = (seconds - idle * busy_seconds) * 1_000.0 / uploads as f64;
        println!("  {name:<20} {photo:>8.1} {:>8.1}", idle * 1_000.0);
        if !name.starts_with(READING) {
            sum += photo;
        }
    }
    println!("all but the reading: {sum:.1} ms a photo (wanted: at most {CPU_MS})");
    sum <= CPU_MS
}

/// Posts at an even pace: drivers of three photos each, of which the second and third earn.
async fn post(deployment: &Deployment, uploads: usize) -> Result<()> {
    let folder = Path::new("examples/photos");
    let series = Scenario::read(folder)?.series(folder, 3)?;
    ensure!(!series.is_empty(), "the scenario has no vehicle with three verified JPEGs");
    let client = Client::new(&deployment.gateway_url())?;
    let now = Utc::now();
    let begun = Instant::now();
    for n in 0..uploads {
        let (driver, turn) = (n / 3, n % 3);
        let name = format!("flow-{driver}");
        let user = driver_id(&name);
        let token = deployment.token(user)?;
        if turn == 0 {
            let (id, address) = (user.to_string(), wallet_of(user).to_string());
            deployment.command(&["wallet", "add", "--user", &id, "--address", &address])?;
        }
        let captured = now - chrono::Duration::days(9 - i64::try_from(turn)?);
        let photo = Photo {
            file_name: format!("{name}-{turn}.jpg"),
            bytes: another_picture(&series[driver % series.len()][turn], n).context("a JPEG")?,
            vehicle_id: Some(vehicle_id(&format!("{name}/1"))),
            captured_at: Some(captured.to_rfc3339()),
            ..Photo::default()
        };
        tokio::time::sleep_until((begun + PACE * u32::try_from(n)?).into()).await;
        let response = client.post(&token, &photo).await?;
        ensure!(matches!(response, Posted::Accepted { .. }), "upload {n} was refused: {response:?}");
    }
    Ok(())
}

/// When each event of each upload was made; of an event that stands twice the first.
#[derive(Default)]
struct Times {
    accepted: BTreeMap<UploadId, Micros>,
    graded: BTreeMap<UploadId, Micros>,
    read: BTreeMap<UploadId, Micros>,
    /// The reading's own time, ms.
    reading: BTreeMap<UploadId, i32>,
    decided: BTreeMap<UploadId, Micros>,
    calculated: BTreeMap<UploadId, Micros>,
    granted: BTreeMap<UploadId, Micros>,
    signed: BTreeMap<UploadId, Micros>,
    included: BTreeMap<UploadId, Micros>,
    confirmed: BTreeMap<UploadId, Micros>,
}

macro_rules! first {
    ($kafka:expr, $prefix:expr, $type:ty, $map:expr) => {
        for record in read_all::<$type>($kafka, $prefix)? {
            let header = &record.event.header;
            $map.entry(header.upload_id).or_insert(header.occurred_at);
        }
    };
}

impl Times {
    fn read(kafka: &ClientConfig, prefix: &str) -> Result<Self> {
        let mut times = Self::default();
        for record in read_all::<UploadReceived>(kafka, prefix)? {
            times.accepted.insert(record.event.header.upload_id, record.event.header.accepted_at);
        }
        first!(kafka, prefix, UploadGraded, times.graded);
        for record in read_all::<OdometerRead>(kafka, prefix)? {
            let header = &record.event.header;
            times.read.entry(header.upload_id).or_insert(header.occurred_at);
            if let Some(reading) = &record.event.reading {
                times.reading.entry(header.upload_id).or_insert(reading.processing_time_ms);
            }
        }
        first!(kafka, prefix, UploadDecided, times.decided);
        first!(kafka, prefix, RewardCalculated, times.calculated);
        for record in read_all::<RewardGranted>(kafka, prefix)? {
            let event = &record.event;
            if !event.granted.is_zero() {
                times.granted.entry(event.header.upload_id).or_insert(event.header.occurred_at);
            }
        }
        for record in read_all::<PayoutUpdated>(kafka, prefix)? {
            let upload = record.event.header.upload_id;
            let Some(published) = record.event.transaction else { continue };
            times.signed.entry(upload).or_insert(published.signed_at);
            if published.block.is_some() {
                times.included.entry(upload).or_insert(record.event.header.occurred_at);
            }
            if let Some(at) = published.confirmed_at {
                times.confirmed.entry(upload).or_insert(at);
            }
        }
        Ok(times)
    }

    /// Grants that are not confirmed yet, and distances without a grant.
    fn open(&self) -> usize {
        let ungranted = self.calculated.keys().filter(|upload| !self.granted.contains_key(upload)).count();
        let unpaid = self.granted.keys().filter(|upload| !self.confirmed.contains_key(upload)).count();
        ungranted + unpaid
    }

    fn print(&self) -> Result<bool> {
        let rows = [
            ("202 to graded", between(&self.accepted, &self.graded)),
            ("graded to read (queueing included)", between(&self.graded, &self.read)),
            ("read to decided", between(&self.read, &self.decided)),
            ("202 to decided", between(&self.accepted, &self.decided)),
            ("decided to calculated", between(&self.decided, &self.calculated)),
            ("calculated to granted", between(&self.calculated, &self.granted)),
            ("granted to signed (1 s of batch waiting included)", between(&self.granted, &self.signed)),
            ("signed to included (blocks of 1 s)", between(&self.signed, &self.included)),
            ("included to confirmed (12 blocks)", between(&self.included, &self.confirmed)),
        ];
        println!("ms: from, to, uploads, p50, p99");
        for (name, values) in &rows {
            println!(
                "  {name:<52} {:>4} {:>8.0} {:>8.0}",
                values.len(),
                quantile(values, 0.5),
                quantile(values, 0.99)
            );
        }
        let own: Vec<f64> = self.reading.values().map(|ms| f64::from(*ms)).collect();
        let own = sorted(own);
        println!(
            "  {:<52} {:>4} {:>8.0} {:>8.0}",
            "the reading itself",
            own.len(),
            quantile(&own, 0.5),
            quantile(&own, 0.99)
        );
        let around: f64 = [0, 2, 4, 5].map(|row: usize| quantile(&rows[row].1, 0.5)).iter().sum();
        // Of granted to signed, the second that a reward waits for company is not the stage's work.
        let signing = (quantile(&rows[6].1, 0.5) - BATCH_WAIT_MS).max(0.0);
        let share = (around + signing) / quantile(&own, 0.5);
        println!(
            "all stages but the reading, at p50: {:.0} ms, {share:.2} of the reading's own time; wanted below {WANTED}",
            around + signing
        );
        let decided = quantile(&rows[2].1, 0.5);
        println!("from the reading to the decision, at p50: {decided:.0} ms (wanted: below {DECIDED_MS})");
        Ok(share < WANTED && decided < DECIDED_MS)
    }
}

/// What [`LocalChain::settings`] sets.
const BATCH_WAIT_MS: f64 = 1_000.0;

/// Milliseconds between two events of the same upload, sorted.
fn between(from: &BTreeMap<UploadId, Micros>, to: &BTreeMap<UploadId, Micros>) -> Vec<f64> {
    let pairs = to.iter().filter_map(|(upload, at)| Some((from.get(upload)?, at)));
    // Microseconds of a run stay far below 2^52.
    #[allow(clippy::cast_precision_loss, reason = "see above")]
    sorted(pairs.map(|(from, to)| (to.0 - from.0) as f64 / 1_000.0).collect())
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}
