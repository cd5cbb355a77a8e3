//! Seeded runs of the real submitter, watcher and ledger on a scripted chain that does what a solo node cannot: forks to depth 20,
//! silent drops, lost pools, late inclusion, expiry, reverts, a second node that lags, stands on a dead branch or calls everything final,
//! nodes that hang, steps that come twice, processes killed at any point. Time is virtual. What was paid is counted in the scripted
//! chain's own transactions.
//!
//! `SEEDS` says how many runs are made (8 without it); run 500 with
//! `SEEDS=500 target/debug/devstack --with thor cargo test --workspace --test main -- seeded --nocapture`.

use std::collections::HashMap;
use std::fmt::{self, Display};
use std::ops::AddAssign;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use chain::SignedTx;
use processors::chain_submission::network::Network;
use processors::chain_submission::submit::Memory;
use runtime::metrics::Metrics;
use schemas::events::ChainStep;
use schemas::ids::Micros;
use schemas::payouts::{ChainBatch, ChainResponse, StepOutcome, StepResult};
use tokio::time::{Instant, advance};
use watch::{Gateway, GatewayError, Known, Source, SourceError, Watched, Watcher, WatcherConfig, Watching};

use super::ends::Scripted;
use super::scripted::{Chain, GENESIS};
use super::*;

/// Runs where `SEEDS` says nothing.
const SEEDS: u64 = 8;
/// Rounds in which everything goes wrong, and rounds after them in which all must come to its end.
const CHAOS: u64 = 45;
const CALM: u64 = 60;
/// Blocks in which a transaction is valid.
const WINDOW: u32 = 24;
/// Deepest fork.
const DEEPEST: usize = 20;
/// Time between blocks.
const BLOCK: Duration = Duration::from_secs(10);
/// Where virtual time begins, s since 1970: later than the clock by which rewards are granted.
const BEGIN: i64 = 2_000_000_000;

/// A sequence that its seed determines (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }
}

/// A clock that goes with virtual time.
struct Virtual(Instant);

impl Clock for Virtual {
    fn now(&self) -> Micros {
        Micros(BEGIN * 1_000_000 + i64::try_from(self.0.elapsed().as_micros()).unwrap())
    }
}

/// The gateway's memory, with the real one's rules; its copies are the same.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<(Vec<ChainStep>, Option<serde_json::Value>)>>);

impl Gateway for Steps {
    async fn post(&self, batch: &ChainBatch) -> Result<ChainResponse, GatewayError> {
        let mut taken = self.0.lock().unwrap();
        let highest = i64::try_from(taken.0.len()).unwrap();
        let first = batch.steps.first().map_or(highest + 1, ChainStep::seq);
        if first > highest + 1 {
            return Err(GatewayError::Gap(chain::node::Snippet::new("chain_gap")));
        }
        let outcome = if first <= highest { StepOutcome::Duplicate } else { StepOutcome::Accepted };
        let results = batch.steps.iter().map(|step| StepResult { seq: step.seq(), outcome }).collect();
        if outcome == StepOutcome::Accepted && !batch.steps.is_empty() {
            taken.0.extend(batch.steps.clone());
            taken.1.clone_from(&batch.checkpoint);
        }
        let highest_seq = i64::try_from(taken.0.len()).unwrap();
        Ok(ChainResponse { results, highest_seq, checkpoint: taken.1.clone() })
    }
}

/// What the watcher watches, as it was read from the tables once.
struct Rows(watch::Settings<Node>);

impl Rows {
    async fn read(pool: &sqlx::PgPool) -> Self {
        let network = Network::load(pool, GENESIS, chain::health::LIMITS).await.unwrap();
        let Network { urls, nodes, pool, app, .. } = network;
        let watching = Watching { watched: Watched { pool, app }, token: None, rewind: None };
        Self(watch::Settings { watching, urls, nodes })
    }
}

impl Source for Rows {
    type Chain = Node;

    async fn load(&self) -> Result<watch::Settings<Node>, SourceError> {
        Ok(self.0.clone())
    }
}

