//! Signature: a stored plan's bytes are made and stored before they are posted, and a plan that is too old is given up. Each is one
//! database transaction under the lease.

use chain::{Address, SignedTx, Signer, UnsignedTx, Wei};
use chrono::{DateTime, Utc};
use runtime::StageError;
use rust_decimal::Decimal;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::lease::Lease;
use super::plan::PlanError;
use super::terms::Terms;
use crate::chain_submission::ledger::machine::{self, PayoutEvent, TxEvent, TxState};
use crate::chain_submission::ledger::outbox::{Outbox, Schemas};
use crate::chain_submission::ledger::rows::{self, Which};
use crate::chain_submission::ledger::transition::{Change, decimal, wei};

/// What a signature is made with.
#[derive(Clone, Copy)]
pub struct Signing<'a> {
    /// The signer's lease.
    pub lease: &'a Lease,
    /// The distributor.
    pub signer: &'a Signer,
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

/// Signs a plan and stores its bytes, charging the day's budget. Signing is deterministic (RFC 6979): after a crash the same plan
/// gives the same bytes. `announcing` makes the signature known outside of the database, and is awaited before it is stored: a
/// database that loses the commit cannot know of it.
///
/// # Errors
/// [`PlanError::Ceiling`] where the day's budget does not hold it; [`PlanError::Moved`] where it is no plan any more.
pub async fn sign(
    signing: &Signing<'_>,
    pool: &PgPool,
    plan: &Planned,
    now: DateTime<Utc>,
    announcing: impl Future<Output = Result<(), PlanError>>,
) -> Result<(), PlanError> {
    let Signing { lease, signer, terms, schemas } = *signing;
    let unsigned: UnsignedTx = serde_json::from_slice(&plan.unsigned)
        .map_err(|error| StageError::new("read the unsigned transaction", error))?;
    let signed = SignedTx::sign(unsigned, signer)?;
    if signed.id().to_string() != plan.tx_id {
        return Err(StageError::new("sign", "the plan is another signer's").into());
    }
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
