//! What the final chain says of a transaction that no new block will hold: the proof without which nothing takes its place.

use chain::node::{NodeError, Revision};
use chain::{BlockId, Node, TxId};
use serde::Serialize;

/// What one node's final chain holds of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The node's newest final block.
    pub finalized: BlockId,
    /// The transaction, where a final block holds it.
    pub found: Option<Found>,
}

/// A transaction in a final block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// The block.
    pub block: BlockId,
    /// Whether its clauses failed.
    pub reverted: bool,
}

/// What the reports say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not enough nodes have come far enough, or not enough responded.
    Open,
    /// No block holds it, and none ever will.
    Dead,
    /// It is in a final block.
    Settled(Found),
    /// The nodes contradict each other.
    Disputed,
}

/// Nodes that must agree: two, or the only one.
#[must_use]
pub fn needed(configured: usize) -> usize {
    configured.clamp(1, 2)
}

/// Judges the reports on a transaction whose last valid block is `last_valid`. It is dead when `needed` nodes are final beyond that
/// block without it; a node that is not so far proves nothing, and one that holds it refutes all.
#[must_use]
pub fn judge(reports: &[Report], needed: usize, last_valid: i64) -> Fate {
    let needed = needed.max(1);
    let final_at = |report: &Report| i64::from(report.finalized.number());
    let mut found = reports.iter().filter_map(|report| report.found);
    let Some(first) = found.next() else {
        let beyond = reports.iter().filter(|report| final_at(report) > last_valid).count();
        return if beyond >= needed { Fate::Dead } else { Fate::Open };
    };
    let height = i64::from(first.block.number());
    let lacks = |report: &Report| report.found.is_none() && final_at(report) >= height;
    if found.any(|other| other != first) || reports.iter().any(lacks) {
        return Fate::Disputed;
    }
    let agreed = reports.iter().filter(|report| report.found.is_some()).count();
    if agreed >= needed { Fate::Settled(first) } else { Fate::Open }
}

/// Asks one node.
///
/// # Errors
/// The node's.
pub async fn ask(node: &Node, id: TxId) -> Result<Report, NodeError> {
    let finalized = node.block(Revision::Finalized).await?.ok_or(NodeError::UnknownBlock)?.id;
    let receipt = node.receipt(id, Some(finalized)).await?;
    let found = receipt.map(|receipt| Found { block: receipt.meta.block_id, reverted: receipt.reverted });
    Ok(Report { finalized, found })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block of a height, on a branch.
    fn block(number: u32, branch: u8) -> BlockId {
        let mut id = [branch; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        BlockId(id)
    }

    fn absent(finalized: u32) -> Report {
        Report { finalized: block(finalized, 1), found: None }
    }

    fn holds(finalized: u32, at: BlockId, reverted: bool) -> Report {
        Report { finalized: block(finalized, 1), found: Some(Found { block: at, reverted }) }
    }

    #[test]
    fn two_nodes_that_are_final_beyond_the_last_valid_block_prove_a_death_and_one_of_two_does_not() {
        assert_eq!(judge(&[absent(101), absent(102)], 2, 100), Fate::Dead);
        assert_eq!(judge(&[absent(101), absent(100)], 2, 100), Fate::Open, "one is not beyond it");
        assert_eq!(judge(&[absent(101)], 2, 100), Fate::Open, "the other gave no response");
        assert_eq!(judge(&[absent(101)], needed(1), 100), Fate::Dead, "there is only one");
        assert_eq!((judge(&[], 0, 100), needed(0), needed(7)), (Fate::Open, 1, 2));
    }

    #[test]
    fn a_node_that_holds_it_refutes_a_death_whatever_the_others_say() {
        let at = block(99, 1);
        let found = Found { block: at, reverted: true };
        assert_eq!(judge(&[absent(101), absent(101), holds(101, at, true)], 2, 100), Fate::Disputed);
        assert_eq!(judge(&[holds(101, at, true), absent(98)], 2, 100), Fate::Open, "the other is behind it");
        assert_eq!(judge(&[holds(101, at, true), holds(103, at, true)], 2, 100), Fate::Settled(found));
        assert_eq!(judge(&[holds(101, at, true), holds(103, at, false)], 2, 100), Fate::Disputed);
        assert_eq!(judge(&[holds(101, at, true), holds(103, block(99, 2), true)], 2, 100), Fate::Disputed);
    }

    proptest! {
        #[test]
        fn nothing_is_dead_while_any_report_holds_it_or_fewer_than_needed_are_beyond_its_end(
            reports in prop::collection::vec((90_u32..110, prop::option::of(any::<bool>())), 0..4),
            needed in 1_usize..3,
        ) {
            let reports: Vec<Report> = reports
                .into_iter()
                .map(|(finalized, found)| match found {
                    Some(reverted) => holds(finalized, block(90, 1), reverted),
                    None => absent(finalized),
                })
                .collect();
            let beyond = reports.iter().filter(|report| report.finalized.number() > 100).count();
            let held = reports.iter().any(|report| report.found.is_some());
            let dead = judge(&reports, needed, 100) == Fate::Dead;
            prop_assert_eq!(dead, !held && beyond >= needed);
        }
    }
}
