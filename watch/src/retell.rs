//! Blocks that are told again by an operator's order: what was told of them before was not all, since the watcher looked for another
//! app or pool. They are no steps of the branch; whoever reads them takes what is new to it and knows the rest.

use chain::follow::{Checkpoint, FollowError, Retelling};
use chain::node::{ExpandedBlock, Revision};
use schemas::ids::Micros;
use schemas::payouts::ChainStep;

use crate::error::WatchError;
use crate::source::{Chain, Rewind};
use crate::steps::{Watched, retold_step};

/// What is left to tell again; nothing where there is no order, or where it is carried out.
pub(crate) fn due(checkpoint: &Checkpoint, rewind: Option<Rewind>) -> Option<Retelling> {
    let Rewind { order, to } = rewind?;
    let tip = checkpoint.tip()?.number();
    let due = match checkpoint.retelling() {
        Some(begun) if begun.order >= order => begun,
        // What comes after the present tip is told for the first time, by what is set now.
        _ => Retelling { order, next: to.saturating_add(1), last: tip },
    };
    (due.next <= due.last.min(tip)).then_some(due)
}

/// The next blocks, at most `most`: those that were adopted and, below those that are remembered, those that are final.
pub(crate) async fn blocks<C: Chain>(
    chain: &C,
    checkpoint: &Checkpoint,
    due: Retelling,
    (most, finalized): (u32, u32),
) -> Result<Vec<ExpandedBlock>, WatchError> {
    let tip = checkpoint.tip().map_or(0, |tip| tip.number());
    let last = due.last.min(tip).min(due.next.saturating_add(most.saturating_sub(1)));
    let mut blocks = Vec::new();
    for number in due.next..=last {
        let id = match checkpoint.block_at(number) {
            Some(id) => id,
            None if number <= finalized => {
                chain.id_at(Revision::Number(number)).await?.ok_or(FollowError::Moved)?
            }
            // It was final when it was forgotten: this node lags.
            None => return Err(FollowError::Moved.into()),
        };
        let block = chain.block(id).await?.ok_or(FollowError::Moved)?;
        if block.id != id || block.number != number {
            return Err(FollowError::Inconsistent(id).into());
        }
        blocks.push(block);
    }
    Ok(blocks)
}

/// The blocks as steps that follow step `seq`.
pub(crate) fn steps(
    blocks: &[ExpandedBlock],
    checkpoint: &Checkpoint,
    (seq, place): (i64, (&str, u32)),
    watched: &Watched,
    now: Micros,
) -> Vec<ChainStep> {
    let numbered = (seq + 1..).zip(blocks);
    let step = |(seq, block): (i64, &ExpandedBlock)| {
        retold_step((block, checkpoint.adoption(block.id)), seq, place, watched, now)
    };
    numbered.map(step).collect()
}

/// The state once these blocks are told.
pub(crate) fn told(checkpoint: &Checkpoint, due: Retelling, blocks: &[ExpandedBlock]) -> Checkpoint {
    let next = blocks.last().map_or(due.next, |block| block.number.saturating_add(1));
    checkpoint.retold(Retelling { next, ..due })
}
