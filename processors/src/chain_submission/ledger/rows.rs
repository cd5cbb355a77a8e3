//! Payouts and their transactions as they stand in the tables, which this stage alone writes.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::{AttemptState, PayoutState, Stamp, UploadHeader};
use serde_json::Value;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

/// A row of `payouts`.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct Payout {
    /// The reward.
    pub reward_id: Uuid,
    /// Whose.
    pub user_id: Uuid,
    /// The wallet to be paid, once known.
    pub wallet_id: Option<Uuid>,
    /// What is owed, wei.
    pub amount_wei: Decimal,
    /// The newest adjustment that the amount has taken, or that was refused; 0 where there is none.
    pub adjustment: i32,
    /// Where it stands.
    #[sqlx(try_from = "String")]
    pub state: PayoutState,
    /// Failures of its own.
    pub strikes: i32,
    /// Failures of its own that are allowed.
    pub max_retries: i32,
    /// When it was claimed.
    pub claimed_at: Option<DateTime<Utc>>,
    /// Why it waits or is quarantined.
    pub reason: Option<String>,
    /// Changes so far.
    pub revision: i64,
    /// Final reverts without a culprit so far: its next batch holds the usual number of rewards halved so often.
    pub splits: i32,
    /// The network that it is paid on; none for one granted before networks were noted.
    pub genesis_id: Option<String>,
    /// Kilometres that are rewarded; none for one granted before they were noted.
    pub distance_km: Option<Decimal>,
    /// The grant's header.
    pub header: Json<UploadHeader>,
    /// The grant's stamp.
    pub stamp: Json<Stamp>,
    /// Since when it is ready.
    pub ready_at: Option<DateTime<Utc>>,
    /// When 12 confirmations were seen.
    pub paid_at: Option<DateTime<Utc>>,
    /// Its newest signed transaction.
    pub tx_id: Option<String>,
}

/// A row of `payout_attempts` that was signed.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct Attempt {
    /// The transaction's id.
    pub tx_id: String,
    /// The network.
    pub genesis_id: String,
    /// The distributor.
    pub signer: String,
    /// Who pays the gas.
    pub gas_payer: String,
    /// The pool.
    pub contract: String,
    /// The app whose purse pays.
    pub app_id: String,
    /// The pool's function that every clause calls.
    pub method: String,
    /// Of the rewards and attempt numbers.
    pub batch_id: String,
    /// Eight bytes as hex.
    pub block_ref: String,
    /// Blocks.
    pub expiration: i64,
    /// Last block that may hold it.
    pub last_valid: i64,
    /// The salt.
    pub nonce: Decimal,
    /// Gas limit.
    pub gas_limit: i64,
    /// Simulated and intrinsic gas.
    pub estimated_gas: i64,
    /// Wei of VTHO per gas.
    pub max_fee_wei: Decimal,
    /// Wei of VTHO per gas.
    pub priority_wei: Decimal,
    /// `low`, `medium`, `high`.
    pub strategy: String,
    /// Where it stands.
    #[sqlx(try_from = "String")]
    pub state: AttemptState,
    /// Its block.
    pub block_id: Option<String>,
    /// Its block's height.
    pub block_number: Option<i64>,
    /// Its block's time.
    pub block_timestamp: Option<DateTime<Utc>>,
    /// Whether all its clauses failed.
    pub reverted: Option<bool>,
    /// Gas used.
    pub gas_used: Option<i64>,
    /// Wei of VTHO paid.
    pub paid_wei: Option<Decimal>,
    /// Times that it was posted.
    pub broadcast_count: i32,
    /// Clauses.
    pub clause_count: i32,
    /// Wei of B3TR of all clauses.
    pub batch_wei: Decimal,
    /// The user whom all clauses pay.
    pub beneficiary_user: Option<Uuid>,
    /// The wallet that all clauses pay.
    pub beneficiary_wallet: Option<Uuid>,
    /// When its bytes were stored.
    pub signed_at: DateTime<Utc>,
    /// When it was first posted.
    pub sent_at: Option<DateTime<Utc>>,
    /// Blocks on top of its own, at most 12.
    pub confirmations: i32,
    /// When the 12th was seen.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// When its block was seen as final.
    pub finalized_at: Option<DateTime<Utc>>,
    /// What is wrong with it.
    pub error: Option<String>,
    /// The stages of its life.
    pub history: Json<Vec<Value>>,
    /// Changes so far.
    pub revision: i64,
}

