//! `chain_submission` on a real Postgres and a real Thor node: what stands in its way is reported and heals, and whenever it is killed
//! each reward is paid once. `THOR_URL` names a solo node with a block interval.

mod adjusted;
mod bad_input;
mod ends;
mod gathered;
mod later;
mod lost;
mod rebuilt;
mod reconciled;
mod rotation;
mod scripted;
mod seeded;
mod signers;
mod standing;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chain::abi::{ContractEvent, topic};
use chain::deploy::{Artifacts, Deployment, Plan, SOLO_KEYS, deploy};
use chain::id::Word;
use chain::node::{Criterion, EventFilter, Limits};
use chain::{Address, Node, Signer, TransactionSigner, Wei};
use processors::chain_submission::consume::{PayoutConsumer, PayoutInput};
use processors::chain_submission::ledger::outbox::Schemas;
use processors::chain_submission::metrics::PayoutMetrics;
use processors::chain_submission::submit::guard::GuardTopic;
use processors::chain_submission::submit::policy::Policy;
use processors::chain_submission::submit::terms::{Strategy, Terms};
use processors::chain_submission::submit::{Settings, Submitter};
use runtime::testing::{MemoryOutbound, MemorySchemas, raw};
use runtime::{Clock, Sink as _, SystemClock};
use rust_decimal::Decimal;
use schemas::events::{
    ActivityLogged, PaymentsAudited, PayoutUpdated, RewardCancelled, RewardGranted, SignatureAnnounced,
};
use schemas::ids::{RewardId, UploadId, UserId};
use schemas::topic::Topic;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Database;
use crate::support::{examples, record};

/// Longest wait for anything: a dozen blocks and pauses after obstacles, on a slow machine.
const LIMIT: Duration = Duration::from_secs(180);

fn thor() -> String {
    std::env::var("THOR_URL").expect("THOR_URL is not set: run this test under `devstack --with thor`")
}

fn b3tr(amount: i64) -> Wei {
    Wei::from_b3tr(Decimal::from(amount)).unwrap()
}

async fn artifacts() -> &'static Artifacts {
    static ARTIFACTS: OnceCell<Artifacts> = OnceCell::const_new();
    let compiled = ARTIFACTS.get_or_init(|| async {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chain/contracts");
        let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("contracts");
        let compiled = tokio::task::spawn_blocking(move || Artifacts::compile(&sources, &work));
        compiled.await.unwrap().expect("node and npm are installed")
    });
    compiled.await
}

/// Contracts for one test: an app of its own, whose purse holds 100 B3TR. What another test pays would be an unknown payment here.
async fn contracts() -> Deployment {
    let node = Node::new(&thor(), None, Limits::default()).unwrap();
    let distributor = Signer::from_hex(SOLO_KEYS[1]).unwrap().address();
    let app_name = format!("processors {}", Uuid::now_v7());
    let plan = Plan { app_name, distributor, funds: b3tr(100) };
    deploy(&node, artifacts().await, &Signer::from_hex(SOLO_KEYS[0]).unwrap(), &plan).await.unwrap()
}

/// `payouts.guard` in memory.
fn guard() -> GuardTopic {
    let kept = Arc::new(MemoryOutbound::default());
    let outbound = kept.clone();
    GuardTopic {
        outbound,
        read: Arc::new(move |topic| {
            let sent = kept.sent().into_iter().map(|sent| raw(topic, 0, sent.key, sent.payload));
            Ok(sent.collect())
        }),
        schemas: Arc::new(MemorySchemas),
        topic: Topic::PayoutsGuard.name().to_owned(),
        signature_announced: MemorySchemas::id_of::<SignatureAnnounced>(),
        payments_audited: MemorySchemas::id_of::<PaymentsAudited>(),
    }
}

pub fn schemas() -> Schemas {
    Schemas {
        payout_updated: MemorySchemas::id_of::<PayoutUpdated>(),
        activity_logged: MemorySchemas::id_of::<ActivityLogged>(),
        reward_cancelled: MemorySchemas::id_of::<RewardCancelled>(),
    }
}

pub fn example_grant() -> RewardGranted {
    examples(Topic::RewardsGranted).iter().find(|example| example.name == "normal-whole").unwrap().event()
}

