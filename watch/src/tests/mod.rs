//! The watcher against chains that fork and a gateway that keeps the real one's rules. Every question suspends the look before and
//! after it takes effect, so that a look can be killed, or overtaken, at any point.

mod rewinds;
mod rounds;
mod walks;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chain::follow::BlockSource;
use chain::health::{Head, Heads};
use chain::node::{BlockTx, ExpandedBlock, NodeError, Revision, Snippet, WireClause};
use chain::{Address, AppId, BlockId, TxId, Wei};
use runtime::Clock;
use runtime::metrics::Metrics;
use schemas::ids::Micros;
use schemas::payouts::{ChainBatch, ChainResponse, ChainStep, StepOutcome, StepResult};
use tokio::task::yield_now;
use tokio::time::Instant;

use crate::{
    Chain, Gateway, GatewayError, Settings, Source, SourceError, Watched, Watcher, WatcherConfig, Watching,
};

const WATCHING: Watching =
    Watching { watched: Watched { pool: Address([1; 20]), app: AppId([2; 32]) }, token: None, rewind: None };

fn id(number: u32, salt: u32) -> BlockId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[4..8].copy_from_slice(&salt.to_be_bytes());
    BlockId(bytes)
}

fn genesis() -> BlockId {
    id(0, 0)
}

/// A tree of blocks with one best leaf.
struct Tree {
    parents: BTreeMap<BlockId, BlockId>,
    best: BlockId,
    made: u32,
    finalized: u32,
    /// The app for which each block holds a call of the pool.
    calls: Option<AppId>,
}

impl Tree {
    fn grow(&mut self, from: BlockId, count: u32) {
        self.best = from;
        for _ in 0..count {
            self.made += 1;
            let next = id(self.best.number() + 1, self.made);
            self.parents.insert(next, self.best);
            self.best = next;
        }
    }

    /// The best branch, genesis first.
    fn branch(&self) -> Vec<BlockId> {
        let mut ids = vec![self.best];
        while ids[ids.len() - 1].number() > 0 {
            ids.push(self.parents[&ids[ids.len() - 1]]);
        }
        ids.reverse();
        ids
    }

    fn back(&self, blocks: usize) -> BlockId {
        let branch = self.branch();
        branch[branch.len().saturating_sub(1 + blocks)]
    }
}

/// How a node misbehaves.
#[derive(Clone, Debug)]
enum Ailment {
    Fails(NodeError),
    Hangs,
    /// Its newest block is old.
    Stale,
}

/// A node that serves a tree; its copies serve the same.
#[derive(Clone)]
struct MemoryNode {
    tree: Arc<Mutex<Tree>>,
    ailment: Arc<Mutex<Option<Ailment>>>,
}

impl MemoryNode {
    fn new() -> Self {
        let parents = BTreeMap::from([(genesis(), BlockId([0xff; 32]))]);
        let tree = Tree { parents, best: genesis(), made: 0, finalized: 0, calls: None };
        Self { tree: Arc::new(Mutex::new(tree)), ailment: Arc::default() }
    }

    /// Another node that serves what this one does, healthy.
    fn sibling(&self) -> Self {
        Self { tree: self.tree.clone(), ailment: Arc::default() }
    }

    fn ails(&self, ailment: Option<Ailment>) {
        *self.ailment.lock().unwrap() = ailment;
    }

    /// The best branch grows.
    fn grow(&self, count: u32) {
        let mut tree = self.tree.lock().unwrap();
        let best = tree.best;
        tree.grow(best, count);
    }

    /// A branch from that many blocks back wins, by so many blocks.
    fn fork(&self, back: usize, more: u32) {
        let mut tree = self.tree.lock().unwrap();
        let (from, height) = (tree.back(back), tree.best.number());
        tree.grow(from, height - from.number() + more);
    }

    /// A block that was made earlier, on whatever branch, is built upon and wins.
    fn revive(&self, from: BlockId, more: u32) {
        let mut tree = self.tree.lock().unwrap();
        let height = tree.best.number();
        tree.grow(from, height.saturating_sub(from.number()) + more);
    }

    fn best(&self) -> BlockId {
        self.tree.lock().unwrap().best
    }

    fn branch(&self) -> Vec<String> {
        self.tree.lock().unwrap().branch().iter().map(ToString::to_string).collect()
    }

