//! The types of `accounts.changed` and `accounts.events`.

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

/// An account and what is kept about its owner were erased: whoever keeps something about them takes it away, and takes no more. Never
/// compacted away, so that a rebuild keeps it erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserErased {
    /// This event's id: one per account.
    pub event_id: EventId,
    /// The account.
    pub user_id: UserId,
    /// When.
    pub occurred_at: Micros,
}

/// An operator holds an account: its payouts wait, and it works on otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserHeld {
    /// This event's id.
    pub event_id: EventId,
    /// The account.
    pub user_id: UserId,
    /// When.
    pub occurred_at: Micros,
}

/// A held account's payouts go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserReleased {
    /// This event's id.
    pub event_id: EventId,
    /// The account.
    pub user_id: UserId,
    /// When.
    pub occurred_at: Micros,
}
