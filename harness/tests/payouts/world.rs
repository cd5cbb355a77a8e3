//! Parts, the roles that pay, drivers and their grants, and what the chain says of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use devstack::{Part, Stack};
use harness::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, sibling_binary};
use harness::local_chain::LocalChain;
use harness::payments;
use rdkafka::config::ClientConfig;
use runtime::producer::{DeliveryTimeout, KafkaProducer, Message, send_and_wait};
use runtime::registry::{Registry, RegistryConfig};
use rust_decimal::Decimal;
use schemas::codec;
use schemas::events::{Event as _, RewardGranted};
use schemas::ids::{EventId, RewardId, UploadId, UserId};
use schemas::topic::Topic;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// Parts of the run's own, whose data it sets back.
const PARTS: [Part; 4] = [Part::Postgres, Part::Kafka, Part::Registry, Part::Thor];
/// Blocks of an epoch: a block is final 12 to 18 blocks later.
const EPOCH: u32 = 6;
/// Blocks in which a transaction is valid: dead ones are proven within a minute.
const WINDOW: u32 = 40;
/// Longest time without any progress: a killed submitter's lease lapses after 10 s, a member of a group after 6.
const LIMIT: Duration = Duration::from_secs(240);

/// One run at a time: two on one small machine would be measured against each other's load.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[derive(Clone)]
pub struct Driver {
    user: Uuid,
    wallet: Uuid,
}

pub struct World {
    _turn: MutexGuard<'static, ()>,
    pub runtime: Runtime,
    pub stack: Stack,
    pub kafka: ClientConfig,
    pub deployment: Deployment,
    pub chain: LocalChain,
    pub pool: PgPool,
    /// What is owed, B3TR by reward.
    pub owed: BTreeMap<Uuid, Decimal>,
    /// The accounts.
    accounts: Vec<Driver>,
}

