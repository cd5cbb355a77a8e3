//! What the log collections hold of transactions.

use chain::tx::TX_GAS;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::{ActivityLogged, AttemptState};
use schemas::ids::{EventId, Micros, natural};
use schemas::logs::{
    BlockchainTransactionLog, ContractInteractionLog, GasOptimizationLog, History, TransactionMonitoringLog,
};
use schemas::payouts::{network_label, transaction_row_id};
use serde_json::{Value, json};

use super::rows::{Attempt, Transaction};
use super::transition::{Change, share};
use crate::chain_submission::network::REWARDS_POOL;
use crate::documents::Documents;

/// Every transaction of ours pays rewards.
const KIND: &str = "reward_distribution";

/// Documents of one change of a transaction.
#[must_use]
pub fn of_change(
    transaction: &Transaction,
    change: Change,
    at: DateTime<Utc>,
    block_gas: i64,
) -> Vec<ActivityLogged> {
    let attempt = &transaction.attempt;
    let event_id = EventId(natural(&format!("attempt/{}/{}", attempt.tx_id, attempt.revision)));
    let mut documents = Documents::about(event_id, Micros::from(at));
    if let Some(stage) = change.stage() {
        documents.add(0, &monitoring(attempt, stage));
        for (ordinal, clause) in (0..).zip(0..transaction.clauses.len()) {
            documents.add(ordinal, &per_reward(transaction, clause));
        }
    }
    if change == Change::Included {
        for (ordinal, clause) in (0..).zip(0..transaction.clauses.len()) {
            documents.add(ordinal, &sent_clause(transaction, clause));
        }
    }
    if matches!(change, Change::Confirmed | Change::Reverted) {
        for (ordinal, log) in (0..).zip(optimization(attempt, block_gas).into_iter().flatten()) {
            documents.add(ordinal, &log);
        }
    }
    documents.into_records()
}

/// The document of a stage before there is a signature.
#[must_use]
pub fn of_unsigned(tx_id: &str, stage: &str, history: Vec<Value>, at: DateTime<Utc>) -> Vec<ActivityLogged> {
    let event_id = EventId(natural(&format!("attempt/{tx_id}/{stage}")));
    let mut documents = Documents::about(event_id, Micros::from(at));
    documents.add(
        0,
        &TransactionMonitoringLog {
            tx_hash: tx_id.to_owned(),
            transaction_type: KIND.to_owned(),
            monitoring_stage: stage.to_owned(),
            confirmation_blocks: 0,
            gas_used: None,
            gas_price: None,
            block_number: None,
            status_updates: History(history),
        },
    );
    documents.into_records()
}

/// The status of an attempt's state, as the tables have it.
fn status(state: AttemptState) -> &'static str {
    match state {
        AttemptState::Signed | AttemptState::Sent | AttemptState::Included => "pending",
        AttemptState::Confirmed | AttemptState::Final | AttemptState::Stray => "confirmed",
        AttemptState::Reverted | AttemptState::RevertedFinal => "reverted",
        AttemptState::Dead => "failed",
    }
}

/// Wei of VTHO per gas that was paid, and the same as VTHO.
fn gas_price(attempt: &Attempt) -> Option<(Decimal, Decimal)> {
    let gas = attempt.gas_used.filter(|gas| *gas > 0)?;
    let wei = attempt.paid_wei?.checked_div(gas.into())?.trunc();
    Some((wei, wei.checked_mul(Decimal::new(1, 18))?.normalize()))
}

fn monitoring(attempt: &Attempt, stage: &str) -> TransactionMonitoringLog {
    TransactionMonitoringLog {
        tx_hash: attempt.tx_id.clone(),
        transaction_type: KIND.to_owned(),
        monitoring_stage: stage.to_owned(),
        confirmation_blocks: attempt.confirmations.into(),
        gas_used: attempt.gas_used,
        gas_price: gas_price(attempt).map(|(_, vtho)| vtho),
        block_number: attempt.block_number,
        status_updates: History(attempt.history.0.clone()),
    }
}

