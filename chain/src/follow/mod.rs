//! The core of a watcher: walks a chain by block ids and reports which blocks were adopted and which were undone, in order, so
//! that whoever applies the steps always holds exactly one branch. It keeps no clock, no storage and no connection: each poll
//! goes from one [`Checkpoint`] to the next, and the caller stores that once the steps are delivered.

#[cfg(test)]
mod forks;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::id::BlockId;
use crate::node::{ExpandedBlock, Node, NodeError, Revision};

/// Blocks that a checkpoint remembers by default. A fork deeper than the distance to finality (about 360 blocks, two epochs of
/// 180) cannot happen; the rest is margin.
pub const TRAIL: usize = 400;

/// Blocks that one poll adopts by default.
pub const BATCH: u32 = 64;

/// Where blocks come from.
pub trait BlockSource {
    /// The id of the best block, or of the block at a height on the best branch; `None` when there is none (yet).
    fn id_at(&self, revision: Revision) -> impl Future<Output = Result<Option<BlockId>, NodeError>> + Send;

    /// A block by its id, on whatever branch; `None` when it is not known.
    fn block(&self, id: BlockId) -> impl Future<Output = Result<Option<ExpandedBlock>, NodeError>> + Send;
}

impl BlockSource for Node {
    async fn id_at(&self, revision: Revision) -> Result<Option<BlockId>, NodeError> {
        Ok(Node::block(self, revision).await?.map(|block| block.id))
    }

    async fn block(&self, id: BlockId) -> Result<Option<ExpandedBlock>, NodeError> {
        self.expanded_block(Revision::Id(id)).await
    }
}

/// Why a poll gave no steps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The source gave no usable response.
    #[error(transparent)]
    Source(#[from] NodeError),
    /// The source's branch changed or a block vanished while it was read: poll again.
    #[error("the chain changed while it was read")]
    Moved,
    /// The source's chain parts from ours before the oldest block we remember: another network, a wiped node, or a fork that
    /// finality should have ruled out. A person must look.
    #[error("no common block: the chain parts from {tip} before {oldest}")]
    TooDeep {
        /// The newest block that was adopted.
        tip: BlockId,
        /// The oldest block that is remembered.
        oldest: BlockId,
    },
    /// A block's number, id and parent contradict each other.
    #[error("block {0} contradicts itself or the question")]
    Inconsistent(BlockId),
}

/// One change of the branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The block follows the one adopted last.
    Adopted {
        /// With its transactions and logs.
        block: Box<ExpandedBlock>,
        /// How often this block was adopted, this time included: 2 after a fork went away and came back. Part of every key
        /// made from the block, or the second adoption would pass for a repetition of the first.
        adoption: u32,
    },
    /// The block adopted last no longer counts; the one before it is the newest again.
    Undone {
        /// The block.
        block_id: BlockId,
        /// Which of its adoptions is undone.
        adoption: u32,
    },
}

/// Blocks that are told again by an operator's order, since what was told of them before was not all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retelling {
    /// The order; a later one is higher.
    pub order: i64,
    /// Height of the block that is told next.
    pub next: u32,
    /// Height of the last one.
    pub last: u32,
}

/// All that must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Adopted blocks, oldest first; never empty.
    trail: VecDeque<BlockId>,
    /// Adoptions of blocks that were undone at least once, within the trail's heights.
    adoptions: BTreeMap<String, u32>,
    /// The newest order to tell blocks again, and how far it was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retelling: Option<Retelling>,
}

impl Checkpoint {
    /// Follows what comes after `block`, which counts as adopted: the genesis block, or a final one.
    #[must_use]
    pub fn after(block: BlockId) -> Self {
        Self { trail: VecDeque::from([block]), adoptions: BTreeMap::new(), retelling: None }
    }

    /// The newest adopted block; `None` only for a damaged checkpoint, which every poll refuses.
    #[must_use]
    pub fn tip(&self) -> Option<BlockId> {
        self.trail.back().copied()
    }

    /// The remembered block at a height; `None` where that lies beyond the newest or before the oldest.
    #[must_use]
    pub fn block_at(&self, number: u32) -> Option<BlockId> {
        let above = number.checked_sub(self.trail.front()?.number())?;
        self.trail.get(usize::try_from(above).ok()?).copied()
    }

    /// The newest order to tell blocks again, and how far it was carried out.
    #[must_use]
    pub fn retelling(&self) -> Option<Retelling> {
        self.retelling
    }

    /// The same, with blocks told again this far.
    #[must_use]
    pub fn retold(&self, retelling: Retelling) -> Self {
        Self { retelling: Some(retelling), ..self.clone() }
    }

    /// How often a block was adopted; 1 for one that is not remembered.
    #[must_use]
    pub fn adoption(&self, id: BlockId) -> u32 {
        self.adoptions.get(&id.to_string()).copied().unwrap_or(1)
    }

    /// Takes note that a block was adopted on top of the newest one, where the checkpoint itself was lost and what was told of the
    /// chain was not.
    pub fn note_adopted(&mut self, id: BlockId) {
        self.adopt(id);
        self.forget(TRAIL);
    }

    /// Takes note that the newest block was undone.
    pub fn note_undone(&mut self) {
        self.undo();
    }

    fn undo(&mut self) -> Option<Step> {
        let block_id = self.trail.pop_back()?;
        let adoption = self.adoption(block_id);
        self.adoptions.insert(block_id.to_string(), adoption);
        Some(Step::Undone { block_id, adoption })
    }

