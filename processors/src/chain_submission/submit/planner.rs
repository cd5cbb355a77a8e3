//! The round's planning: which of the ready payouts the next transaction pays, and what becomes of those that it cannot pay.

use std::collections::HashMap;

use chain::abi::Refusal;
use chain::gas::{self, rewards_gas_limit};
use chain::node::{NodeError, Revision};
use chain::{Address, Node, Wei};
use rust_decimal::Decimal;
use schemas::events::PayoutState;
use schemas::ids::EventId;
use schemas::payouts::network_label;
use uuid::Uuid;

use super::journal::Journal;
use super::lease::Lease;
use super::obstacle::Obstacle;
use super::plan::{self, Plan, PlanError};
use super::preflight::{Asking, Candidate, Preflight, preflight};
use super::{IN_FLIGHT, Memory, RoundError, Settings, Submitter};
use crate::chain_submission::ledger::machine::PayoutEvent;
use crate::chain_submission::ledger::outbox::Outbox;
use crate::chain_submission::ledger::rows::{self, Payout};
use crate::chain_submission::ledger::transition::wei;
use crate::documents::Documents;

impl Submitter {
    /// Plans one transaction of the ready payouts, as far as the day's ceiling, the signer's funds and the gas ceiling go; a payout
    /// that cannot be paid as it is gets a strike. Whether a plan was made.
    pub(super) async fn plan(
        &self,
        memory: &mut Memory,
        lease: &Lease,
        ready: Vec<Payout>,
    ) -> Result<bool, RoundError> {
        let (in_flight, owed): (i64, Option<Decimal>) = sqlx::query_as(
            "select count(*), sum(batch_wei) from payout_attempts
             where signer = $1 and (state = 'planned' or (state in ('signed', 'sent') and last_valid >= $2))",
        )
        .bind(&lease.signer)
        .bind(i64::from(memory.best))
        .fetch_one(&self.pool)
        .await?;
        if in_flight >= IN_FLIGHT {
            return Ok(false);
        }
        let now = self.clock.now().to_utc();
        let Settings { terms, policy, .. } = &self.settings;
        let payable = self.payable(lease, ready, now).await?;
        if payable.is_empty() {
            return Ok(false);
        }
        let (network, node, _) = self.node(memory).await?;
        let network = network.clone();
        let signer = self.signer.address();
        let owed = owed.and_then(wei).unwrap_or_default();
        let base = self.settings.proofs.as_deref();
        let best = node.block(Revision::Best).await.map_err(Obstacle::from)?;
        let best = best.ok_or_else(|| Obstacle::NodeUnavailable(NodeError::UnknownBlock))?;
        let standing = (&node, &network, Revision::Id(best.id));
        let payable = self.in_good_standing(lease, &mut memory.journal, standing, payable).await;
        self.tell(&mut memory.journal).await?;
        let payable = payable?;
        if payable.is_empty() {
            return Ok(false);
        }
        let asking = Asking { network: &network, signer, base, owed };
        let tried = preflight(&node, &asking, &mut memory.journal, (best, payable)).await;
        self.tell(&mut memory.journal).await?;
        let mut found = tried?;
        self.strike(lease, std::mem::take(&mut found.bad)).await?;
        self.afford_price(&found)?;
        let most = terms.most_gas(found.best.gas_limit);
        let too_large = |gas| Obstacle::GasTooLarge { gas, block_limit: found.best.gas_limit };
        let used: Vec<u64> = found.good.iter().map(|candidate| candidate.gas).collect();
        let fitting = gas::fitting(&used, most).map_err(too_large)?;
        found.good.truncate(fitting);
        if found.good.is_empty() {
            return Ok(false);
        }
        self.afford_gas(&node, &found).await?;
        let gas_payer = self.gas_payer.as_ref().map(|payer| payer.address());
        let plan = Plan { lease, network: &network, signer, gas_payer, policy, found: &found, terms };
        let id = plan::store(&plan, &self.pool, self.schemas, now).await?;
        tracing::info!(tx = %id, rewards = found.good.len(), "planned");
        // What the purse holds is paid, and what it lacks is said.
        found.short.map_or(Ok(true), |short| Err(short.into()))
    }

    /// Publishes what was asked of contracts, also where something stood in the way.
    async fn tell(&self, journal: &mut Journal) -> Result<(), RoundError> {
        let (mut outbox, mut documents) =
            (Outbox::default(), Documents::about(EventId(Uuid::now_v7()), self.clock.now()));
        for (ordinal, log) in (0..).zip(&journal.take()) {
            documents.add(ordinal, log);
        }
        outbox.documents(self.schemas, &documents.into_records())?;
        self.publish(outbox).await
    }