fn per_reward(transaction: &Transaction, at: usize) -> BlockchainTransactionLog {
    let (attempt, clause) = (&transaction.attempt, &transaction.clauses[at]);
    let payout = transaction.payouts.get(at);
    let price = gas_price(attempt);
    BlockchainTransactionLog {
        transaction_id: transaction_row_id(&attempt.genesis_id, &attempt.tx_id).to_string(),
        reward_id: Some(clause.reward_id.to_string()),
        user_id: payout.map(|payout| payout.user_id.to_string()),
        transaction_type: KIND.to_owned(),
        blockchain_network: network_label(&attempt.genesis_id).to_owned(),
        tx_hash: attempt.tx_id.clone(),
        gas_estimation: json!({
            "estimated_gas": attempt.estimated_gas,
            "gas_limit": attempt.gas_limit,
            "actual_gas": attempt.gas_used,
            "gas_price": price.map(|(_, vtho)| vtho),
            "gas_price_wei": price.map(|(wei, _)| wei.to_string()),
            "max_fee_wei": attempt.max_fee_wei.normalize().to_string(),
            "clause_count": attempt.clause_count,
        }),
        transaction_status: status(attempt.state).to_owned(),
        confirmation_blocks: attempt.confirmations.into(),
        error_details: attempt.error.clone(),
        retry_attempts: payout.map_or(0, |payout| payout.strikes.into()),
        blockchain_metadata: json!({
            "genesis_id": attempt.genesis_id,
            "block_id": attempt.block_id,
            "block_number": attempt.block_number,
            "clause_index": clause.clause_index,
            "attempt_no": clause.attempt_no,
            "batch_id": attempt.batch_id,
            "signer": attempt.signer,
            "gas_payer": attempt.gas_payer,
            "block_ref": attempt.block_ref,
            "expiration": attempt.expiration,
            "nonce": attempt.nonce.normalize().to_string(),
        }),
    }
}

fn sent_clause(transaction: &Transaction, at: usize) -> ContractInteractionLog {
    let (attempt, clause) = (&transaction.attempt, &transaction.clauses[at]);
    let weights: Vec<i64> = transaction.clauses.iter().map(|clause| clause.gas_weight).collect();
    let gas = attempt.gas_used.and_then(|gas| u128::try_from(gas).ok());
    let reverted = attempt.reverted == Some(true);
    ContractInteractionLog {
        contract_address: attempt.contract.clone(),
        contract_name: REWARDS_POOL.to_owned(),
        method_name: attempt.method.clone(),
        parameters: parameters(&attempt.app_id, &clause.amount_wei.normalize().to_string(), &clause.receiver),
        gas_estimated: Some(clause.gas_weight),
        gas_used: gas.and_then(|gas| i64::try_from(share(gas, &weights, at)).ok()),
        success: !reverted,
        return_value: (!reverted).then(|| json!({"events": ["RewardDistributed"]})),
        error_message: attempt.error.clone(),
        call_kind: "send".to_owned(),
        tx_hash: Some(attempt.tx_id.clone()),
    }
}

/// The arguments of a reward's call that differ, by their ABI names; unsigned integers are strings.
pub(in crate::chain_submission) fn parameters(app_id: &str, amount: &str, receiver: &str) -> Value {
    json!({"appId": app_id, "amount": amount, "receiver": receiver})
}

fn optimization(attempt: &Attempt, block_gas: i64) -> Option<[GasOptimizationLog; 2]> {
    let actual = attempt.gas_used?;
    let price = gas_price(attempt)?.1;
    let log = |method: &str, savings: i64| GasOptimizationLog {
        transaction_id: transaction_row_id(&attempt.genesis_id, &attempt.tx_id).to_string(),
        gas_strategy: attempt.strategy.clone(),
        estimated_gas: attempt.estimated_gas,
        actual_gas: actual,
        gas_price_used: price,
        gas_savings: savings,
        optimization_method: method.to_owned(),
    };
    let batched = match attempt.state {
        AttemptState::Reverted | AttemptState::RevertedFinal => -actual,
        // A batch of N saves a transaction's own gas N - 1 times against N single ones.
        _ => TX_GAS.cast_signed() * i64::from(attempt.clause_count - 1),
    };
    Some([log("batch_processing", batched), log("gas_estimation", block_gas - attempt.gas_limit)])
}
