//! Signature: a stored plan passes the policy, is signed, and its bytes are stored before they are posted; a plan that is too old is given
//! up. Each is one database transaction under the lease, and none is open while a signer is asked.

use std::collections::HashMap;

use chain::abi::RewardCall;
use chain::signing::{SignError, TransactionSigner};
use chain::{Address, UnsignedTx, Wei};
use chrono::{DateTime, Utc};
use runtime::StageError;
use runtime::failpoint::{self, Step};
use rust_decimal::Decimal;
use schemas::events::AttemptState;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::lease::Lease;
use super::plan::{PlanError, unsigned_stage};
use super::policy::{Policy, Scope, Violation};
use super::pool;
use super::terms::Terms;
use crate::chain_submission::ledger::machine::{self, PayoutEvent, TxEvent, TxState};
use crate::chain_submission::ledger::outbox::{Outbox, Schemas};
use crate::chain_submission::ledger::rows::{self, Which};
use crate::chain_submission::ledger::transition::{Change, decimal, wei};
use crate::chain_submission::network::Network;

/// What a signature is made with.
#[derive(Clone, Copy)]
pub struct Signing<'a> {
    /// The signer's lease.
    pub lease: &'a Lease,
    /// The distributor.
    pub signer: &'a dyn TransactionSigner,
    /// Who pays the gas, where it is not the distributor.
    pub gas_payer: Option<&'a dyn TransactionSigner>,
    /// What may be signed.
    pub policy: &'a Policy,
    /// The network that is paid on.
    pub network: &'a Network,
    /// How transactions are made.
    pub terms: &'a Terms,
    /// Of what is published.
    pub schemas: Schemas,
}

/// A plan that has not been signed.
#[derive(Clone, Debug, FromRow)]
pub struct Planned {
    /// The transaction's id.
    pub tx_id: String,
    #[sqlx(rename = "body")]
    unsigned: Vec<u8>,
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

impl Planned {
    fn unsigned(&self) -> Result<UnsignedTx, PlanError> {
        let read = serde_json::from_slice(&self.unsigned);
        Ok(read.map_err(|error| StageError::new("read the unsigned transaction", error))?)
    }