/// What runs have shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    runs: usize,
    rewards: usize,
    paid_twice: usize,
    stuck: usize,
    lost: usize,
    incidents: i64,
    forks: usize,
    deepest: usize,
    dropped: usize,
    late: usize,
    reverted: usize,
    hung: usize,
    kills: usize,
    repeated: usize,
    successors: i64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.rewards += other.rewards;
        self.paid_twice += other.paid_twice;
        self.stuck += other.stuck;
        self.lost += other.lost;
        self.incidents += other.incidents;
        self.forks += other.forks;
        self.deepest = self.deepest.max(other.deepest);
        self.dropped += other.dropped;
        self.late += other.late;
        self.reverted += other.reverted;
        self.hung += other.hung;
        self.kills += other.kills;
        self.repeated += other.repeated;
        self.successors += other.successors;
    }
}

impl Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, rewards, paid_twice, stuck, lost, incidents, forks, deepest, dropped, late, .. } =
            self;
        let Self { reverted, hung, kills, repeated, successors, .. } = self;
        write!(
            f,
            "{runs} runs, {rewards} rewards: {paid_twice} paid twice, {stuck} stuck, {lost} lost, {incidents} incidents; {forks} forks to \
             depth {deepest}, {dropped} silent drops, {late} late inclusions, {reverted} reverts, {hung} hung nodes, {kills} kills, \
             {repeated} steps told again, {successors} successors"
        )
    }
}

/// What a post meets, by seed.
struct Fates {
    dice: Dice,
    dropping: u64,
    dropped: usize,
}

/// Polls a future so often and then drops it, as a crash does; none where it was not done by then.
async fn killed_after<T>(mut polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// One run.
struct Run<'a> {
    scripted: &'a mut Scripted,
    rows: &'a Rows,
    dice: Dice,
    clock: Arc<Virtual>,
    fates: Arc<Mutex<Fates>>,
    /// First block in which a transaction is mined, by id.
    from: HashMap<chain::TxId, usize>,
    gateway: Steps,
    /// Steps that the consumer has had.
    delivered: usize,
    watcher: Watcher<Steps>,
    known: Option<Known<Node>>,
    submitter: Submitter,
    memory: Memory,
    rewards: Vec<Uuid>,
    counts: Counts,
    /// A successor takes an expired transaction's place without a proof of its death.
    naive: bool,
}

fn watcher(gateway: &Steps, clock: &Arc<Virtual>) -> Watcher<Steps> {
    let config = WatcherConfig { genesis: GENESIS, poll: Duration::from_secs(2), start_block: 20 };
    Watcher::new(config, gateway.clone(), clock.clone(), &Metrics::new().unwrap()).unwrap()
}

impl<'a> Run<'a> {
    async fn new((scripted, rows): (&'a mut Scripted, &'a Rows), seed: u64, naive: bool) -> Self {
        let clock = Arc::new(Virtual(Instant::now()));
        scripted.world.guard = guard();
        scripted.world.sql(EMPTY.to_owned()).await;
        let mut dice = Dice(seed);
        let dropping = dice.below(50);
        let fates = Arc::new(Mutex::new(Fates { dice: Dice(dice.next()), dropping, dropped: 0 }));
        {
            let mut chain = scripted.chain();
            let hung = chain.hung.clone();
            *chain =
                Arc::try_unwrap(Chain::new()).unwrap_or_else(|_| panic!("it is new")).into_inner().unwrap();
            chain.hung = hung;
            chain.time = Some(u64::try_from(BEGIN).unwrap());
            chain.grow(20);
            chain.finalized = 20;
            let fates = fates.clone();
            chain.drops = Box::new(move |_| {
                let mut fates = fates.lock().unwrap();
                let share = fates.dropping;
                let dropped = fates.dice.percent(share);
                fates.dropped += usize::from(dropped);
                dropped
            });
        }
        for thor in &scripted.thors {
            thor.freeze(false);
            thor.silent.store(false, Ordering::Relaxed);
            thor.lies.store(false, Ordering::Relaxed);
        }
        let gateway = Steps::default();
        let submitter = signing(&scripted.world, &clock, 0);
        Self {
            watcher: watcher(&gateway, &clock),
            scripted,
            rows,
            dice,
            clock,
            fates,
            from: HashMap::new(),
            gateway,
            delivered: 0,
            known: None,
            submitter,
            memory: Memory::default(),
            rewards: Vec::new(),
            counts: Counts { runs: 1, ..Counts::default() },
            naive,
        }
    }

