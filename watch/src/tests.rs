//! The watcher against a chain that forks and a gateway that keeps the real one's rules, with answers lost and watchers killed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use chain::node::ExpandedBlock;
use chain::{Address, AppId};
use proptest::prelude::*;
use runtime::SystemClock;
use schemas::payouts::{ChainAnswer, StepResult};

use super::*;

fn id(number: u32, salt: u32) -> BlockId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[4..8].copy_from_slice(&salt.to_be_bytes());
    BlockId(bytes)
}

/// A tree of blocks with one best leaf.
struct Tree {
    blocks: BTreeMap<BlockId, BlockId>,
    best: BlockId,
    made: u32,
}

impl Tree {
    fn new() -> Self {
        Self { blocks: BTreeMap::from([(id(0, 0), BlockId([0xff; 32]))]), best: id(0, 0), made: 0 }
    }

    fn grow(&mut self, from: BlockId, count: u32) {
        self.best = from;
        for _ in 0..count {
            self.made += 1;
            let next = id(self.best.number() + 1, self.made);
            self.blocks.insert(next, self.best);
            self.best = next;
        }
    }

    fn branch(&self) -> Vec<BlockId> {
        let mut ids = vec![self.best];
        while ids[ids.len() - 1].number() > 0 {
            ids.push(self.blocks[&ids[ids.len() - 1]]);
        }
        ids.reverse();
        ids
    }
}

impl BlockSource for Tree {
    async fn id_at(&self, revision: Revision) -> Result<Option<BlockId>, NodeError> {
        Ok(match revision {
            Revision::Number(number) => self.branch().get(number as usize).copied(),
            _ => Some(self.best),
        })
    }

    async fn block(&self, id: BlockId) -> Result<Option<ExpandedBlock>, NodeError> {
        Ok(self.blocks.get(&id).map(|parent| ExpandedBlock {
            number: id.number(),
            id,
            parent_id: *parent,
            timestamp: 0,
            gas_limit: 0,
            gas_used: 0,
            base_fee_per_gas: None,
            is_trunk: true,
            is_finalized: false,
            transactions: vec![],
        }))
    }
}

impl Chain for Tree {
    async fn finalized(&self) -> Result<u32, NodeError> {
        Ok(0)
    }
}

/// What becomes of the next post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It never arrives.
    Lost,
    /// It is taken, and the answer is lost.
    AnswerLost,
}

#[derive(Default)]
struct Taken {
    steps: Vec<ChainStep>,
    checkpoint: Option<serde_json::Value>,
    fault: Option<Fault>,
}

/// A gateway with the real one's rules.
#[derive(Clone, Default)]
struct MemoryGateway(Arc<Mutex<Taken>>);

impl Gateway for MemoryGateway {
    async fn post(&self, batch: &ChainBatch) -> Result<ChainAnswer, GatewayError> {
        let mut taken = self.0.lock().unwrap();
        let lost = || GatewayError::Unavailable("lost".into());
        let fault = if batch.steps.is_empty() { None } else { taken.fault.take() };
        if fault == Some(Fault::Lost) {
            return Err(lost());
        }
        let highest = i64::try_from(taken.steps.len()).unwrap();
        let first = batch.steps.first().map_or(highest + 1, ChainStep::seq);
        if first > highest + 1 {
            return Err(GatewayError::Gap(format!("expected {}", highest + 1)));
        }
        let outcome = if first <= highest { StepOutcome::Duplicate } else { StepOutcome::Accepted };
        let result = |step: &ChainStep| StepResult { seq: step.seq(), outcome };
        let results = batch.steps.iter().map(result).collect();
        if outcome == StepOutcome::Accepted && !batch.steps.is_empty() {
            taken.steps.extend(batch.steps.clone());
            taken.checkpoint.clone_from(&batch.checkpoint);
        }
        if fault == Some(Fault::AnswerLost) {
            return Err(lost());
        }
        let highest_seq = i64::try_from(taken.steps.len()).unwrap();
        Ok(ChainAnswer { results, highest_seq, checkpoint: taken.checkpoint.clone() })
    }
}

