//! What the chain's own logs say was paid, held against the books before anything is planned or signed. A failover or a restore that
//! loses commits leaves payouts ready that are paid, or will be: their transactions are taken back into the books, and what may still
//! come into a block is waited for. A payment that the books cannot explain stops signing. Where two nodes are configured, neither is
//! believed alone: the checkpoint rises to what two call final, and a payment that one of them does not show holds everything up.

use std::collections::HashSet;

use chain::node::{NodeError, Revision};
use chain::{Address, BlockId, Node, TxId};
use runtime::StageError;

use super::fate;
use super::fold::{Books, Folded, Lost};
use super::guard::{Checkpoint, Guarded, Payer};
use super::lease::Lease;
use super::obstacle::Obstacle;
use super::plan::PlanError;
use super::{Memory, RoundError, Submitter};
use crate::chain_submission::ledger::rows;
use crate::chain_submission::network::Network;
use crate::chain_submission::payments::{PayingTransaction, paying_transactions};

impl Submitter {
    /// Asks the chain what was paid since the checkpoint, and takes into the books what they do not know. What they cannot explain is
    /// stored as an incident, which stops signing.
    pub(super) async fn audit(&self, memory: &mut Memory, lease: &Lease) -> Result<(), RoundError> {
        let (network, node, best) = self.node(memory).await?;
        let network = network.clone();
        let witnesses = Self::witnesses(memory);
        let audited = memory.audited.take();
        let guarded = self.guarded(memory).await?;
        let finalities = finalities(&node, &witnesses).await?;
        let head = block_id(&node, Revision::Number(best)).await?;
        // It never falls back behind what was agreed before: the first start begins at the lowest that a node gives.
        let lowest = finalities.iter().copied().min().unwrap_or(0);
        let checkpoint = self.checkpoint(guarded, lowest).await?;
        let agreed = agreed(finalities, fate::needed(network.nodes.len()));
        let finalized = agreed.unwrap_or(checkpoint.checked_upto);
        let on_branch = match audited {
            Some(at) => is_on_branch(&node, at).await?.then(|| at.number()),
            None => None,
        };
        let from = on_branch.unwrap_or(0).max(checkpoint.checked_upto).saturating_add(1);
        let mut unexplained: Option<u32> = None;
        if from <= best {
            let paid = paying_transactions(&node, &network, (from, best)).await.map_err(Obstacle::from)?;
            let shown: HashSet<TxId> = paid.iter().map(|transaction| transaction.tx_id).collect();
            let unknown = self.unknown(paid).await?;
            self.compare(&network, &witnesses, &shown, from).await?;
            let ours = if unknown.is_empty() { HashSet::new() } else { self.distributors(guarded).await? };
            for transaction in unknown {
                let lost = Lost { transaction: &transaction, ours: &ours };
                if self.books().fold(&node, &network, lease, lost).await? == Folded::Unexplained {
                    unexplained = unexplained.or(Some(transaction.block.number()));
                }
            }
        }
        let safe = unexplained.map_or(finalized, |number| finalized.min(number.saturating_sub(1))).min(best);
        let raised = Checkpoint { checked_upto: safe.max(checkpoint.checked_upto), ..checkpoint };
        self.raise(lease, guarded, raised).await?;
        if unexplained.is_some() {
            // It is looked at again: its grant may still be on its way.
            self.gate(lease).await?;
            return Err(PlanError::Moved.into());
        }
        self.wait_for_lost(guarded, finalized).await?;
        memory.audited = Some(head);
        Ok(())
    }

