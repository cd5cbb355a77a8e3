//! A block as a node gives it, in the form in which the gateway publishes one.

use std::collections::BTreeMap;

use chain::node::{BlockLog, BlockTx, ExpandedBlock};
use schemas::events::{BlockPlace, ChainLog, ChainTransaction};
use schemas::ids::Micros;

/// Which block it is, and when it was made.
#[must_use]
pub fn place(block: &ExpandedBlock) -> BlockPlace {
    BlockPlace {
        id: block.id.to_string(),
        number: block.number.into(),
        timestamp: Micros(i64::try_from(block.timestamp).unwrap_or(0).saturating_mul(1_000_000)),
    }
}

/// Those of its transactions that count, with those of their logs that do. Places and ordinals are those in the whole block.
#[must_use]
pub fn transactions(
    block: &ExpandedBlock,
    counts: impl Fn(&BlockTx) -> bool,
    keep: impl Fn(&BlockLog<'_>) -> bool,
) -> Vec<ChainTransaction> {
    let numbered = (0..).zip(&block.transactions).filter(|(_, tx)| counts(tx));
    let mut found: BTreeMap<u32, ChainTransaction> =
        numbered.map(|(index, tx)| (index, without_logs(index, tx))).collect();
    // One pass over the block's logs: their ordinals count all of them.
    for log in block.logs().filter(keep) {
        if let Some(tx) = found.get_mut(&log.tx_index) {
            tx.logs.push(ChainLog {
                clause_index: small(log.clause_index),
                log_index: small(log.log_index),
                address: log.event.address.to_string(),
                topics: log.event.topics.iter().map(ToString::to_string).collect(),
                data: format!("0x{}", hex::encode(&log.event.data)),
                balance_after_wei: None,
            });
        }
    }
    found.into_values().collect()
}

fn without_logs(index: u32, tx: &BlockTx) -> ChainTransaction {
    ChainTransaction {
        id: tx.id.to_string(),
        index: small(index),
        origin: tx.origin.to_string(),
        gas_payer: tx.gas_payer.to_string(),
        gas_used: i64::try_from(tx.gas_used).unwrap_or(i64::MAX),
        paid_wei: tx.paid.to_string(),
        reverted: tx.reverted,
        logs: Vec::new(),
    }
}

/// Places and ordinals of a block are far below 2^31.
fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
