//! The budgets of a batch: locked, charged and refunded in memory in order, written back in one statement a table.

use std::collections::BTreeSet;

use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::{LimitType, RewardCalculated};
use schemas::ids::{Micros, RewardId, UserId, natural};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::books::{Books, Charge};
use super::grant::{Budget, BudgetKey, Budgets};
use super::policy::Period;

/// The budgets that an event is charged to.
#[must_use]
pub fn keys_of(event: &RewardCalculated) -> [BudgetKey; 3] {
    LimitType::ALL.map(|limit_type| {
        let period = Period::of(limit_type, event.header.accepted_at);
        (event.header.user_id, limit_type, period.start)
    })
}

/// Reads and locks budgets by their keys, and the active ones of the same users: two look-ups in the indexes of key and active budget,
/// whose cost does not grow with the table. `$1` to `$3` are the keys' users, types and starts.
pub const LOAD: &str = "
select l.user_id, l.limit_type::text, l.period_start, l.period_end, l.limit_amount, l.current_amount, l.is_active,
    l.created_at, l.updated_at
from reward_limits l
join (
    select * from unnest($1::uuid[], $2::text[]::reward_limits_limit_type[], $3::timestamptz[])
        as k (user_id, limit_type, period_start)
    union
    select user_id, limit_type, period_start from reward_limits where is_active and user_id = any($1)
) wanted using (user_id, limit_type, period_start)
order by l.user_id, l.limit_type, l.period_start for update of l";

/// Reads and locks these budgets and the active ones of their users, in key order, so that two transactions never wait
/// for one another in a circle.
///
/// # Errors
/// [`StageError`] when Postgres does not answer or holds a type that is none.
pub async fn load(tx: &mut PgConnection, keys: &BTreeSet<BudgetKey>) -> Result<Budgets, StageError> {
    let rows = sqlx::query(LOAD)
        .bind(keys.iter().map(|(user, ..)| user.0).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_, limit_type, _)| limit_type.label()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(.., start)| start.to_utc()).collect::<Vec<_>>())
        .fetch_all(tx)
        .await?;
    let mut budgets = Budgets::new();
    for row in rows {
        let instant = |name| Ok::<_, sqlx::Error>(Micros::from(row.try_get::<DateTime<Utc>, _>(name)?));
        let key = (
            UserId(row.try_get("user_id")?),
            limit_type(row.try_get("limit_type")?)?,
            instant("period_start")?,
        );
        let budget = Budget {
            limit: row.try_get::<Decimal, _>("limit_amount")?.normalize(),
            current: row.try_get::<Decimal, _>("current_amount")?.normalize(),
            end: instant("period_end")?,
            is_active: row.try_get("is_active")?,
            created_at: instant("created_at")?,
            updated_at: instant("updated_at")?,
        };
        budgets.insert(key, budget);
    }
    Ok(budgets)
}

/// Writes the budgets that changed.
///
/// # Errors
/// [`StageError`] when Postgres does not answer.
pub async fn store(tx: &mut PgConnection, before: &Budgets, after: &Budgets) -> Result<(), StageError> {
    let rows = || after.iter().filter(|(key, budget)| before.get(key) != Some(budget));
    // In key order an older period is written first: it is inactive before the newer one becomes active.
    sqlx::query(
        "insert into reward_limits (id, user_id, limit_type, period_start, period_end, limit_amount, current_amount,
            is_active, created_at, updated_at)
         select id, user_id, limit_type::reward_limits_limit_type, period_start, period_end, limit_amount,
            current_amount, is_active, created_at, updated_at
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::numeric[],
            $7::numeric[], $8::bool[], $9::timestamptz[], $10::timestamptz[])
            as r (id, user_id, limit_type, period_start, period_end, limit_amount, current_amount, is_active,
            created_at, updated_at)
         order by user_id, limit_type::reward_limits_limit_type, period_start
         on conflict (user_id, limit_type, period_start) do update set limit_amount = excluded.limit_amount,
            current_amount = excluded.current_amount, is_active = excluded.is_active, updated_at = excluded.updated_at",
    )
    .bind(rows().map(|(key, _)| row_id(key)).collect::<Vec<_>>())
    .bind(rows().map(|((user, ..), _)| user.0).collect::<Vec<_>>())
    .bind(rows().map(|((_, limit_type, _), _)| limit_type.label()).collect::<Vec<_>>())
    .bind(rows().map(|((.., start), _)| start.to_utc()).collect::<Vec<_>>())
    .bind(rows().map(|(_, budget)| budget.end.to_utc()).collect::<Vec<_>>())
    .bind(rows().map(|(_, budget)| budget.limit).collect::<Vec<_>>())
    .bind(rows().map(|(_, budget)| budget.current).collect::<Vec<_>>())
    .bind(rows().map(|(_, budget)| budget.is_active).collect::<Vec<_>>())
    .bind(rows().map(|(_, budget)| budget.created_at.to_utc()).collect::<Vec<_>>())
    .bind(rows().map(|(_, budget)| budget.updated_at.to_utc()).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// What was charged for these rewards, and which of them are cancelled.
///
/// # Errors
/// [`StageError`] when Postgres does not answer or holds a type that is none.
pub async fn charges(tx: &mut PgConnection, rewards: &[RewardId]) -> Result<Books, StageError> {
    let ids: Vec<Uuid> = rewards.iter().map(|reward| reward.0).collect();
    let rows = sqlx::query(
        "select reward_id, user_id, limit_type::text, period_start, amount, refunded from limit_charges
         where reward_id = any($1)",
    )
    .bind(&ids)
    .fetch_all(&mut *tx)
    .await?;
    let mut charges = Vec::with_capacity(rows.len());
    for row in rows {
        let start = Micros::from(row.try_get::<DateTime<Utc>, _>("period_start")?);
        charges.push(Charge {
            reward_id: RewardId(row.try_get("reward_id")?),
            key: (UserId(row.try_get("user_id")?), limit_type(row.try_get("limit_type")?)?, start),
            amount: row.try_get("amount")?,
            refunded: row.try_get("refunded")?,
        });
    }
    let cancelled: Vec<Uuid> =
        sqlx::query_scalar("select reward_id from limit_refunds where reward_id = any($1)")
            .bind(&ids)
            .fetch_all(tx)
            .await?;
    Ok(Books::new(charges, cancelled.into_iter().map(RewardId)))
}

/// The row's id: UUIDv5 of user, type and start.
fn row_id((user, limit_type, start): &BudgetKey) -> uuid::Uuid {
    natural(&format!("reward_limits/{user}/{}/{}", limit_type.label(), start.to_utc().to_rfc3339()))
}

fn limit_type(label: &str) -> Result<LimitType, StageError> {
    LimitType::ALL
        .into_iter()
        .find(|limit_type| limit_type.label() == label)
        .ok_or_else(|| StageError::new("reward_limits", format!("{label} is no limit type")))
}
