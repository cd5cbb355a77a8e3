//! A block as a node gives it, in the form in which the gateway publishes one.

use chain::BlockId;
use chain::node::ExpandedBlock;
use schemas::events::{BlockAdopted, BlockPlace, ChainLog, ChainTransaction};
use schemas::ids::{EventId, Micros};
use uuid::Uuid;

/// The block with all its transactions. It carries no place in `chain.events`: step, adoption and final height are those of no event.
#[must_use]
pub fn adopted(block: &ExpandedBlock, genesis: &BlockId, now: Micros) -> BlockAdopted {
    let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let mut transactions: Vec<ChainTransaction> = (0..)
        .zip(&block.transactions)
        .map(|(index, tx)| ChainTransaction {
            id: tx.id.to_string(),
            index,
            origin: tx.origin.to_string(),
            gas_payer: tx.gas_payer.to_string(),
            gas_used: i64::try_from(tx.gas_used).unwrap_or(i64::MAX),
            paid_wei: tx.paid.to_string(),
            reverted: tx.reverted,
            logs: Vec::new(),
        })
        .collect();
    for log in block.logs() {
        if let Some(tx) = usize::try_from(log.tx_index).ok().and_then(|index| transactions.get_mut(index)) {
            tx.logs.push(ChainLog {
                clause_index: number(log.clause_index),
                log_index: number(log.log_index),
                address: log.event.address.to_string(),
                topics: log.event.topics.iter().map(ToString::to_string).collect(),
                data: format!("0x{}", hex::encode(&log.event.data)),
            });
        }
    }
    BlockAdopted {
        event_id: EventId(Uuid::nil()),
        occurred_at: now,
        seq: 0,
        genesis_id: genesis.to_string(),
        block: BlockPlace {
            id: block.id.to_string(),
            number: block.number.into(),
            timestamp: Micros(i64::try_from(block.timestamp).unwrap_or(0).saturating_mul(1_000_000)),
        },
        parent_id: block.parent_id.to_string(),
        adoption: 1,
        finalized_number: 0,
        transactions,
    }
}