    async fn run(mut self) -> Counts {
        for _ in 0..CHAOS {
            self.mishap().await;
            let blocks = 1 + self.dice.below(4);
            self.blocks(blocks, true).await;
            self.work(true).await;
        }
        // From here on the network behaves, and finality comes.
        for thor in &self.scripted.thors {
            thor.freeze(false);
            thor.silent.store(false, Ordering::Relaxed);
            thor.lies.store(false, Ordering::Relaxed);
        }
        self.fates.lock().unwrap().dropping = 0;
        for _ in 0..CALM {
            self.blocks(4, false).await;
            {
                let mut chain = self.scripted.chain();
                chain.finalized = u32::try_from(chain.blocks.len() - 4).unwrap();
            }
            self.work(false).await;
            if self.open().await == 0 {
                break;
            }
        }
        self.count().await
    }

    /// What goes wrong now.
    async fn mishap(&mut self) {
        if self.rewards.len() < 8 && self.dice.percent(40) {
            // A wallet belongs to one driver, and drivers stay from run to run.
            let mut receiver = [1; 20];
            receiver[..16].copy_from_slice(Uuid::now_v7().as_bytes());
            let receiver = Address(receiver);
            let amount = i64::try_from(self.dice.below(3)).unwrap() + 1;
            let reward = self.scripted.world.grant(amount, receiver).await;
            self.rewards.push(reward);
        }
        let dice = &mut self.dice;
        let [first, second] = [&self.scripted.thors[0], &self.scripted.thors[1]];
        match dice.below(14) {
            // A longer branch of other blocks wins.
            0..=3 => {
                let depth = {
                    let mut chain = first.chain();
                    let undoable = chain.blocks.len() - 1 - usize::try_from(chain.finalized).unwrap();
                    let depth = usize::try_from(dice.below(u64::try_from(DEEPEST).unwrap()) + 1)
                        .unwrap()
                        .min(undoable);
                    chain.fork(depth);
                    depth
                };
                self.counts.forks += usize::from(depth > 0);
                self.counts.deepest = self.counts.deepest.max(depth);
                // Who made the other branch held what this one's makers had not.
                self.from.clear();
                for _ in 0..depth {
                    self.block(true);
                }
            }
            4 => first.chain().drop_pool(),
            5 | 6 => second.freeze(true),
            7 => second.freeze(false),
            8 => first.freeze(dice.percent(30)),
            9 => {
                let thor = if dice.percent(50) { first } else { second };
                thor.silent.store(true, Ordering::Relaxed);
                self.counts.hung += 1;
            }
            10 => {
                first.silent.store(false, Ordering::Relaxed);
                second.silent.store(false, Ordering::Relaxed);
            }
            11 => second.lies.store(true, Ordering::Relaxed),
            12 => second.lies.store(false, Ordering::Relaxed),
            _ => {
                // Final is what no fork of this script reaches.
                let mut chain = first.chain();
                let upto = chain.blocks.len().saturating_sub(DEEPEST + 6);
                chain.finalized = chain.finalized.max(u32::try_from(upto).unwrap());
            }
        }
    }

    /// Makes blocks, 10 s apart.
    async fn blocks(&mut self, count: u64, chaos: bool) {
        for _ in 0..count {
            advance(BLOCK).await;
            self.block(chaos);
        }
    }

