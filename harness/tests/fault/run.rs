//! A run: parts, roles, a driver crowd that posts, and faults.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use devstack::{Part, Stack};
use harness::client::{Client, Photo, Posted};
use harness::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, of_a_load, sibling_binary};
use harness::local_chain::{LocalChain, wallet_of};
use harness::photos::another_picture;
use harness::scenario::{Scenario, driver_id, vehicle_id};
use harness::topics::{Tail, lag};
use rdkafka::config::ClientConfig;
use schemas::events::UploadDecided;
use schemas::topic::Topic;
use uuid::Uuid;

use crate::check::block_on;

/// Drivers of a run; each has one vehicle, so that the order per key matters.
const DRIVERS: usize = 24;
/// Uploads that are accepted and not decided yet: enough to keep every role busy, few enough to spread over all faults.
const BACKLOG: usize = 30;
/// Longest time without any progress; a photo takes about a second, a restarted broker and a rebalance some ten.
const LIMIT: Duration = Duration::from_secs(240);

/// Parts of the run's own, since it kills them.
const PARTS: [Part; 5] = [Part::Postgres, Part::Kafka, Part::Registry, Part::Mongodb, Part::Thor];

/// What `chain_submission` consumes.
const PAYING: [Topic; 3] = [Topic::RewardsGranted, Topic::UploadsDecided, Topic::ChainEvents];
/// What the analytics sink consumes.
const COUNTED: [Topic; 5] = [
    Topic::UploadsReceived,
    Topic::UploadsDecided,
    Topic::RewardsCalculated,
    Topic::RewardsGranted,
    Topic::PayoutsUpdated,
];

pub enum Fault {
    /// SIGKILL and a restart, as an orchestrator does.
    KillRole(String),
    /// SIGSTOP for a time, then SIGCONT: a zombie.
    StopRole(String, Duration),
    /// SIGKILL to a part, and its restart on the same data.
    KillPart(Part),
}

/// One run at a time: two on one small machine would be measured against each other's load, not against faults.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct Run {
    _turn: MutexGuard<'static, ()>,
    pub stack: Stack,
    pub kafka: ClientConfig,
    deployment: Deployment,
    tail: Tail<UploadDecided>,
    accepted: Arc<Mutex<Vec<Uuid>>>,
    wanted: usize,
    /// None in the run without guards, which pays nothing.
    pub chain: Option<LocalChain>,
    poster: Option<std::thread::JoinHandle<()>>,
}

impl Run {
    pub fn start(guards: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local");
        let guarded = guards == "on";
        let parts = if guarded { &PARTS[..] } else { &PARTS[..4] };
        let stack = Stack::start_own(&root, parts, &|line| eprintln!("fault: {line}")).unwrap();
        let logs = stack.logs().to_owned();
        let folder = make_folder(&stack.folder().join("roles")).unwrap();
        let setting = |key: &str, value: &str| (format!("MILESTREAM_{key}"), value.to_owned());
        let mut settings = of_a_load();
        settings.extend([
            setting("ENGINE__GUARDS", guards),
            setting("ENGINE__SESSION_TIMEOUT_MS", "6000"),
            setting("ENGINE__DRAIN_BUDGET_MS", "3000"),
        ]);
        let chain = guarded.then(|| {
            let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contracts");
            block_on(LocalChain::deploy(&stack, &work, &folder)).unwrap()
        });
        settings.extend(chain.iter().flat_map(LocalChain::settings));
        let program = sibling_binary("milestream").unwrap();
        let mut deployment =
            Deployment::prepare(&stack, DeploymentConfig { program, folder, logs, settings }).unwrap();
        let mut roles = RoleSpec::without_chain();
        roles.push(RoleSpec::stage("fraud_check", "b"));
        if let Some(chain) = &chain {
            chain.register(&deployment).unwrap();
            let paying = ["a", "b"].map(|instance| RoleSpec::stage("chain_submission", instance));
            roles.extend(paying);
            roles.push(RoleSpec::watch());
        }
        for role in roles {
            deployment.start(role).unwrap();
        }
        deployment.wait_ready().unwrap();
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", stack.kafka_brokers());
        let tail = Tail::follow(&kafka, "").unwrap();
        Self {
            _turn: turn,
            stack,
            kafka,
            deployment,
            tail,
            accepted: Arc::default(),
            wanted: 0,
            chain,
            poster: None,
        }
    }