    async fn ask<T>(&self, question: impl FnOnce(&Tree) -> T) -> Result<T, NodeError> {
        yield_now().await;
        let ailment = self.ailment.lock().unwrap().clone();
        match ailment {
            Some(Ailment::Hangs) => std::future::pending().await,
            Some(Ailment::Fails(error)) => return Err(error),
            Some(Ailment::Stale) | None => {}
        }
        let response = question(&self.tree.lock().unwrap());
        yield_now().await;
        Ok(response)
    }
}

impl BlockSource for MemoryNode {
    async fn id_at(&self, revision: Revision) -> Result<Option<BlockId>, NodeError> {
        self.ask(|tree| match revision {
            Revision::Number(number) => tree.branch().get(number as usize).copied(),
            _ => Some(tree.best),
        })
        .await
    }

    async fn block(&self, id: BlockId) -> Result<Option<ExpandedBlock>, NodeError> {
        self.ask(|tree| tree.parents.get(&id).map(|parent| block(id, *parent, tree.calls))).await
    }
}

impl Heads for MemoryNode {
    async fn head(&self) -> Result<Head, NodeError> {
        let stale = matches!(*self.ailment.lock().unwrap(), Some(Ailment::Stale));
        let timestamp = if stale { 0 } else { u64::MAX };
        self.ask(|tree| Head { number: tree.best.number(), timestamp }).await
    }
}

impl Chain for MemoryNode {
    async fn finalized(&self) -> Result<u32, NodeError> {
        self.ask(|tree| tree.finalized).await
    }
}

fn block(id: BlockId, parent_id: BlockId, calls: Option<AppId>) -> ExpandedBlock {
    ExpandedBlock {
        number: id.number(),
        id,
        parent_id,
        timestamp: 1_700_000_000 + 10 * u64::from(id.number()),
        gas_limit: 0,
        gas_used: 0,
        base_fee_per_gas: None,
        is_trunk: true,
        is_finalized: false,
        transactions: calls.map(|app| call(id, app)).into_iter().collect(),
    }
}

/// A transaction of a block that calls the pool for an app.
fn call(block: BlockId, app: AppId) -> BlockTx {
    let data = [[1, 2, 3, 4].as_slice(), app.as_bytes()].concat();
    BlockTx {
        id: TxId(block.0),
        origin: Address([3; 20]),
        gas_payer: Address([3; 20]),
        gas_used: 21_000,
        paid: Wei::from(5),
        reverted: true,
        clauses: vec![WireClause { to: Some(WATCHING.watched.pool), value: Wei::ZERO, data }],
        outputs: vec![],
    }
}

/// What becomes of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It never arrives.
    Lost,
    /// It is taken, and the response is lost.
    AnswerLost,
    /// It is refused, until an operator mends it.
    Refused(u16),
}

#[derive(Default)]
struct Taken {
    steps: Vec<ChainStep>,
    checkpoint: Option<serde_json::Value>,
    /// Steps of each batch that was taken.
    batches: Vec<usize>,
    fault: Option<Fault>,
}

/// A gateway with the real one's rules; its copies are the same.
#[derive(Clone, Default)]
struct MemoryGateway(Arc<Mutex<Taken>>);

impl MemoryGateway {
    fn fails(&self, fault: Option<Fault>) {
        self.0.lock().unwrap().fault = fault;
    }