fn watcher(gateway: &MemoryGateway) -> Watcher<MemoryGateway> {
    let config = WatcherConfig {
        genesis: id(0, 0),
        watched: Watched { pool: Address([1; 20]), app: AppId([2; 32]) },
        poll: Duration::from_millis(1),
        start_block: 0,
    };
    Watcher::new(config, gateway.clone(), Arc::new(SystemClock), Metrics::new().unwrap())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// The branch that the taken steps lead to; refuses any that does not fit the one before.
fn walked(gateway: &MemoryGateway) -> Vec<String> {
    let mut branch = vec![id(0, 0).to_string()];
    for (n, step) in gateway.0.lock().unwrap().steps.iter().enumerate() {
        assert_eq!(step.seq(), i64::try_from(n).unwrap() + 1);
        assert_eq!(step.event_id(), step.derived_id());
        match step {
            ChainStep::Adopted(step) => {
                assert_eq!(branch.last(), Some(&step.parent_id), "an adopted block follows the newest");
                branch.push(step.block.id.clone());
            }
            ChainStep::Undone(step) => assert_eq!(branch.pop().as_ref(), Some(&step.block_id)),
        }
    }
    branch
}

/// Looks until nothing is new, through any trouble.
fn settle(watcher: &mut Watcher<MemoryGateway>, tree: &Tree) {
    for _ in 0..1_000 {
        if matches!(run(watcher.look(tree)), Ok(0)) {
            return;
        }
    }
    panic!("watching does not end");
}

#[test]
fn an_answer_that_was_lost_repeats_no_step_and_loses_none() {
    let (gateway, mut tree) = (MemoryGateway::default(), Tree::new());
    for fault in [Fault::Lost, Fault::AnswerLost] {
        tree.grow(tree.best, 3);
        let mut first = watcher(&gateway);
        gateway.0.lock().unwrap().fault = Some(fault);
        assert!(run(first.look(&tree)).is_err());
        // Another life goes on.
        settle(&mut watcher(&gateway), &tree);
        settle(&mut first, &tree);
        assert_eq!(walked(&gateway).last(), Some(&tree.best.to_string()), "{fault:?}");
    }
}

#[test]
fn a_chain_longer_than_a_batch_is_told_in_several() {
    let (gateway, mut tree) = (MemoryGateway::default(), Tree::new());
    tree.grow(tree.best, 3 * BATCH + 5);
    let mut watcher = watcher(&gateway);
    assert_eq!(run(watcher.look(&tree)).unwrap(), BATCH as usize);
    settle(&mut watcher, &tree);
    assert_eq!(walked(&gateway).len(), 3 * BATCH as usize + 6);
}

/// What happens between two looks.
#[derive(Clone, Debug)]
enum Event {
    Grow(u32),
    /// A branch from that many blocks back wins.
    Fork(usize, u32),
    /// One of the watchers looks.
    Look(bool),
    /// One of them dies and starts anew.
    Restart(bool),
    Fail(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1_u32..5).prop_map(Event::Grow),
        (1_usize..6, 1_u32..4).prop_map(|(back, more)| Event::Fork(back, more)),
        any::<bool>().prop_map(Event::Look),
        any::<bool>().prop_map(Event::Look),
        any::<bool>().prop_map(Event::Restart),
        any::<bool>().prop_map(Event::Fail),
    ]
}

proptest! {
    #[test]
    fn two_watchers_with_any_forks_and_deaths_tell_one_walk_that_ends_at_the_best_block(
        events in prop::collection::vec(event(), 1..60),
    ) {
        let (gateway, mut tree) = (MemoryGateway::default(), Tree::new());
        let mut watchers = [watcher(&gateway), watcher(&gateway)];
        for event in events {
            match event {
                Event::Grow(count) => tree.grow(tree.best, count),
                Event::Fork(back, more) => {
                    let branch = tree.branch();
                    let back = back.min(branch.len() - 1);
                    tree.grow(branch[branch.len() - 1 - back], u32::try_from(back).unwrap() + more);
                }
                Event::Look(first) => drop(run(watchers[usize::from(first)].look(&tree))),
                Event::Restart(first) => watchers[usize::from(first)] = watcher(&gateway),
                Event::Fail(arrives) => {
                    gateway.0.lock().unwrap().fault = Some(if arrives { Fault::AnswerLost } else { Fault::Lost });
                }
            }
        }
        for watcher in &mut watchers {
            settle(watcher, &tree);
        }
        let best: Vec<String> = tree.branch().iter().map(ToString::to_string).collect();
        prop_assert_eq!(walked(&gateway), best);
    }
}
