//! Lost commits: a database that a failover or a restore has set back to before a payment pays nothing a second time.

use std::collections::BTreeMap;

use chain::abi::{Proof, ProofType, RewardCall};
use chain::deploy::Operator;
use chain::node::Revision;
use processors::chain_submission::network::Network;
use processors::chain_submission::reconcile::{Kind, Report, reconcile};
use processors::chain_submission::{blocks, operate};
use rdkafka::config::ClientConfig;
use runtime::producer::{DeliveryTimeout, KafkaProducer};
use runtime::registry::{Registry, RegistryConfig};
use runtime::snapshot;
use runtime::topics::{Layout, apply};
use sqlx::AssertSqlSafe;

use super::ends::Scripted;
use super::*;

/// The tables that say what was paid, parents first.
const TABLES: [&str; 6] = [
    "payouts",
    "payout_attempts",
    "payout_attempt_rewards",
    "payout_budgets",
    "payout_checkpoints",
    "payout_incidents",
];

impl World {
    pub async fn sql(&self, statement: String) {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&self.database.pool).await.unwrap();
    }

    /// Copies what the books hold now.
    pub async fn back_up(&self) {
        for table in TABLES {
            self.sql(format!("create table before_{table} as table {table}")).await;
        }
    }

    /// Puts the books back as they were at the backup; nobody holds a lease.
    pub async fn set_back(&self) {
        let mut restore = format!("begin; truncate submitter_leases, {};", TABLES.join(", "));
        for table in TABLES {
            restore.push_str(&format!("insert into {table} select * from before_{table};"));
        }
        restore.push_str("commit");
        self.sql(restore).await;
    }

    fn node(&self) -> Node {
        Node::new(&thor(), Some(self.contracts.genesis_id), Limits::default()).unwrap()
    }

    /// Wei that the chain paid for each reward, by its logs: a list of as many payments as there were.
    pub async fn chain_paid(&self) -> BTreeMap<Uuid, Vec<Decimal>> {
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
        let logs = self.node().events(&EventFilter::blocks(0, u32::MAX >> 1, vec![criterion])).await.unwrap();
        let mut paid: BTreeMap<Uuid, Vec<Decimal>> = BTreeMap::new();
        for log in logs {
            let Some(ContractEvent::RewardDistributed { amount, proof, .. }) =
                ContractEvent::decode(&log.event)
            else {
                panic!("{log:?}")
            };
            let reward = proof.split_once("reward ").unwrap().1[..36].parse().unwrap();
            paid.entry(reward).or_default().push(amount.to_string().parse().unwrap());
        }
        paid
    }

    /// Delivers every block since the contracts were made until all payouts are paid, and compares them with the chain's logs.
    pub async fn books_equal_the_chain(&self) {
        let (node, genesis) = (self.node(), self.contracts.genesis_id);
        let mut next = self.contracts.block_number;
        let until = Instant::now() + LIMIT;
        loop {
            let best = node.block(Revision::Best).await.unwrap().unwrap().number;
            while next <= best {
                let block = node.expanded_block(Revision::Number(next)).await.unwrap().unwrap();
                let mut adopted = blocks::adopted(&block, &genesis, SystemClock.now());
                adopted.seq = next.into();
                self.consume(PayoutInput::Adopted(Box::new(adopted))).await;
                next += 1;
            }
            let open: i64 = sqlx::query_scalar("select count(*) from payouts where state <> 'paid'")
                .fetch_one(&self.database.pool)
                .await
                .unwrap();
            if open == 0 {
                break;
            }
            assert!(Instant::now() < until, "{open} payouts are not paid");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let booked: Vec<(Uuid, Decimal)> = sqlx::query_as(
            "select r.reward_id, r.amount_wei from payout_attempt_rewards r join payout_attempts a using (tx_id)
             where a.state = 'confirmed' and r.live",
        )
        .fetch_all(&self.database.pool)
        .await
        .unwrap();
        let booked: BTreeMap<Uuid, Vec<Decimal>> =
            booked.into_iter().map(|(reward, amount)| (reward, vec![amount])).collect();
        assert_eq!(booked, self.chain_paid().await, "each reward once, to the wei");
        let spent: Decimal = sqlx::query_scalar("select sum(spent_wei) from payout_budgets")
            .fetch_one(&self.database.pool)
            .await
            .unwrap();
        assert_eq!(spent, booked.values().flatten().sum::<Decimal>(), "and charged once");
        let report = self.reconciled().await;
        assert_eq!((report.findings, report.payments), (Vec::new(), booked.len()));
    }

    /// A payment by the distributor's key that no submitter made.
    async fn pay_by_hand(&self, reward: Uuid, amount: i64, receiver: Address) {
        let (node, signer) = (self.node(), Signer::from_hex(SOLO_KEYS[1]).unwrap());
        let call = RewardCall { app: self.contracts.app_id, amount: b3tr(amount), receiver };
        let proof = Proof {
            evidence: vec![(ProofType::Text, format!("reward {reward}"))],
            impacts: Vec::new(),
            description: "by hand".to_owned(),
        };
        let operator = Operator::new(&node, &signer).await.unwrap();
        operator
            .send("pay by hand", vec![call.with_proof(self.contracts.rewards_pool, &proof)])
            .await
            .unwrap();
    }

    /// Chain and books up to the newest block that the books know.
    async fn reconciled(&self) -> Report {
        let pool = &self.database.pool;
        let network = Network::load(pool, self.contracts.genesis_id, Limits::default()).await.unwrap();
        reconcile(pool, &network.nodes[0], &network, (None, Some(u32::MAX))).await.unwrap()
    }

    async fn unresolved(&self) -> Vec<(String, String)> {
        sqlx::query_as("select tx_id, what from payout_incidents where resolved_at is null")
            .fetch_all(&self.database.pool)
            .await
            .unwrap()
    }
}

