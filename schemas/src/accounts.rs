//! The type of `accounts.changed`.

use serde::{Deserialize, Serialize};

use crate::ids::{EventId, Micros, UserId};

/// An account changed: ids and flags only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountChanged {
    /// This event's id.
    pub event_id: EventId,
    /// The account.
    pub user_id: UserId,
    /// When.
    pub occurred_at: Micros,
    /// Good standing.
    pub is_active: bool,
    /// `basic`, `verified` or `premium`.
    pub verification_level: String,
}
