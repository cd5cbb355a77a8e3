//! Rewards paid by hand: transactions of the shape that `chain_submission` makes, without anything around them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use chain::abi::{Proof, ProofType, RewardCall};
use chain::deploy::{Deployment, SOLO_KEYS};
use chain::fee::next_base_fee;
use chain::gas::rewards_gas_limit;
use chain::node::{Node, NodeError, Receipt, Rejection, Revision, Simulation, failing_clause};
use chain::tx::{TX_GAS, clause_gas};
use chain::{Address, BlockRef, Clause, Fees, SignedTx, Signer, TxId, UnsignedTx, Wei};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::grants::EACH;
use super::{LIMIT, LOOK};
use crate::local_chain::wallet_of;

/// The most gas that a transaction of `chain_submission` asks for.
const MOST: u64 = 15_000_000;
/// Blocks on top of its own after which a payment counts as made.
const CONFIRMATIONS: u32 = 12;

/// Pays from the purse of an app of its own.
pub(super) struct Raw<'a> {
    node: &'a Node,
    at: &'a Deployment,
    signer: Signer,
}

impl<'a> Raw<'a> {
    pub(super) async fn new(node: &'a Node, at: &'a Deployment) -> Result<Self> {
        let signer = Signer::from_hex(SOLO_KEYS[2])?;
        ensure!(signer.address() == at.distributor, "the raw arm has a distributor of its own");
        let energy = node.account(signer.address(), Revision::Best).await?.energy;
        ensure!(energy > Wei::ZERO, "the raw arm's distributor has no VTHO");
        Ok(Self { node, at, signer })
    }

    /// Gas of a reward in a batch of this size: to new receivers, and to the same ones again in the same round.
    pub(super) async fn gas(&self, batch: usize) -> Result<(u64, u64)> {
        let receivers: Vec<Address> = (0..batch).map(|_| wallet_of(Uuid::now_v7())).collect();
        let mut used = [0; 2];
        for used in &mut used {
            let clauses = receivers.iter().map(|receiver| self.clause(*receiver)).collect();
            let (id, bytes) = self.signed(clauses).await?;
            self.post(&bytes).await?;
            let receipt = self.receipt(id).await?;
            ensure!(!receipt.reverted, "a payment of the raw arm is reverted");
            *used = receipt.gas_used / batch as u64;
        }
        Ok((used[0], used[1]))
    }

    /// Pays so many rewards, all transactions signed before the clock starts; until the last one has twelve blocks on top.
    pub(super) async fn settle(&self, rewards: usize, batch: usize) -> Result<Duration> {
        let receivers: Vec<Address> =
            (0..rewards.div_ceil(EACH)).map(|_| wallet_of(Uuid::now_v7())).collect();
        let all: Vec<Clause> = (0..rewards).map(|n| self.clause(receivers[n % receivers.len()])).collect();
        let mut signed = Vec::new();
        for clauses in all.chunks(batch) {
            signed.push(self.signed(clauses.to_vec()).await?);
        }
        let begun = Instant::now();
        for (_, bytes) in &signed {
            self.post(bytes).await?;
        }
        let mut last = 0;
        for (id, _) in &signed {
            let receipt = self.receipt(*id).await?;
            ensure!(!receipt.reverted, "a payment of the raw arm is reverted");
            last = last.max(receipt.meta.block_number);
        }
        while self.best().await?.number < last + CONFIRMATIONS {
            tokio::time::sleep(LOOK).await;
        }
        Ok(begun.elapsed())
    }

    async fn best(&self) -> Result<chain::node::BlockSummary> {
        self.node.block(Revision::Best).await?.context("the node has no best block")
    }

    fn clause(&self, receiver: Address) -> Clause {
        let reward = Uuid::now_v7();
        let proof = Proof {
            evidence: vec![
                (ProofType::Text, format!("reward {reward}")),
                (ProofType::Link, format!("http://127.0.0.1:12345/proofs/{reward}")),
            ],
            impacts: vec![("carbon".to_owned(), 24_720)],
            description: "Verified odometer photo, 309 km".to_owned(),
        };
        let amount = Wei::from_b3tr(Decimal::new(309, 2)).unwrap_or_default();
        RewardCall { app: self.at.app_id, amount, receiver }.with_proof(self.at.rewards_pool, &proof)
    }

    /// A signed transaction with the gas limit that `chain_submission` would ask for.
    async fn signed(&self, clauses: Vec<Clause>) -> Result<(TxId, Vec<u8>)> {
        let simulation = Simulation {
            clauses: &clauses,
            caller: self.signer.address(),
            gas_payer: None,
            gas: None,
            at: Revision::Next,
        };
        let outcomes = self.node.simulate(&simulation).await?;
        ensure!(failing_clause(&outcomes).is_none(), "a clause of the raw arm fails");
        let used =
            outcomes.iter().zip(&clauses).map(|(outcome, clause)| outcome.gas_used + clause_gas(clause));
        let (best, tried) = (self.best().await?, TX_GAS + used.sum::<u64>());
        let base = best.base_fee_per_gas.map(|fee| next_base_fee(fee, best.gas_limit, best.gas_used));
        let tip = self.node.priority_fee().await?;
        let most = base.and_then(|base| base.checked_mul(4)).and_then(|fee| fee.checked_add(tip));
        let unsigned = UnsignedTx {
            chain_tag: self.at.chain_tag,
            block_ref: BlockRef::from(best.id),
            expiration: 1_800,
            gas: rewards_gas_limit(tried, clauses.len(), MOST)?,
            clauses,
            fees: Fees::Dynamic {
                max_priority_fee_per_gas: tip,
                max_fee_per_gas: most.context("the node knows no dynamic fees")?,
            },
            depends_on: None,
            nonce: Uuid::new_v4().as_u64_pair().0,
            delegated: false,
        };
        let signed = SignedTx::sign(unsigned, &self.signer)?;
        Ok((signed.id(), signed.encode()))
    }

    async fn post(&self, bytes: &[u8]) -> Result<()> {
        match self.node.send(bytes).await {
            Ok(_) | Err(NodeError::Rejected(Rejection::Known)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn receipt(&self, id: TxId) -> Result<Receipt> {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(receipt) = self.node.receipt(id, None).await? {
                return Ok(receipt);
            }
            ensure!(Instant::now() < until, "{id} is in no block after {LIMIT:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
