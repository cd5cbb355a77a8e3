//! The end of each payment, on a scripted node: dead, reverted for good, or stopped until somebody has looked.

use std::sync::{Arc, Mutex};

use chain::AppId;
use processors::chain_submission::ledger::publish::Publisher;
use processors::chain_submission::network;
use processors::chain_submission::operate::{self, Order};
use schemas::events::BlockAdopted;

use super::scripted::{Chain, GENESIS, Thor};
use super::*;

pub struct Scripted {
    pub world: World,
    chain: Arc<Mutex<Chain>>,
    pub thors: Vec<Arc<Thor>>,
    /// Blocks that were delivered to the consumer.
    delivered: usize,
}

impl Scripted {
    /// A chain of 20 blocks with so many nodes.
    pub async fn new(nodes: usize) -> Self {
        let chain = Chain::new();
        chain.lock().unwrap().grow(20);
        let mut thors = Vec::new();
        for _ in 0..nodes {
            thors.push(Thor::start(&chain).await);
        }
        let contracts = Deployment {
            genesis_id: GENESIS,
            chain_tag: GENESIS.chain_tag(),
            block_number: 0,
            b3tr: wallet(0xb3),
            rewards_pool: wallet(0x90),
            x2earn_apps: wallet(0xa0),
            passport: wallet(0xa1),
            app_id: AppId([0x0a; 32]),
            app_name: "scripted".into(),
            admin: wallet(0xad),
            distributor: Signer::from_hex(SOLO_KEYS[1]).unwrap().address(),
            funds: b3tr(100),
            created_by: chain::TxId([0; 32]),
        };
        let world =
            World::of(contracts, &thors.iter().map(|thor| thor.url.clone()).collect::<Vec<_>>(), false).await;
        Self { world, chain, thors, delivered: 20 }
    }

