//! From blocks of a node to the steps that the gateway takes.

use chain::follow::Step;
use chain::id::Word;
use chain::node::{BlockTx, ExpandedBlock};
use chain::{Address, AppId};
use schemas::events::{BlockAdopted, BlockUndone, ChainStep, ChainTransaction};
use schemas::ids::Micros;
use schemas::payouts::chain_event_id;

use crate::blocks;

/// Bytes of a step's transactions as JSON. A record of Kafka holds 1 MB by default, and JSON is longer than what is published.
const TRANSACTIONS: usize = 768 * 1024;

/// Which transactions are posted: those that call the pool for the app, or make the pool emit a log about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The pool that pays.
    pub pool: Address,
    /// The app.
    pub app: AppId,
}

impl Watched {
    /// Whether a log is the pool's and about the app.
    fn is_about(&self, address: &Address, topics: &[Word]) -> bool {
        *address == self.pool && topics.iter().any(|topic| topic.as_bytes() == self.app.as_bytes())
    }

    fn concerns(&self, tx: &BlockTx) -> bool {
        // The app's id is the first argument of every call of the pool's that names one: the word behind the selector.
        let called = tx.clauses.iter().any(|clause| {
            clause.to == Some(self.pool)
                && clause.data.get(4..36).is_some_and(|word| word == self.app.as_bytes().as_slice())
        });
        let mut logs = tx.outputs.iter().flat_map(|output| &output.events);
        let logged = logs.any(|event| self.is_about(&event.address, &event.topics));
        called || logged
    }
}

