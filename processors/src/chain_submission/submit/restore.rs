//! The rows of a transaction that was found on the chain and not in the books: as it was signed, sent, and its payouts in flight.

use chain::abi::RewardCall;
use chain::node::ExpandedBlock;
use chain::tx::{TX_GAS, clause_gas};
use chain::{Clause, SignedTx};
use chrono::{DateTime, Utc};
use runtime::StageError;
use rust_decimal::Decimal;
use sqlx::PgConnection;
use uuid::Uuid;

use super::lease::Lease;
use super::plan::{PlanError, all_same, fees};
use super::terms::Terms;
use crate::chain_submission::ledger::machine::PayoutEvent;
use crate::chain_submission::ledger::rows::{self, Payout};
use crate::chain_submission::ledger::transition::decimal;
use crate::chain_submission::network::Network;
use crate::chain_submission::payments::PayingTransaction;

/// A transaction as the chain shows it.
pub(super) struct Restored<'a> {
    /// What it paid.
    pub transaction: &'a PayingTransaction,
    /// Its content.
    pub signed: &'a SignedTx,
    /// Its bytes.
    pub raw: &'a [u8],
    /// Its block.
    pub block: &'a ExpandedBlock,
    /// Its network.
    pub network: &'a Network,
}

/// Stores it as sent, with its clauses live and its payouts in flight. A plan of the same id, whose signature was lost, becomes it.
pub(super) async fn restore(
    tx: &mut PgConnection,
    restored: &Restored<'_>,
    payouts: &[Payout],
    (lease, terms): (&Lease, &Terms),
) -> Result<(), PlanError> {
    let id = restored.transaction.tx_id.to_string();
    restored.store_attempt(tx, payouts, (lease, terms)).await?;
    let clauses = &restored.signed.unsigned().clauses;
    for payment in &restored.transaction.payments {
        let clause = usize::try_from(payment.clause).ok().and_then(|at| clauses.get(at));
        sqlx::query(
            "insert into payout_attempt_rewards (tx_id, clause_index, reward_id, attempt_no, receiver, amount_wei, gas_weight, live)
             select $1, $2, $3, coalesce(max(attempt_no), 0) + 1, $4, $5, $6, true
             from payout_attempt_rewards where reward_id = $3
             on conflict (tx_id, clause_index) do update set live = true",
        )
        .bind(&id)
        .bind(i32::try_from(payment.clause).map_err(|_| PlanError::Range)?)
        .bind(payment.reward_id)
        .bind(payment.receiver.to_string())
        .bind(decimal(payment.amount))
        .bind(i64::try_from(clause.map_or(0, clause_gas)).map_err(|_| PlanError::Range)?)
        .execute(&mut *tx)
        .await?;
    }
    for payout in payouts {
        let mut payout = payout.clone();
        // One that a plan of the same id has in flight stays there.
        payout.moves(PayoutEvent::Restore);
        payout.ready_at = None;
        payout.reason = None;
        payout.tx_id = Some(id.clone());
        rows::update_payout(tx, &payout).await?;
    }
    Ok(())
}

impl Restored<'_> {
    async fn store_attempt(
        &self,
        tx: &mut PgConnection,
        payouts: &[Payout],
        (lease, terms): (&Lease, &Terms),
    ) -> Result<(), PlanError> {
        let (unsigned, range) = (self.signed.unsigned(), |_| PlanError::Range);
        // When it was signed is lost: before its block.
        let at = DateTime::<Utc>::from_timestamp(i64::try_from(self.block.timestamp).map_err(range)?, 0);
        let at = at.ok_or(PlanError::Range)?;
        let sum: Decimal = payouts.iter().map(|payout| payout.amount_wei).sum();
        let users: Vec<Uuid> = payouts.iter().map(|payout| payout.user_id).collect();
        let wallets: Vec<Option<Uuid>> = payouts.iter().map(|payout| payout.wallet_id).collect();
        let (most, tip) = fees(unsigned);
        let id = self.transaction.tx_id.to_string();
        let method = unsigned.clauses.first().and_then(|clause| RewardCall::decode(&clause.data));
        let body = serde_json::to_vec(unsigned);
        let body = body.map_err(|error| StageError::new("store a transaction", error))?;
        let gas = unsigned
            .clauses
            .iter()
            .map(|clause: &Clause| clause_gas(clause))
            .fold(TX_GAS, u64::saturating_add);
        charge(tx, at, sum).await?;
        sqlx::query(
            "insert into payout_attempts (tx_id, genesis_id, signer, gas_payer, batch_id, body, raw, block_ref, last_valid, nonce,
                gas_limit, max_fee_wei, priority_wei, strategy, state, fence, budget_day, contract, app_id, method, expiration,
                clause_count, batch_wei, beneficiary_user, beneficiary_wallet, estimated_gas, planned_at, signed_at, sent_at)
             values ($1, $2, $3, $4, $1, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'sent', $14, $15, $16, $17, $18, $19, $20, $21, $22,
                $23, $24, $25, $25, $25)
             on conflict (tx_id) do update set raw = excluded.raw, state = 'sent', signed_at = excluded.signed_at,
                sent_at = excluded.sent_at, budget_day = excluded.budget_day",
        )
        // Which attempts of its rewards it was planned for is lost: its id stands for the batch as well.
        .bind(&id)
        .bind(self.network.genesis.to_string())
        .bind(self.signed.origin().to_string())
        .bind(self.signed.gas_payer().to_string())
        .bind(body)
        .bind(self.raw)
        .bind(format!("0x{:016x}", unsigned.block_ref.0))
        .bind(i64::try_from(unsigned.last_valid_block()).map_err(range)?)
        .bind(Decimal::from(unsigned.nonce))
        .bind(i64::try_from(unsigned.gas).map_err(range)?)
        .bind(decimal(most).ok_or(PlanError::Range)?)
        .bind(decimal(tip).ok_or(PlanError::Range)?)
        .bind(terms.strategy.label())
        .bind(lease.epoch)
        .bind(at.date_naive())
        .bind(self.network.pool.to_string())
        .bind(self.network.app.to_string())
        .bind(method.map_or("", |(kind, _)| kind.method()))
        .bind(i64::from(unsigned.expiration))
        .bind(i32::try_from(unsigned.clauses.len()).map_err(range)?)
        .bind(sum)
        .bind(all_same(&users))
        .bind(all_same(&wallets).flatten())
        .bind(i64::try_from(gas).map_err(range)?)
        .bind(at)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Charges the day of its block, whatever the ceiling: it is spent.
async fn charge(tx: &mut PgConnection, at: DateTime<Utc>, amount: Decimal) -> Result<(), PlanError> {
    sqlx::query(
        "insert into payout_budgets as b (day, ceiling_wei, spent_wei) values ($1, $2, $2)
         on conflict (day) do update set ceiling_wei = greatest(b.ceiling_wei, b.spent_wei + $2), spent_wei = b.spent_wei + $2",
    )
    .bind(at.date_naive())
    .bind(amount)
    .execute(tx)
    .await?;
    Ok(())
}
