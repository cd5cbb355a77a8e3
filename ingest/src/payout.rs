//! A reward's payment as clients see it: its newest transaction, and when it was claimed.

use chrono::{DateTime, SecondsFormat, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::FromRow;

/// Columns of [`Payout`], for a query that joins as [`payout_joins`] does.
macro_rules! payout_columns {
    () => {
        "t.blockchain_tx_hash, t.status::text as payout_status, t.confirmation_count, t.block_number, t.confirmed_at,
         t.amount as payout_amount, coalesce(c.claimed_at, p.claimed_at) as claimed_at"
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
}

impl Payout {
    /// Confirmations of the newest transaction; none before there is one.
    pub(crate) fn confirmations(&self) -> Option<u32> {
        self.blockchain_tx_hash.as_ref()?;
        Some(u32::try_from(self.confirmation_count.unwrap_or(0)).unwrap_or(0))
    }

    /// The document of the newest transaction; null before there is one.
    pub(crate) fn document(&self) -> Value {
        let document = self.blockchain_tx_hash.as_ref().map(|tx_id| {
            json!({
                "tx_id": tx_id,
                "status": self.payout_status,
                "confirmations": self.confirmations(),
                "block_number": self.block_number,
                "confirmed_at": self.confirmed_at.map(instant),
                "amount": self.payout_amount,
            })
        });
        json!(document)
    }
}

/// An instant as clients see it: RFC 3339, microseconds, `Z`.
pub(crate) fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
