//! `payouts.updated`: the status of `rewards`, and the rows of `reward_transactions` and `blockchain_transactions`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{AttemptState, PayoutState, PayoutTransaction, PayoutUpdated};
use schemas::ids::natural;
use schemas::payouts::{network_label, transaction_row_id};
use sqlx::{PgConnection, query};
use uuid::Uuid;

use super::chain_events;
use super::fit::{BadValue, Fit};
use super::rewards::{AMOUNT_LIMIT, parent};
use super::rows::{RewardRow, Rows, TransactionRow};
use crate::database::{Table, column};

/// A wei in coins: 10^-18.
const WEI: Decimal = Decimal::from_parts(1, 0, 0, false, 18);
/// Decimals of the columns of coins.
const COLUMN_DECIMALS: u32 = 8;

/// The rows of a changed payout.
pub(super) fn updated(event: &PayoutUpdated) -> Result<Rows, BadValue> {
    let (header, fit) = (&event.header, Fit(event.header.upload_id));
    let amount = fit.within("rewards.granted_amount", event.amount, COLUMN_DECIMALS, AMOUNT_LIMIT)?;
    let (status, distributed_at) = match event.state {
        PayoutState::Waiting | PayoutState::Ready => ("calculated", None),
        PayoutState::InFlight => ("pending", None),
        PayoutState::Paid | PayoutState::Final => ("distributed", event.paid_at),
        PayoutState::Quarantined => ("failed", None),
        PayoutState::Cancelled => ("cancelled", None),
    };
    let reward = RewardRow {
        id: event.reward_id.0,
        user_id: header.user_id.0,
        calculated: None,
        granted: Some(amount),
        status,
        grant_reason: None,
        payout_reason: event.reason.clone(),
        distributed_at: distributed_at.map(|at| at.to_utc()),
        // 0 and 1 are the calculation's and the grant's.
        revision: 2 + event.revision,
        created_at: header.occurred_at.to_utc(),
        at: header.occurred_at.to_utc(),
    };
    let transaction =
        event.transaction.as_ref().map(|attempt| transaction(event, attempt, fit)).transpose()?;
    Ok(Rows { reward: Some(reward), transaction, ..Rows::of(parent(header, &event.stamp)?) })
}

fn transaction(
    event: &PayoutUpdated,
    attempt: &PayoutTransaction,
    fit: Fit,
) -> Result<TransactionRow, BadValue> {
    let int = |column, value: Option<i64>| fit.int(column, value);
    let coins = |column, wei: Option<Decimal>| {
        // Cut to the column's decimals toward zero; the exact wei have a column of their own.
        let coins =
            wei.map(|wei| (wei * WEI).round_dp_with_strategy(COLUMN_DECIMALS, RoundingStrategy::ToZero));
        coins.map(|coins| fit.within(column, coins, COLUMN_DECIMALS, AMOUNT_LIMIT)).transpose()
    };
    let gas_price_wei = fit.wei("blockchain_transactions.gas_price_wei", attempt.gas_price_wei.as_deref())?;
    let fee_wei = fit.wei("blockchain_transactions.fee_wei", attempt.fee_wei.as_deref())?;
    let grid = |column, amount| fit.within(column, amount, COLUMN_DECIMALS, AMOUNT_LIMIT);
    let number = attempt.block.as_ref().map(|block| block.number);
    Ok(TransactionRow {
        reward_id: event.reward_id.0,
        user_id: event.header.user_id.0,
        wallet_id: event.wallet_id,
        amount: event.amount,
        strikes: event.strikes,
        max_retries: event.max_retries,
        status: match attempt.state {
            AttemptState::Signed | AttemptState::Sent | AttemptState::Included => "pending",
            AttemptState::Confirmed | AttemptState::Final | AttemptState::Stray => "confirmed",
            AttemptState::Reverted | AttemptState::RevertedFinal => "reverted",
            AttemptState::Dead => "failed",
        },
        network: network_label(&attempt.genesis_id),
        gas_used: int("blockchain_transactions.gas_used", attempt.gas_used)?,
        reward_gas: int("reward_transactions.gas_used", attempt.reward_gas_used)?,
        gas_price: coins("blockchain_transactions.gas_price", gas_price_wei)?,
        gas_price_wei,
        fee: coins("blockchain_transactions.transaction_fee", fee_wei)?,
        fee_wei,
        reward_fee: attempt
            .reward_fee
            .map(|fee| grid("reward_transactions.transaction_fee", fee))
            .transpose()?,
        batch_amount: grid("blockchain_transactions.amount", attempt.batch_amount)?,
        block_number: int("blockchain_transactions.block_number", number)?,
        attempt: attempt.clone(),
    })
}

