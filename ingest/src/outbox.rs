//! What is announced with a change: a row of `outbox` in the change's own transaction, which `runtime::outbox` publishes.

use runtime::outbox::OutboxRows;
use schemas::codec::{self, CodecError};
use schemas::events::Event;
use schemas::ids::Micros;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::http::problem::{ApiError, INTERNAL};

/// Why an event was not announced.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// It does not encode: a bug of ours.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<OutboxError> for ApiError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Codec(error) => INTERNAL.caused_by(error),
            OutboxError::Database(error) => error.into(),
        }
    }
}

/// A row that a statement writes with what else it does.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) topic: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) event_id: Uuid,
    pub(crate) payload: Vec<u8>,
}

impl Row {
    /// `schema_id` is the registry's.
    pub(crate) fn of<E: Event>(schema_id: u32, event: &E) -> Result<Self, OutboxError> {
        let payload = codec::encode(schema_id, event)?;
        let (topic, key) = (E::TOPIC.name(), event.key().into_bytes());
        Ok(Self { topic, key, event_id: event.event_id().0, payload })
    }
}

/// Puts an event into the outbox; false where one with its id was there already. `runtime::outbox` adds the topic's prefix.
pub(crate) async fn announce<E: Event>(
    tx: &mut PgConnection,
    schema_id: u32,
    event: &E,
    now: Micros,
) -> Result<bool, OutboxError> {
    let mut rows = OutboxRows::created_at(now.to_utc());
    rows.push(schema_id, event, event.event_id().0)?;
    Ok(rows.insert(tx).await? == 1)
}