    pub fn chain(&self) -> std::sync::MutexGuard<'_, Chain> {
        self.chain.lock().unwrap()
    }

    /// Delivers the blocks that the consumer has not had.
    pub async fn deliver(&mut self) {
        for block in self.undelivered() {
            self.world.consume(block).await;
        }
    }

    /// The same as one batch, as to a consumer that lags.
    pub async fn deliver_at_once(&mut self) {
        let blocks = self.undelivered();
        self.world.consume_all(&blocks, Arc::new(SystemClock)).await;
    }

    fn undelivered(&mut self) -> Vec<PayoutInput> {
        let blocks: Vec<BlockAdopted> = {
            let chain = self.chain();
            (self.delivered + 1..chain.blocks.len()).map(|number| chain.adopted(number, GENESIS)).collect()
        };
        self.delivered += blocks.len();
        blocks.into_iter().map(|block| PayoutInput::Adopted(Box::new(block))).collect()
    }

    /// Waits until so many transactions wait in the pool.
    pub async fn until_posted(&self, count: usize) {
        let until = Instant::now() + LIMIT;
        while self.chain().pool.len() < count {
            assert!(Instant::now() < until, "{} transactions wait", self.chain().pool.len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn until_state(&self, reward: Uuid, state: &str) {
        let until = Instant::now() + LIMIT;
        loop {
            let found = self.world.state(reward).await;
            if found.0 == state {
                return;
            }
            assert!(Instant::now() < until, "{found:?} instead of {state}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Rewards that the pool's transactions would pay.
    pub fn waiting_receivers(&self) -> Vec<Address> {
        let chain = self.chain();
        let clauses = chain.pool.values().flat_map(|tx| &tx.unsigned().clauses);
        clauses.map(|clause| chain::abi::RewardCall::decode(&clause.data).unwrap().1.receiver).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finally_reverted_batch_is_planned_again_without_its_culprit() {
    let mut scripted = Scripted::new(2).await;
    let good = [scripted.world.grant(1, wallet(0x11)).await, scripted.world.grant(1, wallet(0x12)).await];
    let bad = scripted.world.grant(1, wallet(0x13)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_posted(1).await;
    {
        let mut chain = scripted.chain();
        let words = "X2EarnRewardsPool: not this one".to_owned();
        chain.refused_then.insert(wallet(0x13), words);
        chain.mine(true);
        chain.grow(20);
    }
    scripted.deliver().await;
    assert_eq!(scripted.world.state(good[0]).await.0, "in_flight", "it may still be undone");
    assert!(scripted.chain().pool.is_empty());
    scripted.chain().finalized = 30;
    scripted.chain().grow(1);
    scripted.deliver().await;
    scripted.until_state(bad, "quarantined").await;
    let (_, reason) = scripted.world.state(bad).await;
    assert_eq!(reason.as_deref(), Some("poisoned_clause: X2EarnRewardsPool: not this one"));
    scripted.until_posted(1).await;
    let mut receivers = scripted.waiting_receivers();
    receivers.sort();
    assert_eq!(receivers, [wallet(0x11), wallet(0x12)]);
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_transaction_has_a_successor_once_two_nodes_are_final_beyond_it_without_it_and_not_before()
{
    let scripted = Scripted::new(2).await;
    let reward = scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_posted(1).await;
    let first = scripted.chain().pool.keys().next().copied().unwrap();
    {
        // Dropped in silence, and nobody posts it any more once it has expired (600 blocks).
        let mut chain = scripted.chain();
        chain.grow(700);
        chain.drop_pool();
        chain.finalized = 719;
    }
    // The second node is final as well, but not that far.
    scripted.thors[1].behind.store(200, std::sync::atomic::Ordering::Relaxed);
    let until = Instant::now() + LIMIT;
    loop {
        let (_, reason) = scripted.world.state(reward).await;
        if reason.is_some_and(|reason| reason.starts_with("expired at ")) {
            break;
        }
        assert!(Instant::now() < until, "it never expires");
        scripted.chain().drop_pool();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scripted.chain().drop_pool();
    // Each look asks both nodes: when the second look has begun, the first has come to its end.
    let asked = scripted.chain().receipts;
    while scripted.chain().receipts < asked + 4 {
        assert!(Instant::now() < until, "nobody asks for its end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(scripted.world.state(reward).await.0, "in_flight", "one of two nodes is no proof");
    assert!(scripted.chain().pool.is_empty());
    scripted.thors[1].behind.store(0, std::sync::atomic::Ordering::Relaxed);
    scripted.until_posted(1).await;
    let second = scripted.chain().pool.keys().next().copied().unwrap();
    assert_ne!(first, second);
    let attempts: Vec<(String, String, bool)> = sqlx::query_as(
        "select a.tx_id, a.state, r.live from payout_attempts a join payout_attempt_rewards r using (tx_id) order by planned_at",
    )
    .fetch_all(&scripted.world.database.pool)
    .await
    .unwrap();
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!((attempts[0].1.as_str(), attempts[0].2), ("dead", false));
    assert!(attempts[1].2);
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_transactions_leave_room_for_others() {
    let scripted = Scripted::new(1).await;
    // 32 transactions that nobody took; finality does not come.
    let signing = scripted.world.submitter(SOLO_KEYS[1], "first");
    for n in 0..32_u8 {
        scripted.world.grant(1, wallet(n + 1)).await;
        scripted.until_posted(usize::from(n) + 1).await;
    }
    {
        let mut chain = scripted.chain();
        chain.grow(700);
        chain.drop_pool();
    }
    let last = scripted.world.grant(1, wallet(0x77)).await;
    let until = Instant::now() + LIMIT;
    while !scripted.waiting_receivers().contains(&wallet(0x77)) {
        assert!(Instant::now() < until, "nothing is paid behind 32 expired transactions");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(scripted.world.state(last).await.0, "in_flight");
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_no_release_knows_on_every_clause_is_an_obstacle_and_nobody_is_quarantined() {
    let scripted = Scripted::new(1).await;
    scripted.chain().refused_all = Some("X2EarnRewardsPool: the app is asleep".into());
    let rewards = [scripted.world.grant(1, wallet(0x11)).await, scripted.world.grant(1, wallet(0x12)).await];
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.world.until_obstacle("refused").await;
    for reward in rewards {
        let strikes: i32 = sqlx::query_scalar("select strikes from payouts where reward_id = $1")
            .bind(reward)
            .fetch_one(&scripted.world.database.pool)
            .await
            .unwrap();
        assert_eq!((strikes, scripted.world.state(reward).await.0.as_str()), (0, "ready"));
    }
    scripted.chain().refused_all = None;
    scripted.until_posted(1).await;
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_clause_is_not_blamed_for_what_befalls_the_distributors_own_as_well_and_is_for_its_own() {
    let scripted = Scripted::new(1).await;
    scripted.chain().refused_all = Some("X2EarnRewardsPool: the app is asleep".into());
    let reward = scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.world.until_obstacle("refused").await;
    assert_eq!(scripted.world.state(reward).await.1, None);
    {
        let mut chain = scripted.chain();
        chain.refused_all = None;
        chain.refused.insert(wallet(0x11), "X2EarnRewardsPool: not you".into());
    }
    let until = Instant::now() + LIMIT;
    while scripted.world.state(reward).await.1.as_deref()
        != Some("poisoned_clause: X2EarnRewardsPool: not you")
    {
        assert!(Instant::now() < until, "{:?}", scripted.world.state(reward).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_stops_planning_until_it_is_resolved() {
    let scripted = Scripted::new(1).await;
    sqlx::query("insert into payout_incidents (genesis_id, tx_id, what, found_at) values ($1, '0x01', 'incident: a test', now())")
        .bind(GENESIS.to_string())
        .execute(&scripted.world.database.pool)
        .await
        .unwrap();
    let reward = scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.world.until_obstacle("incident").await;
    assert_eq!(scripted.world.state(reward).await.0, "ready");
    scripted.world.run("update payout_incidents set resolved_at = now(), resolution = $1", "seen").await;
    scripted.until_posted(1).await;
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_for_one_network_is_not_paid_on_another() {
    let scripted = Scripted::new(1).await;
    let pool = &scripted.world.database.pool;
    network::choose(pool, GENESIS).await.unwrap();
    network::choose(pool, GENESIS).await.unwrap();
    let refused = network::choose(pool, chain::BlockId([0x43; 32])).await.unwrap_err();
    assert!(refused.to_string().starts_with("chain.genesis_id is 0x4343"), "{refused}");
    let elsewhere = scripted.world.grant(1, wallet(0x11)).await;
    scripted.world.run("update payouts set genesis_id = $1", "0x43").await;
    let here = scripted.world.grant(2, wallet(0x12)).await;
    // The release before, which may run beside this one, notes no network: it has paid on the same.
    let before = scripted.world.grant(1, wallet(0x13)).await;
    let unnoted = "update payouts set genesis_id = null where reward_id = $1::uuid";
    scripted.world.run(unnoted, &before.to_string()).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    for reward in [here, before] {
        scripted.until_state(reward, "in_flight").await;
    }
    scripted.until_posted(1).await;
    let mut receivers = scripted.waiting_receivers();
    receivers.sort();
    assert_eq!(receivers, [wallet(0x12), wallet(0x13)]);
    assert_eq!(scripted.world.state(elsewhere).await.0, "ready");
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purse_pays_what_it_holds_and_says_what_it_lacks() {
    let scripted = Scripted::new(1).await;
    scripted.chain().purse = b3tr(3).to_u128().unwrap();
    let large = scripted.world.grant(5, wallet(0x11)).await;
    let small = [scripted.world.grant(1, wallet(0x12)).await, scripted.world.grant(2, wallet(0x13)).await];
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.world.until_obstacle("no_funds").await;
    for reward in small {
        scripted.until_state(reward, "in_flight").await;
    }
    assert_eq!(scripted.world.state(large).await.0, "ready");
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reward_above_the_ceiling_of_a_day_waits_for_a_person_and_not_for_ever() {
    let scripted = Scripted::new(1).await;
    let above = scripted.world.grant(10_000_001, wallet(0x11)).await;
    let below = scripted.world.grant(1, wallet(0x12)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_state(above, "quarantined").await;
    assert!(scripted.world.state(above).await.1.unwrap().starts_with("above_ceiling: "));
    scripted.until_state(below, "in_flight").await;
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_first_node_and_one_that_lags_do_not_keep_the_second_from_paying() {
    let scripted = Scripted::new(2).await;
    scripted.thors[0].silent.store(true, std::sync::atomic::Ordering::Relaxed);
    let first = scripted.world.grant(1, wallet(0x11)).await;
    let started = Instant::now();
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_posted(1).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(scripted.world.state(first).await.0, "in_flight");
    // The first node is back, and 300 blocks behind: what it would be asked refers to its old block.
    scripted.chain().grow(400);
    scripted.thors[0].silent.store(false, std::sync::atomic::Ordering::Relaxed);
    scripted.thors[0].behind.store(300, std::sync::atomic::Ordering::Relaxed);
    scripted.world.grant(2, wallet(0x12)).await;
    scripted.until_posted(2).await;
    let references: Vec<u32> =
        scripted.chain().pool.values().map(|tx| tx.unsigned().block_ref.number()).collect();
    assert!(references.contains(&420), "{references:?}");
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reward_of_an_account_that_is_held_or_locked_waits_and_the_others_are_paid() {
    let scripted = Scripted::new(1).await;
    let held = scripted.world.grant(1, wallet(0x11)).await;
    let hold = "update users set held_at = case $1 when 'held' then now() end
        where id = (select user_id from payouts order by ready_at limit 1)";
    scripted.world.run(hold, "held").await;
    let locked = scripted.world.grant(1, wallet(0x13)).await;
    let lock = "update users set is_active = $1 = 'active' where id = (select user_id from user_wallets where wallet_address like '%13')";
    scripted.world.run(lock, "locked").await;
    scripted.world.grant(1, wallet(0x12)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_posted(1).await;
    assert_eq!(scripted.waiting_receivers(), [wallet(0x12)]);
    assert_eq!(scripted.world.state(held).await.0, "ready");
    assert_eq!(scripted.world.state(locked).await.0, "ready");
    scripted.world.run(hold, "active").await;
    scripted.until_posted(2).await;
    scripted.world.run(lock, "active").await;
    scripted.until_posted(3).await;
    signing.abort();
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_landed_untold_is_final_once_its_block_is_told_again_and_a_second_telling_changes_nothing()
 {
    let scripted = Scripted::new(1).await;
    let reward = scripted.world.grant(1, wallet(0x11)).await;
    let signing = scripted.world.submitter(SOLO_KEYS[1], "only");
    scripted.until_posted(1).await;
    signing.abort();
    let (held, mut told) = {
        let mut chain = scripted.chain();
        chain.mine(false);
        let held = chain.blocks.len() - 1;
        chain.grow(30);
        chain.finalized = 40;
        let told = (21..chain.blocks.len()).map(|number| chain.adopted(number, GENESIS));
        (held, told.collect::<Vec<BlockAdopted>>())
    };
    // As a watcher tells it that looks for another app.
    told[held - 21].transactions.clear();
    let mut seq = 0;
    for block in told {
        seq = block.seq;
        scripted.world.consume(PayoutInput::Adopted(Box::new(block))).await;
    }
    assert_eq!(scripted.world.state(reward).await.0, "in_flight");
    for _ in 0..2 {
        seq += 1;
        let retold = BlockAdopted { seq, retold: true, ..scripted.chain().adopted(held, GENESIS) };
        scripted.world.consume(PayoutInput::Adopted(Box::new(retold))).await;
    }
    let next = {
        let mut chain = scripted.chain();
        chain.grow(1);
        BlockAdopted { seq: seq + 1, ..chain.adopted(chain.blocks.len() - 1, GENESIS) }
    };
    scripted.world.consume(PayoutInput::Adopted(Box::new(next))).await;
    assert_eq!(scripted.world.state(reward).await.0, "final");
    let incidents: i64 = sqlx::query_scalar("select count(*) from payout_incidents")
        .fetch_one(&scripted.world.database.pool)
        .await
        .unwrap();
    assert_eq!(incidents, 0);
    scripted.world.database.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_payout_is_published_for_its_refund_in_the_same_commit_and_one_that_was_settled_otherwise_is_not()
 {
    let scripted = Scripted::new(1).await;
    let publisher = Publisher { schemas: schemas(), gas_ceiling: 0 };
    let pool = &scripted.world.database.pool;
    let now = SystemClock.now().to_utc();
    for (n, settled, published) in [(0x11, false, 1_i64), (0x12, true, 0)] {
        let reward = scripted.world.grant(3, wallet(n)).await;
        let order = Order::Cancel { settled };
        let mut tx = pool.begin().await.unwrap();
        operate::carry_out(&mut tx, &publisher, reward, (&order, "a person says so"), now).await.unwrap();
        let found: i64 = sqlx::query_scalar("select count(*) from outbox where topic = 'rewards.calculated'")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(found, published);
        // Neither stays where the order is not committed.
        tx.rollback().await.unwrap();
        assert_eq!(scripted.world.state(reward).await.0, "ready");
    }
    scripted.world.database.drop().await;
}
