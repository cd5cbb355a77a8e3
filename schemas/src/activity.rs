//! Documents for the log collections: the type of `activity.logs`.

use serde::{Deserialize, Serialize};

use crate::ids::{EventId, Micros};

/// A document for a log collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityLogged {
    /// The event that it is about: with `collection` and `ordinal` it makes the document's id.
    pub event_id: EventId,
    /// The collection.
    pub collection: String,
    /// The n-th document of this event in this collection, from 0.
    pub ordinal: i32,
    /// When it happened; the document's `timestamp`.
    pub occurred_at: Micros,
    /// The document's fields as JSON.
    pub document: String,
}
