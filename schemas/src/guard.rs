//! What is known of payments outside of the database: the types of `payouts.guard`. A database that was set back shows by them that it
//! was, and what may have been signed since.

use serde::{Deserialize, Serialize};

use crate::ids::{EventId, Micros};

/// A transaction is about to be signed: published, and acknowledged, before its signature is stored. One a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureAnnounced {
    /// This event's id.
    pub event_id: EventId,
    /// When it was announced.
    pub occurred_at: Micros,
    /// The network.
    pub genesis_id: String,
    /// The distributor.
    pub signer: String,
    /// The transaction.
    pub tx_id: String,
    /// The last block that may hold it.
    pub last_valid: i64,
}

/// What a distributor paid was held against the books, up to a final block. One a network and distributor; it only rises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentsAudited {
    /// This event's id.
    pub event_id: EventId,
    /// When that block was reached.
    pub occurred_at: Micros,
    /// The network.
    pub genesis_id: String,
    /// The distributor.
    pub signer: String,
    /// The block after which the deployment's first payment was made: an empty database asks the chain from there.
    pub began_at: i64,
    /// The books held every payment up to this block.
    pub checked_upto: i64,
}

impl PaymentsAudited {
    /// The record's key.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.genesis_id, self.signer)
    }
}
