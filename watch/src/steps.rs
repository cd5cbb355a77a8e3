//! From blocks of a node to the steps that the gateway takes.

use chain::follow::Step;
use chain::node::{BlockTx, ExpandedBlock};
use chain::{Address, AppId};
use schemas::events::{BlockAdopted, BlockPlace, BlockUndone, ChainLog, ChainStep, ChainTransaction};
use schemas::ids::Micros;
use schemas::payouts::chain_event_id;

/// Which transactions are told of: those that call the pool for the app, or make the pool emit a log about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The pool that pays.
    pub pool: Address,
    /// The app.
    pub app: AppId,
}

impl Watched {
    fn concerns(&self, tx: &BlockTx) -> bool {
        // The app's id is the first argument of every call of the pool's that names one: the word behind the selector.
        let called = tx.clauses.iter().any(|clause| {
            clause.to == Some(self.pool)
                && clause.data.get(4..36).is_some_and(|word| word == self.app.as_bytes().as_slice())
        });
        let logged = tx.outputs.iter().flat_map(|output| &output.events).any(|event| {
            event.address == self.pool
                && event.topics.iter().any(|topic| topic.as_bytes() == self.app.as_bytes())
        });
        called || logged
    }
}

/// A step of a follower as the gateway takes it. Heights and counts of a chain are far below 2^31.
#[must_use]
pub fn told(
    step: Step,
    seq: i64,
    genesis_id: &str,
    finalized: u32,
    watched: &Watched,
    now: Micros,
) -> ChainStep {
    let small = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    match step {
        Step::Adopted { block, adoption } => {
            let id = block.id.to_string();
            let adoption = small(adoption);
            ChainStep::Adopted(BlockAdopted {
                event_id: chain_event_id(genesis_id, "adopted", &id, adoption),
                occurred_at: now,
                seq,
                genesis_id: genesis_id.to_owned(),
                parent_id: block.parent_id.to_string(),
                adoption,
                finalized_number: finalized.into(),
                transactions: transactions(&block, watched),
                block: BlockPlace {
                    id,
                    number: block.number.into(),
                    timestamp: Micros(i64::try_from(block.timestamp).unwrap_or(0).saturating_mul(1_000_000)),
                },
            })
        }
        Step::Undone { block_id, adoption } => {
            let (id, adoption) = (block_id.to_string(), small(adoption));
            ChainStep::Undone(BlockUndone {
                event_id: chain_event_id(genesis_id, "undone", &id, adoption),
                occurred_at: now,
                seq,
                genesis_id: genesis_id.to_owned(),
                number: block_id.number().into(),
                block_id: id,
                adoption,
            })
        }
    }
}

fn transactions(block: &ExpandedBlock, watched: &Watched) -> Vec<ChainTransaction> {
    let small = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let concerned = (0..).zip(&block.transactions).filter(|(_, tx)| watched.concerns(tx));
    concerned
        .map(|(index, tx)| ChainTransaction {
            id: tx.id.to_string(),
            index,
            origin: tx.origin.to_string(),
            gas_payer: tx.gas_payer.to_string(),
            gas_used: i64::try_from(tx.gas_used).unwrap_or(i64::MAX),
            paid_wei: tx.paid.to_string(),
            reverted: tx.reverted,
            logs: block
                .logs()
                .filter(|log| log.tx.id == tx.id)
                .map(|log| ChainLog {
                    clause_index: small(log.clause_index),
                    log_index: small(log.log_index),
                    address: log.event.address.to_string(),
                    topics: log.event.topics.iter().map(ToString::to_string).collect(),
                    data: format!("0x{}", hex::encode(&log.event.data)),
                })
                .collect(),
        })
        .collect()
}
