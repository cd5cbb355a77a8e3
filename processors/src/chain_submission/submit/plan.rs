//! A plan: the transaction's id and body are stored before it is signed, in one database transaction under the lease.

use chain::abi::{Cause, Refusal};
use chain::gas::{GasTooLarge, rewards_gas_limit};
use chain::hash::blake2b256;
use chain::signing::SignError;
use chain::tx::TX_GAS;
use chain::{Address, BlockRef, Clause, Fees, TxError, TxId, UnsignedTx, Wei};
use chrono::{DateTime, Utc};
use runtime::StageError;
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::lease::{Lease, LeaseError};
use super::policy::{Policy, Violation};
use super::pool::Pool;
use super::preflight::{Candidate, Preflight};
use super::terms::Terms;
use crate::chain_submission::ledger::machine::PayoutEvent;
use crate::chain_submission::ledger::outbox::{Outbox, Schemas};
use crate::chain_submission::ledger::transition::decimal;
use crate::chain_submission::ledger::{documents, rows};
use crate::chain_submission::network::Network;

/// Why a plan was not made or not signed.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The lease.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database, or an event that does not encode.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The transaction cannot be built or signed.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// A signer or the gas payer gives no signature.
    #[error(transparent)]
    Signer(SignError),
    /// It may not be signed.
    #[error("{0}")]
    Policy(Violation),
    /// The payouts changed since they were tried out: try again.
    #[error("the payouts changed meanwhile")]
    Moved,
    /// Kafka does not keep what must be kept outside of the database before there is a signature.
    #[error("payouts.guard: {0}")]
    Guard(StageError),
    /// The day's ceiling does not hold the batch.
    #[error("the day's ceiling is reached")]
    Ceiling,
    /// A pool for all does not hold the batch.
    #[error("a pool for all is reached")]
    Pool(Pool),
    /// The batch used more gas when it was tried out than may be asked for.
    #[error(transparent)]
    Gas(#[from] GasTooLarge),
    /// Fees or gas do not fit their columns: nothing that a network asks for.
    #[error("fees or gas are out of range")]
    Range,
}

impl From<sqlx::Error> for PlanError {
    fn from(error: sqlx::Error) -> Self {
        Self::Stage(error.into())
    }
}

/// Gas that a transaction of these clauses used when it was tried out.
#[must_use]
pub fn tried_gas(candidates: &[Candidate]) -> u64 {
    candidates.iter().map(|candidate| candidate.gas).fold(TX_GAS, u64::saturating_add)
}

/// A batch's id: blake2b-256 of its (reward, attempt number) pairs, sorted. The nonce is its first eight bytes, so that the same
/// rewards in another attempt make another transaction.
#[must_use]
pub fn batch_id(pairs: &[(Uuid, i32)]) -> [u8; 32] {
    let mut sorted = pairs.to_vec();
    sorted.sort_unstable();
    let bytes: Vec<u8> = sorted
        .iter()
        .flat_map(|(reward, attempt)| [reward.as_bytes().as_slice(), &attempt.to_be_bytes()].concat())
        .collect();
    blake2b256(&[&bytes])
}

/// A batch that was tried out, for one signer under its lease.
#[derive(Clone, Copy)]
pub struct Plan<'a> {
    /// The signer's lease.
    pub lease: &'a Lease,
    /// The network that is paid on.
    pub network: &'a Network,
    /// The distributor.
    pub signer: Address,
    /// Who pays the gas, where it is not the distributor.
    pub gas_payer: Option<Address>,
    /// What will be permitted.
    pub policy: &'a Policy,
    /// What the preflight found.
    pub found: &'a Preflight,
    /// How transactions are made.
    pub terms: &'a Terms,
}

/// Stores a plan: the transaction's id and body, its clauses, and its payouts as in flight. Returns the id.
///
/// # Errors
/// [`PlanError`]; nothing is stored then.
pub async fn store(
    plan: &Plan<'_>,
    pool: &PgPool,
    schemas: Schemas,
    now: DateTime<Utc>,
) -> Result<TxId, PlanError> {
    let Plan { lease, signer, found, .. } = *plan;
    let mut tx = pool.begin().await?;
    lease.hold(&mut tx).await?;
    let ids: Vec<Uuid> = found.good.iter().map(|candidate| candidate.payout.reward_id).collect();
    let locked = rows::payouts(&mut tx, &ids).await?;
    let unchanged = |candidate: &Candidate| locked.contains(&candidate.payout);
    if !found.good.iter().all(unchanged) {
        return Err(PlanError::Moved);
    }
    let numbers = attempt_numbers(&mut tx, &ids).await?;
    let pairs: Vec<(Uuid, i32)> = ids.iter().map(|id| (*id, numbers(*id))).collect();
    let batch = batch_id(&pairs);
    let most = plan.terms.most_gas(found.best.gas_limit);
    let gas = rewards_gas_limit(tried_gas(&found.good), found.good.len(), most)?;
    let unsigned = unsigned(plan, gas, &batch).ok_or(PlanError::Range)?;
    unsigned.check()?;
    let tx_id = unsigned.id(signer);
    insert_attempt(&mut tx, plan, &unsigned, &batch, now).await?;
    insert_clauses(&mut tx, &tx_id, found, &pairs).await?;
    let mut planned = locked;
    for payout in &mut planned {
        if !payout.moves(PayoutEvent::Plan) {
            return Err(PlanError::Moved);
        }
        payout.tx_id = Some(tx_id.to_string());
        // What it waited for is over.
        payout.reason = None;
    }
    rows::update_payouts(&mut tx, &planned).await?;
    unsigned_stage(&mut tx, schemas, &tx_id.to_string(), ("planned", now)).await?;
    tx.commit().await?;
    Ok(tx_id)
}