struct World {
    database: Database,
    contracts: Deployment,
    guard: GuardTopic,
    metrics: PayoutMetrics,
    policy: Policy,
}

impl World {
    /// A schema with the network's rows.
    async fn new() -> Self {
        Self::of(contracts().await, &[thor()], true).await
    }

    /// A schema with the rows of a network of these nodes; `all` contracts, or the pool alone.
    async fn of(contracts: Deployment, urls: &[String], all: bool) -> Self {
        let (database, metrics) = (Database::new().await, PayoutMetrics::new().unwrap());
        let world = Self { database, contracts, guard: guard(), metrics, policy: Policy::unbounded() };
        let genesis = world.contracts.genesis_id.to_string();
        // In this order: nodes of one priority would be asked in the order of their ports, which are random.
        for (priority, url) in (1..).zip(urls) {
            sqlx::query(
                "insert into network_configs (id, rpc_url, genesis_id, priority) values ($1, $2, $3, $4)",
            )
            .bind(Uuid::now_v7())
            .bind(url)
            .bind(&genesis)
            .bind(priority)
            .execute(&world.database.pool)
            .await
            .unwrap();
        }
        let rows = [
            ("X2EarnRewardsPool", world.contracts.rewards_pool),
            ("B3TR Token Contract", world.contracts.b3tr),
            ("X2EarnApps", world.contracts.x2earn_apps),
            ("VeBetterPassport", world.contracts.passport),
        ];
        for (name, address) in &rows[..if all { 4 } else { 1 }] {
            world.names(name, *address).await;
        }
        world
    }

    /// Adds a row of a contract.
    async fn names(&self, name: &str, address: Address) {
        sqlx::query(
            "insert into smart_contracts (id, contract_name, contract_address, app_id, genesis_id) values ($1, $2, $3, $4, $5)",
        )
        .bind(Uuid::now_v7())
        .bind(name)
        .bind(address.to_string())
        .bind(self.contracts.app_id.to_string())
        .bind(self.contracts.genesis_id.to_string())
        .execute(&self.database.pool)
        .await
        .unwrap();
    }

    /// Delivers a record twice, as after any crash.
    async fn consume(&self, payload: PayoutInput) {
        self.consume_all(std::slice::from_ref(&payload), Arc::new(SystemClock)).await;
        self.consume_all(&[payload], Arc::new(SystemClock)).await;
    }

    /// Delivers a batch of records.
    async fn consume_all(&self, payloads: &[PayoutInput], clock: Arc<dyn Clock>) {
        let consumer = PayoutConsumer {
            pool: self.database.pool.clone(),
            schemas: schemas(),
            genesis_id: self.contracts.genesis_id.to_string(),
            gas_ceiling: 15_000_000,
            clock,
            metrics: self.metrics.clone(),
        };
        let position = record(example_grant(), 0).position;
        let envelope = |payload: &PayoutInput| runtime::Envelope {
            payload: payload.clone(),
            position: position.clone(),
            timestamp_ms: 0,
            redrive: 0,
            traceparent: None,
        };
        let batch: Vec<_> = payloads.iter().map(envelope).collect();
        consumer.write(&batch).await.unwrap();
    }

    async fn run(&self, statement: &'static str, value: &str) {
        sqlx::query(statement).bind(value).execute(&self.database.pool).await.unwrap();
    }

    /// A driver with a wallet, who was granted a reward.
    async fn grant(&self, amount: i64, wallet: Address) -> Uuid {
        self.grant_with(amount, wallet, |_| {}).await
    }