/// `payouts.guard` on a real broker, under a prefix of its own.
async fn guard_on_kafka() -> GuardTopic {
    let address =
        |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: devstack sets it"));
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", address("KAFKA_BROKERS"));
    let registry = Registry::new(&RegistryConfig::open(&address("SCHEMA_REGISTRY_URL"))).unwrap();
    let prefix = format!("payouts-{}.", Uuid::now_v7().simple());
    apply(&kafka, &registry, &Layout::local(&prefix)).await.unwrap();
    let timeout = DeliveryTimeout::After(Duration::from_secs(5));
    GuardTopic {
        outbound: Arc::new(KafkaProducer::new(&kafka, timeout).unwrap()),
        signature_announced: registry.id_of::<SignatureAnnounced>(&prefix).await.unwrap(),
        payments_audited: registry.id_of::<PaymentsAudited>(&prefix).await.unwrap(),
        read: Arc::new(move |topic| snapshot::read(&kafka, topic)),
        schemas: Arc::new(registry),
        topic: format!("{prefix}{}", Topic::PayoutsGuard.name()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_before_commits_were_lost_is_not_paid_again_and_the_books_equal_the_chain() {
    let world = World::new().await;
    let before = world.grant(1, wallet(0x60)).await;
    let signing = world.submitter(SOLO_KEYS[1], "first");
    world.until_paid(&[before]).await;
    let lost = [world.grant(2, wallet(0x61)).await, world.grant(3, wallet(0x62)).await];
    signing.abort();
    world.sql("update submitter_leases set expires_at = now()".into()).await;
    world.back_up().await;
    let signing = world.submitter(SOLO_KEYS[1], "second");
    world.until_paid(&lost).await;
    signing.abort();
    world.set_back().await;
    assert_eq!(world.state(lost[0]).await.0, "ready", "the books have lost it");

    let after = world.grant(4, wallet(0x63)).await;
    let signing = world.submitter(SOLO_KEYS[1], "third");
    world.until_paid(&[after]).await;
    signing.abort();
    for reward in [before, lost[0], lost[1], after] {
        assert_eq!(world.chain_paid().await[&reward].len(), 1);
    }
    world.books_equal_the_chain().await;
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_checkpoint_beside_one_in_kafka_means_a_lost_database_and_the_chain_is_asked_from_the_beginning()
 {
    let mut world = World::new().await;
    world.guard = guard_on_kafka().await;
    let lost = [world.grant(2, wallet(0x64)).await, world.grant(3, wallet(0x65)).await];
    world.back_up().await;
    let signing = world.submitter(SOLO_KEYS[1], "first");
    world.until_paid(&lost).await;
    signing.abort();
    world.set_back().await;
    let checkpoints: i64 = sqlx::query_scalar("select count(*) from payout_checkpoints")
        .fetch_one(&world.database.pool)
        .await
        .unwrap();
    assert_eq!(checkpoints, 0, "it is known to Kafka alone");

    let after = world.grant(4, wallet(0x66)).await;
    let signing = world.submitter(SOLO_KEYS[1], "second");
    world.until_paid(&[after]).await;
    signing.abort();
    world.books_equal_the_chain().await;
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_amid_fifty_rewards_pays_each_once() {
    let world = World::new().await;
    let mut rewards = Vec::new();
    for n in 0..30 {
        rewards.push(world.grant(1, wallet(0x80 + n)).await);
    }
    let signing = world.submitter(SOLO_KEYS[1], "first");
    let until = Instant::now() + LIMIT;
    while world.chain_paid().await.len() < 10 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    signing.abort();
    // Some transactions are in the books, some payouts are not even planned.
    for n in 30..50 {
        rewards.push(world.grant(1, wallet(0x80 + n)).await);
    }
    world.sql("update submitter_leases set expires_at = now()".into()).await;
    world.back_up().await;
    let signing = world.submitter(SOLO_KEYS[1], "second");
    world.until_paid(&rewards).await;
    signing.abort();
    world.set_back().await;
    let last = world.grant(1, wallet(0xf0)).await;
    let signing = world.submitter(SOLO_KEYS[1], "third");
    world.until_paid(&[last]).await;
    signing.abort();
    let payments: usize = world.chain_paid().await.values().map(Vec::len).sum();
    assert_eq!(payments, 51);
    world.books_equal_the_chain().await;
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_of_our_key_that_the_books_do_not_know_stops_signing_until_it_is_resolved() {
    let world = World::new().await;
    let named = world.grant(2, wallet(0x67)).await;
    let stranger = Uuid::now_v7();
    world.pay_by_hand(stranger, 1, wallet(0x68)).await;
    // Of a reward that is owed, and not what is owed.
    world.pay_by_hand(named, 1, wallet(0x67)).await;
    let other = world.grant(1, wallet(0x69)).await;
    let signing = world.submitter(SOLO_KEYS[1], "only");
    world.until_obstacle("unknown_payment").await;
    assert_eq!(world.state(other).await.0, "ready", "nothing is planned");
    assert_eq!(world.state(named).await.0, "quarantined", "a person says whether it was paid");
    let unresolved = world.unresolved().await;
    let says = |text: String| unresolved.iter().any(|(_, what)| what.contains(&text));
    assert_eq!(unresolved.len(), 2, "{unresolved:?}");
    assert!(says(format!("pays reward {stranger}, which the books do not know")), "{unresolved:?}");
    assert!(says(format!("for reward {named}, and 2000000000000000000 are owed")), "{unresolved:?}");
    let steps = world.metrics.payout_steps.with_label_values(&["unknown_payment"]).get();
    assert_eq!(steps, 2, "each is counted once");

    for (tx_id, _) in &unresolved {
        let mut tx = world.database.pool.begin().await.unwrap();
        operate::resolve(&mut tx, tx_id, "paid by hand", SystemClock.now().to_utc()).await.unwrap();
        tx.commit().await.unwrap();
    }
    world.until_paid(&[other]).await;
    signing.abort();
    assert_eq!(world.chain_paid().await[&other].len(), 1);
    assert_eq!(world.state(named).await.0, "quarantined", "and is not paid meanwhile");
    world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_was_lost_and_waits_in_a_pool_is_waited_for_and_taken_back_when_a_block_holds_it() {
    let mut scripted = Scripted::new(1).await;
    let lost = scripted.world.grant(1, wallet(0x11)).await;
    scripted.world.back_up().await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "first");
    scripted.until_posted(1).await;
    signing.abort();
    scripted.world.set_back().await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "second");
    scripted.world.until_obstacle("lost_commits").await;
    assert_eq!(scripted.chain().pool.len(), 1, "no other transaction is made");
    assert_eq!(scripted.world.state(lost).await.0, "ready");

    scripted.chain().mine(false);
    scripted.until_state(lost, "in_flight").await;
    let other = scripted.world.grant(2, wallet(0x12)).await;
    scripted.until_posted(1).await;
    assert_eq!(scripted.waiting_receivers(), [wallet(0x12)]);
    scripted.chain().mine(false);
    scripted.chain().grow(13);
    scripted.deliver().await;
    for reward in [lost, other] {
        scripted.until_state(reward, "paid").await;
    }
    let revision: i64 = sqlx::query_scalar("select revision from payouts where reward_id = $1")
        .bind(lost)
        .fetch_one(&scripted.world.database.pool)
        .await
        .unwrap();
    assert!(revision > 1_000, "above what the lost commits had published: {revision}");
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_one_of_two_nodes_does_not_show_holds_signing_up_until_both_show_it() {
    let mut scripted = Scripted::new(2).await;
    let lost = scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "first");
    scripted.until_posted(1).await;
    signing.abort();
    // The database has lost the transaction, and Kafka its announcement; the node that is asked first stands a block behind.
    scripted.world.guard = guard();
    scripted
        .world
        .sql(
            "truncate payout_attempts, payout_attempt_rewards, payout_checkpoints, submitter_leases; \
        update payouts set state = 'ready', ready_at = now(), tx_id = null"
                .into(),
        )
        .await;
    scripted.chain().mine(false);
    scripted.thors[0].behind.store(1, std::sync::atomic::Ordering::Relaxed);
    let signing = scripted.world.submitter(SOLO_KEYS[1], "second");
    scripted.world.until_obstacle("disputed").await;
    assert_eq!(scripted.world.state(lost).await.0, "ready");
    assert!(scripted.chain().pool.is_empty(), "nothing is signed");
    scripted.thors[0].behind.store(0, std::sync::atomic::Ordering::Relaxed);
    scripted.until_state(lost, "in_flight").await;
    scripted.deliver().await;
    assert_eq!(scripted.chain().paid().len(), 1);
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_was_lost_and_is_in_no_block_is_waited_for_until_its_window_is_final() {
    let scripted = Scripted::new(1).await;
    let lost = scripted.world.grant(1, wallet(0x11)).await;
    scripted.world.back_up().await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "first");
    scripted.until_posted(1).await;
    let first = *scripted.chain().pool.keys().next().unwrap();
    signing.abort();
    scripted.chain().drop_pool();
    scripted.world.set_back().await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "second");
    scripted.world.until_obstacle("lost_commits").await;
    // Its window of 600 blocks is over, and that is not final yet.
    {
        let mut chain = scripted.chain();
        chain.grow(700);
        chain.finalized = 620;
    }
    // The second look from now on has seen it all.
    let (looks, until) = (scripted.chain().looks, Instant::now() + LIMIT);
    while scripted.chain().looks < looks + 3 {
        assert!(Instant::now() < until, "nobody looks");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(scripted.chain().pool.is_empty(), "no other transaction is made");
    scripted.chain().finalized = 621;
    scripted.until_posted(1).await;
    assert_ne!(*scripted.chain().pool.keys().next().unwrap(), first);
    assert_eq!(scripted.world.state(lost).await.0, "in_flight");
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_signature_was_lost_is_signed_again_as_the_same_transaction() {
    let scripted = Scripted::new(1).await;
    scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "first");
    scripted.until_posted(1).await;
    let first = *scripted.chain().pool.keys().next().unwrap();
    signing.abort();
    scripted
        .world
        .sql("update payout_attempts set state = 'planned', raw = null; delete from submitter_leases".into())
        .await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "second");
    let posts = scripted.chain().posts;
    let until = Instant::now() + LIMIT;
    while scripted.chain().posts == posts {
        assert!(Instant::now() < until, "it is never posted again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(scripted.chain().pool.keys().copied().collect::<Vec<_>>(), [first]);
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_payment_ends_by_itself_when_the_grant_that_explains_it_arrives() {
    let mut scripted = Scripted::new(1).await;
    let lost = scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "first");
    scripted.until_posted(1).await;
    signing.abort();
    scripted.chain().mine(false);
    // A restore to before the grant, which is on its topic still.
    scripted.world.sql("create table granted as table payouts; truncate submitter_leases, payout_checkpoints, payout_budgets, \
        payout_attempts, payout_attempt_rewards, payouts".into()).await;
    let other = scripted.world.grant(2, wallet(0x12)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "second");
    scripted.world.until_obstacle("unknown_payment").await;
    assert!(scripted.chain().pool.is_empty(), "nothing is signed");
    assert_eq!(scripted.world.state(other).await.0, "ready");

    scripted.world.sql("insert into payouts select * from granted; update payouts set state = 'ready', ready_at = now(), tx_id = null".into()).await;
    scripted.until_posted(1).await;
    assert_eq!(scripted.waiting_receivers(), [wallet(0x12)]);
    assert_eq!(scripted.world.state(lost).await.0, "in_flight");
    assert!(scripted.world.unresolved().await.is_empty());
    scripted.deliver().await;
    let report = scripted.world.reconciled().await;
    assert_eq!((report.findings, report.payments), (Vec::new(), 1));
    scripted.world.sql("update payouts set tx_id = null; delete from payout_attempt_rewards".into()).await;
    let found: Vec<_> = scripted.world.reconciled().await.findings;
    assert_eq!((found.len(), found[0].kind, found[0].reward_id), (1, Kind::Unknown, Some(lost)));
    signing.abort();
    scripted.world.database.drop().await;
}