    fn books(&self) -> Books<'_> {
        let Self { pool, settings, schemas, clock, metrics, .. } = self;
        Books {
            pool,
            genesis: settings.genesis,
            terms: &settings.terms,
            schemas: *schemas,
            clock: clock.as_ref(),
            metrics,
        }
    }

    /// Passes unless another node shows a payment that neither the asked one nor the books know. A node that gives no response says
    /// nothing.
    async fn compare(
        &self,
        network: &Network,
        witnesses: &[Node],
        shown: &HashSet<TxId>,
        from: u32,
    ) -> Result<(), RoundError> {
        for witness in witnesses {
            // It may be ahead.
            match paying_transactions(witness, network, (from, u32::MAX >> 1)).await {
                Ok(mut paid) => {
                    paid.retain(|transaction| !shown.contains(&transaction.tx_id));
                    if let Some(first) = self.unknown(paid).await?.first() {
                        let (first, asked) = (first.tx_id.to_string(), network.nodes.len() - 1);
                        return Err(Obstacle::Disputed { first, asked }.into());
                    }
                }
                Err(error) => tracing::warn!(?witness, %error, "a node does not say what was paid"),
            }
        }
        Ok(())
    }

    /// What is kept outside of the database, read once per lease.
    pub(super) async fn guarded<'a>(&self, memory: &'a mut Memory) -> Result<&'a mut Guarded, RoundError> {
        if memory.guarded.is_none() {
            let genesis_id = self.settings.genesis.to_string();
            memory.guarded = Some(self.guard.load(&genesis_id).await.map_err(Obstacle::Guard)?);
        }
        memory.guarded.as_mut().ok_or_else(|| StageError::new("payouts.guard", "not read").into())
    }

    /// From where the books are held against the chain.
    async fn checkpoint(&self, guarded: &Guarded, finalized: u32) -> Result<Checkpoint, RoundError> {
        let genesis_id = self.settings.genesis.to_string();
        // Whoever paid, the logs of the whole app were asked for: a new key goes on where the one before it ended.
        let (began_at, checked_upto): (Option<i64>, Option<i64>) = sqlx::query_as(
            "select min(began_at), max(checked_upto) from payout_checkpoints where genesis_id = $1",
        )
        .bind(&genesis_id)
        .fetch_one(&self.pool)
        .await?;
        let stored = began_at.zip(checked_upto);
        let height = |number: i64| u32::try_from(number).unwrap_or(0);
        match (stored, guarded.checkpoint) {
            // That of the books, also where the one outside is ahead: it says what other books held, and is no place to begin.
            (Some((began_at, checked_upto)), outside) => {
                let stored = Checkpoint { began_at: height(began_at), checked_upto: height(checked_upto) };
                if let Some(ahead) = outside.filter(|outside| outside.checked_upto > stored.checked_upto) {
                    tracing::warn!(
                        ?stored,
                        ?ahead,
                        "the database was set back: the chain is asked what it paid since"
                    );
                }
                Ok(stored)
            }
            (None, Some(outside)) => {
                tracing::warn!(
                    ?outside,
                    "the database is new or was lost: the chain is asked for every payment"
                );
                Ok(Checkpoint { checked_upto: outside.began_at, ..outside })
            }
            // The first start. A release before, which kept no checkpoint, may have paid.
            (None, None) => {
                let first: Option<i64> = sqlx::query_scalar(
                    "select min(last_valid - expiration) from payout_attempts where genesis_id = $1",
                )
                .bind(&genesis_id)
                .fetch_one(&self.pool)
                .await?;
                let began_at = first.map_or(finalized, |first| height(first - 1));
                Ok(Checkpoint { began_at, checked_upto: began_at })
            }
        }
    }

    /// Raises the checkpoint in the database and outside, and forgets what was announced for blocks below it.
    async fn raise(
        &self,
        lease: &Lease,
        guarded: &mut Guarded,
        raised: Checkpoint,
    ) -> Result<(), RoundError> {
        let genesis_id = self.settings.genesis.to_string();
        sqlx::query(
            "insert into payout_checkpoints as c (genesis_id, signer, began_at, checked_upto) values ($1, $2, $3, $4)
             on conflict (genesis_id, signer) do update set checked_upto = excluded.checked_upto
             where c.checked_upto < excluded.checked_upto",
        )
        .bind(&genesis_id)
        .bind(&lease.signer)
        .bind(i64::from(raised.began_at))
        .bind(i64::from(raised.checked_upto))
        .execute(&self.pool)
        .await?;
        if guarded.checkpoint.is_none_or(|outside| outside.checked_upto < raised.checked_upto) {
            let payer = Payer { genesis_id: &genesis_id, signer: &lease.signer };
            let published = self.guard.audited(payer, self.clock.as_ref(), raised).await;
            published.map_err(Obstacle::Guard)?;
            guarded.checkpoint = Some(raised);
        }
        let over = |last_valid: i64| last_valid < i64::from(raised.checked_upto);
        let ended = guarded.announced.iter().filter(|(_, last)| over(**last)).map(|(id, _)| id.clone());
        let ended: Vec<String> = ended.collect();
        self.guard.forget(&ended).await.map_err(Obstacle::Guard)?;
        guarded.announced.retain(|_, last_valid| !over(*last_valid));
        Ok(())
    }

    /// Passes once each announced signature is in the books, or can be in no block any more: those of which the last valid block is
    /// final, with all that was paid up to there in the books, are forgotten by now.
    async fn wait_for_lost(&self, guarded: &Guarded, finalized: u32) -> Result<(), RoundError> {
        if guarded.announced.is_empty() {
            return Ok(());
        }
        let ids: Vec<&str> = guarded.announced.keys().map(String::as_str).collect();
        // A plan is known: signing it again gives the same transaction.
        let known: Vec<String> = sqlx::query_scalar(
            "select tx_id from payout_attempts where tx_id = any($1) and state <> 'abandoned'",
        )
        .bind(&ids)
        .fetch_all(&self.pool)
        .await?;
        let known: HashSet<&str> = known.iter().map(String::as_str).collect();
        let lost = guarded.announced.iter().filter(|(id, _)| !known.contains(id.as_str()));
        let lost: Vec<i64> = lost.map(|(_, last_valid)| *last_valid).collect();
        match lost.iter().max() {
            Some(&last_valid) => {
                Err(Obstacle::LostCommits { lost: lost.len(), last_valid, finalized }.into())
            }
            None => Ok(()),
        }
    }

    /// Who has ever signed payments of this deployment, by the books and by what is kept outside of them.
    async fn distributors(&self, guarded: &Guarded) -> Result<HashSet<Address>, RoundError> {
        let booked: Vec<String> =
            sqlx::query_scalar("select distinct signer from payout_attempts where genesis_id = $1")
                .bind(self.settings.genesis.to_string())
                .fetch_all(&self.pool)
                .await?;
        let earlier = booked.iter().chain(&guarded.signers).filter_map(|signer| signer.parse().ok());
        Ok(earlier.chain([self.signer.address()]).collect())
    }

    /// The transactions that the books do not hold as signed, and of which no person has said what they are.
    async fn unknown(&self, paid: Vec<PayingTransaction>) -> Result<Vec<PayingTransaction>, RoundError> {
        if paid.is_empty() {
            return Ok(paid);
        }
        let ids: Vec<String> = paid.iter().map(|transaction| transaction.tx_id.to_string()).collect();
        let signed: Vec<String> = sqlx::query_scalar(
            "select tx_id from payout_attempts where tx_id = any($1) and state not in ('planned', 'abandoned')",
        )
        .bind(&ids)
        .fetch_all(&self.pool)
        .await?;
        let genesis_id = self.settings.genesis.to_string();
        let resolved = rows::resolved_by_a_person(&self.pool, &genesis_id, &ids).await?;
        let known: HashSet<String> = signed.into_iter().chain(resolved).collect();
        Ok(paid.into_iter().filter(|transaction| !known.contains(&transaction.tx_id.to_string())).collect())
    }
}

