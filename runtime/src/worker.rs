//! What the three kinds of worker share: decoding, dead letters, retry, counting.

use std::sync::Arc;

use schemas::codec::{self, CodecError};
use schemas::events::{ActivityLogged, Event};
use schemas::reason::Reason;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::dead_letter::{self, DeadLetterCount, DeadLetterLimit};
use crate::metrics::Metrics;
use crate::producer::{Ack, Message, Outbound, send};
use crate::publish::PublishError;
use crate::registry::{RegistryError, SchemaSource};
use crate::source::{Assignment, RawRecord};
use crate::stage::{Envelope, FromRecord};

/// Header that carries the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Header that counts an operator's redrives.
pub const REDRIVE: &str = "redrive";

/// What every worker of a role uses.
#[derive(Clone)]
pub struct StageContext {
    /// The role's name: metric label and dead-letter header.
    pub stage: &'static str,
    /// Where records go.
    pub outbound: Arc<dyn Outbound>,
    /// Where schemas come from.
    pub schemas: Arc<dyn SchemaSource>,
    /// The catalogue.
    pub metrics: Metrics,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The dead-letter topic, with its prefix.
    pub dead_letters: String,
    /// The topic of log documents, with its prefix.
    pub activity_logs: String,
    /// Schema id of [`ActivityLogged`].
    pub activity_schema: u32,
    /// When a partition halts.
    pub limit: DeadLetterLimit,
}

/// Why a worker ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// Told to stop in the middle of a retry: no fault.
    #[error("stopped")]
    Stopped,
    /// Another owner has the partition: begin anew from Kafka's offset, if it is still ours.
    #[error("the partition has another owner")]
    Fenced,
    /// An operator has to act; the partition waits, visibly.
    #[error("halted: {0}")]
    Operator(String),
    /// The producer has failed for good: the process starts anew.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A record after decoding.
pub enum Decoded<T> {
    /// A known event.
    Event(Envelope<T>),
    /// For the dead letters.
    Bad(Reason, String),
}

impl StageContext {
    /// Decodes a record; waits while the registry is not reachable.
    ///
    /// # Errors
    /// [`Halt::Stopped`] while waiting, [`Halt::Operator`] for a record name that this release does not know.
    pub async fn decode<T: FromRecord>(
        &self,
        record: &RawRecord,
        stop: &CancellationToken,
    ) -> Result<Decoded<T>, Halt> {
        let bad = |error: CodecError| Ok(Decoded::Bad(error.reason(), error.to_string()));
        let (id, datum) = match codec::unframe(record.payload.as_deref().unwrap_or_default()) {
            Ok(parts) => parts,
            Err(error) => return bad(error),
        };
        let mut backoff = Backoff::default();
        let schema = loop {
            match self.schemas.schema(id).await {
                Ok(schema) => break schema,
                Err(error @ RegistryError::Unavailable(_)) => {
                    self.retry("schema_registry", &error, &mut backoff, stop).await?;
                }
                Err(error) => return Ok(Decoded::Bad(Reason::UnknownSchema, error.to_string())),
            }
        };
        let name = codec::full_name(&schema);
        match T::from_record(&name, &schema, id, datum) {
            Some(Ok(payload)) => Ok(Decoded::Event(envelope(payload, record))),
            Some(Err(error)) => bad(error),
            None => Err(Halt::Operator(format!(
                "record {name} at offset {} is not known to this release: deploy the one that knows it, or skip it with an audited command",
                record.position.offset
            ))),
        }
    }

    /// Counts and waits after a retryable error.
    ///
    /// # Errors
    /// [`Halt::Stopped`].
    pub async fn retry(
        &self,
        cause: &str,
        error: &(dyn std::error::Error + Send + Sync),
        backoff: &mut Backoff,
        stop: &CancellationToken,
    ) -> Result<(), Halt> {
        self.metrics.retries.with_label_values(&[self.stage, cause]).inc();
        // The first attempts are passing faults; from the fifth on (about a second) an operator may want to know.
        if backoff.attempts() >= 4 {
            tracing::warn!(stage = self.stage, cause, error = %ErrorReport(error), attempts = backoff.attempts(), "trying again");
        }
        if backoff.wait(stop).await { Ok(()) } else { Err(Halt::Stopped) }
    }

    /// Sends a record to the dead letters.
    ///
    /// # Errors
    /// [`Halt::Publish`].
    pub async fn dead_letter(
        &self,
        record: &RawRecord,
        reason: Reason,
        detail: &str,
        ack: Ack,
    ) -> Result<(), Halt> {
        let headers = dead_letter::headers(record, self.stage, reason, detail, self.clock.now());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let message = Message {
            topic: &self.dead_letters,
            key: record.key.as_deref(),
            payload: record.payload.as_deref(),
            headers: &headers,
        };
        tracing::warn!(stage = self.stage, reason = reason.label(), detail, topic = %record.position.topic,
            partition = record.position.partition, offset = record.position.offset, "dead letter");
        self.outcome("dead_letter", reason.label());
        Ok(send(self.outbound.as_ref(), &message, ack).await?)
    }

    /// Encodes a log document; one that does not encode is a bug, logged and left out: logs never hold an event up.
    #[must_use]
    pub fn encode_log(&self, log: &ActivityLogged) -> Option<Vec<u8>> {
        match codec::encode(self.activity_schema, log) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                tracing::error!(error = %error, collection = log.collection, "log document does not encode");
                None
            }
        }
    }

    /// Counts how a record ended.
    pub fn outcome(&self, outcome: &str, reason: &str) {
        self.metrics.outcomes.with_label_values(&[self.stage, outcome, reason]).inc();
    }

    /// Counts records taken up.
    pub fn consumed(&self, topic: &str, count: usize) {
        self.metrics.consumed.with_label_values(&[self.stage, topic]).inc_by(count as u64);
    }

    /// A fresh count of dead letters.
    #[must_use]
    pub fn dead_letter_count(&self) -> DeadLetterCount {
        DeadLetterCount::new(self.limit)
    }
}

/// An error with its sources in one line.
pub struct ErrorReport<'a>(pub &'a (dyn std::error::Error + Send + Sync));

impl std::fmt::Display for ErrorReport<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

fn envelope<T>(payload: T, record: &RawRecord) -> Envelope<T> {
    Envelope {
        payload,
        position: record.position.clone(),
        timestamp_ms: record.timestamp_ms,
        redrive: record.header(REDRIVE).and_then(|n| n.parse().ok()).unwrap_or(0),
        traceparent: record.header(TRACEPARENT).map(str::to_owned),
    }
}

/// The next records of a lane, at least one; `None` when told to stop.
pub async fn next_records(assignment: &mut Assignment, most: usize) -> Option<Vec<RawRecord>> {
    let mut records = Vec::with_capacity(most.min(64));
    let taken = tokio::select! {
        biased;
        () = assignment.lane.stop.cancelled() => 0,
        taken = assignment.records.recv_many(&mut records, most) => taken,
    };
    (taken > 0).then_some(records)
}

/// The prefixed name of an event's topic.
#[must_use]
pub fn topic_name<E: Event>(prefix: &str) -> String {
    format!("{prefix}{}", E::TOPIC.name())
}