/// The clauses, in the order of the batch.
async fn insert_clauses(
    tx: &mut PgConnection,
    tx_id: &TxId,
    found: &Preflight,
    pairs: &[(Uuid, i32)],
) -> Result<(), PlanError> {
    let (rewards, numbers): (Vec<Uuid>, Vec<i32>) = pairs.iter().copied().unzip();
    let receivers: Vec<String> = found.good.iter().map(|candidate| candidate.receiver.to_string()).collect();
    let amounts: Vec<Decimal> = found.good.iter().map(|candidate| candidate.payout.amount_wei).collect();
    let weights: Vec<i64> = found
        .good
        .iter()
        .map(|candidate| i64::try_from(candidate.gas).map_err(|_| PlanError::Range))
        .collect::<Result<_, _>>()?;
    sqlx::query(
        "insert into payout_attempt_rewards (tx_id, clause_index, reward_id, attempt_no, receiver, amount_wei, gas_weight, live)
         select $1, at - 1, reward_id, attempt_no, receiver, amount_wei, gas_weight, true
         from unnest($2::uuid[], $3::integer[], $4::text[], $5::numeric[], $6::bigint[]) with ordinality
            as c (reward_id, attempt_no, receiver, amount_wei, gas_weight, at)",
    )
    .bind(tx_id.to_string())
    .bind(rewards)
    .bind(numbers)
    .bind(receivers)
    .bind(amounts)
    .bind(weights)
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes a stage of a transaction that has no signature in its history, and publishes it.
pub(super) async fn unsigned_stage(
    tx: &mut PgConnection,
    schemas: Schemas,
    tx_id: &str,
    (stage, now): (&str, DateTime<Utc>),
) -> Result<(), PlanError> {
    let entry = serde_json::json!({"stage": stage, "at": now, "block_number": null, "confirmations": 0, "reason": null});
    let history: Json<Vec<Value>> = sqlx::query_scalar(
        "update payout_attempts set history = history || $2 where tx_id = $1 returning history",
    )
    .bind(tx_id)
    .bind(Json([entry]))
    .fetch_one(&mut *tx)
    .await?;
    let mut outbox = Outbox::default();
    outbox.documents(schemas, &documents::of_unsigned(tx_id, stage, history.0, now))?;
    outbox.store(tx).await?;
    Ok(())
}

async fn attempt_numbers(
    tx: &mut PgConnection,
    ids: &[Uuid],
) -> Result<impl Fn(Uuid) -> i32 + use<>, PlanError> {
    let used: Vec<(Uuid, i32)> = sqlx::query_as(
        "select reward_id, max(attempt_no) from payout_attempt_rewards where reward_id = any($1) group by reward_id",
    )
    .bind(ids)
    .fetch_all(tx)
    .await?;
    Ok(move |id| used.iter().find(|(used, _)| *used == id).map_or(0, |(_, number)| *number) + 1)
}

fn unsigned(plan: &Plan<'_>, gas: u64, batch: &[u8; 32]) -> Option<UnsignedTx> {
    let Plan { network, gas_payer, policy, found, terms, .. } = *plan;
    let clauses: Vec<Clause> = found.good.iter().map(|candidate| candidate.clause.clone()).collect();
    let fees = match found.base_fee {
        Some(base) => {
            let (most, tip) = terms.strategy.fees(base, found.priority)?;
            let max_fee_per_gas = most.min(policy.gas_price);
            Fees::Dynamic { max_priority_fee_per_gas: tip.min(max_fee_per_gas), max_fee_per_gas }
        }
        None => Fees::Legacy { gas_price_coef: 0 },
    };
    Some(UnsignedTx {
        chain_tag: network.genesis.chain_tag(),
        block_ref: BlockRef::from(found.best.id),
        expiration: terms.expiration,
        clauses,
        fees,
        gas,
        depends_on: None,
        nonce: u64::from_be_bytes(*batch.first_chunk::<8>()?),
        delegated: gas_payer.is_some(),
    })
}

async fn insert_attempt(
    tx: &mut PgConnection,
    plan: &Plan<'_>,
    unsigned: &UnsignedTx,
    batch: &[u8; 32],
    now: DateTime<Utc>,
) -> Result<(), PlanError> {
    let Plan { lease, network, signer, gas_payer, found, terms, .. } = *plan;
    let range = |_| PlanError::Range;
    let (most, tip) = fees(unsigned);
    let tried = tried_gas(&found.good);
    let sum: Decimal = found.good.iter().map(|candidate| candidate.payout.amount_wei).sum();
    let users: Vec<Uuid> = found.good.iter().map(|candidate| candidate.payout.user_id).collect();
    let wallets: Vec<Option<Uuid>> = found.good.iter().map(|candidate| candidate.payout.wallet_id).collect();
    let history = Json(Vec::<Value>::new());
    sqlx::query(
        "insert into payout_attempts (tx_id, genesis_id, signer, gas_payer, batch_id, body, block_ref, last_valid, nonce, gas_limit,
            max_fee_wei, priority_wei, strategy, state, fence, budget_day, contract, app_id, method, expiration, clause_count,
            batch_wei, beneficiary_user, beneficiary_wallet, estimated_gas, planned_at, history)
         values ($1, $2, $3, $26, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'planned', $13, $14, $15, $16, $17, $18, $19, $20, $21,
            $22, $23, $24, $25)",
    )
    .bind(unsigned.id(signer).to_string())
    .bind(network.genesis.to_string())
    .bind(signer.to_string())
    .bind(format!("0x{}", hex::encode(batch)))
    .bind(serde_json::to_vec(unsigned).map_err(|error| StageError::new("store the unsigned transaction", error))?)
    .bind(format!("0x{:016x}", unsigned.block_ref.0))
    .bind(i64::try_from(unsigned.last_valid_block()).map_err(range)?)
    .bind(Decimal::from(unsigned.nonce))
    .bind(i64::try_from(unsigned.gas).map_err(range)?)
    .bind(decimal(most).ok_or(PlanError::Range)?)
    .bind(decimal(tip).ok_or(PlanError::Range)?)
    .bind(terms.strategy.label())
    .bind(lease.epoch)
    .bind(now.date_naive())
    .bind(network.pool.to_string())
    .bind(network.app.to_string())
    .bind(found.method)
    .bind(i64::from(unsigned.expiration))
    .bind(i32::try_from(unsigned.clauses.len()).map_err(range)?)
    .bind(sum)
    .bind(all_same(&users))
    .bind(all_same(&wallets).flatten())
    .bind(i64::try_from(tried).map_err(range)?)
    .bind(now)
    .bind(history)
    .bind(gas_payer.unwrap_or(signer).to_string())
    .execute(tx)
    .await?;
    Ok(())
}