    fn block(&mut self, chaos: bool) {
        let (dice, from, counts) = (&mut self.dice, &mut self.from, &mut self.counts);
        let mut chain = self.scripted.chain();
        chain.time = Some(u64::try_from(self.clock.now().0 / 1_000_000).unwrap());
        let height = chain.blocks.len();
        chain.forge(|tx: &SignedTx| {
            if !chaos {
                return Some(false);
            }
            let first = *from.entry(tx.id()).or_insert_with(|| {
                let late = dice.percent(50);
                counts.late += usize::from(late);
                height + usize::try_from(if late { 8 + dice.below(u64::from(WINDOW)) } else { 0 }).unwrap()
            });
            (height >= first).then(|| {
                let reverted = dice.percent(4);
                counts.reverted += usize::from(reverted);
                reverted
            })
        });
    }

    /// A round of each process, any of which may die at any point.
    async fn work(&mut self, chaos: bool) {
        let stop = CancellationToken::new();
        for _ in 0..2 {
            let polls = if chaos && self.dice.percent(8) { self.dice.below(40) } else { u64::MAX };
            let looked = killed_after(polls, self.watcher.round(self.rows, &mut self.known, &stop)).await;
            if looked.is_none() {
                self.counts.kills += 1;
                (self.watcher, self.known) = (watcher(&self.gateway, &self.clock), None);
            }
        }
        self.deliver(chaos).await;
        for _ in 0..2 {
            let polls = if chaos && self.dice.percent(10) { self.dice.below(250) } else { u64::MAX };
            match killed_after(polls, self.submitter.step(&mut self.memory)).await {
                Some(pause) => advance(pause).await,
                None => {
                    self.counts.kills += 1;
                    self.memory = Memory::default();
                    self.submitter = signing(&self.scripted.world, &self.clock, self.counts.kills);
                    // As if the killed owner's lease had lapsed.
                    self.scripted.world.sql("update submitter_leases set expires_at = now()".into()).await;
                }
            }
        }
        if self.naive {
            self.replace_expired().await;
        }
    }

    /// Hands the consumer the steps that it has not had, and some that it has.
    async fn deliver(&mut self, chaos: bool) {
        let steps = self.gateway.0.lock().unwrap().0.clone();
        let again =
            if chaos && self.dice.percent(25) { usize::try_from(self.dice.below(6)).unwrap() } else { 0 };
        let begin = self.delivered.saturating_sub(again);
        self.counts.repeated += self.delivered - begin;
        self.delivered = steps.len();
        let inputs: Vec<PayoutInput> = steps[begin..]
            .iter()
            .map(|step| match step {
                ChainStep::Adopted(step) => PayoutInput::Adopted(Box::new(step.clone())),
                ChainStep::Undone(step) => PayoutInput::Undone(step.clone()),
            })
            .collect();
        if !inputs.is_empty() {
            self.scripted.world.consume_all(&inputs, self.clock.clone()).await;
        }
    }

    /// The naive protocol: what the best block is beyond is taken for dead.
    async fn replace_expired(&self) {
        let best = self.scripted.chain().blocks.len() - 1;
        let statement = format!(
            "with dead as (update payout_attempts set state = 'dead' where state in ('signed', 'sent') and last_valid < {best}
                returning tx_id),
             freed as (update payout_attempt_rewards set live = false where tx_id in (select tx_id from dead) returning reward_id)
             update payouts set state = 'ready', ready_at = to_timestamp({BEGIN}), tx_id = null
             where state = 'in_flight' and reward_id in (select reward_id from freed)"
        );
        self.scripted.world.sql(statement).await;
    }

    async fn open(&self) -> i64 {
        sqlx::query_scalar("select count(*) from payouts where state <> 'final'")
            .fetch_one(&self.scripted.world.database.pool)
            .await
            .unwrap()
    }

    async fn count(self) -> Counts {
        let Self { scripted, rewards, mut counts, fates, .. } = self;
        let pool = &scripted.world.database.pool;
        let mut paid: HashMap<Uuid, usize> = HashMap::new();
        for (reward, _) in scripted.chain().paid() {
            *paid.entry(reward).or_default() += 1;
        }
        for reward in &rewards {
            let state: Option<String> = sqlx::query_scalar("select state from payouts where reward_id = $1")
                .bind(reward)
                .fetch_optional(pool)
                .await
                .unwrap();
            let times = paid.get(reward).copied().unwrap_or(0);
            counts.paid_twice += usize::from(times > 1);
            counts.stuck += usize::from(state.as_deref() != Some("final"));
            counts.lost += usize::from(state.as_deref() == Some("final") && times == 0);
        }
        counts.rewards = rewards.len();
        counts.dropped = fates.lock().unwrap().dropped;
        let (incidents, successors) = sqlx::query_as(
            "select (select count(*) from payout_incidents),
                (select count(*) - count(distinct reward_id) from payout_attempt_rewards)",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        (counts.incidents, counts.successors) = (incidents, successors);
        counts
    }
}

