//! The snapshot that reports every change of a payout.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::{BlockPlace, PayoutTransaction, PayoutUpdated, RewardCancelled, UploadHeader};
use schemas::ids::{EventId, Micros, RewardId, UserId, natural};
use uuid::Uuid;

use super::rows::{Attempt, Payout, Transaction};
use super::transition::{share, wei};

/// The id of a payout's n-th change.
#[must_use]
pub fn event_id(reward_id: Uuid, revision: i64) -> EventId {
    EventId(natural(&format!("payout/{reward_id}/{revision}")))
}

/// A payout without a transaction, or one with the clause of `transaction` that pays it.
#[must_use]
pub fn updated(payout: &Payout, transaction: Option<(&Transaction, usize)>, now: Micros) -> PayoutUpdated {
    PayoutUpdated {
        header: UploadHeader {
            event_id: event_id(payout.reward_id, payout.revision),
            occurred_at: now,
            stage_version: crate::VERSION.to_owned(),
            ..payout.header.0.clone()
        },
        stamp: payout.stamp.0.clone(),
        reward_id: RewardId(payout.reward_id),
        revision: payout.revision,
        state: payout.state,
        amount: coins(payout.amount_wei),
        wallet_id: payout.wallet_id,
        claimed_at: payout.claimed_at.map(Micros::from),
        reason: payout.reason.clone(),
        strikes: payout.strikes,
        max_retries: payout.max_retries,
        adjustment: Some(payout.adjustment).filter(|number| *number > 0),
        paid_at: payout.paid_at.map(Micros::from),
        transaction: transaction.map(|(transaction, clause)| payout_transaction(transaction, clause)),
    }
}

/// What gives a cancelled reward's budgets back what it was charged.
#[must_use]
pub fn cancelled(payout: &Payout, reason: &str, now: Micros) -> RewardCancelled {
    RewardCancelled {
        header: UploadHeader {
            event_id: EventId(natural(&format!("cancelled/{}", payout.reward_id))),
            occurred_at: now,
            stage_version: crate::VERSION.to_owned(),
            ..payout.header.0.clone()
        },
        reward_id: RewardId(payout.reward_id),
        granted: coins(payout.amount_wei),
        reason: reason.to_owned(),
    }
}

fn payout_transaction(transaction: &Transaction, at: usize) -> PayoutTransaction {
    let (attempt, clause) = (&transaction.attempt, &transaction.clauses[at]);
    let weights: Vec<i64> = transaction.clauses.iter().map(|clause| clause.gas_weight).collect();
    let gas = attempt.gas_used.and_then(|gas| u128::try_from(gas).ok());
    let fee = attempt.paid_wei.and_then(wei).and_then(chain::Wei::to_u128);
    PayoutTransaction {
        tx_id: attempt.tx_id.clone(),
        revision: attempt.revision,
        genesis_id: attempt.genesis_id.clone(),
        state: attempt.state,
        signer: attempt.signer.clone(),
        gas_payer: attempt.gas_payer.clone(),
        contract: attempt.contract.clone(),
        batch_id: attempt.batch_id.clone(),
        clause_count: attempt.clause_count,
        batch_amount: coins(attempt.batch_wei),
        beneficiary_user: attempt.beneficiary_user.map(UserId),
        beneficiary_wallet: attempt.beneficiary_wallet,
        estimated_gas: attempt.estimated_gas,
        gas_limit: attempt.gas_limit,
        gas_strategy: attempt.strategy.clone(),
        max_fee_wei: attempt.max_fee_wei.normalize().to_string(),
        priority_fee_wei: attempt.priority_wei.normalize().to_string(),
        block_ref: attempt.block_ref.clone(),
        // At most a u32 of blocks; a day has 8,640.
        expiration: i32::try_from(attempt.expiration).unwrap_or(i32::MAX),
        nonce: attempt.nonce.normalize().to_string(),
        broadcast_count: attempt.broadcast_count,
        signed_at: attempt.signed_at.into(),
        block: block(attempt),
        gas_used: attempt.gas_used,
        gas_price_wei: fee.zip(gas).filter(|(_, gas)| *gas > 0).map(|(fee, gas)| (fee / gas).to_string()),
        fee_wei: fee.map(|fee| fee.to_string()),
        confirmations: attempt.confirmations,
        confirmed_at: attempt.confirmed_at.map(Micros::from),
        finalized_at: attempt.finalized_at.map(Micros::from),
        error: attempt.error.clone(),
        clause_index: clause.clause_index,
        attempt_no: clause.attempt_no,
        reward_gas_used: gas.and_then(|gas| i64::try_from(share(gas, &weights, at)).ok()),
        reward_fee: fee.and_then(|fee| grid(share(fee / GRID_WEI, &weights, at))),
    }
}

fn block(attempt: &Attempt) -> Option<BlockPlace> {
    let timestamp: DateTime<Utc> = attempt.block_timestamp?;
    Some(BlockPlace {
        id: attempt.block_id.clone()?,
        number: attempt.block_number?,
        timestamp: timestamp.into(),
    })
}

/// 1e-8 of a coin in wei.
const GRID_WEI: u128 = 10_000_000_000;

/// Units of 1e-8 as coins.
fn grid(units: u128) -> Option<Decimal> {
    Some(Decimal::try_from_i128_with_scale(i128::try_from(units).ok()?, 8).ok()?.normalize())
}

/// Wei as coins: exact for all that these tables hold, multiples of 10^10 wei.
pub fn coins(amount_wei: Decimal) -> Decimal {
    wei(amount_wei).and_then(|wei| wei.to_coins().ok()).unwrap_or_default()
}
