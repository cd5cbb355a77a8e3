//! A block as a node gives it, in the form in which the gateway publishes one.

use chain::BlockId;
use chain::node::ExpandedBlock;
use schemas::events::BlockAdopted;
use schemas::ids::{EventId, Micros};
use uuid::Uuid;
use watch::blocks::{place, transactions};

/// The block with all its transactions. It carries no place in `chain.events`: step, adoption and final height are those of no event.
#[must_use]
pub fn adopted(block: &ExpandedBlock, genesis: &BlockId, now: Micros) -> BlockAdopted {
    BlockAdopted {
        event_id: EventId(Uuid::nil()),
        occurred_at: now,
        seq: 0,
        genesis_id: genesis.to_string(),
        block: place(block),
        parent_id: block.parent_id.to_string(),
        adoption: 1,
        finalized_number: 0,
        transactions: transactions(block, |_| true, |_| true),
        retold: false,
    }
}