/// A row of `payout_attempt_rewards`: a clause.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub struct PaidClause {
    /// The transaction.
    pub tx_id: String,
    /// From 0.
    pub clause_index: i32,
    /// The reward that it pays.
    pub reward_id: Uuid,
    /// The reward's how many-eth transaction, from 1.
    pub attempt_no: i32,
    /// Whom it pays.
    pub receiver: String,
    /// Wei of B3TR.
    pub amount_wei: Decimal,
    /// Simulated and intrinsic gas of the clause.
    pub gas_weight: i64,
}

/// A signed transaction with its clauses in order, and the payouts that they pay, in the same order.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// The transaction.
    pub attempt: Attempt,
    /// Its clauses.
    pub clauses: Vec<PaidClause>,
    /// What they pay.
    pub payouts: Vec<Payout>,
}

const PAYOUT: &str =
    "reward_id, user_id, wallet_id, amount_wei, adjustment, state, strikes, max_retries, claimed_at, reason, revision,
    splits, genesis_id, distance_km, header, stamp, ready_at, paid_at, tx_id";

/// A payout by its reward, locked.
pub async fn payout(tx: &mut PgConnection, reward_id: Uuid) -> sqlx::Result<Option<Payout>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {PAYOUT} from payouts where reward_id = $1 for update"
    )))
    .bind(reward_id)
    .fetch_optional(tx)
    .await
}

/// Payouts by their rewards, locked in one order.
pub async fn payouts(tx: &mut PgConnection, reward_ids: &[Uuid]) -> sqlx::Result<Vec<Payout>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {PAYOUT} from payouts where reward_id = any($1) order by reward_id for update"
    )))
    .bind(reward_ids)
    .fetch_all(tx)
    .await
}

/// Payouts of a user that are claimed by themselves and do not come to enough for it yet, locked in one order; those whose reading was
/// corrected are not paid.
pub async fn gathering(
    tx: &mut PgConnection,
    (user_id, genesis_id): (Uuid, &str),
) -> sqlx::Result<Vec<Payout>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {PAYOUT} from payouts p where user_id = $1 and state = 'waiting' and claimed_at is null
            and (stamp ->> 'auto_claim')::boolean and coalesce(genesis_id, $2) = $2
            and not exists (select 1 from payout_corrections c where c.reward_id = p.reward_id)
         order by reward_id for update"
    )))
    .bind(user_id)
    .bind(genesis_id)
    .fetch_all(tx)
    .await
}

/// Payouts of a network that are ready at `now`, the longest waiting first; those of accounts that are held wait, and so do those that may
/// be raised; those whose reading was corrected are not paid.
pub async fn ready(
    pool: &PgPool,
    genesis_id: &str,
    now: DateTime<Utc>,
    limit: i64,
) -> sqlx::Result<Vec<Payout>> {
    sqlx::query_as(sqlx::AssertSqlSafe(format!(
        "select {PAYOUT} from payouts p where state = 'ready' and ready_at <= $1 and coalesce(genesis_id, $3) = $3
            and not exists (select 1 from users u where u.id = p.user_id and (not u.is_active or u.held_at is not null))
            and not exists (select 1 from payout_corrections c where c.reward_id = p.reward_id)
            and not exists (select 1 from payout_adjustments a
                where a.reward_id = p.reward_id and a.ended_at is null and a.granted > a.granted_before)
         order by ready_at, reward_id limit $2"
    )))
    .bind(now)
    .bind(limit)
    .bind(genesis_id)
    .fetch_all(pool)
    .await
}

