//! The three shapes of a stage, and what they are given and return.
//!
//! A verdict about the event is a value; a retryable error is an `Err`, and the engine tries again without
//! moving the offset. `process`, `decide` and `write` may be repeated for the same record.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use schemas::codec::{self, CodecError, RecordSchema};
use schemas::events::{ActivityLogged, Event};
use schemas::ids::EventId;
use schemas::reason::Reason;
use schemas::topic::Topic;
use sqlx::PgConnection;

/// Where a record stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Topic.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// A decoded record.
#[derive(Clone, Debug)]
pub struct Envelope<T> {
    /// The event.
    pub payload: T,
    /// Where it stands.
    pub position: Position,
    /// Kafka's record timestamp, milliseconds.
    pub timestamp_ms: i64,
    /// How often an operator has redriven it from the dead letters.
    pub redrive: u32,
    /// W3C trace context, carried on to what is published.
    pub traceparent: Option<String>,
}

/// What a pure stage makes of an event; final, and the offset moves.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<O> {
    /// Publish the event.
    Emit(O),
    /// Publish the event and documents for the log collections.
    EmitWith(O, Vec<ActivityLogged>),
    /// Nothing to publish.
    Drop(Reason),
    /// Nothing to publish but documents for the log collections.
    DropWith(Reason, Vec<ActivityLogged>),
    /// A dead letter.
    Reject(Reason),
}

/// A retryable error: retried with backoff while the partition waits, visible as lag, never as loss.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct StageError {
    what: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl StageError {
    /// `what` could not be done, because of `source`.
    pub fn new(what: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what, source: source.into() }
    }
}

impl From<sqlx::Error> for StageError {
    fn from(error: sqlx::Error) -> Self {
        Self::new("postgres", error)
    }
}

/// A stage without state: one event in, at most one out.
pub trait Processor: Send + Sync + 'static {
    /// File name, metric label and consumer group suffix.
    const NAME: &'static str;
    /// Records of one partition that are in work at once. Records of one key keep their order, and so does what is
    /// published of them; those of different keys overtake each other. Worth more than 1 where a call takes long enough
    /// that one key's stall, or a core without work, would be felt.
    const IN_FLIGHT: usize = 1;
    /// What it consumes; the topic follows.
    type In: Event;
    /// What it publishes; the topic follows.
    type Out: Event;

    /// Makes a verdict.
    ///
    /// # Errors
    /// [`StageError`] for a retryable error: the engine calls again.
    fn process(
        &self,
        event: &Envelope<Self::In>,
    ) -> impl Future<Output = Result<Verdict<Self::Out>, StageError>> + Send;

    /// What becomes of an event that fails alone for good, while others succeed: a verdict, where there is one that says so,
    /// or else a dead letter.
    fn give_up(&self, event: &Envelope<Self::In>, error: &StageError) -> Option<Verdict<Self::Out>> {
        let _ = (event, error);
        None
    }

    /// Whether a verdict about this event shows that the stage's dependencies respond; false for one that is passed on
    /// without asking them.
    fn needs_dependencies(&self, event: &Self::In) -> bool {
        let _ = event;
        true
    }

    /// Whether what the stage depends on responds to a question that no record asks, e.g. a store for another photo: asked while a record
    /// fails and no other shows it. False where nothing can be asked.
    fn dependencies_respond(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }
}

/// The outcome of one record of a batch, stored under the fence before it is published.
#[derive(Clone, Debug)]
pub struct Decision<O> {
    /// The event to publish, or the reason for a drop.
    pub outcome: Result<O, Reason>,
    /// What may happen only once, e.g. `verdict:UPLOAD`; unique per stage.
    pub effect_id: Option<String>,
    /// The rules that were applied.
    pub rules_version: String,
    /// Why, in closed words: metric label.
    pub reason: Option<Reason>,
    /// What the decision saw beyond its event, kept beside it and reused by replays.
    pub evidence: serde_json::Value,
    /// Documents for the log collections, published with the event.
    pub logs: Vec<ActivityLogged>,
}

/// What a stage that decides consumes: one record type of a topic, or several.
pub trait Decided: FromRecord + Clone + fmt::Debug {
    /// The topic.
    const READS: Topic;

    /// The event's id: the same for every redelivery.
    fn id(&self) -> EventId;
}

impl<E: Event> Decided for E {
    const READS: Topic = E::TOPIC;

    fn id(&self) -> EventId {
        self.event_id()
    }
}

/// A stage that decides: one Postgres transaction per batch, behind the fence.
pub trait Decider: Send + Sync + 'static {
    /// File name, metric label and consumer group suffix.
    const NAME: &'static str;
    /// What it consumes.
    type In: Decided;
    /// What it publishes.
    type Out: Event;

    /// What deciding this event would do that may happen only once, e.g. `verdict:UPLOAD`: where that effect is stored
    /// already, the event is dropped before [`Decider::decide`] sees it.
    fn effect_of(&self, event: &Self::In) -> Option<String> {
        let _ = event;
        None
    }

    /// Decides a batch in order, inside the engine's transaction: reads and writes the stage's own state. Events that
    /// were decided before are not in the batch. Returns as many decisions as there are events, in order.
    ///
    /// # Errors
    /// [`StageError`]: the transaction is rolled back and the batch tried again.
    fn decide(
        &self,
        tx: &mut PgConnection,
        batch: &[Envelope<Self::In>],
    ) -> impl Future<Output = Result<Vec<Decision<Self::Out>>, StageError>> + Send;

    /// What is decided about an event that fails alone for good, while others succeed; without it the event is a dead
    /// letter. The stage's own state stays as it is.
    fn give_up(&self, event: &Envelope<Self::In>, error: &StageError) -> Option<Decision<Self::Out>> {
        let _ = (event, error);
        None
    }
}

/// Decodes the record types of a role's topics by the writer schema's full name.
pub trait FromRecord: Send + Sync + Sized + 'static {
    /// `None` for a record name that this release does not know: the partition halts, visibly.
    fn from_record(schema: &RecordSchema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>>;
}

impl<E: Event> FromRecord for E {
    fn from_record(schema: &RecordSchema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        (schema.name() == E::NAME).then(|| codec::decode(schema, id, datum))
    }
}

/// Why a sink did not write a batch.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A retryable error: the batch is tried again.
    #[error(transparent)]
    Retry(#[from] StageError),
    /// A value does not fit. The engine writes the batch one by one and dead-letters the one that fails alone.
    #[error("a row is refused: {0}")]
    BadRow(String),
}

/// A stage that writes batches somewhere, idempotently.
pub trait Sink: Send + Sync + 'static {
    /// Folder name, metric label and consumer group suffix.
    const NAME: &'static str;
    /// The topics that it reads.
    const TOPICS: &'static [Topic];
    /// The record types on them.
    type In: FromRecord;

    /// Writes a batch of one partition, whole or not at all; writing it again changes nothing.
    ///
    /// # Errors
    /// [`SinkError`].
    fn write(&self, batch: &[Envelope<Self::In>]) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Whether an event that fails alone for good becomes a dead letter; false where everything behind it would be wrong
    /// without it: its partition is halted, and the event is tried again for as long as it takes.
    fn gives_up(&self, event: &Self::In) -> bool {
        let _ = event;
        true
    }

    /// As [`Processor::dependencies_respond`].
    fn dependencies_respond(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }
}
