//! What the three kinds of worker share: decoding, dead letters, retry, counting.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemas::codec::{self, CodecError};
use schemas::events::{ActivityLogged, Event};
use schemas::reason::Reason;
use schemas::topic::Topic;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::dead_letter::{self, DeadLetterCount, DeadLetterLimit};
use crate::journal::{Call, Fault, FaultKind, Journal, Operation, Severity};
use crate::metrics::Metrics;
use crate::producer::{Ack, Message, Outbound, send};
use crate::publish::PublishError;
use crate::registry::{RegistryError, SchemaSource};
use crate::retry::{Failing, Next, Responding, RetryLimit, RoleProgress, responds};
use crate::skips::Skips;
use crate::source::{Assignment, Lane, RawRecord};
use crate::stage::{Envelope, FromRecord, Position};

/// Header that carries the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// Attempts at a whole batch, about half a second of passing faults; then its records are tried one by one, since one of
/// them may be the cause.
pub(crate) const WHOLE_ATTEMPTS: u32 = 4;
/// Records that are looked at before it is their turn, while one is tried again: 256 of about 1.5 kB are 0.4 MiB.
const AHEAD: usize = 256;
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
    /// When a record that fails alone is given up.
    pub retry_limit: RetryLimit,
    /// How the role's records fare.
    pub progress: Arc<RoleProgress>,
    /// Records whose results Kafka refuses.
    pub refused: Arc<RefusedRecords>,
    /// What operators have set aside.
    pub skips: Skips,
    /// What the role records of itself.
    pub journal: Arc<Journal>,
}

/// Why a worker ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Halt {
    /// Asked to stop in the middle of a retry: no fault.
    #[error("stopped")]
    Stopped,
    /// Another owner has the partition: begin anew from Kafka's offset, if it is still ours.
    #[error("the partition has another owner")]
    Fenced,
    /// An operator has to act; the partition waits, visibly.
    #[error("halted: {0}")]
    Operator(String),
    /// What a record causes can never be published: the partition begins anew, and the record becomes a dead letter.
    #[error("what offset {0} causes can never be published")]
    Refused(i64),
    /// A record that must not be left out fails while others succeed: the partition waits, visibly, and begins anew.
    #[error("offset {0} must not be left out, and fails while its store serves others: {1}")]
    Blocked(i64, String),
    /// Kafka does not take what the partition publishes: it waits, visibly, and begins anew.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A halt for the sake of a record.
pub(crate) fn at_offset(record: &RawRecord, detail: String) -> Halt {
    Halt::Operator(format!("{detail}, at offset {}", record.position.offset))
}

/// Records whose results Kafka refuses, e.g. as too large, with its words: they are found again when their partition begins anew.
#[derive(Debug, Default)]
pub struct RefusedRecords {
    /// Asked for every record, so without the lock.
    count: AtomicUsize,
    records: Mutex<HashMap<Position, String>>,
}

impl RefusedRecords {
    fn put(&self, at: &Position, detail: String) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(at.clone(), detail);
        self.count.store(records.len(), Ordering::SeqCst);
    }

    /// Why a record's results were refused; kept until they are asked for no more.
    #[must_use]
    pub fn find(&self, at: &Position) -> Option<String> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.records.lock().unwrap_or_else(PoisonError::into_inner).get(at).cloned()
    }
}

/// Attempts at something that every record needs, for the sake of one.
pub struct Retrying<'a> {
    at: &'a Position,
    stop: &'a CancellationToken,
    backoff: Backoff,
}

impl<'a> Retrying<'a> {
    /// No attempt has failed yet.
    #[must_use]
    pub fn new(at: &'a Position, stop: &'a CancellationToken) -> Self {
        Self { at, stop, backoff: Backoff::default() }
    }

    /// Attempts that failed so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.backoff.attempts()
    }
}

/// A record after decoding.
pub enum Decoded<T> {
    /// A known event.
    Event(Envelope<T>),
    /// For the dead letters.
    Bad(Reason, String),
}