/// Inserts a payout; false where its reward has one already.
pub async fn insert_payout(tx: &mut PgConnection, payout: &Payout) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "insert into payouts (reward_id, user_id, wallet_id, amount_wei, state, claimed_at, reason, revision, header, stamp,
            ready_at, genesis_id, distance_km, adjustment, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, now()) on conflict (reward_id) do nothing",
    )
    .bind(payout.reward_id)
    .bind(payout.user_id)
    .bind(payout.wallet_id)
    .bind(payout.amount_wei)
    .bind(payout.state.label())
    .bind(payout.claimed_at)
    .bind(&payout.reason)
    .bind(payout.revision)
    .bind(&payout.header)
    .bind(&payout.stamp)
    .bind(payout.ready_at)
    .bind(&payout.genesis_id)
    .bind(payout.distance_km)
    .bind(payout.adjustment)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes what can change of a payout.
pub async fn update_payout(tx: &mut PgConnection, payout: &Payout) -> sqlx::Result<()> {
    update_payouts(tx, std::slice::from_ref(payout)).await
}

/// Writes what can change of payouts, in one statement: a batch has 40, and each change of it changes all of them.
pub async fn update_payouts(tx: &mut PgConnection, payouts: &[Payout]) -> sqlx::Result<()> {
    fn all<'a, T>(payouts: &'a [Payout], of: impl Fn(&'a Payout) -> T) -> Vec<T> {
        payouts.iter().map(of).collect()
    }
    sqlx::query(
        "update payouts p set wallet_id = c.wallet_id, state = c.state, strikes = c.strikes, max_retries = c.max_retries,
            claimed_at = c.claimed_at, reason = c.reason, revision = c.revision, ready_at = c.ready_at, paid_at = c.paid_at,
            tx_id = c.tx_id, splits = c.splits, amount_wei = c.amount_wei, adjustment = c.adjustment, updated_at = now()
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::integer[], $5::integer[], $6::timestamptz[], $7::text[], $8::bigint[],
            $9::timestamptz[], $10::timestamptz[], $11::text[], $12::integer[], $13::numeric[], $14::integer[])
            as c (reward_id, wallet_id, state, strikes, max_retries, claimed_at, reason, revision, ready_at, paid_at, tx_id, splits,
                amount_wei, adjustment)
         where p.reward_id = c.reward_id",
    )
    .bind(all(payouts, |payout| payout.reward_id))
    .bind(all(payouts, |payout| payout.wallet_id))
    .bind(all(payouts, |payout| payout.state.label()))
    .bind(all(payouts, |payout| payout.strikes))
    .bind(all(payouts, |payout| payout.max_retries))
    .bind(all(payouts, |payout| payout.claimed_at))
    .bind(all(payouts, |payout| payout.reason.as_deref()))
    .bind(all(payouts, |payout| payout.revision))
    .bind(all(payouts, |payout| payout.ready_at))
    .bind(all(payouts, |payout| payout.paid_at))
    .bind(all(payouts, |payout| payout.tx_id.as_deref()))
    .bind(all(payouts, |payout| payout.splits))
    .bind(all(payouts, |payout| payout.amount_wei))
    .bind(all(payouts, |payout| payout.adjustment))
    .execute(tx)
    .await?;
    Ok(())
}

const ATTEMPT: &str = "tx_id, genesis_id, signer, gas_payer, contract, app_id, method, batch_id, block_ref, expiration, last_valid, nonce,
    gas_limit, estimated_gas, max_fee_wei, priority_wei, strategy, state, block_id, block_number, block_timestamp, reverted,
    gas_used, paid_wei, broadcast_count, clause_count, batch_wei, beneficiary_user, beneficiary_wallet, signed_at, sent_at,
    confirmations, confirmed_at, finalized_at, error, history, revision";

