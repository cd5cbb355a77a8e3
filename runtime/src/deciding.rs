//! The worker of a [`Decider`]: decide, then publish. A batch is one Postgres transaction behind the fence; what was decided
//! is published from its stored bytes, acknowledged, and only then does Kafka's offset move.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use schemas::codec;
use schemas::events::Event;
use schemas::ids;
use schemas::reason::Reason;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::dead_letter::{self, DeadLetterCount};
use crate::fence::{Fence, FenceError, Guards, Stored};
use crate::ledger::Ledger;
use crate::producer::{Ack, Message, send};
use crate::source::{Assignment, RawRecord};
use crate::stage::{Decider, Decision, Envelope, StageError};
use crate::stored::{pack, unpack};
use crate::worker::{Decoded, Halt, StageContext, TRACEPARENT, next_records};

/// Records of one transaction: a few milliseconds of Postgres, and what a crash repeats at most.
const BATCH: usize = 200;

/// One partition's worker.
pub struct DecidingWorker<D: Decider> {
    /// The stage.
    pub decider: Arc<D>,
    /// What workers share.
    pub context: StageContext,
    /// The stage's database.
    pub pool: PgPool,
    /// The output topic, with its prefix.
    pub output: String,
    /// Schema id of the output.
    pub output_schema: u32,
    /// Who holds the fence, for operators.
    pub owner: String,
    /// On, outside one test.
    pub guards: Guards,
}

enum BatchError {
    Retryable(StageError),
    Halt(Halt),
}

impl From<FenceError> for BatchError {
    fn from(error: FenceError) -> Self {
        match error {
            FenceError::Postgres(error) => Self::Retryable(error.into()),
            FenceError::Lost => Self::Halt(Halt::Fenced),
            FenceError::Inconsistent(detail) => Self::Halt(Halt::Operator(detail)),
        }
    }
}

impl From<sqlx::Error> for BatchError {
    fn from(error: sqlx::Error) -> Self {
        Self::Retryable(error.into())
    }
}

