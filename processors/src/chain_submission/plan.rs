//! Plan and signature: the transaction's id is stored before it is signed, its bytes are stored before they are posted. Each is one
//! database transaction under the lease.

use chain::abi::{Cause, Refusal};
use chain::gas::{GasTooLarge, gas_limit};
use chain::hash::blake2b256;
use chain::tx::{MAX_TX_GAS, TX_GAS};
use chain::{Address, BlockRef, Body, Clause, Fees, SignedTx, Signer, TxError, TxId, Wei};
use chrono::{DateTime, Utc};
use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::PayoutState;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::consumer::tell;
use super::lease::{Lease, LeaseError};
use super::network::Network;
use super::outbox::{Outbox, Schemas};
use super::preflight::{Candidate, Preflight};
use super::rows::{self, Which};
use super::transition::{Step, decimal, wei};

/// What is offered for gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// At most 1.25 times the next base fee; the suggested tip.
    Low,
    /// At most twice the next base fee, which survives 17 full blocks; twice the tip.
    Medium,
    /// At most four times the next base fee; five times the tip.
    High,
}

impl Strategy {
    /// Reads the configuration's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High].into_iter().find(|strategy| strategy.label() == text)
    }

    /// The word in tables and configuration.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// Most per gas and tip, from the next base fee and the suggested tip; the tip is never above the most.
    fn fees(self, base_fee: Wei, tip: Wei) -> Option<(Wei, Wei)> {
        let (quarters, tips) = match self {
            Self::Low => (5, 1),
            Self::Medium => (8, 2),
            Self::High => (16, 5),
        };
        let most = Wei(base_fee.checked_mul(quarters)?.0 >> 2);
        let tip = tip.checked_mul(tips)?;
        let most = most.checked_add(tip)?;
        Some((most, tip))
    }
}

/// How transactions are made.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Blocks after the reference in which a transaction is valid.
    pub expiration: u32,
    /// Gas that a transaction of ours may ask for.
    pub gas_ceiling: u64,
    /// What is offered for gas.
    pub strategy: Strategy,
    /// Wei of B3TR that may be signed for in a day.
    pub daily_ceiling: Wei,
}

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
    /// The payouts changed since they were tried out: try again.
    #[error("the payouts changed meanwhile")]
    Moved,
    /// The day's ceiling does not hold the batch.
    #[error("the day's ceiling is reached")]
    Ceiling,
    /// The batch used more gas when it was tried out than may be asked for.
    #[error(transparent)]
    Gas(#[from] GasTooLarge),
    /// Fees or gas do not fit their columns: nothing that a network asks for.
    #[error("fees or gas are out of range")]
    Range,
}