/// Which signed transactions to load.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    /// Those with these ids.
    Ids(&'a [String]),
    /// Those in a block, whatever became of them since.
    InBlock(&'a str),
    /// Those that a new head settles: in a block up to `settled`, or decided and now final.
    Settled {
        /// The network.
        genesis_id: &'a str,
        /// Height up to which blocks are final.
        finalized: i64,
        /// Height up to which blocks have 12 others on top.
        settled: i64,
    },
    /// Of those in a block above `settled`, the `limit` whose confirmations were noted the longest ago.
    Shallow {
        /// The network.
        genesis_id: &'a str,
        /// Height up to which blocks have 12 others on top.
        settled: i64,
        /// How many at most.
        limit: i64,
    },
}

/// Signed transactions with clauses and payouts, locked in one order: attempts by id, then payouts by reward.
pub async fn transactions(tx: &mut PgConnection, which: Which<'_>) -> sqlx::Result<Vec<Transaction>> {
    // Most blocks of a quiet chain are empty.
    if matches!(which, Which::Ids([])) {
        return Ok(Vec::new());
    }
    let condition = match which {
        Which::Ids(_) => "tx_id = any($1)",
        Which::InBlock(_) => "block_id = $1",
        Which::Settled { .. } => {
            "genesis_id = $1 and ((state = 'included' and block_number <= $3)
                or (state in ('confirmed', 'reverted') and block_number <= $2))"
        }
        // Block and confirmations give the head at which they were noted.
        Which::Shallow { .. } => {
            "tx_id in (select tx_id from payout_attempts where genesis_id = $1 and state = 'included' and block_number > $2
                order by block_number + confirmations, tx_id limit $3)"
        }
    };
    let text = format!(
        "select {ATTEMPT} from payout_attempts where state not in ('planned', 'abandoned') and {condition}
         order by tx_id for update"
    );
    let query = sqlx::query_as(sqlx::AssertSqlSafe(text));
    let attempts: Vec<Attempt> = match which {
        Which::Ids(ids) => query.bind(ids),
        Which::InBlock(id) => query.bind(id),
        Which::Settled { genesis_id, finalized, settled } => {
            query.bind(genesis_id).bind(finalized).bind(settled)
        }
        Which::Shallow { genesis_id, settled, limit } => query.bind(genesis_id).bind(settled).bind(limit),
    }
    .fetch_all(&mut *tx)
    .await?;
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<&str> = attempts.iter().map(|attempt| attempt.tx_id.as_str()).collect();
    let clauses: Vec<PaidClause> = sqlx::query_as(
        "select tx_id, clause_index, reward_id, attempt_no, receiver, amount_wei, gas_weight
         from payout_attempt_rewards where tx_id = any($1) order by tx_id, clause_index",
    )
    .bind(ids)
    .fetch_all(&mut *tx)
    .await?;
    let rewards: Vec<Uuid> = clauses.iter().map(|clause| clause.reward_id).collect();
    let payouts: HashMap<Uuid, Payout> =
        payouts(tx, &rewards).await?.into_iter().map(|payout| (payout.reward_id, payout)).collect();
    let mut clauses = clauses.into_iter().peekable();
    // Both are in the order of the transactions' ids.
    let gathered = |attempt: Attempt| {
        let of_it = |clause: &PaidClause| clause.tx_id == attempt.tx_id;
        let clauses: Vec<PaidClause> = std::iter::from_fn(|| clauses.next_if(of_it)).collect();
        // Every clause's payout exists: a foreign key holds it.
        let of = |clause: &PaidClause| payouts.get(&clause.reward_id).cloned();
        Transaction { payouts: clauses.iter().filter_map(of).collect(), clauses, attempt }
    };
    Ok(attempts.into_iter().map(gathered).collect())
}

