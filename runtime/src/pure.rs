//! The worker of a [`Processor`]: one record at a time, or one of each key where the stage asks for it; acknowledgements
//! out of order, offsets by the ledger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::codec;
use schemas::events::{ActivityLogged, Event};
use schemas::reason::Reason;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::dead_letter::DeadLetterCount;
use crate::ledger::Ledger;
use crate::producer::{Ack, Message, send};
use crate::source::{Assignment, Lane, RawRecord};
use crate::stage::{Envelope, Processor, Verdict};
use crate::worker::{Decoded, Halt, StageContext, TRACEPARENT, next_records};

/// Records that wait for acknowledgement on one partition: 2,000 of 1.5 kB are 3 MiB.
pub(crate) const UNACKNOWLEDGED: usize = 2_000;

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

/// What came of a record, before anything of it is published.
pub(crate) enum Work<O> {
    /// The stage's verdict.
    Judged(Verdict<O>),
    /// It does not decode: for the dead letters, and why.
    Bad(Reason, String),
}

impl<P: Processor> PureWorker<P> {
    /// Works until the lane is stopped.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn run(&self, assignment: &mut Assignment) -> Result<(), Halt> {
        let ledger = Arc::new(Ledger::starting_at(assignment.start));
        let lane = assignment.lane.clone();
        let mut dead_letters = self.context.dead_letter_count();
        let result = if P::IN_FLIGHT > 1 {
            self.consume_by_key(assignment, &ledger, &mut dead_letters).await
        } else {
            self.consume(assignment, &ledger, &mut dead_letters).await
        };
        // What was sent is waited for, so that the next owner repeats as little as possible. The consumer's drain
        // budget bounds this wait from outside.
        if !matches!(result, Err(Halt::Publish(_))) {
            let drained = ledger.at_most_in_flight(0).await;
            lane.advance(ledger.frontier());
            drained.map_err(unpublishable)?;
        }
        result
    }

    async fn consume(
        &self,
        assignment: &mut Assignment,
        ledger: &Arc<Ledger>,
        dead_letters: &mut DeadLetterCount,
    ) -> Result<(), Halt> {
        let lane = assignment.lane.clone();
        while let Some(records) = next_records(assignment, 64).await {
            self.context.consumed(&assignment.topic, records.len());
            for record in &records {
                if lane.stop.is_cancelled() {
                    return Ok(());
                }
                self.one(record, ledger, &lane, dead_letters).await?;
                lane.advance(ledger.frontier());
            }
            // With nothing more queued the acknowledgements are waited for, so that the offset reaches the end.
            let keep = if assignment.records.is_empty() { 0 } else { UNACKNOWLEDGED };
            ledger.at_most_in_flight(keep).await.map_err(unpublishable)?;
            lane.advance(ledger.frontier());
        }
        Ok(())
    }

    async fn one(
        &self,
        record: &RawRecord,
        ledger: &Arc<Ledger>,
        lane: &Lane,
        dead_letters: &mut DeadLetterCount,
    ) -> Result<(), Halt> {
        let work = self.work(record, &lane.stop).await?;
        self.publish(record, work, ledger, dead_letters).await
    }

    /// What the stage makes of a record; nothing is published yet.
    pub(crate) async fn work(
        &self,
        record: &RawRecord,
        stop: &CancellationToken,
    ) -> Result<Work<P::Out>, Halt> {
        Ok(match self.context.decode::<P::In>(record, stop).await? {
            Decoded::Event(event) => Work::Judged(self.process(&event, stop).await?),
            Decoded::Bad(reason, detail) => Work::Bad(reason, detail),
        })
    }

    /// Hands over what came of a record; the ledger learns how many acknowledgements to wait for.
    pub(crate) async fn publish(
        &self,
        record: &RawRecord,
        work: Work<P::Out>,
        ledger: &Arc<Ledger>,
        dead_letters: &mut DeadLetterCount,
    ) -> Result<(), Halt> {
        let verdict = match work {
            Work::Judged(verdict) => verdict,
            Work::Bad(reason, detail) => {
                dead_letters.count(true).map_err(Halt::Operator)?;
                return self.dead_letter(record, reason, &detail, ledger).await;
            }
        };
        dead_letters.count(matches!(verdict, Verdict::Reject(_))).map_err(Halt::Operator)?;
        match verdict {
            Verdict::Emit(event) => self.emit(record, &event, &[], ledger).await,
            Verdict::EmitWith(event, logs) => self.emit(record, &event, &logs, ledger).await,
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

    async fn process(
        &self,
        event: &Envelope<P::In>,
        stop: &CancellationToken,
    ) -> Result<Verdict<P::Out>, Halt> {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let result = self.processor.process(event).await;
            let seconds = started.elapsed().as_secs_f64();
            self.context.metrics.stage_seconds.with_label_values(&[P::NAME]).observe(seconds);
            match result {
                Ok(verdict) => return Ok(verdict),
                Err(error) => self.context.retry("stage", &error, &mut backoff, stop).await?,
            }
        }
    }

    async fn emit(
        &self,
        record: &RawRecord,
        event: &P::Out,
        logs: &[ActivityLogged],
        ledger: &Arc<Ledger>,
    ) -> Result<(), Halt> {
        let offset = record.position.offset;
        let payload = codec::encode(self.output_schema, event)
            .map_err(|error| Halt::Operator(format!("output at offset {offset}: {error}")))?;
        let logs = self.encoded(logs);
        ledger.begin(offset, 1 + logs.len());
        let trace = [(TRACEPARENT, record.header(TRACEPARENT).map(str::as_bytes))];
        let headers = if trace[0].1.is_some() { &trace[..] } else { &[] };
        let key = event.key();
        let message =
            Message { topic: &self.output, key: Some(key.as_bytes()), payload: Some(&payload), headers };
        send(self.context.outbound.as_ref(), &message, Ack::Ledger(ledger.clone(), offset)).await?;
        self.publish_logs(&logs, headers, offset, ledger).await?;
        self.context.outcome("emit", "none");
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
        self.publish_logs(&logs, headers, offset, ledger).await?;
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
        offset: i64,
        ledger: &Arc<Ledger>,
    ) -> Result<(), Halt> {
        for (key, payload) in logs {
            let message = Message {
                topic: &self.context.activity_logs,
                key: Some(key.as_bytes()),
                payload: Some(payload),
                headers,
            };
            send(self.context.outbound.as_ref(), &message, Ack::Ledger(ledger.clone(), offset)).await?;
        }
        Ok(())
    }
}

/// The broker refuses a record for good.
pub(crate) fn unpublishable(detail: String) -> Halt {
    Halt::Operator(format!("a record cannot be published: {detail}"))
}
