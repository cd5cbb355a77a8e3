//! A change of a payout or its transaction on its way to the topics: snapshots and documents, put into the outbox of the change's own
//! database transaction.

use chrono::{DateTime, Utc};
use runtime::StageError;

use super::outbox::{Outbox, Schemas};
use super::rows::{Payout, Transaction};
use super::transition::Change;
use super::{documents, snapshot};

/// Publishes changes.
#[derive(Clone, Copy, Debug)]
pub struct Publisher {
    /// Of what is published.
    pub schemas: Schemas,
    /// Gas that a transaction may ask for, for the comparison in `gas_optimization_logs`.
    pub gas_ceiling: i64,
}

impl Publisher {
    /// Puts a change of a transaction into the outbox: a snapshot of each of its payouts, and documents.
    ///
    /// # Errors
    /// [`StageError`] where an event does not fit its schema.
    pub fn transaction(
        &self,
        transaction: &Transaction,
        change: Change,
        at: DateTime<Utc>,
        outbox: &mut Outbox,
    ) -> Result<(), StageError> {
        for (clause, payout) in transaction.payouts.iter().enumerate() {
            let event = snapshot::updated(payout, Some((transaction, clause)), at.into());
            outbox.payout(self.schemas, &event)?;
        }
        outbox.documents(self.schemas, &documents::of_change(transaction, change, at, self.gas_ceiling))
    }

    /// Puts a payout that no transaction pays yet into the outbox.
    ///
    /// # Errors
    /// As [`Publisher::transaction`].
    pub fn payout(&self, payout: &Payout, at: DateTime<Utc>, outbox: &mut Outbox) -> Result<(), StageError> {
        outbox.payout(self.schemas, &snapshot::updated(payout, None, at.into()))
    }
}