    /// Payouts with the address of their wallets, and those that have no wallet on this network.
    pub(super) async fn receivers(
        &self,
        payouts: Vec<Payout>,
    ) -> Result<(Vec<(Payout, Address)>, Vec<Payout>), RoundError> {
        let mainnet = network_label(&self.settings.genesis.to_string()) == "vechain_mainnet";
        let wallets: Vec<Uuid> = payouts.iter().filter_map(|payout| payout.wallet_id).collect();
        let addresses: HashMap<Uuid, String> = sqlx::query_as::<_, (Uuid, String)>(
            "select id, wallet_address from user_wallets where id = any($1) and network::text = $2",
        )
        .bind(wallets)
        .bind(if mainnet { "mainnet" } else { "testnet" })
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .collect();
        let (mut payable, mut gone) = (Vec::new(), Vec::new());
        for payout in payouts {
            let address = payout.wallet_id.and_then(|id| addresses.get(&id)?.parse().ok());
            match address {
                Some(address) => payable.push((payout, address)),
                None => gone.push(payout),
            }
        }
        Ok((payable, gone))
    }

    pub(super) async fn quarantine(
        &self,
        lease: &Lease,
        payouts: Vec<Payout>,
        why: &str,
    ) -> Result<(), RoundError> {
        let mut changed = payouts;
        changed.retain_mut(|payout| payout.moves(PayoutEvent::Refuse));
        for payout in &mut changed {
            payout.revision += 1;
            payout.ready_at = None;
            payout.reason = Some(why.to_owned());
        }
        self.change(lease, changed).await
    }

    async fn strike(&self, lease: &Lease, bad: Vec<(Candidate, Refusal)>) -> Result<(), RoundError> {
        let now = self.clock.now().to_utc();
        let mut changed = Vec::with_capacity(bad.len());
        for (candidate, refusal) in bad {
            let (payout, quarantined) = plan::struck(candidate, &refusal, now);
            tracing::warn!(reward = %payout.reward_id, reason = %refusal, quarantined, "a reward cannot be paid as it is");
            changed.push(payout);
        }
        self.change(lease, changed).await
    }

    /// Stores changed payouts that no transaction pays, and publishes them. One that changed meanwhile is left alone.
    pub(super) async fn change(&self, lease: &Lease, changed: Vec<Payout>) -> Result<(), RoundError> {
        if changed.is_empty() {
            return Ok(());
        }
        let now = self.clock.now().to_utc();
        let mut tx = self.pool.begin().await?;
        lease.hold(&mut tx).await?;
        let ids: Vec<Uuid> = changed.iter().map(|payout| payout.reward_id).collect();
        let before = rows::payouts(&mut tx, &ids).await?;
        let mut outbox = Outbox::default();
        for payout in &changed {
            let still = |row: &Payout| {
                row.reward_id == payout.reward_id
                    && row.state == PayoutState::Ready
                    && row.revision + 1 == payout.revision
            };
            if before.iter().any(still) {
                rows::update_payout(&mut tx, payout).await?;
                self.settings.terms.publisher(self.schemas).payout(payout, now, &mut outbox)?;
                if payout.state == PayoutState::Quarantined {
                    self.metrics.payout_steps.with_label_values(&["quarantined"]).inc();
                }
            }
        }
        outbox.store(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whether the gas payer's VTHO covers this transaction and all that are in no block yet, at the most they may cost.
    async fn afford_gas(&self, node: &Node, found: &Preflight) -> Result<(), RoundError> {
        let payer = self.gas_payer.as_ref().map_or(self.signer.address(), |payer| payer.address());
        let pending: Option<Decimal> = sqlx::query_scalar(
            "select sum(max_fee_wei * gas_limit) from payout_attempts
             where gas_payer = $1 and (state = 'planned' or (state in ('signed', 'sent') and last_valid >= $2))",
        )
        .bind(payer.to_string())
        .bind(i64::from(found.best.number))
        .fetch_one(&self.pool)
        .await?;
        let most = self.settings.terms.most_gas(found.best.gas_limit);
        let tried = plan::tried_gas(&found.good);
        let gas = rewards_gas_limit(tried, found.good.len(), most).map_err(PlanError::from)?;
        // The node holds back what is really due: the next base fee and the tip.
        let price = found.base_fee.and_then(|fee| fee.checked_add(found.priority)).unwrap_or_default();
        let needed = pending
            .and_then(|pending| wei(pending.trunc()))
            .unwrap_or_default()
            .checked_add(price.checked_mul(gas).unwrap_or(Wei::MAX))
            .unwrap_or(Wei::MAX);
        let available = node.account(payer, Revision::Best).await.map_err(Obstacle::from)?.energy;
        if available < needed {
            return Err(Obstacle::NoVtho { payer, needed, available }.into());
        }
        Ok(())
    }
}