/// A step of a follower as the gateway takes it, on the network of this genesis block whose final block has this number.
/// Heights and counts of a chain are far below 2^31.
#[must_use]
pub fn chain_step(
    step: &Step,
    seq: i64,
    (genesis_id, finalized): (&str, u32),
    watched: &Watched,
    now: Micros,
) -> ChainStep {
    let small = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    match step {
        Step::Adopted { block, adoption } => {
            let id = block.id.to_string();
            let adoption = small(*adoption);
            ChainStep::Adopted(BlockAdopted {
                event_id: chain_event_id(genesis_id, "adopted", &id, adoption),
                occurred_at: now,
                seq,
                genesis_id: genesis_id.to_owned(),
                parent_id: block.parent_id.to_string(),
                adoption,
                finalized_number: finalized.into(),
                transactions: transactions(block, watched),
                retold: false,
                block: blocks::place(block),
            })
        }
        Step::Undone { block_id, adoption } => {
            let (id, adoption) = (block_id.to_string(), small(*adoption));
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

/// A block that was adopted before, as it is told again: the same adoption, under a number and an id of its own.
#[must_use]
pub fn retold_step(
    (block, adoption): (&ExpandedBlock, u32),
    seq: i64,
    place: (&str, u32),
    watched: &Watched,
    now: Micros,
) -> ChainStep {
    let step = Step::Adopted { block: Box::new(block.clone()), adoption };
    match chain_step(&step, seq, place, watched, now) {
        ChainStep::Adopted(block) => {
            let mut block = BlockAdopted { retold: true, ..block };
            block.event_id = block.derived_id();
            ChainStep::Adopted(block)
        }
        undone @ ChainStep::Undone(_) => undone,
    }
}

/// The transactions that are posted, with all their logs. Anybody can put megabytes of logs into a transaction that also calls
/// the pool for our app; a step that would be too long for a record of Kafka, and stop all that follows, keeps only the logs of
/// the pool about our app, which nobody else can cause at will.
fn transactions(block: &ExpandedBlock, watched: &Watched) -> Vec<ChainTransaction> {
    let concerned = |tx: &BlockTx| watched.concerns(tx);
    let all = blocks::transactions(block, concerned, |_| true);
    let size = serde_json::to_vec(&all).map_or(usize::MAX, |text| text.len());
    if size <= TRANSACTIONS {
        return all;
    }
    tracing::warn!(block = %block.id, size, "the block's foreign logs are left out: they are too long");
    blocks::transactions(block, concerned, |log| watched.is_about(&log.event.address, &log.event.topics))
}

#[cfg(test)]
mod tests {
    use chain::node::{Event, Output, WireClause};
    use chain::{BlockId, TxId, Wei};

    use super::*;

    const POOL: Address = Address([1; 20]);
    const OTHER: Address = Address([9; 20]);
    const APP: AppId = AppId([2; 32]);
    const WATCHED: Watched = Watched { pool: POOL, app: APP };

    fn log(address: Address, topic: [u8; 32], bytes: usize) -> Event {
        Event { address, topics: vec![Word([7; 32]), Word(topic)], data: vec![0xab; bytes] }
    }

    /// A transaction with one clause, which calls `to` with an argument, and emits logs.
    fn tx(n: u8, to: Address, argument: [u8; 32], events: Vec<Event>) -> BlockTx {
        let data = [[1, 2, 3, 4].as_slice(), &argument].concat();
        BlockTx {
            id: TxId([n; 32]),
            origin: Address([3; 20]),
            gas_payer: Address([4; 20]),
            gas_used: 21_000,
            paid: Wei::from(5),
            reverted: events.is_empty(),
            clauses: vec![WireClause { to: Some(to), value: Wei::ZERO, data }],
            outputs: vec![Output { contract_address: None, events, transfers: vec![] }],
        }
    }

    fn block(transactions: Vec<BlockTx>) -> ExpandedBlock {
        let mut id = [8; 32];
        id[..4].copy_from_slice(&7_u32.to_be_bytes());
        ExpandedBlock {
            number: 7,
            id: BlockId(id),
            parent_id: BlockId([6; 32]),
            timestamp: 1_700_000_000,
            gas_limit: 0,
            gas_used: 0,
            base_fee_per_gas: None,
            is_trunk: true,
            is_finalized: false,
            transactions,
        }
    }

    fn adopted(transactions: Vec<BlockTx>) -> BlockAdopted {
        let step = Step::Adopted { block: Box::new(block(transactions)), adoption: 2 };
        match chain_step(&step, 5, ("0xge", 3), &WATCHED, Micros(11)) {
            ChainStep::Adopted(step) => step,
            ChainStep::Undone(step) => panic!("{step:?}"),
        }
    }

    #[test]
    fn transactions_that_call_the_pool_for_the_app_or_make_it_log_about_the_app_are_posted_with_all_their_logs()
     {
        let step = adopted(vec![
            tx(1, OTHER, [0; 32], vec![log(OTHER, APP.0, 1), log(POOL, [5; 32], 1)]),
            tx(2, OTHER, [0; 32], vec![log(OTHER, [0; 32], 1), log(POOL, APP.0, 2), log(OTHER, [0; 32], 3)]),
            tx(3, POOL, [5; 32], vec![log(OTHER, APP.0, 1)]),
            tx(4, POOL, APP.0, vec![]),
            tx(5, POOL, APP.0, vec![log(OTHER, [0; 32], 1)]),
            tx(6, OTHER, APP.0, vec![]),
        ]);
        let places = |tx: &ChainTransaction| tx.logs.iter().map(|log| log.log_index).collect::<Vec<_>>();
        let posted: Vec<_> = step.transactions.iter().map(|tx| (tx.index, places(tx), tx.reverted)).collect();
        assert_eq!(posted, [(1, vec![2, 3, 4], false), (3, vec![], true), (4, vec![6], false)]);
        let first = &step.transactions[0];
        assert_eq!(first.id, format!("0x{}", "02".repeat(32)));
        assert_eq!((first.gas_used, first.paid_wei.as_str()), (21_000, "5"));
        assert_eq!(
            (first.logs[1].address.clone(), first.logs[1].data.as_str()),
            (POOL.to_string(), "0xabab")
        );
    }

    #[test]
    fn a_step_carries_its_block_its_number_and_the_id_that_follows_from_both() {
        let step = adopted(vec![]);
        assert_eq!((step.seq, step.adoption, step.finalized_number, step.occurred_at), (5, 2, 3, Micros(11)));
        assert_eq!((step.block.number, step.block.timestamp), (7, Micros(1_700_000_000_000_000)));
        assert_eq!(step.event_id, ChainStep::Adopted(step.clone()).derived_id());
        let undone = Step::Undone { block_id: block(vec![]).id, adoption: 2 };
        let ChainStep::Undone(undone) = chain_step(&undone, 6, ("0xge", 3), &WATCHED, Micros(11)) else {
            panic!("undone")
        };
        assert_eq!((undone.number, undone.block_id, undone.adoption), (7, step.block.id, 2));
    }

    #[test]
    fn a_block_stuffed_with_foreign_logs_keeps_those_of_the_pool_about_the_app_at_their_places() {
        let stuffing = || log(OTHER, [0; 32], 300 * 1024);
        let step = adopted(vec![
            tx(1, POOL, APP.0, vec![stuffing(), log(POOL, APP.0, 2), log(POOL, [5; 32], 300 * 1024)]),
            tx(2, POOL, APP.0, vec![stuffing(), log(POOL, APP.0, 2)]),
        ]);
        let places: Vec<_> =
            step.transactions.iter().flat_map(|tx| &tx.logs).map(|log| log.log_index).collect();
        assert_eq!((step.transactions.len(), places), (2, vec![1, 4]));
        assert!(serde_json::to_vec(&step).unwrap().len() < TRANSACTIONS);
    }
}
