//! What a change makes public, written in the change's own transaction and published by the relay.

use runtime::StageError;
use runtime::outbox::OutboxRows;
use schemas::events::{ActivityLogged, Event, PayoutUpdated, RewardCalculated, RewardCancelled};
use schemas::ids::natural;
use sqlx::PgConnection;
use uuid::Uuid;

/// Registry ids of what this stage publishes.
#[derive(Clone, Copy, Debug)]
pub struct Schemas {
    /// [`PayoutUpdated`].
    pub payout_updated: u32,
    /// [`ActivityLogged`].
    pub activity_logged: u32,
    /// [`RewardCancelled`].
    pub reward_cancelled: u32,
}

/// Records on their way into the outbox, in order.
#[derive(Debug, Default)]
pub struct Outbox(OutboxRows);

impl Outbox {
    /// Adds a snapshot.
    ///
    /// # Errors
    /// [`StageError`] when it does not fit its schema: a bug, which must not be committed silently.
    pub fn payout(&mut self, schemas: Schemas, event: &PayoutUpdated) -> Result<(), StageError> {
        self.push(schemas.payout_updated, event, event.header.event_id.0)
    }

    /// Adds the refund of a cancelled reward to its budgets.
    ///
    /// # Errors
    /// As [`Outbox::payout`].
    pub fn cancelled(&mut self, schemas: Schemas, event: &RewardCancelled) -> Result<(), StageError> {
        self.push(schemas.reward_cancelled, event, event.header.event_id.0)
    }

    /// Adds a reward that is worked out anew, by the registry's id of its record.
    ///
    /// # Errors
    /// As [`Outbox::payout`].
    pub fn calculated(&mut self, schema: u32, event: &RewardCalculated) -> Result<(), StageError> {
        self.push(schema, event, event.header.event_id.0)
    }

    /// Adds documents for the log collections.
    ///
    /// # Errors
    /// As [`Outbox::payout`].
    pub fn documents(&mut self, schemas: Schemas, documents: &[ActivityLogged]) -> Result<(), StageError> {
        documents.iter().try_for_each(|document| {
            // Several documents share an event; each is a record of its own.
            let id = natural(&format!("{}/{}/{}", document.event_id, document.collection, document.ordinal));
            self.push(schemas.activity_logged, document, id)
        })
    }

    fn push<E: Event>(&mut self, schema: u32, event: &E, id: Uuid) -> Result<(), StageError> {
        self.0.push(schema, event, id).map_err(|error| StageError::new("encode for the outbox", error))
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the records; one whose id is there already is left out.
    ///
    /// # Errors
    /// Postgres'.
    pub async fn store(self, tx: &mut PgConnection) -> sqlx::Result<()> {
        self.0.insert(tx).await.map(drop)
    }
}