    fn adopt(&mut self, id: BlockId) -> u32 {
        let adoption = self.adoptions.get(&id.to_string()).map_or(1, |before| before + 1);
        if adoption > 1 {
            self.adoptions.insert(id.to_string(), adoption);
        }
        self.trail.push_back(id);
        adoption
    }

    /// Forgets blocks beyond `limit`; a block at or below the oldest remembered height can never be adopted again.
    fn forget(&mut self, limit: usize) {
        while self.trail.len() > limit.max(1) {
            self.trail.pop_front();
        }
        if let Some(oldest) = self.trail.front().map(BlockId::number) {
            self.adoptions.retain(|id, _| id.parse::<BlockId>().is_ok_and(|id| id.number() >= oldest));
        }
    }
}

/// Steps, and the checkpoint to store once they are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Undone blocks newest first, then adopted ones oldest first; empty when nothing changed.
    pub steps: Vec<Step>,
    /// The state after them.
    pub checkpoint: Checkpoint,
}

/// Follows one chain.
#[derive(Clone, Debug)]
pub struct Follower {
    checkpoint: Checkpoint,
    trail: usize,
    batch: u32,
}

impl Follower {
    /// Goes on from a checkpoint with [`TRAIL`] and [`BATCH`].
    #[must_use]
    pub fn new(checkpoint: Checkpoint) -> Self {
        Self::with_bounds(checkpoint, TRAIL, BATCH)
    }

    /// Goes on from a checkpoint, remembering `trail` blocks (at least 1: the deepest fork survived is `trail - 1`) and adopting
    /// at most `batch` (at least 1) in one poll unless a fork is longer.
    #[must_use]
    pub fn with_bounds(checkpoint: Checkpoint, trail: usize, batch: u32) -> Self {
        Self { checkpoint, trail: trail.max(1), batch: batch.max(1) }
    }

    /// The state that the next poll starts from.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What changed since the checkpoint. Changes nothing here: until [`Follower::commit`] the next poll starts from the same
    /// state, so an undelivered batch is simply found again.
    ///
    /// A source whose best block is one that we adopted earlier is behind us, not on another branch: nothing is undone for it.
    ///
    /// # Errors
    /// Any [`FollowError`]; [`FollowError::Moved`] and [`FollowError::Source`] ask for another poll.
    pub async fn poll(&self, source: &impl BlockSource) -> Result<Batch, FollowError> {
        let mut checkpoint = self.checkpoint.clone();
        let (ancestor, new) = self.branch(source).await?;
        let mut steps = Vec::new();
        if !new.is_empty() {
            while checkpoint.tip() != Some(ancestor) {
                steps.extend(checkpoint.undo());
            }
            steps.extend(new.into_iter().map(|block| {
                let adoption = checkpoint.adopt(block.id);
                Step::Adopted { block: Box::new(block), adoption }
            }));
            checkpoint.forget(self.trail);
        }
        Ok(Batch { steps, checkpoint })
    }

    /// The state after the first `steps` of a batch that was polled from the present state, so that a batch can be delivered in
    /// pieces: each piece's checkpoint is committed, and the pieces that are left follow from there.
    #[must_use]
    pub fn checkpoint_after(&self, steps: &[Step]) -> Checkpoint {
        let mut checkpoint = self.checkpoint.clone();
        for step in steps {
            match step {
                Step::Adopted { block, .. } => _ = checkpoint.adopt(block.id),
                Step::Undone { .. } => _ = checkpoint.undo(),
            }
        }
        if !steps.is_empty() {
            checkpoint.forget(self.trail);
        }
        checkpoint
    }

    /// Makes a batch's checkpoint the new state: call it when the steps are delivered and the checkpoint is stored.
    pub fn commit(&mut self, checkpoint: Checkpoint) {
        self.checkpoint = checkpoint;
    }

    /// The newest block that we share with the source, and the blocks that it has after that one, oldest first.
    async fn branch(&self, source: &impl BlockSource) -> Result<(BlockId, Vec<ExpandedBlock>), FollowError> {
        let (Some(tip), Some(oldest)) = (self.checkpoint.tip(), self.checkpoint.trail.front().copied())
        else {
            return Err(FollowError::Inconsistent(BlockId::default()));
        };
        let mut id = self.target(source, tip).await?;
        let mut blocks = VecDeque::new();
        // Each turn goes one block down and none goes below `oldest`: at most trail + batch turns.
        while !self.checkpoint.trail.contains(&id) {
            if id.number() <= oldest.number() {
                return Err(FollowError::TooDeep { tip, oldest });
            }
            let block = source.block(id).await?.ok_or(FollowError::Moved)?;
            let sound =
                block.id == id && block.number == id.number() && block.parent_id.number() + 1 == block.number;
            if !sound {
                return Err(FollowError::Inconsistent(id));
            }
            id = block.parent_id;
            blocks.push_front(block);
        }
        Ok((id, blocks.into()))
    }

    /// The source's best block, or the one `batch` blocks ahead of us on its branch when we are far behind.
    async fn target(&self, source: &impl BlockSource, tip: BlockId) -> Result<BlockId, FollowError> {
        let best = source.id_at(Revision::Best).await?.ok_or(FollowError::Moved)?;
        let reach = tip.number().saturating_add(self.batch);
        if best.number() <= reach {
            return Ok(best);
        }
        let id = source.id_at(Revision::Number(reach)).await?.ok_or(FollowError::Moved)?;
        if id.number() == reach { Ok(id) } else { Err(FollowError::Inconsistent(id)) }
    }
}