/// A reward's transactions.
pub(super) const REWARD_TRANSACTIONS_TABLE: Table = Table { name: "reward_transactions", key: "id" };

// The highest revision wins whole; an undone block raises it, and then block, gas and confirmation go.
const REWARD_TRANSACTIONS: &str = "
insert into reward_transactions as t (id, reward_id, user_id, blockchain_tx_hash, blockchain_network, contract_address,
    from_address, to_address, amount, gas_used, gas_price, transaction_fee, block_number, confirmation_count, status,
    error_message, retry_count, max_retries, created_at, confirmed_at, clause_index, attempt_no, amount_wei, block_id, revision)
select r.id, reward_id, r.user_id, tx_hash, network::reward_transactions_blockchain_network, contract, signer,
    (select w.wallet_address from user_wallets w where w.id = r.wallet_id), amount, gas_used, gas_price, fee, block_number,
    confirmations, status::reward_transactions_status, error, retries, max_retries, created_at, confirmed_at, clause_index,
    attempt_no, amount * 1000000000000000000, block_id, revision
from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[], $9::numeric[],
    $10::int[], $11::numeric[], $12::numeric[], $13::int[], $14::int[], $15::text[], $16::text[], $17::int[], $18::int[],
    $19::timestamptz[], $20::timestamptz[], $21::int[], $22::int[], $23::text[], $24::bigint[])
    as r (id, reward_id, user_id, tx_hash, network, contract, signer, wallet_id, amount, gas_used, gas_price, fee, block_number,
    confirmations, status, error, retries, max_retries, created_at, confirmed_at, clause_index, attempt_no, block_id, revision)
order by r.id
on conflict (reward_id, blockchain_tx_hash) do update set
    to_address = coalesce(t.to_address, excluded.to_address), gas_used = excluded.gas_used, gas_price = excluded.gas_price,
    transaction_fee = excluded.transaction_fee, block_number = excluded.block_number,
    confirmation_count = excluded.confirmation_count, status = excluded.status, error_message = excluded.error_message,
    retry_count = excluded.retry_count, max_retries = excluded.max_retries, confirmed_at = excluded.confirmed_at,
    block_id = excluded.block_id, revision = excluded.revision
where excluded.revision > t.revision";

/// Transactions of the chain.
pub(super) const TRANSACTIONS_TABLE: Table = Table { name: "blockchain_transactions", key: "id" };

// Retries are the greatest of the transaction's rewards, whichever of them tells of a revision first.
const TRANSACTIONS: &str = "
insert into blockchain_transactions as t (id, user_id, transaction_type, tx_hash, blockchain_network, from_address, to_address,
    amount, gas_used, gas_price, transaction_fee, block_number, block_timestamp, confirmation_count, status, error_message,
    retry_count, max_retries, created_at, confirmed_at, genesis_id, block_id, clause_count, gas_payer, gas_price_wei, fee_wei,
    attempt_state, broadcast_count, finalized_at, revision)
select r.id, beneficiary, 'reward_distribution', tx_hash, network::blockchain_transactions_blockchain_network, signer,
    case when r.wallet is null then contract
        else (select w.wallet_address from user_wallets w where w.id = r.wallet) end, amount, gas_used, gas_price, fee, block_number,
    block_timestamp, confirmations, status::blockchain_transactions_status, error, retries, max_retries,
    created_at, confirmed_at, genesis_id, block_id, clauses, gas_payer, gas_price_wei, fee_wei, state, broadcasts, finalized_at,
    revision
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::text[], $8::numeric[], $9::int[],
    $10::numeric[], $11::numeric[], $12::int[], $13::timestamptz[], $14::int[], $15::text[], $16::text[], $17::int[],
    $18::int[], $19::timestamptz[], $20::timestamptz[], $21::text[], $22::text[], $23::int[], $24::text[], $25::numeric[],
    $26::numeric[], $27::text[], $28::int[], $29::timestamptz[], $30::bigint[])
    as r (id, beneficiary, tx_hash, network, signer, wallet, contract, amount, gas_used, gas_price, fee, block_number,
    block_timestamp, confirmations, status, error, retries, max_retries, created_at, confirmed_at, genesis_id, block_id, clauses,
    gas_payer, gas_price_wei, fee_wei, state, broadcasts, finalized_at, revision)
