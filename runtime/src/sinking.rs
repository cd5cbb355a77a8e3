//! The worker of a [`Sink`]: batches of one partition, written whole; a batch that does not fit, or fails again and again, is
//! written one by one, and the record that fails alone is dead-lettered.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use schemas::reason::Reason;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::dead_letter::DeadLetterCount;
use crate::failpoint::{self, Step};
use crate::producer::Ack;
use crate::publish::PublishError;
use crate::retry::{Next, responds};
use crate::source::{Assignment, RawRecord};
use crate::stage::{Envelope, Sink, SinkError};
use crate::worker::{Decoded, ErrorReport, Feed, Halt, Retrying, StageContext, WHOLE_ATTEMPTS, at_offset};

/// Records of one batch; also what a crash repeats at most.
pub const BATCH: usize = 500;

/// One partition's worker.
pub struct SinkWorker<S: Sink> {
    /// The sink.
    pub sink: Arc<S>,
    /// What workers share.
    pub context: StageContext,
}

/// What a partition's worker keeps from batch to batch.
struct Partition<'a> {
    feed: Feed<'a>,
    dead_letters: DeadLetterCount,
    /// The newest record that was written.
    last_written: Option<RawRecord>,
}

/// Why a record is not in the sink.
type Refused = (Reason, String);

impl<S: Sink> SinkWorker<S> {
    /// Works until the lane is stopped.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn run(&self, assignment: &mut Assignment) -> Result<(), Halt> {
        self.run_in(assignment, BATCH).await
    }

    /// The same, in batches of at most so many records.
    ///
    /// # Errors
    /// [`Halt`].
    pub async fn run_in(&self, assignment: &mut Assignment, most: usize) -> Result<(), Halt> {
        let (lane, topic) = (assignment.lane.clone(), assignment.topic.clone());
        let (feed, dead_letters) = (Feed::of(assignment), self.context.dead_letter_count());
        let mut partition = Partition { feed, dead_letters, last_written: None };
        while let Some(records) = partition.feed.next(most).await {
            self.context.consumed(&topic, records.len());
            self.batch(&records, &mut partition).await?;
            failpoint::at(Step::SinkWritten);
            if let Some(last) = records.last() {
                lane.advance(last.position.offset + 1);
            }
        }
        Ok(())
    }

    async fn batch(&self, records: &[RawRecord], partition: &mut Partition<'_>) -> Result<(), Halt> {
        let lane = partition.feed.lane();
        let (mut events, mut origins) = (Vec::new(), Vec::new());
        for record in records {
            match self.context.decode::<S::In>(record, &lane.stop).await? {
                Decoded::Event(event) => {
                    events.push(event);
                    origins.push(record);
                }
                Decoded::Bad(reason, detail) => self.refuse(record, (reason, detail), partition).await?,
            }
        }
        if self.write_whole(&events, &lane.stop).await? {
            for record in &origins {
                self.written(record, partition)?;
            }
            partition.last_written = origins.last().copied().cloned().or(partition.last_written.take());
            return Ok(());
        }
        for (at, event) in events.chunks(1).enumerate() {
            match self.write_alone(event, &origins[at..], partition).await? {
                Ok(()) => {
                    self.written(origins[at], partition)?;
                    partition.last_written = Some(origins[at].clone());
                }
                Err(refused) => self.refuse(origins[at], refused, partition).await?,
            }
        }
        Ok(())
    }

    /// Writes a batch; false where it holds a row that does not fit, or may hold a record that never works.
    async fn write_whole(&self, events: &[Envelope<S::In>], stop: &CancellationToken) -> Result<bool, Halt> {
        let Some(first) = events.first() else { return Ok(true) };
        let mut retrying = Retrying::new(&first.position, stop);
        loop {
            match self.write(events).await {
                Ok(()) => return Ok(true),
                Err(SinkError::BadRow(_)) => return Ok(false),
                Err(SinkError::Retry(error)) => self.context.retry(&mut retrying, "store", &error).await?,
            }
            if retrying.attempts() >= WHOLE_ATTEMPTS {
                return Ok(false);
            }
        }
    }

    /// Writes one record, the first of `origins`, until it is written, refused or given up.
    async fn write_alone(
        &self,
        event: &[Envelope<S::In>],
        origins: &[&RawRecord],
        partition: &mut Partition<'_>,
    ) -> Result<Result<(), Refused>, Halt> {
        let record = origins[0];
        let gives_up = event.iter().all(|event| self.sink.gives_up(&event.payload));
        let mut failing = None;
        loop {
            let error = match self.write(event).await {
                Ok(()) => return Ok(Ok(())),
                Err(SinkError::BadRow(detail)) => return Ok(Err((Reason::BadRow, detail))),
                Err(SinkError::Retry(error)) => error,
            };
            let failing = failing.get_or_insert_with(|| self.context.failing());
            match self.context.failed(failing, &record.position, "store", &error) {
                Next::Again(wait) => partition.feed.pause(wait).await?,
                Next::GiveUp if gives_up => {
                    return Ok(Err((Reason::ProcessingFailed, ErrorReport(&error).to_string())));
                }
                Next::GiveUp => {
                    return Err(Halt::Blocked(record.position.offset, ErrorReport(&error).to_string()));
                }
            }
            if failing.knows_nothing_new() && self.probe(record, &origins[1..], partition).await {
                failing.dependencies_responded();
            }
        }
    }

    /// Writes a record of another key, or again the newest that was written: whether the sink takes others. It is written
    /// once more in its turn, which changes nothing. Where there is no other, whether the store responds at all.
    async fn probe(&self, record: &RawRecord, behind: &[&RawRecord], partition: &Partition<'_>) -> bool {
        let other = partition.feed.other(record, behind.iter().copied());
        if other.is_none() && partition.last_written.is_none() {
            return responds(Box::pin(self.sink.dependencies_respond())).await;
        }
        for record in other.into_iter().chain(&partition.last_written) {
            let decoded = self.context.decode::<S::In>(record, &partition.feed.lane().stop).await;
            // A success is counted by `write`.
            if let Ok(Decoded::Event(event)) = decoded
                && self.write(&[event]).await.is_ok()
            {
                break;
            }
        }
        false
    }

    async fn write(&self, events: &[Envelope<S::In>]) -> Result<(), SinkError> {
        let started = Instant::now();
        let result = self.sink.write(events).await;
        let error = result.as_ref().err().map(|error| error as &dyn Error);
        self.context.wrote("write", started.elapsed(), error);
        if result.is_ok() {
            self.context.progress.succeeded(events.len());
        }
        result
    }

    fn written(&self, record: &RawRecord, partition: &mut Partition<'_>) -> Result<(), Halt> {
        partition.dead_letters.count(false).map_err(|detail| at_offset(record, detail))?;
        self.context.outcome("write", "none");
        Ok(())
    }

    async fn refuse(
        &self,
        record: &RawRecord,
        (reason, detail): Refused,
        partition: &mut Partition<'_>,
    ) -> Result<(), Halt> {
        partition.dead_letters.count(true).map_err(|detail| at_offset(record, detail))?;
        let (sender, receiver) = oneshot::channel();
        self.context.dead_letter(record, reason, &detail, Ack::Waiter(sender)).await?;
        receiver.await.unwrap_or_else(|_| Err(PublishError::Fatal("the producer is gone".into())))?;
        Ok(())
    }
}
