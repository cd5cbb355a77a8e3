//! `GET /v1/rewards`: a user's rewards, newest first, a page at a time; from the materialized table.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::ids::UserId;
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool};
use uuid::Uuid;

use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::list::{PageQuery, cursor};
use crate::payout::{Payout, instant, payout_columns, payout_joins};

/// A reward's row.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Reward {
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
async fn page(
    pool: &PgPool,
    user: UserId,
    (at, id): (DateTime<Utc>, Uuid),
    limit: i64,
) -> Result<Vec<Reward>, sqlx::Error> {
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
    pub(crate) fn document(&self) -> Value {
        let reason = self.status_reason.as_deref().and_then(|text| text.split_once(": "));
        json!({
            "id": self.id,
            "upload_id": self.upload_id,
            "base": self.base_amount,
            "bonus": self.bonus_amount,
            "granted": self.granted_amount,
            "total": self.total_amount,
            "rate": self.reward_rate,
            "distance_km": self.distance_traveled,
            "factors": self.calculation_factors,
            "status": self.status,
            "reason": reason.map(|(code, _)| code),
            "detail": reason.map(|(_, sentence)| sentence),
            "claimed_at": self.payout.claimed_at.map(instant),
            "payout": self.payout.document(),
            "created_at": instant(self.created_at),
            "updated_at": instant(self.updated_at),
        })
    }
}

impl Gateway {
    /// The route.
    pub(crate) async fn rewards(&self, user: UserId, query: PageQuery) -> Result<Value, ApiError> {
        // One more than asked for tells whether there is a next page.
        let mut rows = page(self.pool(), user, query.after, query.limit + 1).await?;
        let wanted = usize::try_from(query.limit).unwrap_or_default();
        let more = rows.len() > wanted;
        rows.truncate(wanted);
        let next_cursor = rows.last().filter(|_| more).map(|row| cursor(row.created_at, row.id));
        let items: Vec<Value> = rows.iter().map(Reward::document).collect();
        Ok(json!({ "items": items, "next_cursor": next_cursor }))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn cut() -> Reward {
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
        let document = cut().document();
        assert_eq!((&document["base"], &document["granted"]), (&json!("3.09"), &json!("2")));
        assert_eq!(document["reason"], "over_limit");
        assert_eq!(document["detail"], "the daily budget of 30 B3TR had 2 B3TR left: 12:00");
        let whole = Reward { status_reason: None, ..cut() }.document();
        assert_eq!((&whole["reason"], &whole["detail"]), (&Value::Null, &Value::Null));
    }
}
