//! The worker of a [`Sink`]: batches of one partition, written whole; a batch that does not fit is written one by one
//! and the record that fails alone is dead-lettered.

use std::sync::Arc;
use std::time::Instant;

use schemas::reason::Reason;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::dead_letter::DeadLetterCount;
use crate::producer::Ack;
use crate::publish::PublishError;
use crate::source::{Assignment, RawRecord};
use crate::stage::{Envelope, Sink, SinkError};
use crate::worker::{Decoded, Halt, StageContext, next_records};

/// Records of one batch; also what a crash repeats at most.
const BATCH: usize = 500;

/// One partition's worker.
pub struct SinkWorker<S: Sink> {
    /// The sink.
    pub sink: Arc<S>,
    /// What workers share.
    pub context: StageContext,
}

impl<S: Sink> SinkWorker<S> {
    /// Works until the lane is stopped.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn run(&self, assignment: &mut Assignment) -> Result<(), Halt> {
        let lane = assignment.lane.clone();
        let mut dead_letters = self.context.dead_letter_count();
        while let Some(records) = next_records(assignment, BATCH).await {
            self.context.consumed(&assignment.topic, records.len());
            self.batch(&records, &lane.stop, &mut dead_letters).await?;
            if let Some(last) = records.last() {
                lane.advance(last.position.offset + 1);
            }
        }
        Ok(())
    }

    async fn batch(
        &self,
        records: &[RawRecord],
        stop: &CancellationToken,
        dead_letters: &mut DeadLetterCount,
    ) -> Result<(), Halt> {
        let (mut events, mut origins) = (Vec::new(), Vec::new());
        for record in records {
            match self.context.decode::<S::In>(record, stop).await? {
                Decoded::Event(event) => {
                    events.push(event);
                    origins.push(record);
                }
                Decoded::Bad(reason, detail) => {
                    dead_letters.count(true).map_err(Halt::Operator)?;
                    self.dead_letter(record, reason, &detail).await?;
                }
            }
        }
        if events.is_empty() {
            return Ok(());
        }
        if self.write(&events, stop).await?.is_ok() {
            for _ in &events {
                dead_letters.count(false).map_err(Halt::Operator)?;
                self.context.outcome("write", "none");
            }
            return Ok(());
        }
        for (event, record) in events.chunks(1).zip(origins) {
            let written = self.write(event, stop).await?;
            dead_letters.count(written.is_err()).map_err(Halt::Operator)?;
            match written {
                Ok(()) => self.context.outcome("write", "none"),
                Err(detail) => self.dead_letter(record, Reason::BadRow, &detail).await?,
            }
        }
        Ok(())
    }

    /// Writes until the sink is reachable; the inner error is a row that does not fit.
    async fn write(
        &self,
        events: &[Envelope<S::In>],
        stop: &CancellationToken,
    ) -> Result<Result<(), String>, Halt> {
        let mut backoff = Backoff::default();
        loop {
            let started = Instant::now();
            let result = self.sink.write(events).await;
            let seconds = started.elapsed().as_secs_f64();
            self.context.metrics.stage_seconds.with_label_values(&[S::NAME]).observe(seconds);
            match result {
                Ok(()) => return Ok(Ok(())),
                Err(SinkError::BadRow(detail)) => return Ok(Err(detail)),
                Err(SinkError::Retry(error)) => {
                    self.context.retry("store", &error, &mut backoff, stop).await?;
                }
            }
        }
    }

    async fn dead_letter(&self, record: &RawRecord, reason: Reason, detail: &str) -> Result<(), Halt> {
        let (sender, receiver) = oneshot::channel();
        self.context.dead_letter(record, reason, detail, Ack::Waiter(sender)).await?;
        receiver.await.unwrap_or_else(|_| Err(PublishError::Fatal("the producer is gone".into())))?;
        Ok(())
    }
}