/// Heights up to which the nodes call the chain final; those that give no response beside the first are left out.
async fn finalities(node: &Node, witnesses: &[Node]) -> Result<Vec<u32>, RoundError> {
    let mut heights = vec![block_id(node, Revision::Finalized).await?.number()];
    for witness in witnesses {
        match witness.block(Revision::Finalized).await {
            Ok(block) => heights.extend(block.map(|block| block.id.number())),
            Err(error) => tracing::warn!(?witness, %error, "a node does not say what is final"),
        }
    }
    Ok(heights)
}

/// The height up to which `needed` nodes call the chain final; none where fewer have responded.
fn agreed(mut heights: Vec<u32>, needed: usize) -> Option<u32> {
    heights.sort_unstable_by(|one, other| other.cmp(one));
    heights.get(needed.max(1) - 1).copied()
}

/// The id of a block that the node must have.
async fn block_id(node: &Node, revision: Revision) -> Result<BlockId, RoundError> {
    let block = node.block(revision).await.map_err(Obstacle::from)?;
    Ok(block.ok_or_else(|| Obstacle::NodeUnavailable(NodeError::UnknownBlock))?.id)
}

/// Whether a block is on the node's branch.
async fn is_on_branch(node: &Node, id: BlockId) -> Result<bool, RoundError> {
    let block = node.block(Revision::Id(id)).await.map_err(Obstacle::from)?;
    Ok(block.is_some_and(|block| block.is_trunk))
}

#[cfg(test)]
mod tests {
    use super::agreed;

    #[test]
    fn a_height_is_final_when_as_many_nodes_as_needed_call_it_so() {
        assert_eq!(agreed(vec![900, 20], 2), Some(20), "one node alone is not believed");
        assert_eq!(agreed(vec![18, 900, 20], 2), Some(20));
        assert_eq!(agreed(vec![900], 2), None, "the other gave no response");
        assert_eq!((agreed(vec![20], 1), agreed(vec![], 1)), (Some(20), None));
    }
}