/// Writes what can change of a signed transaction and of its payouts.
pub async fn update_transaction(tx: &mut PgConnection, transaction: &Transaction) -> sqlx::Result<()> {
    let attempt = &transaction.attempt;
    sqlx::query(
        "update payout_attempts set state = $2, block_id = $3, block_number = $4, block_timestamp = $5, reverted = $6,
            gas_used = $7, paid_wei = $8, broadcast_count = $9, sent_at = $10, confirmations = $11, confirmed_at = $12,
            finalized_at = $13, error = $14, history = $15, revision = $16
         where tx_id = $1",
    )
    .bind(&attempt.tx_id)
    .bind(attempt.state.label())
    .bind(&attempt.block_id)
    .bind(attempt.block_number)
    .bind(attempt.block_timestamp)
    .bind(attempt.reverted)
    .bind(attempt.gas_used)
    .bind(attempt.paid_wei)
    .bind(attempt.broadcast_count)
    .bind(attempt.sent_at)
    .bind(attempt.confirmations)
    .bind(attempt.confirmed_at)
    .bind(attempt.finalized_at)
    .bind(&attempt.error)
    .bind(&attempt.history)
    .bind(attempt.revision)
    .execute(&mut *tx)
    .await?;
    update_payouts(tx, &transaction.payouts).await
}

/// Frees the rewards of a transaction that is dead or reverted for good, so that another may pay them, and gives what it was charged
/// for back to the day of its signature. `proof` is what the nodes reported.
pub async fn free(tx: &mut PgConnection, tx_id: &str, proof: &Value) -> sqlx::Result<()> {
    let freed = sqlx::query("update payout_attempt_rewards set live = false where tx_id = $1 and live")
        .bind(tx_id)
        .execute(&mut *tx)
        .await?;
    if freed.rows_affected() == 0 {
        return Ok(());
    }
    sqlx::query("update payout_attempts set dead_proof = $2 where tx_id = $1")
        .bind(tx_id)
        .bind(proof)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "update payout_budgets b set spent_wei = greatest(b.spent_wei - a.batch_wei, 0)
         from payout_attempts a where a.tx_id = $1 and b.day = a.budget_day",
    )
    .bind(tx_id)
    .execute(tx)
    .await?;
    Ok(())
}

/// Which kind of incident it is, as in `payout_incidents.cause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncidentCause {
    /// A transaction of the books did what it was not made for.
    Stray,
    /// The chain shows a payment that the books cannot explain.
    UnknownPayment,
    /// A plan that may not be signed.
    Policy,
}

impl IncidentCause {
    /// The label of the column.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Stray => "incident",
            Self::UnknownPayment => "unknown_payment",
            Self::Policy => "policy",
        }
    }
}

/// How an unknown payment ends without a person: `payout_incidents.resolution`.
pub const TAKEN_BACK: &str = "taken back into the books";

/// Those of the transactions of which a person has said what they are.
pub async fn resolved_by_a_person(
    pool: &PgPool,
    genesis_id: &str,
    tx_ids: &[String],
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select tx_id from payout_incidents
         where genesis_id = $1 and tx_id = any($2) and resolved_at is not null and resolution is distinct from $3",
    )
    .bind(genesis_id)
    .bind(tx_ids)
    .bind(TAKEN_BACK)
    .fetch_all(pool)
    .await
}

/// Stores what a person must look at before anything more is signed; false where it is known already.
pub async fn incident(
    tx: &mut PgConnection,
    (genesis_id, tx_id): (&str, &str),
    (cause, what): (IncidentCause, &str),
    at: DateTime<Utc>,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "insert into payout_incidents (genesis_id, tx_id, what, found_at, cause) values ($1, $2, $3, $4, $5)
         on conflict (genesis_id, tx_id, what) do nothing",
    )
    .bind(genesis_id)
    .bind(tx_id)
    .bind(what)
    .bind(at)
    .bind(cause.label())
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}