impl StageContext {
    /// Decodes a record; waits while the registry is not reachable. Where it responds for other ids and for this one never, the record
    /// is bad.
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
        let (mut retrying, mut alone) = (Retrying::new(&record.position, stop), Responding::default());
        let schema = loop {
            let asked = match self.schemas.known(id) {
                Some(schema) => Ok(schema),
                None => self.schemas.schema(id).await,
            };
            match asked {
                Ok(schema) => break schema,
                Err(error @ RegistryError::Unavailable(_)) => {
                    if alone.shows(responds(self.schemas.responds()).await, self.retry_limit) {
                        let detail = format!("{error}; other ids it knows");
                        return Ok(Decoded::Bad(Reason::UnknownSchema, detail));
                    }
                    self.retry(&mut retrying, "schema_registry", &error).await?;
                }
                Err(error) => return Ok(Decoded::Bad(Reason::UnknownSchema, error.to_string())),
            }
        };
        match T::from_record(&schema, id, datum) {
            Some(Ok(payload)) => Ok(Decoded::Event(envelope(payload, record))),
            Some(Err(error)) => bad(error),
            None => self.unknown(record, schema.name(), stop).await,
        }
    }

    /// A record type that this release does not know: for the dead letters where an operator has set the record aside,
    /// else the partition halts.
    async fn unknown<T>(
        &self,
        record: &RawRecord,
        name: &str,
        stop: &CancellationToken,
    ) -> Result<Decoded<T>, Halt> {
        let at = &record.position;
        let mut retrying = Retrying::new(at, stop);
        let skipped = loop {
            match self.skips.reason(self.stage, at).await {
                Ok(skipped) => break skipped,
                Err(error) => self.retry(&mut retrying, "postgres", &error).await?,
            }
        };
        match skipped {
            Some(why) => Ok(Decoded::Bad(Reason::OperatorSkip, format!("{name}, skipped: {why}"))),
            None => Err(Halt::Operator(format!(
                "{name} at {topic}/{partition}@{offset} is not known to this release: deploy one that knows it, or run \
                 `milestream records skip {stage} {topic} {partition} {offset} --reason TEXT`",
                topic = at.topic,
                partition = at.partition,
                offset = at.offset,
                stage = self.stage,
            ))),
        }
    }

    /// Counts, logs and waits after a retryable error of something that every record needs.
    ///
    /// # Errors
    /// [`Halt::Stopped`].
    pub async fn retry(
        &self,
        retrying: &mut Retrying<'_>,
        cause: &str,
        error: &(dyn Error + Send + Sync),
    ) -> Result<(), Halt> {
        self.count_retry(retrying.at, cause, error, retrying.backoff.attempts());
        if retrying.backoff.wait(retrying.stop).await { Ok(()) } else { Err(Halt::Stopped) }
    }

    /// Counts and logs a record's failed attempt, and returns what to do next.
    pub fn failed(
        &self,
        failing: &mut Failing,
        at: &Position,
        cause: &str,
        error: &(dyn Error + Send + Sync),
    ) -> Next {
        let next = failing.failed();
        if next == Next::GiveUp {
            tracing::error!(stage = self.stage, topic = %at.topic, partition = at.partition, offset = at.offset, cause,
                error = %ErrorReport(error), attempts = failing.attempts(), "record given up: others succeed, this one never");
        } else {
            self.count_retry(at, cause, error, failing.attempts() - 1);
        }
        next
    }

    /// A record that has begun to fail.
    #[must_use]
    pub fn failing(&self) -> Failing {
        Failing::new(&self.progress, self.retry_limit)
    }

    fn count_retry(&self, at: &Position, cause: &str, error: &(dyn Error + Send + Sync), attempts: u32) {
        self.metrics.retries.with_label_values(&[self.stage, cause]).inc();
        // The first attempts are passing faults; from the fifth on (about a second) an operator may want to know.
        if attempts >= 4 {
            tracing::warn!(stage = self.stage, topic = %at.topic, partition = at.partition, offset = at.offset, cause,
                error = %ErrorReport(error), attempts, "trying again");
        }
    }

    /// What a failed delivery of the results of the record at `offset` means for its partition, where `at` stands.
    pub(crate) fn undelivered(&self, at: &Position, offset: i64, error: PublishError) -> Halt {
        match error {
            PublishError::Refused(detail) => {
                self.refused.put(&Position { offset, ..at.clone() }, detail);
                Halt::Refused(offset)
            }
            error => Halt::Publish(error),
        }
    }

    /// Sends a record to the dead letters, cut where it would be too large with its headers.
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
        let payload =
            record.payload.as_deref().map(|bytes| &bytes[..bytes.len().min(dead_letter::PAYLOAD_MAX)]);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let message =
            Message { topic: &self.dead_letters, key: record.key.as_deref(), payload, headers: &headers };
        tracing::warn!(stage = self.stage, reason = reason.label(), detail, topic = %record.position.topic,
            partition = record.position.partition, offset = record.position.offset, "dead letter");
        self.outcome("dead_letter", reason.label());
        self.journal.fault(&Fault {
            kind: fault_kind(reason),
            code: reason.label(),
            message: reason.advice(),
            causes: detail,
            user: user_of(record),
            severity: Severity::Medium,
        });
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

    /// Counts and records a transaction, or a batch of writes; `error` where it failed.
    pub fn wrote(&self, name: &'static str, took: Duration, error: Option<&dyn Error>) {
        self.metrics.stage_seconds.with_label_values(&[self.stage]).observe(took.as_secs_f64());
        let error = error.map(ToString::to_string);
        let operation = Operation::DatabaseQuery;
        self.journal.call(&Call { operation, name, took, status: None, error: error.as_deref() });
    }

    /// Records that a partition stands still, and why.
    pub fn ended(&self, result: &Result<(), Halt>) {
        let (kind, code, message) = match result {
            Ok(()) | Err(Halt::Stopped | Halt::Fenced | Halt::Refused(_)) => return,
            Err(Halt::Operator(_)) => (
                FaultKind::System,
                "partition_halted",
                "A partition waits for an operator: docs/operating.md says what to do.",
            ),
            Err(Halt::Blocked(..)) => (
                FaultKind::Database,
                "record_blocked",
                "A record that must not be left out fails while others succeed.",
            ),
            Err(Halt::Publish(_)) => (
                FaultKind::ExternalService,
                "publish_failed",
                "Kafka takes nothing of what a partition publishes.",
            ),
        };
        let causes = result.as_ref().err().map(|halt| ErrorReport(halt).to_string()).unwrap_or_default();
        let severity = Severity::High;
        self.journal.fault(&Fault { kind, code, message, causes: &causes, user: None, severity });
    }

    /// Counts how a record ended.
    pub fn outcome(&self, outcome: &str, reason: &str) {
        self.outcomes(outcome, reason).inc();
    }

    /// Where it is counted: for who counts often.
    #[must_use]
    pub fn outcomes(&self, outcome: &str, reason: &str) -> prometheus::IntCounter {
        self.metrics.outcomes.with_label_values(&[self.stage, outcome, reason])
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
pub struct ErrorReport<'a>(pub &'a (dyn Error + Send + Sync));

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

