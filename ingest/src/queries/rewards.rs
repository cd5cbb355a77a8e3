//! `GET /v1/rewards`: a user's rewards, newest first, a page at a time; from the materialized table.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::ids::UserId;
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgPool};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;

use super::page::{Page, PageQuery, Place};
use super::payout::{Payout, PayoutDocument, instant, payout_columns, payout_joins};
use crate::auth::admission::Caller;
use crate::http::operation::one_of_or_null;
use crate::http::problem::ApiError;
use crate::http::request::Dependency;

/// A reward's row.
#[derive(Clone, Debug, FromRow)]
struct Reward {
    id: Uuid,
    upload_id: Uuid,
    base_amount: Option<Decimal>,
    bonus_amount: Option<Decimal>,
    granted_amount: Option<Decimal>,
    total_amount: Option<Decimal>,
    reward_rate: Option<Decimal>,
    distance_traveled: Option<Decimal>,
    calculation_factors: Option<Value>,
    status: Option<String>,
    status_reason: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[sqlx(flatten)]
    payout: Payout,
}

/// A user's rewards, newest first, after a place in that order.
async fn page(pool: &PgPool, user: UserId, (at, id): Place, limit: i64) -> Result<Vec<Reward>, sqlx::Error> {
    sqlx::query_as(concat!(
        "select r.id, r.upload_id, r.base_amount, r.bonus_amount, r.granted_amount, r.total_amount, r.reward_rate,
            r.distance_traveled, r.calculation_factors, r.status::text as status, r.status_reason, r.created_at,
            r.updated_at, ",
        payout_columns!(),
        " from (select * from rewards where user_id = $1 and (created_at, id) < ($2, $3)
                order by created_at desc, id desc limit $4) r ",
        payout_joins!(),
        "order by r.created_at desc, r.id desc"
    ))
    .bind(user.0)
    .bind(at)
    .bind(id)
    .bind(limit)
    .fetch_all(pool)
    .await
}

impl Reward {
    /// The document that clients rely on: decimals are strings, and the reason is split from its sentence.
    fn document(&self) -> RewardItem {
        let reason = self.status_reason.as_deref().and_then(|text| text.split_once(": "));
        RewardItem {
            id: self.id,
            upload_id: self.upload_id,
            base: self.base_amount,
            bonus: self.bonus_amount,
            granted: self.granted_amount,
            total: self.total_amount,
            rate: self.reward_rate,
            distance_km: self.distance_traveled,
            factors: self.calculation_factors.clone(),
            status: self.status.clone(),
            reason: reason.map(|(code, _)| code.to_owned()),
            detail: reason.map(|(_, sentence)| sentence.to_owned()),
            claimed_at: self.payout.claimed_at.map(instant),
            awaits_claim: self.payout.awaits_claim,
            payout: self.payout.document(),
            created_at: instant(self.created_at),
            updated_at: instant(self.updated_at),
        }
    }
}

/// A reward.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RewardItem {
    id: Uuid,
    upload_id: Uuid,
    base: Option<Decimal>,
    bonus: Option<Decimal>,
    /// What of base and bonus the budgets of day, week and month hold; null until that is decided
    granted: Option<Decimal>,
    /// What is owed, B3TR
    total: Option<Decimal>,
    rate: Option<Decimal>,
    distance_km: Option<Decimal>,
    /// The tariff's version and every component, with its amount
    #[schema(value_type = Option<Object>)]
    factors: Option<Value>,
    #[schema(schema_with = reward_status)]
    status: Option<String>,
    /// Why less than base and bonus is owed, e.g. over_limit
    reason: Option<String>,
    /// A sentence with the budget that ran out
    detail: Option<String>,
    /// By you, or by itself where you prefer that
    #[schema(format = DateTime)]
    claimed_at: Option<String>,
    /// Whether it is granted, and is paid once you claim it
    awaits_claim: bool,
    payout: Option<PayoutDocument>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

pub(super) fn reward_status() -> Schema {
    one_of_or_null(&["calculated", "pending", "distributed", "failed", "cancelled"])
}

/// The route.
pub(crate) async fn list(
    Dependency(pool): Dependency<PgPool>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<RewardItem>, ApiError> {
    let rows = page(&pool, caller.user, query.after, query.rows()).await?;
    Ok(query.page(&rows, |row| (row.created_at, row.id), Reward::document))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cut() -> Reward {
        Reward {
            id: Uuid::from_u128(1),
            upload_id: Uuid::from_u128(2),
            base_amount: Some(Decimal::new(309, 2)),
            bonus_amount: Some(Decimal::ZERO),
            granted_amount: Some(Decimal::TWO),
            total_amount: Some(Decimal::TWO),
            reward_rate: Some(Decimal::new(1, 2)),
            distance_traveled: Some(Decimal::new(309, 0)),
            calculation_factors: None,
            status: Some("calculated".into()),
            status_reason: Some("over_limit: the daily budget of 30 B3TR had 2 B3TR left: 12:00".into()),
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            payout: Payout::default(),
        }
    }

    #[test]
    fn decimals_are_strings_and_the_reason_stands_apart_from_its_sentence() {
        let document = json!(cut().document());
        assert_eq!((&document["base"], &document["granted"]), (&json!("3.09"), &json!("2")));
        assert_eq!(document["reason"], "over_limit");
        assert_eq!(document["detail"], "the daily budget of 30 B3TR had 2 B3TR left: 12:00");
        let whole = json!(Reward { status_reason: None, ..cut() }.document());
        assert_eq!((&whole["reason"], &whole["detail"]), (&Value::Null, &Value::Null));
    }
}
