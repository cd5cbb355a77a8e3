//! Sends an operator's transactions one after the other and waits for each. For setting up a local chain, not for payouts:
//! nothing is stored, so a crash forgets what was sent.

use std::time::Duration;

use super::DeployError;
use crate::amount::Wei;
use crate::fee::next_base_fee;
use crate::gas::gas_limit;
use crate::id::{BlockId, TxId};
use crate::node::{BlockSummary, Node, NodeError, Receipt, Rejection, Revision, Simulation, failing_clause};
use crate::signer::Signer;
use crate::tx::{BlockRef, Clause, Fees, SignedTx, TX_GAS, UnsignedTx, clause_gas};

/// Blocks in which a transaction stays valid.
const EXPIRATION: u32 = 32;
/// How often a receipt or a block is asked for.
const POLL: Duration = Duration::from_millis(100);
/// How often at most: 2 minutes, 12 blocks of a public network.
const POLLS: u32 = 1_200;

/// An account that acts on a network.
#[derive(Debug)]
pub struct Operator<'a> {
    node: &'a Node,
    signer: &'a Signer,
    genesis: BlockId,
}

impl<'a> Operator<'a> {
    /// An operator on the network that the node serves.
    ///
    /// # Errors
    /// [`DeployError::Node`].
    pub async fn new(node: &'a Node, signer: &'a Signer) -> Result<Self, DeployError> {
        Ok(Self { node, signer, genesis: node.genesis().await? })
    }

    /// The network's genesis id.
    #[must_use]
    pub fn genesis(&self) -> BlockId {
        self.genesis
    }

    /// Tries the clauses out, signs, sends and waits until the transaction is in a block and succeeded. `action` names it in errors.
    ///
    /// # Errors
    /// [`DeployError::Reverted`] when a clause fails, before anything is sent where the simulation shows it;
    /// [`DeployError::GasTooLarge`] where no block came that holds it; [`DeployError::NotIncluded`]; [`DeployError::Node`];
    /// [`DeployError::Tx`].
    pub async fn send(&self, action: &str, clauses: Vec<Clause>) -> Result<Receipt, DeployError> {
        let id = self.submit(action, clauses).await?;
        self.wait(action, id).await
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// As [`Operator::send`].
    pub async fn submit(&self, action: &str, clauses: Vec<Clause>) -> Result<TxId, DeployError> {
        let signed = SignedTx::sign(self.unsigned(action, clauses).await?, self.signer)?;
        match self.node.send(&signed.encode()).await {
            Ok(_) | Err(NodeError::Rejected(Rejection::Known)) => Ok(signed.id()),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until a transaction is in a block.
    ///
    /// # Errors
    /// As [`Operator::send`].
    pub async fn wait(&self, action: &str, id: TxId) -> Result<Receipt, DeployError> {
        for _ in 0..POLLS {
            if let Some(receipt) = self.node.receipt(id, None).await? {
                return if receipt.reverted {
                    Err(DeployError::Reverted {
                        action: action.to_owned(),
                        clause: None,
                        reason: "on the chain".to_owned(),
                    })
                } else {
                    Ok(receipt)
                };
            }
            tokio::time::sleep(POLL).await;
        }
        Err(DeployError::NotIncluded { action: action.to_owned(), id })
    }

    async fn unsigned(&self, action: &str, clauses: Vec<Clause>) -> Result<UnsignedTx, DeployError> {
        let simulation = Simulation {
            clauses: &clauses,
            caller: self.signer.address(),
            gas_payer: None,
            gas: None,
            at: Revision::Next,
        };
        let outcomes = self.node.simulate(&simulation).await?;
        if let Some((clause, refusal)) = failing_clause(&outcomes) {
            let reason = refusal.to_string();
            return Err(DeployError::Reverted { action: action.to_owned(), clause: Some(clause), reason });
        }
        let intrinsic = clauses.iter().map(clause_gas).fold(TX_GAS, u64::saturating_add);
        let tried = outcomes.iter().map(|outcome| outcome.gas_used).fold(intrinsic, u64::saturating_add);
        let (best, gas) = self.block_that_holds(action, tried).await?;
        let priority = self.node.priority_fee().await?;
        let next = best.base_fee_per_gas.map(|fee| next_base_fee(fee, best.gas_limit, best.gas_used));
        Ok(UnsignedTx {
            chain_tag: self.genesis.chain_tag(),
            block_ref: BlockRef::from(best.id),
            expiration: EXPIRATION,
            clauses,
            fees: fees(next, priority),
            gas,
            depends_on: None,
            nonce: rand::random(),
            delegated: false,
        })
    }

    /// The best block and a gas limit, once a block holds what was tried: a chain's first block can be smaller than all after it
    /// (Thor solo: 10,000,000 gas, then 40,000,000).
    async fn block_that_holds(&self, action: &str, tried: u64) -> Result<(BlockSummary, u64), DeployError> {
        let mut waits = 0..POLLS;
        loop {
            let best = self.node.block(Revision::Best).await?.ok_or(DeployError::NoBestBlock)?;
            match (gas_limit(tried, best.gas_limit), waits.next()) {
                (Ok(gas), _) => return Ok((best, gas)),
                (Err(gas), None) => return Err(DeployError::GasTooLarge { action: action.to_owned(), gas }),
                (Err(gas), Some(0)) => {
                    tracing::info!(action, block = best.number, %gas, "waiting for a block that holds the transaction");
                }
                (Err(_), Some(_)) => {}
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Twice the next base fee and the node's tip; before dynamic fees the plain gas price.
fn fees(next_base_fee: Option<Wei>, priority: Wei) -> Fees {
    match next_base_fee.and_then(|fee| fee.checked_mul(2)?.checked_add(priority)) {
        Some(max_fee_per_gas) => Fees::Dynamic { max_priority_fee_per_gas: priority, max_fee_per_gas },
        None => Fees::Legacy { gas_price_coef: 0 },
    }
}