impl Terms {
    /// Gas that a transaction may ask for at most while a block holds `block_limit`: by our terms, the network's and the block's.
    #[must_use]
    pub fn most_gas(&self, block_limit: u64) -> u64 {
        self.gas_ceiling.min(MAX_TX_GAS).min(block_limit)
    }
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

/// Stores a plan: the transaction's id and body, its clauses, and its payouts as in flight. Returns the id.
///
/// # Errors
/// [`PlanError`]; nothing is stored then.
pub async fn store(
    pool: &PgPool,
    lease: &Lease,
    network: &Network,
    signer: Address,
    found: &Preflight,
    terms: &Terms,
    now: DateTime<Utc>,
) -> Result<TxId, PlanError> {
    let mut tx = pool.begin().await?;
    lease.hold(&mut tx).await?;
    let ids: Vec<Uuid> = found.good.iter().map(|candidate| candidate.payout.reward_id).collect();
    let locked = rows::payouts(&mut tx, &ids).await?;
    let unchanged = |candidate: &Candidate| locked.contains(&candidate.payout);
    if !found.good.iter().all(unchanged) || locked.iter().any(|payout| payout.state != PayoutState::Ready) {
        return Err(PlanError::Moved);
    }
    let numbers = attempt_numbers(&mut tx, &ids).await?;
    let pairs: Vec<(Uuid, i32)> = ids.iter().map(|id| (*id, numbers(*id))).collect();
    let batch = batch_id(&pairs);
    let gas = gas_limit(tried_gas(&found.good), terms.most_gas(found.best.gas_limit))?;
    let body = body(network, found, (terms, gas), &batch).ok_or(PlanError::Range)?;
    body.check()?;
    let tx_id = body.id(signer);
    insert_attempt(&mut tx, lease, network, signer, found, terms, (&body, tx_id, &batch), now).await?;
    for ((index, candidate), (_, attempt_no)) in (0..).zip(&found.good).zip(&pairs) {
        sqlx::query(
            "insert into payout_attempt_rewards (tx_id, clause_index, reward_id, attempt_no, receiver, amount_wei, gas_weight, live)
             values ($1, $2, $3, $4, $5, $6, $7, true)",
        )
        .bind(tx_id.to_string())
        .bind::<i32>(index)
        .bind(candidate.payout.reward_id)
        .bind(attempt_no)
        .bind(candidate.receiver.to_string())
        .bind(candidate.payout.amount_wei)
        .bind(i64::try_from(candidate.gas).map_err(|_| PlanError::Range)?)
        .execute(&mut *tx)
        .await?;
    }
    sqlx::query(
        "update payouts set state = 'in_flight', tx_id = $2, updated_at = now() where reward_id = any($1)",
    )
    .bind(&ids)
    .bind(tx_id.to_string())
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(tx_id)
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

fn body(network: &Network, found: &Preflight, (terms, gas): (&Terms, u64), batch: &[u8; 32]) -> Option<Body> {
    let clauses: Vec<Clause> = found.good.iter().map(|candidate| candidate.clause.clone()).collect();
    let fees = match found.base_fee {
        Some(base) => {
            let (max_fee_per_gas, max_priority_fee_per_gas) = terms.strategy.fees(base, found.priority)?;
            Fees::Dynamic { max_priority_fee_per_gas, max_fee_per_gas }
        }
        None => Fees::Legacy { gas_price_coef: 0 },
    };
    Some(Body {
        chain_tag: network.genesis.chain_tag(),
        block_ref: BlockRef::from(found.best.id),
        expiration: terms.expiration,
        clauses,
        fees,
        gas,
        depends_on: None,
        nonce: u64::from_be_bytes(*batch.first_chunk::<8>()?),
        delegated: false,
    })
}

#[allow(clippy::too_many_arguments, reason = "a row of many columns, written in one place")]
async fn insert_attempt(
    tx: &mut PgConnection,
    lease: &Lease,
    network: &Network,
    signer: Address,
    found: &Preflight,
    terms: &Terms,
    (body, tx_id, batch): (&Body, TxId, &[u8; 32]),
    now: DateTime<Utc>,
) -> Result<(), PlanError> {
    let range = |_| PlanError::Range;
    let (most, tip) = match body.fees {
        Fees::Dynamic { max_priority_fee_per_gas, max_fee_per_gas } => {
            (max_fee_per_gas, max_priority_fee_per_gas)
        }
        Fees::Legacy { .. } => (Wei::ZERO, Wei::ZERO),
    };
    let tried = tried_gas(&found.good);
    let sum: Decimal = found.good.iter().map(|candidate| candidate.payout.amount_wei).sum();
    let users: Vec<Uuid> = found.good.iter().map(|candidate| candidate.payout.user_id).collect();
    let wallets: Vec<Option<Uuid>> = found.good.iter().map(|candidate| candidate.payout.wallet_id).collect();
    let history = serde_json::json!([{"stage": "planned", "at": now, "block_number": null, "confirmations": 0, "reason": null}]);
    sqlx::query(
        "insert into payout_attempts (tx_id, genesis_id, signer, gas_payer, batch_id, body, block_ref, last_valid, nonce, gas_limit,
            max_fee_wei, priority_wei, strategy, state, fence, budget_day, contract, app_id, method, expiration, clause_count,
            batch_wei, beneficiary_user, beneficiary_wallet, estimated_gas, planned_at, history)
         values ($1, $2, $3, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'planned', $13, $14, $15, $16, $17, $18, $19, $20, $21,
            $22, $23, $24, $25)",
    )
    .bind(tx_id.to_string())
    .bind(network.genesis.to_string())
    .bind(signer.to_string())
    .bind(format!("0x{}", hex::encode(batch)))
    .bind(serde_json::to_vec(body).map_err(|error| StageError::new("store the body", error))?)
    .bind(format!("0x{:016x}", body.block_ref.0))
    .bind(i64::try_from(body.last_valid_block()).map_err(range)?)
    .bind(Decimal::from(body.nonce))
    .bind(i64::try_from(body.gas).map_err(range)?)
    .bind(decimal(most).ok_or(PlanError::Range)?)
    .bind(decimal(tip).ok_or(PlanError::Range)?)
    .bind(terms.strategy.label())
    .bind(lease.epoch)
    .bind(now.date_naive())
    .bind(network.pool.to_string())
    .bind(network.app.to_string())
    .bind(found.method)
    .bind(i64::from(body.expiration))
    .bind(i32::try_from(body.clauses.len()).map_err(range)?)
    .bind(sum)
    .bind(all_same(&users))
    .bind(all_same(&wallets).flatten())
    .bind(i64::try_from(tried).map_err(range)?)
    .bind(now)
    .bind(history)
    .execute(tx)
    .await?;
    Ok(())
}

fn all_same<T: Copy + PartialEq>(values: &[T]) -> Option<T> {
    let first = *values.first()?;
    values.iter().all(|value| *value == first).then_some(first)
}

/// A plan that has not been signed.
#[derive(Clone, Debug, FromRow)]
pub struct Planned {
    /// The transaction's id.
    pub tx_id: String,
    body: Vec<u8>,
    /// Last block that may hold it.
    pub last_valid: i64,
    /// Blocks after the reference in which it is valid.
    pub expiration: i64,
    batch_wei: Decimal,
}

/// Plans of a signer that were not signed, the oldest first.
///
/// # Errors
/// Postgres'.
pub async fn unsigned(pool: &PgPool, signer: Address) -> sqlx::Result<Vec<Planned>> {
    sqlx::query_as(
        "select tx_id, body, last_valid, expiration, batch_wei from payout_attempts
         where signer = $1 and state = 'planned' order by planned_at",
    )
    .bind(signer.to_string())
    .fetch_all(pool)
    .await
}

/// Signs a plan and stores its bytes, charging the day's budget. Signing is deterministic (RFC 6979): after a crash the same plan
/// gives the same bytes.
///
/// # Errors
/// [`PlanError::Ceiling`] where the day's budget does not hold it; [`PlanError::Moved`] where it is no plan any more.
pub async fn sign(
    pool: &PgPool,
    lease: &Lease,
    schemas: Schemas,
    signer: &Signer,
    plan: &Planned,
    terms: &Terms,
    now: DateTime<Utc>,
) -> Result<(), PlanError> {
    let body: Body =
        serde_json::from_slice(&plan.body).map_err(|error| StageError::new("read the body", error))?;
    let signed = SignedTx::sign(body, signer)?;
    if signed.id().to_string() != plan.tx_id {
        return Err(StageError::new("sign", "the plan is another signer's").into());
    }
    let mut tx = pool.begin().await?;
    lease.hold(&mut tx).await?;
    charge(&mut tx, now, plan.batch_wei, terms).await?;
    let done = sqlx::query(
        "update payout_attempts set raw = $2, state = 'signed', signed_at = $3, budget_day = $4
         where tx_id = $1 and state = 'planned'",
    )
    .bind(&plan.tx_id)
    .bind(signed.encode())
    .bind(now)
    .bind(now.date_naive())
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() != 1 {
        return Err(PlanError::Moved);
    }
    let mut outbox = Outbox::default();
    let ids = [plan.tx_id.clone()];
    for mut transaction in rows::transactions(&mut tx, Which::Ids(&ids)).await? {
        transaction.note(Step::Signed, now);
        rows::update_transaction(&mut tx, &transaction).await?;
        let ceiling = i64::try_from(terms.gas_ceiling).unwrap_or(i64::MAX);
        tell(schemas, &transaction, Step::Signed, now, ceiling, &mut outbox)?;
    }
    outbox.store(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Charges the day of the signature.
async fn charge(
    tx: &mut PgConnection,
    now: DateTime<Utc>,
    amount: Decimal,
    terms: &Terms,
) -> Result<(), PlanError> {
    let ceiling = decimal(terms.daily_ceiling).ok_or(PlanError::Range)?;
    let charged = sqlx::query(
        "insert into payout_budgets as b (day, ceiling_wei, spent_wei)
         select $1, $2, $3 where $3 <= $2
         on conflict (day) do update set ceiling_wei = greatest($2, b.spent_wei), spent_wei = b.spent_wei + $3
         where b.spent_wei + $3 <= $2",
    )
    .bind(now.date_naive())
    .bind(ceiling)
    .bind(amount)
    .execute(tx)
    .await?;
    if charged.rows_affected() == 1 { Ok(()) } else { Err(PlanError::Ceiling) }
}

/// Whether the day's budget holds `amount` wei more.
///
/// # Errors
/// Postgres'.
pub async fn budget_left(pool: &PgPool, now: DateTime<Utc>, terms: &Terms) -> sqlx::Result<Wei> {
    let spent: Option<Decimal> = sqlx::query_scalar("select spent_wei from payout_budgets where day = $1")
        .bind(now.date_naive())
        .fetch_optional(pool)
        .await?;
    let spent = spent.and_then(wei).unwrap_or_default();
    Ok(terms.daily_ceiling.checked_sub(spent).unwrap_or_default())
}

/// Gives up a plan that was never signed: no bytes of it exist, so that it can be on no chain. Its payouts are ready again.
///
/// # Errors
/// [`PlanError`].
pub async fn abandon(
    pool: &PgPool,
    lease: &Lease,
    plan: &Planned,
    now: DateTime<Utc>,
) -> Result<(), PlanError> {
    let mut tx = pool.begin().await?;
    lease.hold(&mut tx).await?;
    let done = sqlx::query(
        "update payout_attempts set state = 'abandoned' where tx_id = $1 and state = 'planned' and raw is null",
    )
    .bind(&plan.tx_id)
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() != 1 {
        return Err(PlanError::Moved);
    }
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "update payout_attempt_rewards set live = false where tx_id = $1 returning reward_id",
    )
    .bind(&plan.tx_id)
    .fetch_all(&mut *tx)
    .await?;
    sqlx::query(
        "update payouts set state = 'ready', ready_at = $2, tx_id = null, updated_at = now()
         where reward_id = any($1) and state = 'in_flight'",
    )
    .bind(&ids)
    .bind(now)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// The block that a plan refers to lies too far back: less than half of its window is left.
#[must_use]
pub fn is_stale(plan: &Planned, best: u32) -> bool {
    i64::from(best) > plan.last_valid - plan.expiration / 2
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
    let quarantined = permanent || payout.strikes > payout.max_retries;
    payout.reason = Some(format!("{code}: {refusal}"));
    if quarantined {
        payout.state = PayoutState::Quarantined;
        payout.ready_at = None;
    } else {
        // Later and later, so that it does not stand in the others' way.
        payout.ready_at = Some(now + STRIKE_PAUSE * payout.strikes);
    }
    (candidate.payout, quarantined)
}