    /// The same, of a grant that is changed before it arrives.
    async fn grant_with(
        &self,
        amount: i64,
        wallet: Address,
        change: impl FnOnce(&mut RewardGranted),
    ) -> Uuid {
        let mut event = example_grant();
        let (user, wallet_id) = (Uuid::now_v7(), Uuid::now_v7());
        sqlx::query("insert into users (id) values ($1)")
            .bind(user)
            .execute(&self.database.pool)
            .await
            .unwrap();
        sqlx::query(
            "insert into user_wallets (id, user_id, wallet_address, wallet_type, network, is_primary)
             values ($1, $2, $3, 'vechain', 'testnet', true)",
        )
        .bind(wallet_id)
        .bind(user)
        .bind(wallet.to_string())
        .execute(&self.database.pool)
        .await
        .unwrap();
        event.header.user_id = UserId(user);
        event.header.upload_id = UploadId(Uuid::now_v7());
        event.reward_id = RewardId::of(event.header.upload_id);
        event.stamp.wallet_id = Some(wallet_id);
        event.granted = amount.into();
        change(&mut event);
        let reward = event.reward_id.0;
        self.consume(PayoutInput::Granted(Box::new(event))).await;
        reward
    }

    /// A signing process; dropping the handle does not end it, aborting kills it in the middle of whatever it does.
    fn submitter(&self, key: &str, owner: &str) -> JoinHandle<()> {
        self.submitter_of(Arc::new(Signer::from_hex(key).unwrap()), None, owner)
    }

    /// The same with signers of any kind.
    fn submitter_of(
        &self,
        signer: Arc<dyn TransactionSigner>,
        gas_payer: Option<Arc<dyn TransactionSigner>>,
        owner: &str,
    ) -> JoinHandle<()> {
        let submitter = self.signing_of(signer, gas_payer, owner, Arc::new(SystemClock));
        tokio::spawn(async move { submitter.run(CancellationToken::new()).await })
    }

    /// The loop of a signing process, which nobody runs yet.
    fn signing(&self, key: &str, owner: &str, clock: Arc<dyn Clock>) -> Submitter {
        self.signing_of(Arc::new(Signer::from_hex(key).unwrap()), None, owner, clock)
    }

    /// The same with signers of any kind.
    fn signing_of(
        &self,
        signer: Arc<dyn TransactionSigner>,
        gas_payer: Option<Arc<dyn TransactionSigner>>,
        owner: &str,
        clock: Arc<dyn Clock>,
    ) -> Submitter {
        Submitter {
            pool: self.database.pool.clone(),
            settings: Settings {
                genesis: self.contracts.genesis_id,
                batch_rewards: 5,
                batch_wait: Duration::ZERO,
                terms: Terms {
                    expiration: 600,
                    gas_ceiling: 15_000_000,
                    strategy: Strategy::Medium,
                    daily_ceiling: b3tr(10_000_000),
                },
                policy: self.policy.clone(),
                proofs: Some("https://milestream.example".to_owned()),
                owner: owner.to_owned(),
            },
            signer,
            gas_payer,
            guard: self.guard.clone(),
            schemas: schemas(),
            clock,
            metrics: self.metrics.clone(),
            observer: None,
        }
    }

