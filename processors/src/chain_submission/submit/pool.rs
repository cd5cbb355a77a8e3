//! What all drivers together are paid in a day, an ISO week and a month of UTC. The rules of rewards say how much, and those that are in
//! force at the signature hold: what drivers share is no part of a decision about one of them.

use chain::Wei;
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use schemas::events::LimitType;
use schemas::ids::Micros;
use sqlx::PgConnection;

use crate::chain_submission::ledger::transition::wei;
use crate::limit_check::policy::Period;
use crate::reward_rules;

/// A pool, and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Over which time.
    pub limit_type: LimitType,
    /// Wei for all.
    pub ceiling: Wei,
    /// Wei that may be signed for yet; none where more than the pool is.
    pub left: Option<Wei>,
}

/// The pools in force at an instant, with what is left of each after all that was signed. Empty where the rules name none.
///
/// # Errors
/// Postgres', and where the rules in force cannot be read by this release: nothing is signed then.
pub async fn pools(connection: &mut PgConnection, now: DateTime<Utc>) -> sqlx::Result<Vec<Pool>> {
    let mut pools = Vec::new();
    for (limit_type, amount) in reward_rules::pools_at(connection, now).await? {
        let period = Period::of(limit_type, Micros::from(now));
        let day = |at: Micros| -> NaiveDate { at.to_utc().date_naive() };
        let spent: Decimal = sqlx::query_scalar(
            "select coalesce(sum(spent_wei), 0) from payout_budgets where day >= $1 and day < $2",
        )
        .bind(day(period.start))
        .bind(day(period.end))
        .fetch_one(&mut *connection)
        .await?;
        // A file has no amount that is none; nothing would be signed for it.
        let ceiling = Wei::from_coins(amount).unwrap_or_default();
        let left = wei(spent.trunc()).and_then(|spent| ceiling.checked_sub(spent));
        pools.push(Pool { limit_type, ceiling, left });
    }
    Ok(pools)
}

/// The pool that leaves least.
pub(super) fn tightest(pools: Vec<Pool>) -> Option<Pool> {
    pools.into_iter().min_by_key(|pool| pool.left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_pool_leaves_least_and_one_that_is_overdrawn_less_than_nothing() {
        let pool = |limit_type, left: Option<u128>| Pool {
            limit_type,
            ceiling: Wei::from(10_u128),
            left: left.map(Wei::from),
        };
        let day = pool(LimitType::Daily, Some(3));
        assert_eq!(tightest(vec![day, pool(LimitType::Weekly, Some(5))]), Some(day));
        let over = pool(LimitType::Monthly, None);
        assert_eq!(tightest(vec![day, over]), Some(over));
        assert_eq!(tightest(Vec::new()), None);
    }
}
