//! The worker of a [`Processor`]: one record at a time, or one of each key where the stage asks for it or a record has to be
//! tried again; acknowledgements out of order, offsets by the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{Histogram, IntCounter};
use schemas::codec;
use schemas::events::{ActivityLogged, Event};
use schemas::reason::Reason;
use tokio_util::sync::CancellationToken;

use crate::dead_letter::DeadLetterCount;
use crate::failpoint::{self, Step};
use crate::ledger::Ledger;
use crate::producer::{Ack, Message, send};
use crate::publish::PublishError;
use crate::source::{Assignment, RawRecord};
use crate::stage::{Envelope, Position, Processor, StageError, Verdict};
use crate::worker::{Decoded, ErrorReport, Halt, StageContext, TRACEPARENT, at_offset};

/// Records that wait for acknowledgement on one partition: 2,000 of 1.5 kB are 3 MiB.
pub(crate) const UNACKNOWLEDGED: usize = 2_000;
/// Records that are taken from the lane at once.
const BATCH: usize = 64;

/// One partition's worker.
pub struct PureWorker<P: Processor> {
    /// The stage.
    pub processor: Arc<P>,
    /// What workers share.
    pub context: StageContext,
    /// The output topic, with its prefix.
    pub output: String,
    /// Schema id of the output.
    pub output_schema: u32,
    /// How long records of a stage with several [in flight](Processor::IN_FLIGHT) may go on once the partition stops or
    /// halts, so that they need not be repeated: one of them may stand still for longer than anybody waits.
    pub grace: Duration,
}

/// What the worker of a partition keeps: its ledger, its count of dead letters, the series that every record counts in, and
/// the bytes of the event that is sent.
pub(crate) struct Partition {
    pub ledger: Arc<Ledger>,
    pub dead_letters: DeadLetterCount,
    pub seconds: Histogram,
    emitted: Option<IntCounter>,
    payload: Vec<u8>,
}

/// One attempt at a record.
pub(crate) enum Attempt<P: Processor> {
    /// It is done.
    Done(Work<P::Out>),
    /// A retryable error.
    Failed(Box<Envelope<P::In>>, StageError),
}

/// What came of a record, before anything of it is published.
pub(crate) enum Work<O> {
    /// The stage's verdict.
    Judged(Verdict<O>),
    /// It does not decode, or never works: for the dead letters, and why.
    Bad(Reason, String),
}