/// The most that a transaction pays per gas and the tip in it; zero for one of the kind without them.
pub(super) fn fees(unsigned: &UnsignedTx) -> (Wei, Wei) {
    match unsigned.fees {
        Fees::Dynamic { max_priority_fee_per_gas, max_fee_per_gas } => {
            (max_fee_per_gas, max_priority_fee_per_gas)
        }
        Fees::Legacy { .. } => (Wei::ZERO, Wei::ZERO),
    }
}

/// The value that all share.
pub(super) fn all_same<T: Copy + PartialEq>(values: &[T]) -> Option<T> {
    let first = *values.first()?;
    values.iter().all(|value| *value == first).then_some(first)
}

/// Pause after a payout's first failure; after the n-th it is n times as long.
const STRIKE_PAUSE: chrono::TimeDelta = chrono::TimeDelta::seconds(30);

/// Counts a failure of a payout's own: quarantined with the fourth, or at once where trying again cannot help.
#[must_use]
pub fn struck(mut candidate: Candidate, refusal: &Refusal, now: DateTime<Utc>) -> (rows::Payout, bool) {
    let payout = &mut candidate.payout;
    payout.strikes += 1;
    payout.revision += 1;
    let (code, permanent) = match refusal.cause {
        Cause::InvalidReceiver => ("invalid_receiver", true),
        Cause::InvalidImpactKey => ("poisoned_clause", true),
        _ => ("poisoned_clause", false),
    };
    let given_up = permanent || payout.strikes > payout.max_retries;
    let quarantined = given_up && payout.moves(PayoutEvent::Refuse);
    payout.reason = Some(format!("{code}: {refusal}"));
    if quarantined {
        payout.ready_at = None;
    } else {
        // Later and later, so that it does not stand in the others' way.
        payout.ready_at = Some(now + STRIKE_PAUSE * payout.strikes);
    }
    (candidate.payout, quarantined)
}
