//! Forks of every kind against a tree of blocks in memory: a single real node cannot be made to fork.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;

/// A tree of blocks with one best leaf.
struct Tree {
    blocks: BTreeMap<BlockId, ExpandedBlock>,
    best: BlockId,
    /// Blocks that were made, to give each an id of its own.
    made: u32,
    /// What the next questions for blocks give instead, one each.
    faults: Mutex<Vec<Option<ExpandedBlock>>>,
}

fn id(number: u32, salt: u32) -> BlockId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes[4..8].copy_from_slice(&salt.to_be_bytes());
    BlockId(bytes)
}

fn block(id: BlockId, parent_id: BlockId) -> ExpandedBlock {
    ExpandedBlock {
        number: id.number(),
        id,
        parent_id,
        timestamp: 0,
        gas_limit: 0,
        gas_used: 0,
        base_fee_per_gas: None,
        is_trunk: true,
        is_finalized: false,
        transactions: vec![],
    }
}

impl Tree {
    fn new() -> Self {
        let genesis = id(0, 0);
        let root = block(genesis, BlockId([0xff; 32]));
        Self { blocks: BTreeMap::from([(genesis, root)]), best: genesis, made: 0, faults: Mutex::default() }
    }

    /// Puts `count` blocks on top of `parent` and makes the last one the best.
    fn grow(&mut self, parent: BlockId, count: u32) {
        self.best = parent;
        for _ in 0..count {
            self.made += 1;
            let next = id(self.best.number() + 1, self.made);
            self.blocks.insert(next, block(next, self.best));
            self.best = next;
        }
    }

    /// The best branch, genesis first.
    fn branch(&self) -> Vec<BlockId> {
        let mut ids = vec![self.best];
        while let Some(block) = self.blocks.get(&ids[ids.len() - 1])
            && block.number > 0
        {
            ids.push(block.parent_id);
        }
        ids.reverse();
        ids
    }

