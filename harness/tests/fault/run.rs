//! A run: parts, roles, drivers and other people, and what is waited for.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use devstack::{Part, Stack};
use harness::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, of_a_load, sibling_binary};
use harness::local_chain::LocalChain;
use harness::topics::{Tail, lag};
use rdkafka::config::ClientConfig;
use schemas::events::UploadDecided;
use schemas::topic::Topic;
use sqlx::PgPool;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::accounts::Places;
use crate::check::block_on;
use crate::faults::Faults;
use crate::load::{self, Sent};
use crate::operators::{Done, Operators};

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

/// One run at a time: two on one small machine would be measured against each other's load, not against faults.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub struct Run {
    _turn: MutexGuard<'static, ()>,
    pub stack: Stack,
    pub kafka: ClientConfig,
    pub deployment: Deployment,
    pub runtime: Runtime,
    pub pool: PgPool,
    tail: Tail<UploadDecided>,
    sent: Sent,
    /// None in the run without guards, which pays nothing.
    pub chain: Option<LocalChain>,
    poster: Option<std::thread::JoinHandle<()>>,
    operators: Option<Operators>,
    /// What people have done, once they have ended.
    pub done: Done,
    pub faults: Faults,
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
            // One reviewer decides about everything.
            setting("REVIEWS__SECOND_PERSON_ABOVE_KM", "1000000"),
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
        roles.extend(["fraud_check", "limit_check"].map(|stage| RoleSpec::stage(stage, "b")));
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
        // One runtime for all: a connection lives on the runtime that it was opened on.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pool = runtime.block_on(crate::check::connected(stack.database_url()));
        Self {
            _turn: turn,
            stack,
            kafka,
            deployment,
            runtime,
            pool,
            tail,
            sent: Sent::default(),
            chain,
            poster: None,
            operators: None,
            done: Done::default(),
            faults: Faults::default(),
        }
    }

    /// Starts to post different photos, in the background, and has people review, correct, cancel, hold and claim; after
    /// each photo that can be read come `dark` that cannot.
    pub fn post(&mut self, seed: u64, dark: usize) {
        let (url, commands) = (self.deployment.gateway_url(), self.deployment.commands());
        let key_file = "MILESTREAM_KEYS__SIGNING_KEY_FILE";
        let key_file = self.deployment.environment().iter().find(|(key, _)| key == key_file).unwrap();
        let places = Places {
            database_url: self.stack.database_url().to_owned(),
            registry_url: self.stack.schema_registry_url().to_owned(),
            key_file: key_file.1.clone(),
        };
        let paced = (self.tail.counter(), dark);
        self.poster = Some(load::start(&url, places, self.sent.clone(), paced));
        if self.chain.is_some() {
            let database = self.stack.database_url();
            self.operators = Some(Operators::start(&url, database, commands, self.sent.clone(), seed));
        }
    }

    pub fn accepted(&self) -> Vec<Uuid> {
        self.sent.accepted()
    }

    pub fn sent(&self) -> usize {
        self.sent.count()
    }

    pub fn decided(&self) -> usize {
        self.tail.seen().iter().map(|event| event.header.upload_id).collect::<BTreeSet<_>>().len()
    }

    /// Waits until `more` further uploads are decided.
    pub fn until_decided_more(&mut self, more: usize) {
        let target = self.decided() + more;
        self.until(&format!("{target} decided uploads"), |run| run.decided() >= target);
    }

    /// Ends the load, and waits until what was sent is decided, by people too.
    pub fn until_all_decided(&mut self) {
        self.sent.enough();
        let poster = self.poster.take().unwrap();
        self.until("the last upload accepted", |_| poster.is_finished());
        poster.join().unwrap();
        let wanted = self.sent();
        self.until("every upload decided", |run| run.decided() == wanted);
        if let Some(operators) = &self.operators {
            operators.close();
            let open = "select count(*) from reviews where decided_at is null";
            self.until("every review decided", |run| run.number(open) == Some(0));
            let held = "select count(*) from users where held_at is not null";
            self.until("every account released", |run| run.number(held) == Some(0));
        }
    }

    /// The result of a query; none while the database does not respond.
    pub fn number(&self, query: &'static str) -> Option<i64> {
        self.runtime.block_on(sqlx::query_scalar(query).fetch_one(&self.pool)).ok()
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

    /// Waits until every grant is paid, 12 blocks deep, or cancelled, and then ends the watcher, so that nothing changes any more.
    pub fn until_all_paid(&mut self) {
        let open = "select count(*) from rewards where granted_amount is null or status in ('calculated', 'pending')";
        let steps = "select coalesce(sum(confirmation_count), 0)::bigint from reward_transactions";
        let (mut seen, mut since) = (None, Instant::now());
        while self.number(open) != Some(0) {
            self.deployment.tend().unwrap();
            let paid = self.number(steps);
            if paid != seen {
                (seen, since) = (paid, Instant::now());
            }
            assert!(
                since.elapsed() < LIMIT,
                "no payment came further for {LIMIT:?}, {:?} are open; logs are in {}",
                self.number(open),
                self.stack.logs().display()
            );
            std::thread::park_timeout(Duration::from_millis(200));
        }
        if let Some(operators) = self.operators.take() {
            self.done = operators.finish();
        }
        self.deployment.terminate("watch", Duration::from_secs(10)).unwrap();
        let waiting = "select count(*) from outbox where published_at is null";
        while self.number(waiting) != Some(0) {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let (mut seen, mut since) = ((0, 0), Instant::now());
        while !done(self) {
            self.tend();
            let now = (self.sent(), self.decided());
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
            std::thread::park_timeout(Duration::from_millis(50));
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