impl<D: Decider> DecidingWorker<D> {
    /// Works until the lane is stopped.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn run(&self, assignment: &mut Assignment) -> Result<(), Halt> {
        let lane = assignment.lane.clone();
        let mut fence = self.take_fence(assignment, &lane.stop).await?;
        let mut dead_letters = self.context.dead_letter_count();
        while let Some(records) = next_records(assignment, BATCH).await {
            self.context.consumed(&assignment.topic, records.len());
            let split = records.partition_point(|record| record.position.offset < fence.decided_upto);
            let (decided, fresh) = records.split_at(split);
            self.republish(&fence, decided, &lane.stop).await?;
            let stored = self.decide(&mut fence, fresh, &lane.stop, &mut dead_letters).await?;
            self.publish(stored.iter().map(|row| row.output.as_slice())).await?;
            if let Some(last) = records.last() {
                lane.advance(last.position.offset + 1);
            }
        }
        Ok(())
    }

    async fn take_fence(&self, assignment: &Assignment, stop: &CancellationToken) -> Result<Fence, Halt> {
        let mut backoff = Backoff::default();
        loop {
            match Fence::take(&self.pool, D::NAME, assignment, &self.owner, self.guards).await {
                Ok(fence) => return Ok(fence),
                Err(FenceError::Postgres(error)) => {
                    self.context.retry("postgres", &error, &mut backoff, stop).await?;
                }
                Err(error) => return Err(Halt::Operator(error.to_string())),
            }
        }
    }

    /// Publishes the stored outputs of records that were decided before.
    async fn republish(
        &self,
        fence: &Fence,
        records: &[RawRecord],
        stop: &CancellationToken,
    ) -> Result<(), Halt> {
        if records.is_empty() {
            return Ok(());
        }
        let offsets: Vec<i64> = records.iter().map(|record| record.position.offset).collect();
        let mut backoff = Backoff::default();
        let outputs = loop {
            match fence.outputs(&self.pool, &offsets).await {
                Ok(outputs) => break outputs,
                Err(error) => self.context.retry("postgres", &error, &mut backoff, stop).await?,
            }
        };
        let stored = offsets
            .iter()
            .map(|offset| {
                outputs.get(offset).map(Vec::as_slice).ok_or_else(|| {
                    Halt::Operator(format!(
                        "offset {offset} lies below decided_upto but has no stored outcome"
                    ))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        for _ in &stored {
            self.context.outcome("republish", "none");
        }
        self.publish(stored.into_iter()).await
    }

    async fn publish(&self, outputs: impl Iterator<Item = &[u8]>) -> Result<(), Halt> {
        let ledger = Arc::new(Ledger::starting_at(0));
        for (offset, output) in (0..).zip(outputs) {
            let records =
                unpack(output).map_err(|error| Halt::Operator(format!("stored output: {error}")))?;
            ledger.begin(offset, records.len());
            for record in &records {
                let headers: Vec<_> =
                    record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
                let message = Message {
                    topic: &record.topic,
                    key: record.key.as_deref(),
                    payload: record.payload.as_deref(),
                    headers: &headers,
                };
                send(self.context.outbound.as_ref(), &message, Ack::Ledger(ledger.clone(), offset)).await?;
            }
        }
        ledger
            .at_most_in_flight(0)
            .await
            .map_err(|detail| Halt::Operator(format!("a record cannot be published: {detail}")))
    }

    async fn decide(
        &self,
        fence: &mut Fence,
        records: &[RawRecord],
        stop: &CancellationToken,
        dead_letters: &mut DeadLetterCount,
    ) -> Result<Vec<Stored>, Halt> {
        let Some(last) = records.last() else { return Ok(Vec::new()) };
        let upto = last.position.offset + 1;
        let mut decoded = Vec::with_capacity(records.len());
        for record in records {
            let item = self.context.decode::<D::In>(record, stop).await?;
            dead_letters.count(matches!(item, Decoded::Bad(..))).map_err(Halt::Operator)?;
            decoded.push((record, item));
        }
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let result = self.transaction(fence, &decoded, upto).await;
            let seconds = started.elapsed().as_secs_f64();
            self.context.metrics.stage_seconds.with_label_values(&[D::NAME]).observe(seconds);
            match result {
                Ok(stored) => {
                    fence.decided_upto = upto;
                    for row in &stored {
                        self.context.outcome(row.outcome, row.reason.unwrap_or("none"));
                    }
                    return Ok(stored);
                }
                Err(BatchError::Halt(halt)) => return Err(halt),
                // An unknown commit outcome ends here too: if it did commit, the next attempt's compare-and-set hits
                // no row, the partition begins anew, and the stored outputs are published.
                Err(BatchError::Retryable(error)) => {
                    self.context.retry("postgres", &error, &mut backoff, stop).await?;
                }
            }
        }
    }

    async fn transaction(
        &self,
        fence: &Fence,
        decoded: &[(&RawRecord, Decoded<D::In>)],
        upto: i64,
    ) -> Result<Vec<Stored>, BatchError> {
        let mut tx = self.pool.begin().await?;
        let (mut ids, mut effects) = (Vec::new(), Vec::new());
        for (_, item) in decoded {
            if let Decoded::Event(event) = item {
                ids.push(key_of(event));
                effects.extend(self.decider.effect_of(&event.payload));
            }
        }
        let (mut known, mut taken) = fence.known(&mut tx, &ids, &effects).await?;
        let guarded = self.guards == Guards::On;
        let is_fresh = |event: &Envelope<D::In>, known: &mut HashSet<_>, taken: &mut HashSet<String>| {
            let first = known.insert(key_of(event));
            let free = self.decider.effect_of(&event.payload).is_none_or(|effect| taken.insert(effect));
            (first && free) || !guarded
        };
        let fresh: Vec<bool> = decoded
            .iter()
            .map(|(_, item)| matches!(item, Decoded::Event(event) if is_fresh(event, &mut known, &mut taken)))
            .collect();
        let batch: Vec<Envelope<D::In>> = decoded
            .iter()
            .zip(&fresh)
            .filter_map(|((_, item), fresh)| match item {
                Decoded::Event(event) if *fresh => Some(event.clone()),
                _ => None,
            })
            .collect();
        let decisions = if batch.is_empty() {
            Vec::new()
        } else {
            self.decider.decide(&mut tx, &batch).await.map_err(BatchError::Retryable)?
        };
        if decisions.len() != batch.len() {
            let text = format!("{} made {} decisions of {} events", D::NAME, decisions.len(), batch.len());
            return Err(BatchError::Halt(Halt::Operator(text)));
        }
        let mut decisions = batch.iter().zip(decisions);
        let stored = decoded
            .iter()
            .zip(fresh)
            .map(|((record, item), fresh)| match item {
                Decoded::Bad(reason, detail) => Ok(self.stored_dead_letter(record, *reason, detail)),
                Decoded::Event(_) if fresh => match decisions.next() {
                    Some((event, decision)) => self.stored_decision(record, event, decision),
                    None => Ok(stored_repeat(record)),
                },
                Decoded::Event(_) => Ok(stored_repeat(record)),
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(BatchError::Halt)?;
        fence.store(&mut tx, &stored, upto, self.context.clock.now()).await?;
        tx.commit().await?;
        Ok(stored)
    }

    fn stored_decision(
        &self,
        record: &RawRecord,
        event: &Envelope<D::In>,
        decision: Decision<D::Out>,
    ) -> Result<Stored, Halt> {
        let mut output = Vec::new();
        let trace = [(TRACEPARENT, event.traceparent.as_deref().map(str::as_bytes))];
        let headers = if event.traceparent.is_some() { &trace[..] } else { &[] };
        if let Ok(out) = &decision.outcome {
            let payload = codec::encode(self.output_schema, out)
                .map_err(|error| Halt::Operator(format!("output of {}: {error}", D::NAME)))?;
            let key = out.key();
            pack(
                &mut output,
                &Message { topic: &self.output, key: Some(key.as_bytes()), payload: Some(&payload), headers },
            );
        }
        for log in &decision.logs {
            if let Some(payload) = self.context.encode_log(log) {
                let key = log.key();
                let topic = &self.context.activity_logs;
                pack(
                    &mut output,
                    &Message { topic, key: Some(key.as_bytes()), payload: Some(&payload), headers },
                );
            }
        }
        let (id, redrive) = key_of(event);
        let dropped = decision.outcome.err();
        Ok(Stored {
            input_event_id: id,
            redrive,
            effect_id: decision.effect_id,
            offset: record.position.offset,
            outcome: if dropped.is_some() { "drop" } else { "emit" },
            reason: dropped.or(decision.reason).map(Reason::label),
            rules_version: decision.rules_version,
            evidence: decision.evidence,
            output,
        })
    }

    fn stored_dead_letter(&self, record: &RawRecord, reason: Reason, detail: &str) -> Stored {
        let headers = dead_letter::headers(record, D::NAME, reason, detail, self.context.clock.now());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let mut output = Vec::new();
        pack(
            &mut output,
            &Message {
                topic: &self.context.dead_letters,
                key: record.key.as_deref(),
                payload: record.payload.as_deref(),
                headers: &headers,
            },
        );
        Stored { outcome: "dead_letter", reason: Some(reason.label()), output, ..stored_repeat(record) }
    }
}

/// A record whose event was decided before, under another offset: nothing is published, but its position is accounted for.
fn stored_repeat(record: &RawRecord) -> Stored {
    let position = &record.position;
    Stored {
        input_event_id: ids::natural(&format!(
            "{}/{}/{}",
            position.topic, position.partition, position.offset
        )),
        redrive: 0,
        effect_id: None,
        offset: position.offset,
        outcome: "drop",
        reason: Some(Reason::DuplicateEvent.label()),
        rules_version: String::new(),
        evidence: serde_json::Value::Null,
        output: Vec::new(),
    }
}

fn key_of<E: Event>(event: &Envelope<E>) -> (Uuid, i32) {
    (event.payload.event_id().0, i32::try_from(event.redrive).unwrap_or(i32::MAX))
}