    /// Whether it can be signed by those who are asked now: one that asks for a gas payer has one.
    ///
    /// # Errors
    /// A body that does not read.
    pub fn fits(&self, gas_payer: bool) -> Result<bool, PlanError> {
        Ok(self.unsigned()?.delegated == gas_payer)
    }
}

/// Has a plan signed that the policy permits, and stores its bytes, charging the day's budget. The same plan may be signed again after a
/// crash or an error: whatever the signer gives, the id is the plan's, and what is stored is what is posted. `announcing` makes the
/// signature known outside of the database, and is awaited before it is stored: a database that loses the commit cannot know of it.
///
/// # Errors
/// [`PlanError::Ceiling`] where the day's budget does not hold it; [`PlanError::Policy`] for what may not be signed at all;
/// [`PlanError::Signer`] where a signer gives no signature; [`PlanError::Moved`] where it is no plan any more.
pub async fn sign(
    signing: &Signing<'_>,
    pool: &PgPool,
    plan: &Planned,
    now: DateTime<Utc>,
    announcing: impl Future<Output = Result<(), PlanError>>,
) -> Result<(), PlanError> {
    let Signing { lease, signer, gas_payer, policy, terms, schemas, .. } = *signing;
    let unsigned = plan.unsigned()?;
    if unsigned.id(signer.address()).to_string() != plan.tx_id {
        return Err(StageError::new("sign", "the plan is another signer's").into());
    }
    let scope = scope(signing, pool, &unsigned, now).await?;
    let permitted = policy.permit(unsigned, &scope).map_err(|violation| match violation {
        Violation::Day { .. } => PlanError::Ceiling,
        violation => PlanError::Policy(violation),
    })?;
    let signed = permitted.sign(signer, gas_payer).await.map_err(|error| match error {
        SignError::Tx(error) => PlanError::Tx(error),
        error @ SignError::Signer { .. } => PlanError::Signer(error),
    })?;
    let mut tx = pool.begin().await?;
    lease.hold(&mut tx).await?;
    charge(&mut tx, now, plan.batch_wei, terms).await?;
    let done = sqlx::query(
        "update payout_attempts set raw = $2, state = $5, signed_at = $3, budget_day = $4
         where tx_id = $1 and state = $6",
    )
    .bind(&plan.tx_id)
    .bind(signed.encode())
    .bind(now)
    .bind(now.date_naive())
    .bind(after(TxEvent::Sign)?)
    .bind(TxState::Planned.label())
    .execute(&mut *tx)
    .await?;
    if done.rows_affected() != 1 {
        return Err(PlanError::Moved);
    }
    let mut outbox = Outbox::default();
    let ids = [plan.tx_id.clone()];
    for mut transaction in rows::transactions(&mut tx, Which::Ids(&ids)).await? {
        transaction.note(Change::Signed, now);
        rows::update_transaction(&mut tx, &transaction).await?;
        terms.publisher(schemas).transaction(&transaction, Change::Signed, now, &mut outbox)?;
    }
    outbox.store(&mut tx).await?;
    announcing.await?;
    tx.commit().await?;
    failpoint::at(Step::PaymentSigned);
    Ok(())
}

/// What the policy knows beside the transaction: the network's rows, and what the ledger says of this day.
async fn scope(
    signing: &Signing<'_>,
    pool: &PgPool,
    unsigned: &UnsignedTx,
    now: DateTime<Utc>,
) -> Result<Scope, PlanError> {
    let Network { genesis, pool: contract, app, .. } = signing.network;
    let calls = unsigned.clauses.iter().filter_map(|clause| RewardCall::decode(&clause.data));
    let receivers: Vec<Address> = calls.map(|(_, call)| call.receiver).collect();
    Ok(Scope {
        chain_tag: genesis.chain_tag(),
        pool: *contract,
        app: *app,
        day: budget_left(pool, now, signing.terms).await?,
        received: received(pool, now, &receivers).await?,
    })
}

/// What was signed for in the day so far, by receiver. What is proven to have paid nothing does not count.
///
/// # Errors
/// Postgres'.
pub async fn received(
    pool: &PgPool,
    now: DateTime<Utc>,
    receivers: &[Address],
) -> sqlx::Result<HashMap<Address, Wei>> {
    let receivers: Vec<String> = receivers.iter().map(ToString::to_string).collect();
    let sums: Vec<(String, Decimal)> = sqlx::query_as(
        "select r.receiver, sum(r.amount_wei) from payout_attempt_rewards r join payout_attempts a using (tx_id)
         where r.receiver = any($1) and a.budget_day = $2 and a.raw is not null and a.state not in ($3, $4) group by r.receiver",
    )
    .bind(receivers)
    .bind(now.date_naive())
    .bind(AttemptState::Dead.label())
    .bind(AttemptState::RevertedFinal.label())
    .fetch_all(pool)
    .await?;
    let known =
        sums.into_iter().filter_map(|(receiver, sum)| Some((receiver.parse().ok()?, wei(sum.trunc())?)));
    Ok(known.collect())
}

/// Charges the day of the signature, and with it the pools for all.
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
    .execute(&mut *tx)
    .await?;
    if charged.rows_affected() != 1 {
        return Err(PlanError::Ceiling);
    }
    // Whoever charges the same day waits for its row: what is counted here holds until this charge is stored.
    let overdrawn = pool::pools(tx, now).await?.into_iter().find(|pool| pool.left.is_none());
    overdrawn.map_or(Ok(()), |pool| Err(PlanError::Pool(pool)))
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
    schemas: Schemas,
    now: DateTime<Utc>,
) -> Result<(), PlanError> {
    let mut tx = pool.begin().await?;
    lease.hold(&mut tx).await?;
    let done =
        sqlx::query("update payout_attempts set state = $2 where tx_id = $1 and state = $3 and raw is null")
            .bind(&plan.tx_id)
            .bind(after(TxEvent::Abandon)?)
            .bind(TxState::Planned.label())
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
    for mut payout in rows::payouts(&mut tx, &ids).await? {
        if payout.moves(PayoutEvent::Free) {
            payout.ready_at = Some(now);
            payout.tx_id = None;
            rows::update_payout(&mut tx, &payout).await?;
        }
    }
    unsigned_stage(&mut tx, schemas, &plan.tx_id, ("abandoned", now)).await?;
    tx.commit().await?;
    Ok(())
}

/// The state of a plan after an event, by the table.
fn after(event: TxEvent) -> Result<&'static str, PlanError> {
    machine::transaction(TxState::Planned, event, false).to().map(TxState::label).ok_or(PlanError::Moved)
}

/// The block that a plan refers to lies too far back: less than half of its window is left.
#[must_use]
pub fn is_stale(plan: &Planned, best: u32) -> bool {
    i64::from(best) > plan.last_valid - plan.expiration / 2
}