fn signing(world: &World, clock: &Arc<Virtual>, life: usize) -> Submitter {
    let mut submitter = world.signing(SOLO_KEYS[1], &format!("life {life}"), clock.clone());
    // Each life has connections of its own, which end with it as a process's do: a `BEGIN` that is cut off leaves its connection in a
    // transaction that nobody ends.
    submitter.pool = connections(world);
    submitter.settings.batch_rewards = 3;
    submitter.settings.terms.expiration = WINDOW;
    submitter
}

/// Connections to the world's database.
fn connections(world: &World) -> sqlx::PgPool {
    let options = world.database.pool.connect_options().as_ref().clone();
    sqlx::postgres::PgPoolOptions::new().max_connections(4).connect_lazy_with(options)
}

/// Empties what a run has left.
const EMPTY: &str = "truncate payouts, payout_attempts, payout_attempt_rewards, payout_budgets, payout_checkpoints, payout_incidents, \
    payout_heads, payout_blocks, payout_claims, submitter_leases, outbox cascade";

/// Runs every `of`-th seed from `first` on.
fn runs(first: u64, of: u64, naive: bool) -> Counts {
    let count = std::env::var("SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(SEEDS);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // Beside a blocking task time does not jump to the next timer by itself while Postgres or a node is awaited.
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let still = tokio::task::spawn_blocking(move || _ = ended.recv());
        let mut scripted = Scripted::new(2).await;
        let rows = Rows::read(&scripted.world.database.pool).await;
        let hung = scripted.chain().hung.clone();
        let passing = tokio::spawn(async move {
            loop {
                hung.news.notified().await;
                while hung.count.load(Ordering::Relaxed) > 0 {
                    // Whoever is well responds first.
                    for _ in 0..300 {
                        tokio::task::yield_now().await;
                    }
                    advance(Duration::from_millis(500)).await;
                }
            }
        });
        let mut counts = Counts::default();
        for seed in (first..count).step_by(usize::try_from(of).unwrap()) {
            let run = Run::new((&mut scripted, &rows), seed, naive).await.run().await;
            if !naive && (run.paid_twice, run.stuck, run.lost) != (0, 0, 0) {
                println!("seed {seed}: {run}");
            }
            counts += run;
            if counts.runs.is_multiple_of(25) {
                println!("so far, {}: {counts}", if naive { "naive" } else { "protocol" });
            }
        }
        passing.abort();
        scripted.world.database.drop().await;
        drop(end);
        still.await.unwrap();
        counts
    })
}

fn all_runs(naive: bool) -> Counts {
    let halves = [0, 1].map(|first| std::thread::spawn(move || runs(first, 2, naive)));
    let mut counts = Counts::default();
    for half in halves {
        counts += half.join().unwrap();
    }
    counts
}

#[test]
fn on_any_chain_each_reward_is_paid_once_and_the_naive_protocol_fails_under_the_same_seeds() {
    let real = all_runs(false);
    println!("protocol: {real}");
    assert_eq!((real.paid_twice, real.stuck, real.lost, real.incidents), (0, 0, 0, 0), "{real}");
    let naive = all_runs(true);
    println!("naive:    {naive}");
    // It pays twice in about one seed of five, which few seeds do not show for sure; its other faults come more than once in each.
    assert!(naive.paid_twice + naive.stuck > 0 || naive.incidents > 0, "{naive}");
}