    /// Starts to post `count` different photos, in the background.
    pub fn post(&mut self, count: usize) {
        self.wanted = count;
        let client = Client::new(&self.deployment.gateway_url()).unwrap();
        let crowd: Vec<(Uuid, String)> = (0..DRIVERS)
            .map(|driver| {
                let user = driver_id(&format!("fault-{driver}"));
                let (id, address) = (user.to_string(), wallet_of(user).to_string());
                self.deployment.command(&["wallet", "add", "--user", &id, "--address", &address]).unwrap();
                (user, self.deployment.token(user).unwrap())
            })
            .collect();
        let pool = sample_photos();
        let accepted = self.accepted.clone();
        let decided = self.tail.counter();
        self.poster = Some(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            for n in 0..count {
                while accepted.lock().unwrap().len() > decided.load(Ordering::SeqCst) + BACKLOG {
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                let (user, token) = &crowd[n % DRIVERS];
                let photo = variant(&pool, n, *user);
                let id = runtime.block_on(post_until_accepted(&client, token, &photo));
                accepted.lock().unwrap().push(id);
            }
        }));
    }

    pub fn accepted(&self) -> Vec<Uuid> {
        self.accepted.lock().unwrap().clone()
    }

    fn decided(&self) -> usize {
        self.tail.seen().iter().map(|event| event.header.upload_id).collect::<BTreeSet<_>>().len()
    }

    /// Waits until `more` further uploads are decided.
    pub fn until_decided_more(&mut self, more: usize) {
        let target = (self.decided() + more).min(self.wanted);
        self.until(&format!("{target} decided uploads"), |run| run.decided() >= target);
    }

    pub fn until_all_decided(&mut self) {
        let wanted = self.wanted;
        self.until("every upload accepted", |run| run.accepted().len() == wanted);
        self.poster.take().unwrap().join().unwrap();
        self.until("every upload decided", |run| run.decided() == wanted);
    }

    pub fn until_no_lag(&mut self) {
        let sunk = [
            Topic::UploadsReceived,
            Topic::UploadsGraded,
            Topic::UploadsReadings,
            Topic::UploadsDecided,
            Topic::RewardsCalculated,
            Topic::RewardsGranted,
        ];
        let mut pairs = vec![
            ("quality_check", Topic::UploadsReceived),
            ("odometer_reading", Topic::UploadsGraded),
            ("fraud_check", Topic::UploadsReadings),
            ("reward_calculation", Topic::UploadsDecided),
            ("mongo", Topic::ActivityLogs),
        ];
        if self.chain.is_some() {
            // Without its guards the stage stands still at the first repeat: the charges' own key refuses it.
            pairs.push(("limit_check", Topic::RewardsCalculated));
            pairs.extend(PAYING.map(|topic| ("chain_submission", topic)));
            pairs.extend(COUNTED.map(|topic| ("analytics", topic)));
            pairs.extend([Topic::PayoutsUpdated, Topic::ChainEvents].map(|topic| ("postgres", topic)));
        }
        pairs.extend(sunk.map(|topic| ("postgres", topic)));
        self.until("no lag", |run| {
            pairs.iter().all(|(group, topic)| lag(&run.kafka, group, topic.name()).is_ok_and(|lag| lag == 0))
        });
    }

    /// Waits until every grant is paid, 12 blocks deep, and then ends the watcher, so that nothing changes any more.
    pub fn until_all_paid(&mut self) {
        // One runtime for all: a connection lives on the runtime that it was opened on.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pool = runtime.block_on(crate::check::pool(self));
        let (mut seen, mut since) = (-1, Instant::now());
        loop {
            self.deployment.tend().unwrap();
            let (open, paid): (i64, i64) = runtime.block_on(
                sqlx::query_as(
                    "select (select count(*) from rewards where granted_amount is null or status in ('calculated', 'pending')),
                        (select coalesce(sum(confirmation_count), 0) from reward_transactions)::bigint",
                )
                .fetch_one(&pool),
            )
            .unwrap();
            if open == 0 {
                break;
            }
            if paid != seen {
                (seen, since) = (paid, Instant::now());
            }
            assert!(
                since.elapsed() < LIMIT,
                "no payment came further for {LIMIT:?}, {open} are open; logs are in {}",
                self.stack.logs().display()
            );
            std::thread::park_timeout(Duration::from_millis(200));
        }
        self.deployment.terminate("watch", Duration::from_secs(10)).unwrap();
        let waiting = "select count(*) from outbox where published_at is null";
        while runtime.block_on(sqlx::query_scalar::<_, i64>(waiting).fetch_one(&pool)).unwrap() > 0 {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let (mut seen, mut since) = ((0, 0), Instant::now());
        while !done(self) {
            self.deployment.tend().unwrap();
            let now = (self.accepted().len(), self.decided());
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            assert!(
                since.elapsed() < LIMIT,
                "no progress for {LIMIT:?} while waiting for {what}: {} accepted, {} decided; logs are in {}",
                now.0,
                now.1,
                self.stack.logs().display()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    pub fn inject(&mut self, fault: &Fault) {
        let decided = self.decided();
        match fault {
            Fault::KillRole(role) => {
                eprintln!("fault: SIGKILL to {role} after {decided} decisions");
                self.deployment.kill(role);
                self.deployment.start_again(role).unwrap();
            }
            Fault::StopRole(role, time) => {
                eprintln!("fault: SIGSTOP to {role} for {time:?} after {decided} decisions");
                self.deployment.signal(role, "STOP").unwrap();
                let until = Instant::now() + *time;
                while Instant::now() < until {
                    std::thread::park_timeout(Duration::from_millis(50));
                }
                // The other instance has taken over and decides.
                let meanwhile = self.decided();
                assert!(meanwhile > decided, "nothing was decided while {role} was stopped");
                self.deployment.signal(role, "CONT").unwrap();
            }
            Fault::KillPart(part) => {
                eprintln!("fault: SIGKILL to {part:?} after {decided} decisions");
                assert!(self.stack.kill(*part), "{part:?} is not ours to kill");
                self.stack.start_again(*part).unwrap();
            }
        }
    }

    pub fn rebuild(&self) {
        self.deployment.command(&["rebuild"]).unwrap();
    }

    pub fn finish(self) {
        drop(self.tail);
        self.deployment.stop();
        self.stack.stop();
    }
}

/// One vehicle's photos, oldest first.
type Series = Vec<(String, Vec<u8>)>;

/// JPEGs of the scenario that are read with certainty, by vehicle.
fn sample_photos() -> Vec<Series> {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos");
    let mut pool: BTreeMap<(String, u32), Series> = BTreeMap::new();
    for sample in Scenario::read(&folder).unwrap().verified_jpegs() {
        let bytes = std::fs::read(folder.join(&sample.file)).unwrap();
        pool.entry((sample.driver.clone(), sample.vehicle)).or_default().push((sample.file.clone(), bytes));
    }
    let driven = pool.values().filter(|series| series.len() >= 3).count();
    assert!(driven >= 2, "the scenario has {driven} vehicles with three verified JPEGs");
    pool.into_values().collect()
}

/// The `n`-th photo of the run, a day after the driver's one before. Two of three are the driver's own vehicle, further on
/// at every third; the third is another vehicle's, whose value is a rollback or a leap.
fn variant(pool: &[Series], n: usize, user: Uuid) -> Photo {
    let (driver, turn) = (n % DRIVERS, n / DRIVERS);
    let series = &pool[(driver + usize::from(turn % 3 == 2)) % pool.len()];
    let (file_name, bytes) = &series[(turn / 3).min(series.len() - 1)];
    let days_ago = i64::try_from(13usize.saturating_sub(turn)).unwrap();
    let captured = Utc::now() - chrono::Duration::days(days_ago);
    Photo {
        file_name: file_name.clone(),
        bytes: another_picture(bytes, n).unwrap(),
        vehicle_id: Some(vehicle_id(&format!("{user}/1"))),
        claimed_mileage: None,
        unit: None,
        captured_at: Some(captured.to_rfc3339_opts(SecondsFormat::Secs, true)),
    }
}

/// Posts as a persistent app does: the same photo again until the gateway responds that it is accepted.
async fn post_until_accepted(client: &Client, token: &str, photo: &Photo) -> Uuid {
    let until = Instant::now() + LIMIT;
    loop {
        let response = client.post(token, photo).await;
        match response {
            Ok(Posted::Accepted { upload_id, .. }) => return upload_id,
            Ok(Posted::Refused { status, code, detail }) if status < 500 => {
                panic!("refused with {status} {code}: {detail}")
            }
            other => assert!(Instant::now() < until, "not accepted within {LIMIT:?}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