/// Whose part it is that a record became a dead letter.
fn fault_kind(reason: Reason) -> FaultKind {
    match reason {
        Reason::ProcessingFailed => FaultKind::System,
        _ => FaultKind::Validation,
    }
}

/// The user whose record it is: the key of most topics.
fn user_of(record: &RawRecord) -> Option<Uuid> {
    let topic = Topic::ALL.iter().find(|topic| record.position.topic.ends_with(topic.name()))?;
    let key = record.key.as_deref().filter(|_| topic.spec().is_keyed_by_user())?;
    Uuid::parse_str(std::str::from_utf8(key).ok()?).ok()
}

pub(crate) fn envelope<T>(payload: T, record: &RawRecord) -> Envelope<T> {
    Envelope {
        payload,
        position: record.position.clone(),
        timestamp_ms: record.timestamp_ms,
        redrive: record.header(REDRIVE).and_then(|n| n.parse().ok()).unwrap_or(0),
        traceparent: record.header(TRACEPARENT).map(str::to_owned),
    }
}

/// The next records of a lane, at least one; `None` when asked to stop.
pub async fn next_records(assignment: &mut Assignment, most: usize) -> Option<Vec<RawRecord>> {
    let mut records = Vec::with_capacity(most.min(64));
    let taken = tokio::select! {
        biased;
        () = assignment.lane.stop.cancelled() => 0,
        taken = assignment.records.recv_many(&mut records, most) => taken,
    };
    (taken > 0).then_some(records)
}

/// A lane of which the next records can be looked at before it is their turn.
pub(crate) struct Feed<'a> {
    assignment: &'a mut Assignment,
    ahead: Vec<RawRecord>,
}

impl<'a> Feed<'a> {
    /// The records of this lane.
    pub(crate) fn of(assignment: &'a mut Assignment) -> Self {
        Self { assignment, ahead: Vec::new() }
    }

    /// What consumer and worker share.
    pub(crate) fn lane(&self) -> Arc<Lane> {
        self.assignment.lane.clone()
    }

    /// As [`next_records`].
    pub(crate) async fn next(&mut self, most: usize) -> Option<Vec<RawRecord>> {
        if !self.ahead.is_empty() && !self.assignment.lane.stop.is_cancelled() {
            return Some(std::mem::take(&mut self.ahead));
        }
        next_records(self.assignment, most).await
    }

    /// Waits between two attempts at a record, and takes what comes meanwhile, up to [`AHEAD`].
    pub(crate) async fn pause(&mut self, wait: Duration) -> Result<(), Halt> {
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        let Assignment { lane, records, .. } = &mut *self.assignment;
        let mut more = self.ahead.len() < AHEAD;
        loop {
            tokio::select! {
                biased;
                () = lane.stop.cancelled() => return Err(Halt::Stopped),
                () = &mut over => return Ok(()),
                taken = records.recv_many(&mut self.ahead, AHEAD), if more => {
                    more = taken > 0 && self.ahead.len() < AHEAD;
                }
            }
        }
    }

    /// A record that shows by its success that a fault is that of `record` alone: one of another key, so that no order is
    /// broken.
    pub(crate) fn other<'r>(
        &'r self,
        record: &RawRecord,
        behind: impl Iterator<Item = &'r RawRecord>,
    ) -> Option<&'r RawRecord> {
        behind.chain(&self.ahead).find(|other| other.key.is_some() && other.key != record.key)
    }
}

/// The prefixed name of an event's topic.
#[must_use]
pub fn topic_name<E: Event>(prefix: &str) -> String {
    format!("{prefix}{}", E::TOPIC.name())
}