order by tx_hash
on conflict (tx_hash) do update set
    to_address = coalesce(t.to_address, excluded.to_address),
    gas_used = case when excluded.revision > t.revision then excluded.gas_used else t.gas_used end,
    gas_price = case when excluded.revision > t.revision then excluded.gas_price else t.gas_price end,
    transaction_fee = case when excluded.revision > t.revision then excluded.transaction_fee else t.transaction_fee end,
    block_number = case when excluded.revision > t.revision then excluded.block_number else t.block_number end,
    block_timestamp = case when excluded.revision > t.revision then excluded.block_timestamp else t.block_timestamp end,
    confirmation_count = case when excluded.revision > t.revision then excluded.confirmation_count
        else t.confirmation_count end,
    status = case when excluded.revision > t.revision then excluded.status else t.status end,
    error_message = case when excluded.revision > t.revision then excluded.error_message else t.error_message end,
    confirmed_at = case when excluded.revision > t.revision then excluded.confirmed_at else t.confirmed_at end,
    block_id = case when excluded.revision > t.revision then excluded.block_id else t.block_id end,
    gas_price_wei = case when excluded.revision > t.revision then excluded.gas_price_wei else t.gas_price_wei end,
    fee_wei = case when excluded.revision > t.revision then excluded.fee_wei else t.fee_wei end,
    attempt_state = case when excluded.revision > t.revision then excluded.attempt_state else t.attempt_state end,
    broadcast_count = case when excluded.revision > t.revision then excluded.broadcast_count else t.broadcast_count end,
    finalized_at = case when excluded.revision > t.revision then excluded.finalized_at else t.finalized_at end,
    retry_count = greatest(t.retry_count, excluded.retry_count),
    max_retries = greatest(t.max_retries, excluded.max_retries),
    revision = greatest(t.revision, excluded.revision)";

/// Transactions, after the rewards. Of several rows with one key in a batch the highest revision is written.
pub(super) async fn transactions(tx: &mut PgConnection, rows: Vec<TransactionRow>) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let (mut by_reward, mut by_hash) = (BTreeMap::new(), BTreeMap::<String, TransactionRow>::new());
    for row in rows {
        let newest = |kept: &TransactionRow| kept.attempt.revision >= row.attempt.revision;
        let id = natural(&format!("{}/{}", row.reward_id, row.attempt.tx_id));
        if !by_reward.get(&id).is_some_and(newest) {
            by_reward.insert(id, row.clone());
        }
        let kept = by_hash.entry(row.attempt.tx_id.clone()).or_insert_with(|| row.clone());
        let (strikes, retries) = (kept.strikes.max(row.strikes), kept.max_retries.max(row.max_retries));
        if kept.attempt.revision < row.attempt.revision {
            *kept = row;
        }
        (kept.strikes, kept.max_retries) = (strikes, retries);
    }
    let by_reward: Vec<_> = by_reward.into_iter().collect();
    let by_hash: Vec<TransactionRow> = by_hash.into_values().collect();
    reward_transactions(tx, &by_reward).await?;
    let hashes: Vec<String> = by_hash.iter().map(|row| row.attempt.tx_id.clone()).collect();
    chain_events::take_turns(tx, &hashes).await?;
    blockchain_transactions(tx, &by_hash).await?;
    chain_events::hold(tx, &hashes, &[]).await?;
    chain_events::settle(tx, &hashes).await
}

fn time(at: Option<schemas::ids::Micros>) -> Option<DateTime<Utc>> {
    at.map(schemas::ids::Micros::to_utc)
}