    fn back(&self, blocks: usize) -> BlockId {
        let branch = self.branch();
        branch[branch.len().saturating_sub(1 + blocks)]
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
        match self.faults.lock().unwrap().pop() {
            Some(fault) => Ok(fault),
            None => Ok(self.blocks.get(&id).cloned()),
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Whoever applies the steps: refuses any that does not fit what it holds.
struct Applied {
    branch: Vec<BlockId>,
    /// Keys of all steps ever taken; none may come twice.
    keys: Vec<(bool, BlockId, u32)>,
}

impl Applied {
    fn new() -> Self {
        Self { branch: vec![id(0, 0)], keys: vec![] }
    }

    fn apply(&mut self, steps: &[Step]) {
        for step in steps {
            let key = match step {
                Step::Adopted { block, adoption } => {
                    assert_eq!(
                        self.branch.last(),
                        Some(&block.parent_id),
                        "an adopted block follows the newest"
                    );
                    self.branch.push(block.id);
                    (true, block.id, *adoption)
                }
                Step::Undone { block_id, adoption } => {
                    assert_eq!(self.branch.pop(), Some(*block_id), "the newest block is undone");
                    assert!(
                        self.keys.contains(&(true, *block_id, *adoption)),
                        "only what was adopted is undone"
                    );
                    (false, *block_id, *adoption)
                }
            };
            assert!(!self.keys.contains(&key), "{key:?} came twice");
            self.keys.push(key);
        }
    }
}

/// Polls until nothing changes, each time through a stored and read checkpoint.
fn follow(follower: &mut Follower, tree: &Tree, applied: &mut Applied) {
    for _ in 0..1_000 {
        let batch = run(follower.poll(tree)).unwrap();
        if batch.steps.is_empty() {
            return;
        }
        applied.apply(&batch.steps);
        let stored = serde_json::to_string(&batch.checkpoint).unwrap();
        follower.commit(serde_json::from_str(&stored).unwrap());
    }
    panic!("following does not end");
}

fn started(trail: usize, batch: u32) -> (Tree, Follower, Applied) {
    let tree = Tree::new();
    let follower = Follower::with_bounds(Checkpoint::after(tree.best), trail, batch);
    (tree, follower, Applied::new())
}

#[test]
fn a_fork_is_undone_newest_first_and_the_new_branch_adopted_oldest_first() {
    let (mut tree, mut follower, mut applied) = started(10, 10);
    tree.grow(tree.best, 3);
    follow(&mut follower, &tree, &mut applied);
    let old = tree.branch();
    tree.grow(tree.back(2), 3);
    let new = tree.branch();
    let batch = run(follower.poll(&tree)).unwrap();
    let walked: Vec<_> = batch
        .steps
        .iter()
        .map(|step| match step {
            Step::Undone { block_id, .. } => (false, *block_id),
            Step::Adopted { block, .. } => (true, block.id),
        })
        .collect();
    assert_eq!(walked, [(false, old[3]), (false, old[2]), (true, new[2]), (true, new[3]), (true, new[4])]);
}

#[test]
fn a_batch_that_is_delivered_in_pieces_leads_to_the_same_state_or_to_any_branch_that_wins_meanwhile() {
    let (mut tree, mut follower, mut applied) = started(9, 10);
    tree.grow(tree.best, 5);
    let old = tree.best;
    follow(&mut follower, &tree, &mut applied);
    tree.grow(tree.back(3), 7);
    let new = tree.best;
    let batch = run(follower.poll(&tree)).unwrap();
    assert_eq!(follower.checkpoint_after(&[]), *follower.checkpoint());
    assert_eq!(follower.checkpoint_after(&batch.steps), batch.checkpoint);
    for piece in 1..batch.steps.len() {
        let (first, rest) = batch.steps.split_at(piece);
        let mut parted = follower.clone();
        parted.commit(parted.checkpoint_after(first));
        let polled = run(parted.poll(&tree)).unwrap();
        assert_eq!((polled.steps.as_slice(), &polled.checkpoint), (rest, &batch.checkpoint));
        // The old branch wins again while only a piece was delivered.
        let mut taken = Applied { branch: applied.branch.clone(), keys: applied.keys.clone() };
        taken.apply(first);
        tree.grow(old, 9);
        follow(&mut parted, &tree, &mut taken);
        assert_eq!(taken.branch, tree.branch());
        tree.best = new;
    }
}

#[test]
fn a_branch_that_comes_back_is_adopted_a_second_and_a_third_time() {
    let (mut tree, mut follower, mut applied) = started(10, 10);
    tree.grow(tree.best, 2);
    let a = tree.best;
    follow(&mut follower, &tree, &mut applied);
    tree.grow(tree.back(1), 2);
    let b = tree.best;
    follow(&mut follower, &tree, &mut applied);
    tree.grow(a, 2);
    follow(&mut follower, &tree, &mut applied);
    tree.grow(b, 5);
    follow(&mut follower, &tree, &mut applied);
    tree.grow(a, 7);
    follow(&mut follower, &tree, &mut applied);
    let adoptions: Vec<_> = applied.keys.iter().filter(|key| key.0 && key.1 == a).map(|key| key.2).collect();
    assert_eq!(adoptions, [1, 2, 3]);
    assert_eq!(applied.branch, tree.branch());
}

#[test]
fn a_source_that_is_behind_makes_nothing_undone() {
    let (mut tree, mut follower, mut applied) = started(10, 10);
    tree.grow(tree.best, 5);
    follow(&mut follower, &tree, &mut applied);
    tree.best = tree.back(3);
    assert_eq!(run(follower.poll(&tree)).unwrap().steps, []);
    assert_eq!(follower.checkpoint().tip(), applied.branch.last().copied());
}

#[test]
fn a_fork_below_the_oldest_remembered_block_is_an_error_and_changes_nothing() {
    let (mut tree, mut follower, mut applied) = started(4, 100);
    tree.grow(tree.best, 10);
    let leaf = tree.best;
    follow(&mut follower, &tree, &mut applied);
    // 10, 9, 8, 7 are remembered: a fork after 7 is survived, one after 6 is not.
    tree.grow(tree.back(3), 5);
    assert!(run(follower.poll(&tree)).is_ok());
    tree.best = leaf;
    tree.grow(tree.back(4), 6);
    assert_eq!(run(follower.poll(&tree)), Err(FollowError::TooDeep { tip: leaf, oldest: id(7, 7) }));
    assert_eq!(follower.checkpoint().tip(), Some(leaf));
}

#[test]
fn a_wiped_node_with_the_same_genesis_is_followed_from_its_start_while_that_is_remembered() {
    let (mut tree, mut follower, mut applied) = started(10, 10);
    tree.grow(tree.best, 5);
    follow(&mut follower, &tree, &mut applied);
    tree.grow(id(0, 0), 2);
    follow(&mut follower, &tree, &mut applied);
    assert_eq!(applied.branch, tree.branch());
}

#[test]
fn a_block_that_vanishes_or_lies_is_an_error_and_the_next_poll_heals() {
    let (mut tree, mut follower, mut applied) = started(10, 10);
    tree.grow(tree.best, 2);
    let good = tree.blocks[&tree.best].clone();
    let lies = [
        ExpandedBlock { id: id(2, 99), ..good.clone() },
        ExpandedBlock { number: 3, ..good.clone() },
        ExpandedBlock { parent_id: id(5, 1), ..good.clone() },
    ];
    for lie in lies {
        tree.faults.lock().unwrap().push(Some(lie));
        assert_eq!(run(follower.poll(&tree)), Err(FollowError::Inconsistent(good.id)));
    }
    tree.faults.lock().unwrap().push(None);
    assert_eq!(run(follower.poll(&tree)), Err(FollowError::Moved));
    follow(&mut follower, &tree, &mut applied);
    assert_eq!(applied.branch, tree.branch());
}

#[test]
fn a_poll_adopts_no_more_than_a_batch_and_a_checkpoint_stays_small() {
    let (mut tree, mut follower, mut applied) = started(8, 5);
    tree.grow(tree.best, 33);
    let batch = run(follower.poll(&tree)).unwrap();
    assert_eq!(batch.steps.len(), 5);
    follow(&mut follower, &tree, &mut applied);
    assert_eq!(applied.branch, tree.branch());
    assert_eq!(follower.checkpoint().trail.len(), 8);
    // Many forks at one height, then far away from it: nothing of them is kept.
    for _ in 0..20 {
        tree.grow(tree.back(1), 2);
        follow(&mut follower, &tree, &mut applied);
    }
    assert!(follower.checkpoint().adoptions.len() <= 20);
    tree.grow(tree.best, 20);
    follow(&mut follower, &tree, &mut applied);
    assert!(follower.checkpoint().adoptions.is_empty());
}

#[test]
fn a_damaged_checkpoint_is_refused() {
    let damaged: Checkpoint = serde_json::from_str(r#"{"trail":[],"adoptions":{}}"#).unwrap();
    assert!(matches!(run(Follower::new(damaged).poll(&Tree::new())), Err(FollowError::Inconsistent(_))));
}

/// What happens to the chain between polls.
#[derive(Clone, Debug)]
enum Event {
    /// The best branch grows.
    Grow(u32),
    /// A new branch from `.0` blocks back wins with one block more, at least.
    Fork(usize, u32),
    /// A block that was made earlier, on whatever branch, is built upon and wins.
    Return(prop::sample::Index, u32),
    /// A batch is polled and lost before it is stored.
    Lose,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1_u32..6).prop_map(Event::Grow),
        (1_usize..6, 1_u32..4).prop_map(|(back, extra)| Event::Fork(back, extra)),
        (any::<prop::sample::Index>(), 1_u32..4).prop_map(|(which, extra)| Event::Return(which, extra)),
        Just(Event::Lose),
    ]
}

proptest! {
    #[test]
    fn after_any_forks_exactly_the_best_branch_is_held_and_no_step_came_twice(
        events in prop::collection::vec((event(), any::<bool>()), 1..40), batch in 1_u32..8,
    ) {
        let (mut tree, mut follower, mut applied) = started(400, batch);
        for (event, poll) in events {
            let height = tree.best.number();
            match event {
                Event::Grow(count) => tree.grow(tree.best, count),
                Event::Fork(back, extra) => tree.grow(tree.back(back), u32::try_from(back).unwrap() + extra),
                Event::Return(which, extra) => {
                    let ids: Vec<_> = tree.blocks.keys().copied().collect();
                    let from = *which.get(&ids);
                    tree.grow(from, (height - from.number().min(height)) + extra);
                }
                Event::Lose => {
                    let first = run(follower.poll(&tree)).unwrap();
                    prop_assert_eq!(run(follower.poll(&tree)).unwrap(), first, "an uncommitted batch is found again");
                }
            }
            if poll {
                follow(&mut follower, &tree, &mut applied);
                prop_assert_eq!(&applied.branch, &tree.branch());
            }
        }
        follow(&mut follower, &tree, &mut applied);
        prop_assert_eq!(applied.branch, tree.branch());
    }
}