    async fn until_obstacle(&self, label: &str) {
        let until = Instant::now() + LIMIT;
        while self.metrics.payout_obstacle.with_label_values(&[label]).get() == 0 {
            assert!(Instant::now() < until, "no obstacle {label}:\n{}", self.metrics.exporter.render());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Rewards that the chain paid, by its logs.
    async fn paid(&self) -> Vec<Uuid> {
        let node = Node::new(&thor(), Some(self.contracts.genesis_id), Limits::default()).unwrap();
        let criterion = Criterion {
            address: Some(self.contracts.rewards_pool),
            topics: [
                Some(topic::REWARD_DISTRIBUTED),
                Some(Word(*self.contracts.app_id.as_bytes())),
                None,
                None,
                None,
            ],
        };
        let logs = node.events(&EventFilter::blocks(0, u32::MAX >> 1, vec![criterion])).await.unwrap();
        logs.iter()
            .map(|log| match ContractEvent::decode(&log.event) {
                Some(ContractEvent::RewardDistributed { proof, .. }) => {
                    proof.split_once("reward ").unwrap().1[..36].parse().unwrap()
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    async fn until_paid(&self, rewards: &[Uuid]) {
        let until = Instant::now() + LIMIT;
        loop {
            let paid = self.paid().await;
            if rewards.iter().all(|reward| paid.contains(reward)) {
                return;
            }
            assert!(Instant::now() < until, "not all of {rewards:?} are paid: {paid:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn state(&self, reward: Uuid) -> (String, Option<String>) {
        sqlx::query_as("select state, reason from payouts where reward_id = $1")
            .bind(reward)
            .fetch_one(&self.database.pool)
            .await
            .unwrap()
    }
}

fn wallet(n: u8) -> Address {
    Address([n; 20])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_the_way_is_reported_and_when_it_is_mended_the_reward_is_paid_once() {
    let world = World::new().await;
    let reward = world.grant(1, wallet(0x21)).await;
    world.run("update network_configs set rpc_url = $1", "http://127.0.0.1:1").await;
    let signing = world.submitter(SOLO_KEYS[1], "first");
    world.until_obstacle("node_unavailable").await;

    world.run("update network_configs set rpc_url = $1", &thor()).await;
    let pool = world.contracts.rewards_pool.to_string();
    let moved = "update smart_contracts set contract_address = $1 where contract_name = 'X2EarnRewardsPool'";
    world.run(moved, &wallet(0x77).to_string()).await;
    world.until_obstacle("no_contract").await;

    world
        .run(
            "update smart_contracts set is_active = $1 = 'on' where contract_name = 'X2EarnRewardsPool'",
            "off",
        )
        .await;
    world.until_obstacle("configuration").await;
    signing.abort();

    world
        .run(
            "update smart_contracts set is_active = $1 = 'on' where contract_name = 'X2EarnRewardsPool'",
            "on",
        )
        .await;
    world.run(moved, &pool).await;
    let stranger = world.submitter(SOLO_KEYS[2], "stranger");
    world.until_obstacle("not_distributor").await;
    stranger.abort();

    assert_eq!(world.state(reward).await.0, "ready", "nothing was planned meanwhile");
    let signing = world.submitter(SOLO_KEYS[1], "second");
    world.until_paid(&[reward]).await;
    signing.abort();
    assert_eq!(world.paid().await.iter().filter(|paid| **paid == reward).count(), 1);
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purse_that_does_not_hold_what_is_due_pays_nothing_of_it() {
    let world = World::new().await;
    let reward = world.grant(5_000, wallet(0x31)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_obstacle("no_funds").await;
    signing.abort();
    assert_eq!(world.state(reward).await.0, "ready");
    assert!(!world.paid().await.contains(&reward));
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reward_that_cannot_be_paid_is_quarantined_and_the_others_of_its_batch_are_paid() {
    let world = World::new().await;
    let good = [world.grant(1, wallet(0x41)).await, world.grant(1, wallet(0x42)).await];
    // The token pays nothing to the zero address.
    let bad = world.grant(1, Address([0; 20])).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_paid(&good).await;
    signing.abort();
    let (state, reason) = world.state(bad).await;
    assert_eq!(state, "quarantined");
    assert!(reason.as_deref().unwrap().starts_with("invalid_receiver: "), "{reason:?}");
    assert!(!world.paid().await.contains(&bad));
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_with_two_at_work_each_reward_is_paid_once() {
    let world = World::new().await;
    let mut rewards = Vec::new();
    for n in 0..12_u64 {
        rewards.push(world.grant(1, wallet(0x50 + u8::try_from(n).unwrap())).await);
        let workers = ["a", "b"].map(|owner| world.submitter(SOLO_KEYS[1], &format!("{owner}{n}")));
        // Spread over a round: the audit and planning ask the node a dozen and a half things, each some milliseconds.
        tokio::time::sleep(Duration::from_millis(25 * n)).await;
        workers.iter().for_each(JoinHandle::abort);
        // As if the killed owner's lease had lapsed.
        world.run("update submitter_leases set expires_at = now() where $1 = ''", "").await;
    }
    let last = world.submitter(SOLO_KEYS[1], "last");
    world.until_paid(&rewards).await;
    last.abort();
    let paid = world.paid().await;
    for reward in &rewards {
        assert_eq!(paid.iter().filter(|paid| *paid == reward).count(), 1, "{reward}");
    }
    let (rows, live): (i64, i64) =
        sqlx::query_as("select count(distinct reward_id), count(*) from payout_attempt_rewards where live")
            .fetch_one(&world.database.pool)
            .await
            .unwrap();
    assert_eq!((rows, live), (12, 12), "a reward is in one live transaction");
    world.database.drop().await;
}