async fn reward_transactions(tx: &mut PgConnection, rows: &[(Uuid, TransactionRow)]) -> sqlx::Result<()> {
    query(REWARD_TRANSACTIONS)
        .bind(column(rows, |(id, _)| *id))
        .bind(column(rows, |(_, row)| row.reward_id))
        .bind(column(rows, |(_, row)| row.user_id))
        .bind(column(rows, |(_, row)| row.attempt.tx_id.clone()))
        .bind(column(rows, |(_, row)| row.network))
        .bind(column(rows, |(_, row)| row.attempt.contract.clone()))
        .bind(column(rows, |(_, row)| row.attempt.signer.clone()))
        .bind(column(rows, |(_, row)| row.wallet_id))
        .bind(column(rows, |(_, row)| row.amount))
        .bind(column(rows, |(_, row)| row.reward_gas))
        .bind(column(rows, |(_, row)| row.gas_price))
        .bind(column(rows, |(_, row)| row.reward_fee))
        .bind(column(rows, |(_, row)| row.block_number))
        .bind(column(rows, |(_, row)| row.attempt.confirmations))
        .bind(column(rows, |(_, row)| row.status))
        .bind(column(rows, |(_, row)| row.attempt.error.clone()))
        .bind(column(rows, |(_, row)| row.strikes))
        .bind(column(rows, |(_, row)| row.max_retries))
        .bind(column(rows, |(_, row)| row.attempt.signed_at.to_utc()))
        .bind(column(rows, |(_, row)| time(row.attempt.confirmed_at)))
        .bind(column(rows, |(_, row)| row.attempt.clause_index))
        .bind(column(rows, |(_, row)| row.attempt.attempt_no))
        .bind(column(rows, |(_, row)| row.attempt.block.as_ref().map(|block| block.id.clone())))
        .bind(column(rows, |(_, row)| row.attempt.revision))
        .execute(tx)
        .await?;
    Ok(())
}

async fn blockchain_transactions(tx: &mut PgConnection, rows: &[TransactionRow]) -> sqlx::Result<()> {
    query(TRANSACTIONS)
        .bind(column(rows, |row| transaction_row_id(&row.attempt.genesis_id, &row.attempt.tx_id)))
        .bind(column(rows, |row| row.attempt.beneficiary_user.map(|user| user.0)))
        .bind(column(rows, |row| row.attempt.tx_id.clone()))
        .bind(column(rows, |row| row.network))
        .bind(column(rows, |row| row.attempt.signer.clone()))
        .bind(column(rows, |row| row.attempt.beneficiary_wallet))
        .bind(column(rows, |row| row.attempt.contract.clone()))
        .bind(column(rows, |row| row.batch_amount))
        .bind(column(rows, |row| row.gas_used))
        .bind(column(rows, |row| row.gas_price))
        .bind(column(rows, |row| row.fee))
        .bind(column(rows, |row| row.block_number))
        .bind(column(rows, |row| row.attempt.block.as_ref().map(|block| block.timestamp.to_utc())))
        .bind(column(rows, |row| row.attempt.confirmations))
        .bind(column(rows, |row| row.status))
        .bind(column(rows, |row| row.attempt.error.clone()))
        .bind(column(rows, |row| row.strikes))
        .bind(column(rows, |row| row.max_retries))
        .bind(column(rows, |row| row.attempt.signed_at.to_utc()))
        .bind(column(rows, |row| time(row.attempt.confirmed_at)))
        .bind(column(rows, |row| row.attempt.genesis_id.clone()))
        .bind(column(rows, |row| row.attempt.block.as_ref().map(|block| block.id.clone())))
        .bind(column(rows, |row| row.attempt.clause_count))
        .bind(column(rows, |row| row.attempt.gas_payer.clone()))
        .bind(column(rows, |row| row.gas_price_wei))
        .bind(column(rows, |row| row.fee_wei))
        .bind(column(rows, |row| row.attempt.state.label()))
        .bind(column(rows, |row| row.attempt.broadcast_count))
        .bind(column(rows, |row| time(row.attempt.finalized_at)))
        .bind(column(rows, |row| row.attempt.revision))
        .execute(tx)
        .await?;
    Ok(())
}

#[cfg(test)]
#[path = "payouts_tests.rs"]
mod tests;
