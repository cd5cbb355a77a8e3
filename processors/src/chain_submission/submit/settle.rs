//! What becomes of transactions that no new block will hold: proven dead or reverted for good, their rewards are planned again. Nothing
//! is decided by one node's word where there are two.

use std::time::Duration;

use chain::abi::Refusal;
use chain::node::Revision;
use chain::{BlockId, Node, UnsignedTx};
use runtime::StageError;
use schemas::events::AttemptState;
use serde_json::json;
use sqlx::FromRow;
use tokio::time::Instant;

use super::blame;
use super::fate::{self, Fate, Found};
use super::lease::Lease;
use super::{Memory, RoundError, Submitter};
use crate::chain_submission::ledger::rows::Transaction;

/// How often the nodes are asked again: a block of a public network.
const AGAIN: Duration = Duration::from_secs(10);
/// Transactions that are asked about at a time.
const MOST: i64 = 32;

/// A transaction that is expired, or reverted for good with rewards that nothing else may pay yet.
#[derive(Debug, FromRow)]
struct Ended {
    tx_id: String,
    body: Vec<u8>,
    last_valid: i64,
    state: String,
}

impl Submitter {
    /// Asks about what has ended, and frees the rewards of what is proven dead or reverted for good.
    pub(super) async fn settle_all(&self, memory: &mut Memory, lease: &Lease) -> Result<(), RoundError> {
        if memory.settled.get(&lease.signer).is_some_and(|settled| settled.elapsed() < AGAIN) {
            return Ok(());
        }
        memory.settled.insert(lease.signer.clone(), Instant::now());
        let ended: Vec<Ended> = sqlx::query_as(
            "select tx_id, body, last_valid, state from payout_attempts a
             where signer = $1 and genesis_id = $2 and ((state in ('signed', 'sent') and last_valid < $3)
                or (state = 'reverted_final' and exists (
                    select 1 from payout_attempt_rewards r where r.tx_id = a.tx_id and r.live)))
             order by last_valid limit $4",
        )
        .bind(&lease.signer)
        .bind(self.settings.genesis.to_string())
        .bind(i64::from(memory.best))
        .bind(MOST)
        .fetch_all(&self.pool)
        .await?;
        if ended.is_empty() {
            return Ok(());
        }
        let nodes = self.node(memory).await?.0.nodes.clone();
        for ended in ended {
            self.settle(&nodes, lease, &ended).await?;
        }
        Ok(())
    }

    async fn settle(&self, nodes: &[Node], lease: &Lease, ended: &Ended) -> Result<(), RoundError> {
        let id = ended.tx_id.parse().map_err(|error| StageError::new("read a transaction's id", error))?;
        let mut reports = Vec::with_capacity(nodes.len());
        for node in nodes {
            match fate::ask(node, id).await {
                Ok(report) => reports.push(report),
                Err(error) => tracing::warn!(?node, %error, "a node reports nothing of a transaction's end"),
            }
        }
        let pending = ended.state != AttemptState::RevertedFinal.label();
        let proof = json!({ "reports": reports, "needed": fate::needed(nodes.len()) });
        match fate::judge(&reports, fate::needed(nodes.len()), ended.last_valid) {
            Fate::Dead if pending => {
                tracing::warn!(tx = ended.tx_id, "proven dead: its rewards are planned again");
                self.advance(lease, &ended.tx_id, Some(&proof), Transaction::dead).await
            }
            Fate::Settled(Found { block, reverted: true }) if !pending => {
                let culprit = self.culprit(nodes, lease, ended, block).await?;
                if let Some((clause, refusal)) = &culprit {
                    tracing::warn!(tx = ended.tx_id, clause, reason = %refusal, "a reward failed its batch");
                }
                let blamed = culprit.as_ref().map(|(clause, refusal)| (*clause, refusal));
                let freed = |transaction: &mut Transaction, at| {
                    let same = transaction.attempt.block_id.as_deref() == Some(&*block.to_string());
                    same.then(|| transaction.replanned(blamed, at)).flatten()
                };
                self.advance(lease, &ended.tx_id, Some(&proof), freed).await
            }
            Fate::Disputed => {
                tracing::error!(tx = ended.tx_id, reports = %json!(reports), "nodes contradict each other");
                Ok(())
            }
            // Our books lag behind the chain: the watcher's blocks close the gap.
            Fate::Open | Fate::Dead | Fate::Settled(_) => Ok(()),
        }
    }

    /// The clause at fault, by the first node that still has the state before the block; none where no node has.
    async fn culprit(
        &self,
        nodes: &[Node],
        lease: &Lease,
        ended: &Ended,
        block: BlockId,
    ) -> Result<Option<(usize, Refusal)>, RoundError> {
        let unsigned: UnsignedTx = serde_json::from_slice(&ended.body)
            .map_err(|error| StageError::new("read the unsigned transaction", error))?;
        let signer = lease.signer.parse();
        let signer = signer.map_err(|error| StageError::new("read a signer's address", error))?;
        for node in nodes {
            let found = async {
                let Some(block) = node.block(Revision::Id(block)).await? else { return Ok(None) };
                blame::culprit(node, &unsigned, signer, block.parent_id).await
            };
            match found.await {
                Ok(culprit) => return Ok(culprit),
                Err(error) => {
                    let error: chain::NodeError = error;
                    tracing::warn!(?node, %error, "a node does not try out a reverted transaction");
                }
            }
        }
        Ok(None)
    }
}

/// How many of the payouts, in order, one batch of at most `most` holds: half as many for each final revert that one of them had.
#[must_use]
pub fn batch_size(splits: impl IntoIterator<Item = i32>, most: usize) -> usize {
    let (mut limit, mut taken) = (most.max(1), 0);
    for splits in splits {
        let halved = most.checked_shr(splits.unsigned_abs()).unwrap_or(0).max(1);
        limit = limit.min(halved);
        if taken >= limit {
            break;
        }
        taken += 1;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::batch_size;

    #[test]
    fn a_batch_is_halved_for_each_final_revert_down_to_one() {
        assert_eq!(batch_size([0; 50], 40), 40);
        assert_eq!(batch_size([1; 50], 40), 20);
        assert_eq!(batch_size([0, 0, 3, 0, 0, 0, 0], 40), 5);
        assert_eq!(batch_size([0, 0, 0, 0, 0, 0, 3], 40), 6, "the others go before it, without it");
        assert_eq!(batch_size([9, 0], 40), 1);
        assert_eq!(batch_size([200], 1), 1);
        assert_eq!(batch_size([], 40), 0);
    }
}
