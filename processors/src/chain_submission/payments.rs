//! What the chain's own logs say was paid from the app's purse, by transaction.

use std::collections::BTreeMap;

use chain::abi::{ContractEvent, topic};
use chain::id::Word;
use chain::node::{Criterion, EventFilter, LoggedEvent, MAX_PAGE, NodeError};
use chain::{Address, BlockId, Node, TxId, Wei};
use uuid::Uuid;

use crate::chain_submission::network::Network;

/// A reward that the chain shows as paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The clause.
    pub clause: u32,
    /// The reward that its proof names.
    pub reward_id: Option<Uuid>,
    /// Wei of B3TR.
    pub amount: Wei,
    /// Who was paid.
    pub receiver: Address,
    /// Who paid.
    pub distributor: Address,
}

/// A transaction that paid rewards of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayingTransaction {
    /// The transaction.
    pub tx_id: TxId,
    /// Its block.
    pub block: BlockId,
    /// What it paid, by clause.
    pub payments: Vec<Payment>,
}

impl PayingTransaction {
    /// The rewards that it names.
    #[must_use]
    pub fn rewards(&self) -> Vec<Uuid> {
        self.payments.iter().filter_map(|payment| payment.reward_id).collect()
    }
}

/// All transactions in a range of blocks that paid rewards of the app, in the order of the chain.
///
/// # Errors
/// The node's.
pub async fn paying_transactions(
    node: &Node,
    network: &Network,
    (from, to): (u32, u32),
) -> Result<Vec<PayingTransaction>, NodeError> {
    let topics = [Some(topic::REWARD_DISTRIBUTED), Some(Word(*network.app.as_bytes())), None, None, None];
    let criterion = Criterion { address: Some(network.pool), topics };
    let mut filter = EventFilter::blocks(from, to, vec![criterion]);
    let mut logs = Vec::new();
    loop {
        let page = node.events(&filter).await?;
        let full = u32::try_from(page.len()).is_ok_and(|count| count >= MAX_PAGE);
        let last = page.last().map(|log| log.meta.block_number);
        logs.extend(page);
        match last.filter(|_| full) {
            // From the last block again, since a node skips no more than 100,000 logs.
            Some(last) if last > filter.from_block => (filter.from_block, filter.offset) = (last, 0),
            Some(_) => filter.offset += MAX_PAGE,
            None => return Ok(by_transaction(&logs)),
        }
    }
}

fn by_transaction(logs: &[LoggedEvent]) -> Vec<PayingTransaction> {
    let mut found: BTreeMap<(u32, u32), PayingTransaction> = BTreeMap::new();
    for log in logs {
        let Some(ContractEvent::RewardDistributed { amount, receiver, proof, distributor, .. }) =
            ContractEvent::decode(&log.event)
        else {
            continue;
        };
        let (tx_id, block) = (log.meta.tx_id, log.meta.block_id);
        let at = (log.meta.block_number, log.meta.tx_index);
        let transaction =
            found.entry(at).or_insert_with(|| PayingTransaction { tx_id, block, payments: Vec::new() });
        let (clause, reward_id) = (log.meta.clause_index, reward_of(&proof));
        let payment = Payment { clause, reward_id, amount, receiver, distributor };
        // A page may repeat what the one before ended with.
        if !transaction.payments.contains(&payment) {
            transaction.payments.push(payment);
        }
    }
    found.into_values().collect()
}

/// The id in "reward ID" of a proof.
fn reward_of(proof: &str) -> Option<Uuid> {
    proof.split_once("reward ")?.1.get(..36)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_names_its_reward() {
        let reward = Uuid::from_u128(7);
        let proof = format!("{{\"version\": 2,\"proof\": {{\"text\":\"reward {reward}\"}}}}");
        assert_eq!(reward_of(&proof), Some(reward));
        assert_eq!((reward_of(""), reward_of("reward 1"), reward_of("reward ü")), (None, None, None));
    }
}