impl World {
    /// The gateway and these roles.
    pub fn start(name: &str, roles: Vec<RoleSpec>) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.local");
        let stack =
            Stack::start_with_epochs(&root, &PARTS, EPOCH, &|line| eprintln!("payouts: {line}")).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = make_folder(&stack.folder().join(name)).unwrap();
        let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contracts");
        let chain = runtime.block_on(LocalChain::deploy(&stack, &work, &folder)).unwrap();
        let mut settings = chain.settings();
        let setting = |key: &str, value: &str| (format!("MILESTREAM_{key}"), value.to_owned());
        settings.retain(|(key, _)| key != "MILESTREAM_CHAIN__EXPIRATION_BLOCKS");
        settings.extend([
            setting("CHAIN__EXPIRATION_BLOCKS", &WINDOW.to_string()),
            setting("CHAIN__BATCH_WAIT_MS", "500"),
            setting("CHAIN__BATCH_REWARDS", "10"),
            setting("ENGINE__SESSION_TIMEOUT_MS", "6000"),
            setting("ENGINE__DRAIN_BUDGET_MS", "3000"),
        ]);
        let program = sibling_binary("milestream").unwrap();
        let logs = stack.logs().to_owned();
        let config = DeploymentConfig { program, folder, logs, settings };
        let mut deployment = Deployment::prepare(&stack, config).unwrap();
        chain.register(&deployment).unwrap();
        for role in [RoleSpec::ingest()].into_iter().chain(roles) {
            deployment.start(role).unwrap();
        }
        deployment.wait_ready().unwrap();
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", stack.kafka_brokers());
        let pool = runtime.block_on(connected(stack.database_url()));
        Self {
            _turn: turn,
            runtime,
            stack,
            kafka,
            deployment,
            chain,
            pool,
            owed: BTreeMap::new(),
            accounts: Vec::new(),
        }
    }

    /// Makes accounts with a wallet each.
    pub fn drivers(&mut self, count: usize) -> Vec<Driver> {
        let drivers: Vec<Driver> =
            (0..count).map(|_| Driver { user: Uuid::now_v7(), wallet: Uuid::now_v7() }).collect();
        self.accounts.extend(drivers.clone());
        self.store(&drivers);
        drivers
    }

    fn store(&self, drivers: &[Driver]) {
        self.runtime.block_on(async {
            for Driver { user, wallet } in drivers {
                sqlx::query("insert into users (id) values ($1)")
                    .bind(user)
                    .execute(&self.pool)
                    .await
                    .unwrap();
                sqlx::query(
                    "insert into user_wallets (id, user_id, wallet_address, wallet_type, network, is_primary)
                     values ($1, $2, $3, 'vechain', 'testnet', true)",
                )
                .bind(wallet)
                .bind(user)
                .bind(harness::local_chain::wallet_of(*user).to_string())
                .execute(&self.pool)
                .await
                .unwrap();
            }
        });
    }

    /// Runs a command, and returns what it prints.
    pub fn command(&self, arguments: &[&str]) -> String {
        self.deployment.command(arguments).unwrap()
    }

    /// Runs a command that is refused, and returns why.
    pub fn refused(&self, arguments: &[&str]) -> String {
        self.deployment.command(arguments).unwrap_err().to_string()
    }

    pub fn granted(&self) -> usize {
        self.owed.len()
    }

    /// Grants so many rewards, turn by turn.
    pub fn grant(&mut self, drivers: &[Driver], count: usize) {
        let example = include_str!("../../../schemas/examples/rewards.granted/normal-whole.json");
        let example: serde_json::Value = serde_json::from_str(example).unwrap();
        let example: RewardGranted = serde_json::from_value(example["event"].clone()).unwrap();
        let producer =
            KafkaProducer::new(&self.kafka, DeliveryTimeout::After(Duration::from_secs(30))).unwrap();
        let registry = Registry::new(&RegistryConfig::open(self.stack.schema_registry_url())).unwrap();
        let already = self.owed.len();
        let grants: Vec<RewardGranted> = (already..already + count)
            .map(|n| {
                let (mut event, driver) = (example.clone(), &drivers[n % drivers.len()]);
                event.header.event_id = EventId(Uuid::now_v7());
                event.header.upload_id = UploadId(Uuid::now_v7());
                event.header.user_id = UserId(driver.user);
                event.reward_id = RewardId::of(event.header.upload_id);
                event.stamp.wallet_id = Some(driver.wallet);
                event.stamp.auto_claim = true;
                event.granted = Decimal::new(i64::try_from(n % 50).unwrap() + 1, 2);
                event
            })
            .collect();
        self.owed.extend(grants.iter().map(|event| (event.reward_id.0, event.granted.normalize())));
        self.runtime.block_on(async {
            let schema = registry.id_of::<RewardGranted>("").await.unwrap();
            for event in &grants {
                let (payload, key) = (codec::encode(schema, event).unwrap(), event.key());
                let topic = Topic::RewardsGranted.name();
                let message =
                    Message { topic, key: Some(key.as_bytes()), payload: Some(&payload), headers: &[] };
                send_and_wait(&producer, &message).await.unwrap();
            }
        });
    }

    /// Lets time pass, starting again what has died by itself.
    pub fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.deployment.tend().unwrap();
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// SIGKILL and a restart, as an orchestrator does.
    pub fn kill(&mut self, role: &str) {
        self.deployment.kill(role);
        self.deployment.start_again(role).unwrap();
    }

    fn count(&self, condition: &str) -> usize {
        let statement = format!("select count(*) from payouts where {condition}");
        let counted = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(statement)).fetch_one(&self.pool);
        usize::try_from(self.runtime.block_on(counted).unwrap()).unwrap()
    }

    /// Payouts that are paid by the books.
    pub fn paid(&self) -> usize {
        self.count("state in ('paid', 'final')")
    }

    /// Payouts that a transaction pays or has paid.
    pub fn planned(&self) -> usize {
        self.count("state in ('in_flight', 'paid', 'final')")
    }

    /// Waits until every grant is paid, and its block final.
    pub fn until_final(&mut self) {
        let wanted = self.owed.len();
        self.until("every payout final", |world| world.count("state = 'final'") >= wanted);
    }

    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let (mut seen, mut since) = ((0, 0), Instant::now());
        while !done(self) {
            self.deployment.tend().unwrap();
            let now = (self.count("state <> 'waiting'"), self.paid() + self.count("state = 'final'"));
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            assert!(
                since.elapsed() < LIMIT,
                "no progress for {LIMIT:?} while waiting for {what}: {:?}; logs are in {}",
                self.states(),
                self.stack.logs().display()
            );
            std::thread::park_timeout(Duration::from_millis(250));
        }
    }

    /// Payouts by state and reason.
    pub fn states(&self) -> Vec<(String, Option<String>, i64)> {
        let counted = sqlx::query_as(
            "select state, reason, count(*) from payouts group by state, reason order by 3 desc limit 5",
        );
        self.runtime.block_on(counted.fetch_all(&self.pool)).unwrap()
    }

    /// Lets `chain_submission` consume its topics again, once its members are gone: a Kafka that was set back takes them for alive until
    /// their session has timed out.
    pub fn consume_again(&mut self) {
        let until = Instant::now() + LIMIT;
        let reset = ["offsets", "reset", "chain_submission", "--reason", "restored"];
        while let Err(error) = self.deployment.command(&reset) {
            assert!(Instant::now() < until, "{error}");
            self.pass(Duration::from_secs(2));
        }
    }

    /// Payouts of the books.
    pub fn booked(&self) -> usize {
        self.count("true")
    }

    /// Ends every role, the watcher first, and waits until its steps are taken.
    pub fn stop_roles(&mut self) {
        for role in ["watch", "ingest", "chain_submission-a"] {
            self.deployment.terminate(role, Duration::from_secs(10)).unwrap();
        }
    }

    pub fn start_roles(&mut self) {
        for role in ["ingest", "chain_submission-a", "watch"] {
            self.deployment.start_again(role).unwrap();
        }
        self.deployment.wait_ready().unwrap();
    }

    /// Runs statements on the server while nobody is connected to the database.
    fn alone(&mut self, statements: &[&str]) {
        let url = self.stack.database_url().to_owned();
        let (server, _) = url.rsplit_once('/').unwrap();
        let server = format!("{server}/postgres");
        self.pool = self.runtime.block_on(async {
            self.pool.close().await;
            let admin = connected(&server).await;
            let end = "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'milestream'";
            for statement in [&[end], statements].concat() {
                let statement = sqlx::AssertSqlSafe(statement.to_owned());
                sqlx::raw_sql(statement).execute(&admin).await.unwrap();
            }
            admin.close().await;
            connected(&url).await
        });
    }

    /// Dumps the database.
    pub fn dump(&mut self) {
        self.alone(&["create database dump template milestream"]);
    }

    /// Restores the dump.
    pub fn restore_dump(&mut self) {
        self.alone(&["drop database milestream", "create database milestream template dump"]);
    }

    /// A new database, with accounts, wallets, nodes and contracts, and nothing else.
    pub fn lose_database(&mut self) {
        self.alone(&["drop database milestream", "create database milestream"]);
        self.command(&["migrate"]);
        self.store(&self.accounts.clone());
        self.chain.register(&self.deployment).unwrap();
    }

    fn kafka_folders(&self) -> (PathBuf, PathBuf) {
        let data = self.stack.folder();
        (data.join("kafka"), data.join("kafka-before"))
    }

    /// Keeps what Kafka holds now, as a crash would leave it.
    pub fn copy_kafka(&mut self) {
        let (data, copy) = self.kafka_folders();
        assert!(self.stack.kill(Part::Kafka), "Kafka is not ours to kill");
        run("cp", &["-a".as_ref(), data.as_ref(), copy.as_ref()]);
        self.stack.start_again(Part::Kafka).unwrap();
    }

    /// Puts back what Kafka held when it was copied.
    pub fn set_kafka_back(&mut self) {
        let (data, copy) = self.kafka_folders();
        assert!(self.stack.kill(Part::Kafka), "Kafka is not ours to kill");
        run("rm", &["-r".as_ref(), data.as_ref()]);
        run("mv", &[copy.as_ref(), data.as_ref()]);
        self.stack.start_again(Part::Kafka).unwrap();
    }

    /// What the chain paid, wei summed; fails where a reward was paid twice, not at all or otherwise than owed, and where books and chain
    /// differ.
    pub fn verified(&self) -> String {
        let contracts = self.chain.contracts();
        let node = self.chain.node().unwrap();
        let on_chain = payments::on_chain(&node, contracts.rewards_pool, contracts.app_id);
        let paid = self.runtime.block_on(on_chain).unwrap();
        let mut times: BTreeMap<Uuid, Vec<Decimal>> = BTreeMap::new();
        for one in &paid {
            times.entry(one.reward_id).or_default().push(one.amount);
        }
        let twice = times.values().filter(|amounts| amounts.len() > 1).count();
        let missing = self.owed.keys().filter(|reward| !times.contains_key(*reward)).count();
        let owed: BTreeMap<Uuid, Vec<Decimal>> =
            self.owed.iter().map(|(reward, amount)| (*reward, vec![*amount])).collect();
        assert_eq!((twice, missing), (0, 0), "rewards that were paid twice, and not at all");
        assert_eq!(times, owed, "each reward once, to the wei");
        let reconciled = self.deployment.command(&["reconcile"]).unwrap();
        let summary: serde_json::Value = serde_json::from_str(reconciled.lines().last().unwrap()).unwrap();
        assert_eq!(summary["differences"], 0, "{reconciled}");
        assert_eq!(summary["payments"], self.owed.len(), "{reconciled}");
        let (booked, transactions, incidents): (Decimal, i64, i64) = self
            .runtime
            .block_on(
                sqlx::query_as(
                    "select (select coalesce(sum(r.amount_wei), 0) from payout_attempt_rewards r join payout_attempts a using (tx_id)
                        where r.live and a.state = 'final'),
                        (select count(*) from payout_attempts where state = 'final'),
                        (select count(*) from payout_incidents where resolved_at is null)",
                )
                .fetch_one(&self.pool),
            )
            .unwrap();
        let wei = payments::sum(&paid) * Decimal::from(1_000_000_000_000_000_000_i64);
        assert_eq!(booked.normalize(), wei.normalize(), "books and chain, in wei");
        assert_eq!(incidents, 0);
        format!(
            "{} paid once, 0 twice, 0 missing, {} wei by books and chain, {transactions} transactions, reconcile {summary}",
            paid.len(),
            wei.normalize()
        )
    }

    pub fn finish(self) {
        self.runtime.block_on(self.pool.close());
        self.deployment.stop();
        self.stack.stop();
    }
}

/// A pool of the deployment's database.
async fn connected(url: &str) -> PgPool {
    PgPoolOptions::new().max_connections(2).connect(url).await.unwrap()
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let status = std::process::Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
