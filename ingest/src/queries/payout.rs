//! A reward's payment as clients see it: its newest transaction, and when it was claimed.

use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::FromRow;
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use crate::http::operation::one_of_or_null;

/// Columns of [`Payout`], for a query that joins as [`payout_joins`] does.
macro_rules! payout_columns {
    () => {
        "t.blockchain_tx_hash, t.status::text as payout_status, t.confirmation_count, t.block_number, t.confirmed_at,
         t.amount as payout_amount, coalesce(c.claimed_at, p.claimed_at) as claimed_at,
         coalesce(p.state = 'waiting', false) and c.claimed_at is null and p.claimed_at is null as awaits_claim"
    };
}
pub(crate) use payout_columns;

/// Joins to rewards `r`: of a reward's transactions the newest; the driver's claim, or the claim that its payout made by itself.
macro_rules! payout_joins {
    () => {
        " left join reward_claims c on c.reward_id = r.id
          left join payouts p on p.reward_id = r.id
          left join lateral (select * from reward_transactions t where t.reward_id = r.id
                             order by t.attempt_no desc nulls last, t.created_at desc nulls last, t.id desc
                             limit 1) t on true "
    };
}
pub(crate) use payout_joins;

/// A reward's payment.
#[derive(Clone, Debug, Default, FromRow)]
pub(crate) struct Payout {
    pub(crate) blockchain_tx_hash: Option<String>,
    pub(crate) payout_status: Option<String>,
    pub(crate) confirmation_count: Option<i32>,
    pub(crate) block_number: Option<i32>,
    pub(crate) confirmed_at: Option<DateTime<Utc>>,
    pub(crate) payout_amount: Option<Decimal>,
    pub(crate) claimed_at: Option<DateTime<Utc>>,
    /// Whether it is granted, and is paid once it is claimed.
    pub(crate) awaits_claim: bool,
}

impl Payout {
    /// Confirmations of the newest transaction; none before there is one.
    pub(crate) fn confirmations(&self) -> Option<u32> {
        self.blockchain_tx_hash.as_ref()?;
        Some(u32::try_from(self.confirmation_count.unwrap_or(0)).unwrap_or(0))
    }

    /// The document of the newest transaction; none before there is one.
    pub(crate) fn document(&self) -> Option<PayoutDocument> {
        self.blockchain_tx_hash.as_ref().map(|tx_id| PayoutDocument {
            tx_id: tx_id.clone(),
            status: self.payout_status.clone(),
            confirmations: self.confirmations(),
            block_number: self.block_number,
            confirmed_at: self.confirmed_at.map(instant),
            amount: self.payout_amount,
        })
    }
}

/// The newest transaction that pays the reward.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payout)]
pub(crate) struct PayoutDocument {
    #[schema(pattern = "^0x[0-9a-f]{64}$")]
    tx_id: String,
    #[schema(schema_with = payout_status)]
    status: Option<String>,
    /// Blocks on top of its own; 12 are enough
    confirmations: Option<u32>,
    block_number: Option<i32>,
    #[schema(format = DateTime)]
    confirmed_at: Option<String>,
    /// B3TR
    amount: Option<Decimal>,
}

fn payout_status() -> Schema {
    one_of_or_null(&["pending", "confirmed", "failed", "reverted"])
}

/// An instant as clients see it: RFC 3339, microseconds, `Z`.
pub(crate) fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