impl<P: Processor> PureWorker<P> {
    /// Works until the lane is stopped.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn run(&self, assignment: &mut Assignment) -> Result<(), Halt> {
        let ledger = Arc::new(Ledger::of(&assignment.lane, assignment.start));
        let mut partition = Partition {
            ledger: ledger.clone(),
            dead_letters: self.context.dead_letter_count(),
            seconds: self.context.metrics.stage_seconds.with_label_values(&[P::NAME]),
            emitted: None,
            payload: Vec::new(),
        };
        let result = if P::IN_FLIGHT > 1 {
            self.consume_by_key(assignment, &mut partition, Vec::new()).await
        } else {
            self.consume(assignment, &mut partition).await
        };
        // What was sent is waited for, so that the next owner repeats as little as possible. The consumer's drain
        // budget bounds this wait from outside.
        if !matches!(result, Err(Halt::Publish(_) | Halt::Refused(_))) {
            let drained = ledger.at_most_in_flight(0).await;
            drained.map_err(|failed| self.undelivered(assignment, failed))?;
        }
        result
    }

    /// Takes records as they come; acknowledgements come in beside it and move the lane's offset.
    async fn consume(&self, assignment: &mut Assignment, partition: &mut Partition) -> Result<(), Halt> {
        let (lane, ledger) = (assignment.lane.clone(), partition.ledger.clone());
        let mut records = Vec::with_capacity(BATCH);
        loop {
            let taken = tokio::select! {
                biased;
                () = lane.stop.cancelled() => return Ok(()),
                failed = ledger.failed() => return Err(self.undelivered(assignment, failed)),
                taken = assignment.records.recv_many(&mut records, BATCH) => taken,
            };
            if taken == 0 {
                return Ok(());
            }
            self.context.consumed(&assignment.topic, taken);
            for at in 0..taken {
                if lane.stop.is_cancelled() {
                    return Ok(());
                }
                match self.attempt(&records[at], &partition.seconds, &lane.stop).await? {
                    Attempt::Done(work) => self.publish(&records[at], work, partition).await?,
                    // What is behind it, of other keys, goes on meanwhile.
                    Attempt::Failed(..) => {
                        self.consume_by_key(assignment, partition, records.split_off(at)).await?;
                        break;
                    }
                }
            }
            assignment.records.give_back(&mut records);
            if ledger.in_flight() > UNACKNOWLEDGED {
                // Down to half, so that the worker is not woken again for every batch.
                let acknowledged = ledger.at_most_in_flight(UNACKNOWLEDGED / 2).await;
                acknowledged.map_err(|failed| self.undelivered(assignment, failed))?;
            }
        }
    }

    /// What a failed delivery means for the partition.
    pub(crate) fn undelivered(&self, assignment: &Assignment, (offset, error): (i64, PublishError)) -> Halt {
        let (topic, partition) = (assignment.topic.clone(), assignment.partition);
        self.context.undelivered(&Position { topic, partition, offset }, offset, error)
    }

    /// What the stage makes of a record; nothing is published yet.
    pub(crate) async fn attempt(
        &self,
        record: &RawRecord,
        seconds: &Histogram,
        stop: &CancellationToken,
    ) -> Result<Attempt<P>, Halt> {
        if let Some(detail) = self.context.refused.find(&record.position) {
            return Ok(Attempt::Done(Work::Bad(Reason::ProcessingFailed, detail)));
        }
        let event = match self.context.decode::<P::In>(record, stop).await? {
            Decoded::Event(event) => event,
            Decoded::Bad(reason, detail) => return Ok(Attempt::Done(Work::Bad(reason, detail))),
        };
        let started = Instant::now();
        let result = self.processor.process(&event).await;
        seconds.observe(started.elapsed().as_secs_f64());
        Ok(match result {
            Ok(verdict) => {
                if self.processor.needs_dependencies(&event.payload) {
                    self.context.progress.succeeded(1);
                }
                Attempt::Done(Work::Judged(verdict))
            }
            Err(error) => Attempt::Failed(Box::new(event), error),
        })
    }

    /// What becomes of a record that is given up.
    pub(crate) fn give_up(&self, event: &Envelope<P::In>, error: &StageError) -> Work<P::Out> {
        match self.processor.give_up(event, error) {
            Some(verdict) => Work::Judged(verdict),
            None => Work::Bad(Reason::ProcessingFailed, ErrorReport(error).to_string()),
        }
    }

    /// Hands over what came of a record; the ledger learns how many acknowledgements to wait for.
    pub(crate) async fn publish(
        &self,
        record: &RawRecord,
        work: Work<P::Out>,
        partition: &mut Partition,
    ) -> Result<(), Halt> {
        let halt = |detail| at_offset(record, detail);
        failpoint::at(Step::PureWorkedOut);
        let Partition { ledger, dead_letters, .. } = partition;
        let verdict = match work {
            Work::Judged(verdict) => verdict,
            Work::Bad(reason, detail) => {
                dead_letters.count(true).map_err(halt)?;
                return self.dead_letter(record, reason, &detail, ledger).await;
            }
        };
        dead_letters.count(matches!(verdict, Verdict::Reject(_))).map_err(halt)?;
        match verdict {
            Verdict::Emit(event) => self.emit(record, &event, &[], partition).await,
            Verdict::EmitWith(event, logs) => self.emit(record, &event, &logs, partition).await,
            Verdict::Drop(reason) => self.drop(record, reason, &[], ledger).await,
            Verdict::DropWith(reason, logs) => self.drop(record, reason, &logs, ledger).await,
            Verdict::Reject(reason) => self.dead_letter(record, reason, reason.advice(), ledger).await,
        }
    }

    async fn dead_letter(
        &self,
        record: &RawRecord,
        reason: Reason,
        detail: &str,
        ledger: &Arc<Ledger>,
    ) -> Result<(), Halt> {
        let offset = record.position.offset;
        ledger.begin(offset, 1);
        self.context.dead_letter(record, reason, detail, Ack::Ledger(ledger.clone(), offset)).await
    }

    async fn emit(
        &self,
        record: &RawRecord,
        event: &P::Out,
        logs: &[ActivityLogged],
        partition: &mut Partition,
    ) -> Result<(), Halt> {
        let Partition { ledger, payload, emitted, .. } = partition;
        let offset = record.position.offset;
        payload.clear();
        codec::encode_into(self.output_schema, event, payload)
            .map_err(|error| Halt::Operator(format!("output at offset {offset}: {error}")))?;
        let logs = self.encoded(logs);
        ledger.begin(offset, 1 + logs.len());
        let trace = [(TRACEPARENT, record.header(TRACEPARENT).map(str::as_bytes))];
        let headers = if trace[0].1.is_some() { &trace[..] } else { &[] };
        let key = event.key();
        let message = Message {
            topic: &self.output,
            key: Some(key.as_bytes()),
            payload: Some(payload.as_slice()),
            headers,
        };
        let sent = send(self.context.outbound.as_ref(), &message, Ack::Ledger(ledger.clone(), offset)).await;
        sent.map_err(|error| self.context.undelivered(&record.position, offset, error))?;
        self.publish_logs(&logs, headers, record, ledger).await?;
        failpoint::at(Step::PureSent);
        emitted.get_or_insert_with(|| self.context.outcomes("emit", "none")).inc();
        Ok(())
    }

    async fn drop(
        &self,
        record: &RawRecord,
        reason: Reason,
        logs: &[ActivityLogged],
        ledger: &Arc<Ledger>,
    ) -> Result<(), Halt> {
        let (offset, logs) = (record.position.offset, self.encoded(logs));
        ledger.begin(offset, logs.len());
        let trace = [(TRACEPARENT, record.header(TRACEPARENT).map(str::as_bytes))];
        let headers = if trace[0].1.is_some() { &trace[..] } else { &[] };
        self.publish_logs(&logs, headers, record, ledger).await?;
        self.context.outcome("drop", reason.label());
        Ok(())
    }

    /// Documents as keys and bytes.
    fn encoded(&self, logs: &[ActivityLogged]) -> Vec<(String, Vec<u8>)> {
        logs.iter().filter_map(|log| Some((log.key(), self.context.encode_log(log)?))).collect()
    }

    async fn publish_logs(
        &self,
        logs: &[(String, Vec<u8>)],
        headers: &[(&str, Option<&[u8]>)],
        record: &RawRecord,
        ledger: &Arc<Ledger>,
    ) -> Result<(), Halt> {
        let offset = record.position.offset;
        for (key, payload) in logs {
            let message = Message {
                topic: &self.context.activity_logs,
                key: Some(key.as_bytes()),
                payload: Some(payload),
                headers,
            };
            let sent =
                send(self.context.outbound.as_ref(), &message, Ack::Ledger(ledger.clone(), offset)).await;
            sent.map_err(|error| self.context.undelivered(&record.position, offset, error))?;
        }
        Ok(())
    }
}