    fn take(&self, batch: &ChainBatch) -> Result<ChainResponse, GatewayError> {
        let mut taken = self.0.lock().unwrap();
        let lost = || GatewayError::Unavailable(Snippet::new("lost"));
        let fault = match taken.fault {
            Some(Fault::Refused(status)) => {
                return Err(GatewayError::Refused { status, detail: Snippet::new("no") });
            }
            // A question has no effect: nothing is won by losing it.
            _ if batch.steps.is_empty() => None,
            _ => taken.fault.take(),
        };
        if fault == Some(Fault::Lost) {
            return Err(lost());
        }
        let highest = i64::try_from(taken.steps.len()).unwrap();
        let first = batch.steps.first().map_or(highest + 1, ChainStep::seq);
        if first > highest + 1 {
            return Err(GatewayError::Gap(Snippet::new("chain_gap")));
        }
        let outcome = if first <= highest { StepOutcome::Duplicate } else { StepOutcome::Accepted };
        let result = |step: &ChainStep| StepResult { seq: step.seq(), outcome };
        let results = batch.steps.iter().map(result).collect();
        if outcome == StepOutcome::Accepted && !batch.steps.is_empty() {
            assert!(batch.checkpoint.is_some() && batch.genesis_id == genesis().to_string());
            taken.steps.extend(batch.steps.clone());
            taken.checkpoint.clone_from(&batch.checkpoint);
            taken.batches.push(batch.steps.len());
        }
        if fault == Some(Fault::AnswerLost) {
            return Err(lost());
        }
        let highest_seq = i64::try_from(taken.steps.len()).unwrap();
        Ok(ChainResponse { results, highest_seq, checkpoint: taken.checkpoint.clone() })
    }

    /// The branch that the taken steps lead to, from `start` on; refuses any step that does not fit the one before.
    fn walked_from(&self, start: BlockId) -> Vec<String> {
        let mut branch = vec![start.to_string()];
        for (step, seq) in self.0.lock().unwrap().steps.iter().zip(1..) {
            assert_eq!(step.seq(), seq);
            assert_eq!(step.event_id(), step.derived_id());
            match step {
                ChainStep::Adopted(step) if step.retold => {
                    assert!(branch.contains(&step.block.id), "a block that counts is told again");
                }
                ChainStep::Adopted(step) => {
                    assert_eq!(branch.last(), Some(&step.parent_id), "an adopted block follows the newest");
                    branch.push(step.block.id.clone());
                }
                ChainStep::Undone(step) => assert_eq!(branch.pop().as_ref(), Some(&step.block_id)),
            }
        }
        branch
    }

    fn walked(&self) -> Vec<String> {
        self.walked_from(genesis())
    }

    /// The block that the taken steps lead to.
    fn tip(&self) -> String {
        self.walked().pop().unwrap()
    }
}

impl Gateway for MemoryGateway {
    async fn post(&self, batch: &ChainBatch) -> Result<ChainResponse, GatewayError> {
        yield_now().await;
        let response = self.take(batch);
        yield_now().await;
        response
    }
}

/// A clock that jumps with the timers where those are paused.
struct TimersClock(Instant);

impl Clock for TimersClock {
    fn now(&self) -> Micros {
        Micros(1_700_000_000_000_000 + i64::try_from(self.0.elapsed().as_micros()).unwrap())
    }
}

fn watcher(gateway: &MemoryGateway) -> Watcher<MemoryGateway> {
    starting_after(0, gateway)
}

fn starting_after(start_block: u32, gateway: &MemoryGateway) -> Watcher<MemoryGateway> {
    let config = WatcherConfig { genesis: genesis(), poll: Duration::from_secs(2), start_block };
    Watcher::new(config, gateway.clone(), Arc::new(TimersClock(Instant::now())), &Metrics::new().unwrap())
        .unwrap()
}

/// What an operator has set, and may set otherwise; its copies are the same.
#[derive(Clone)]
struct MemorySource(Arc<Mutex<Result<Settings<MemoryNode>, SourceError>>>);

impl MemorySource {
    fn new(nodes: Vec<MemoryNode>) -> Self {
        Self(Arc::new(Mutex::new(Ok(settings(nodes)))))
    }

    fn set(&self, settings: Result<Settings<MemoryNode>, SourceError>) {
        *self.0.lock().unwrap() = settings;
    }
}

fn settings(nodes: Vec<MemoryNode>) -> Settings<MemoryNode> {
    let urls = (0..nodes.len()).map(|at| format!("http://node-{at}.example")).collect();
    Settings { watching: WATCHING, urls, nodes }
}

impl Source for MemorySource {
    type Chain = MemoryNode;

    async fn load(&self) -> Result<Settings<MemoryNode>, SourceError> {
        self.0.lock().unwrap().clone()
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Looks until nothing is new, through any error.
async fn settle(watcher: &mut Watcher<MemoryGateway>, node: &MemoryNode) {
    for _ in 0..1_000 {
        if matches!(watcher.look(node, WATCHING).await, Ok(0)) {
            return;
        }
    }
    panic!("watching does not end");
}
