//! In-memory source, publisher and schemas: a stage runs from bytes to bytes without a broker.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use futures::future::BoxFuture;
use schemas::codec::{self, RecordSchema};
use schemas::events::{Event, registry_subjects};
use sqlx::PgPool;
use tokio::sync::mpsc;

use crate::clock::ManualClock;
use crate::dead_letter::DeadLetterLimit;
use crate::journal::Journal;
use crate::metrics::{Metrics, MetricsError};
use crate::producer::{Ack, Message, NotTaken, Outbound};
use crate::publish::Delivered;
use crate::registry::{RegistryError, SchemaSource};
use crate::retry::RetryLimit;
use crate::skips::Skips;
use crate::source::{Assignment, Lane, RawRecord};
use crate::stage::Position;
use crate::stored::StoredRecord;
use crate::worker::StageContext;

/// Has every connection of a pool tell what it has scanned: the one that migrated has scanned too, for the indexes it made, and its counts
/// would come in between later. All that the pool may have are held at once: one that is still on its way back into the pool is not in it.
///
/// # Errors
/// Postgres'.
pub async fn tell_scans(pool: &PgPool) -> sqlx::Result<()> {
    let mut connections = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        let mut connection = pool.acquire().await?;
        sqlx::query("select pg_stat_force_next_flush()").execute(&mut *connection).await?;
        connections.push(connection);
    }
    Ok(())
}

/// Keeps what is sent and acknowledges at once.
#[derive(Debug, Default)]
pub struct MemoryOutbound(Mutex<Vec<StoredRecord>>);

impl MemoryOutbound {
    /// Everything sent so far.
    #[must_use]
    pub fn sent(&self) -> Vec<StoredRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Outbound for MemoryOutbound {
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken> {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.push(StoredRecord {
            topic: message.topic.to_owned(),
            key: message.key.map(<[u8]>::to_vec),
            payload: message.payload.map(<[u8]>::to_vec),
            headers: message.headers.iter().map(|(n, v)| ((*n).to_owned(), v.map(<[u8]>::to_vec))).collect(),
        });
        let offset = i64::try_from(sent.len()).unwrap_or(i64::MAX);
        drop(sent);
        ack.settle(Ok(Delivered { partition: 0, offset }));
        Ok(())
    }
}

/// The built-in schemas under ids 1, 2, … in the order of [`registry_subjects`].
#[derive(Debug, Default)]
pub struct MemorySchemas;

impl MemorySchemas {
    /// The id of an event type.
    #[must_use]
    pub fn id_of<E: Event>() -> u32 {
        let at =
            registry_subjects().iter().position(|(_, name, _)| *name == E::NAME).unwrap_or(usize::MAX - 1);
        u32::try_from(at + 1).unwrap_or(u32::MAX)
    }
}

impl SchemaSource for MemorySchemas {
    fn schema(&self, id: u32) -> BoxFuture<'_, Result<Arc<RecordSchema>, RegistryError>> {
        Box::pin(async move {
            static PARSED: LazyLock<Vec<Result<Arc<RecordSchema>, String>>> = LazyLock::new(|| {
                registry_subjects().iter().map(|(.., text)| RecordSchema::parse(text).map(Arc::new)).collect()
            });
            match PARSED.get((id as usize).wrapping_sub(1)) {
                Some(Ok(schema)) => Ok(schema.clone()),
                Some(Err(detail)) => Err(RegistryError::Unparsable { id, detail: detail.clone() }),
                None => Err(RegistryError::Unknown(id)),
            }
        })
    }
}

/// StageContext of a role on memory; the clock stands at zero.
///
/// # Errors
/// When the engine's metrics are not declared well.
pub fn stage_context(
    stage: &'static str,
    outbound: Arc<MemoryOutbound>,
) -> Result<StageContext, MetricsError> {
    Ok(StageContext {
        stage,
        outbound,
        schemas: Arc::new(MemorySchemas),
        metrics: Metrics::new()?,
        clock: Arc::new(ManualClock::default()),
        dead_letters: "dead-letters".into(),
        activity_logs: "activity.logs".into(),
        activity_schema: MemorySchemas::id_of::<schemas::events::ActivityLogged>(),
        limit: DeadLetterLimit::default(),
        retry_limit: RetryLimit::default(),
        progress: Arc::default(),
        refused: Arc::default(),
        skips: Skips::default(),
        journal: Arc::new(Journal::silent(stage, Arc::new(ManualClock::default()))),
    })
}

/// The log documents among what was sent, in order.
///
/// # Panics
/// When a record on `activity.logs` is none.
#[must_use]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub fn recorded(outbound: &MemoryOutbound) -> Vec<serde_json::Value> {
    let sent = outbound.sent();
    let records = sent.iter().filter(|record| record.topic == "activity.logs");
    let documents = records.map(|record| {
        let (id, datum) = codec::unframe(record.payload.as_deref().unwrap()).unwrap();
        let schema = futures::executor::block_on(MemorySchemas.schema(id)).unwrap();
        let event: schemas::events::ActivityLogged = codec::decode(&schema, id, datum).unwrap();
        serde_json::from_str(&event.document).unwrap()
    });
    documents.collect()
}

/// A framed record at an offset.
///
/// # Errors
/// When the event does not encode.
pub fn record<E: Event>(event: &E, offset: i64) -> Result<RawRecord, codec::CodecError> {
    let payload = codec::encode(MemorySchemas::id_of::<E>(), event)?;
    Ok(raw(E::TOPIC.name(), offset, Some(event.key().into_bytes()), Some(payload)))
}

/// Any bytes at an offset.
#[must_use]
pub fn raw(topic: &str, offset: i64, key: Option<Vec<u8>>, payload: Option<Vec<u8>>) -> RawRecord {
    let position = Position { topic: topic.into(), partition: 0, offset };
    RawRecord { position, key, payload, headers: Vec::new(), timestamp_ms: 0 }
}

/// An assignment that holds these records and then ends.
#[must_use]
pub fn assignment(topic: &str, records: Vec<RawRecord>) -> Assignment {
    let (sender, receiver) = mpsc::channel(records.len().max(1));
    let start = records.first().map_or(0, |record| record.position.offset);
    for record in records {
        // The channel has room for all of them.
        let _ = sender.try_send(record);
    }
    Assignment {
        topic: topic.into(),
        partition: 0,
        start,
        bootstrapped: false,
        records: receiver.into(),
        lane: Lane::starting_at(start),
    }
}
