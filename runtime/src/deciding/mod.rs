//! The worker of a [`Decider`]: decide, then publish. A batch is one Postgres transaction behind the fence; what was decided
//! is published from its stored bytes, acknowledged, and only then does Kafka's offset move.

mod alone;
mod publishing;
pub(crate) mod rows;

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use schemas::reason::Reason;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::rows::{key_of, stored_repeat};
use crate::dead_letter::DeadLetterCount;
use crate::failpoint::{self, Step};
use crate::fence::{Fence, FenceError, Guards, Stored};
use crate::planner::look_up_by_key;
use crate::source::{Assignment, RawRecord};
use crate::stage::{Decider, Decision, Envelope, Position, StageError};
use crate::worker::{Decoded, Feed, Halt, Retrying, StageContext, WHOLE_ATTEMPTS, at_offset};

/// Records of one transaction: a few milliseconds of Postgres, and what a crash repeats at most.
pub const BATCH: usize = 200;

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

/// What a partition's worker keeps from batch to batch.
struct Partition<'a, D: Decider> {
    fence: Fence,
    feed: Feed<'a>,
    dead_letters: DeadLetterCount,
    /// The newest event that was decided.
    last_decided: Option<Envelope<D::In>>,
    /// What the next batch is taken for.
    next: Look,
}

/// Whether what was decided before is looked for before a batch is decided.
///
/// Repeats are rare, and two look-ups a record are a fifth of a batch's cost. The unique keys of `decisions` refuse a repeat that was
/// not looked for, in the batch's own transaction; then the batch is decided again, with the look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// At the start of an assignment, and after a batch with repeats: they come together.
    First,
    /// The unique keys say.
    OnConflict,
}

/// A record of a batch.
enum Item<D: Decider> {
    /// To be decided.
    Event(Envelope<D::In>),
    /// Given up, with what is decided about it.
    GivenUp(Envelope<D::In>, Box<Decision<D::Out>>),
    /// For the dead letters.
    Bad(Reason, String),
}

impl<D: Decider> Item<D> {
    fn event(&self) -> Option<&Envelope<D::In>> {
        match self {
            Self::Event(event) | Self::GivenUp(event, _) => Some(event),
            Self::Bad(..) => None,
        }
    }
}

enum BatchError {
    Retryable(StageError),
    Halt(Halt),
}

impl BatchError {
    /// What failed; a repeat that the unique keys have found did not, and a lost fence is no fault of the database.
    fn failure(&self) -> Option<&dyn Error> {
        match self {
            Self::Retryable(error) if !is_taken(error) => Some(error),
            Self::Retryable(_) | Self::Halt(_) => None,
        }
    }
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
        let (lane, topic) = (assignment.lane.clone(), assignment.topic.clone());
        let fence = self.take_fence(assignment, &lane.stop).await?;
        let (feed, dead_letters) = (Feed::of(assignment), self.context.dead_letter_count());
        let mut partition = Partition { fence, feed, dead_letters, last_decided: None, next: Look::First };
        while let Some(records) = partition.feed.next(BATCH).await {
            self.context.consumed(&topic, records.len());
            let upto = partition.fence.decided_upto;
            let split = records.partition_point(|record| record.position.offset < upto);
            let (decided, fresh) = records.split_at(split);
            self.republish(&partition.fence, decided, &lane.stop).await?;
            self.decide(fresh, &mut partition).await?;
            if let Some(last) = records.last() {
                lane.advance(last.position.offset + 1);
            }
        }
        Ok(())
    }

    async fn take_fence(&self, assignment: &Assignment, stop: &CancellationToken) -> Result<Fence, Halt> {
        let at = Position {
            topic: assignment.topic.clone(),
            partition: assignment.partition,
            offset: assignment.start,
        };
        let mut retrying = Retrying::new(&at, stop);
        loop {
            match Fence::take(&self.pool, D::NAME, assignment, &self.owner, self.guards).await {
                Ok(fence) => {
                    failpoint::at(Step::DecideSeized);
                    return Ok(fence);
                }
                Err(FenceError::Postgres(error)) => {
                    self.context.retry(&mut retrying, "postgres", &error).await?;
                }
                Err(error) => return Err(Halt::Operator(error.to_string())),
            }
        }
    }

    /// Decides records of which none was decided before, and publishes what was decided.
    async fn decide(&self, records: &[RawRecord], partition: &mut Partition<'_, D>) -> Result<(), Halt> {
        let Some(first) = records.first() else { return Ok(()) };
        let lane = partition.feed.lane();
        let mut items = Vec::with_capacity(records.len());
        for record in records {
            let item = match self.context.decode::<D::In>(record, &lane.stop).await? {
                Decoded::Event(event) => Item::Event(event),
                Decoded::Bad(reason, detail) => Item::Bad(reason, detail),
            };
            let counted = partition.dead_letters.count(matches!(item, Item::Bad(..)));
            counted.map_err(|detail| at_offset(record, detail))?;
            items.push((record, item));
        }
        let mut retrying = Retrying::new(&first.position, &lane.stop);
        let mut look = partition.next;
        while retrying.attempts() < WHOLE_ATTEMPTS {
            match self.transaction(&partition.fence, &items, look).await {
                Ok(stored) => {
                    let repeats = stored.iter().any(Stored::is_repeat);
                    partition.next = if repeats { Look::First } else { Look::OnConflict };
                    return self.decided(stored, &items, partition).await;
                }
                Err(BatchError::Halt(halt)) => return Err(halt),
                Err(BatchError::Retryable(error)) if look == Look::OnConflict && is_taken(&error) => {
                    look = Look::First;
                }
                // An unknown commit outcome ends here too: if it did commit, the next attempt's compare-and-set hits
                // no row, the partition begins anew, and the stored outputs are published.
                Err(BatchError::Retryable(error)) => {
                    self.context.retry(&mut retrying, "postgres", &error).await?;
                }
            }
        }
        for at in 0..items.len() {
            self.decide_alone(&mut items[at..], partition).await?;
            lane.advance(records[at].position.offset + 1);
        }
        Ok(())
    }

    /// A batch is committed: it is counted and published.
    async fn decided(
        &self,
        stored: Vec<Stored>,
        items: &[(&RawRecord, Item<D>)],
        partition: &mut Partition<'_, D>,
    ) -> Result<(), Halt> {
        if let Some((last, _)) = items.last() {
            partition.fence.decided_upto = last.position.offset + 1;
        }
        let events = items.iter().filter_map(|(_, item)| match item {
            Item::Event(event) => Some(event),
            Item::GivenUp(..) | Item::Bad(..) => None,
        });
        self.context.progress.succeeded(events.clone().count());
        if let Some(event) = events.last() {
            partition.last_decided = Some(event.clone());
        }
        for row in &stored {
            self.context.outcome(row.outcome, row.reason.unwrap_or("none"));
        }
        self.publish(stored.iter().map(|row| row.output.as_slice())).await?;
        failpoint::at(Step::DecideAcknowledged);
        Ok(())
    }

    /// Decides and stores in one transaction, behind the fence.
    async fn transaction(
        &self,
        fence: &Fence,
        items: &[(&RawRecord, Item<D>)],
        look: Look,
    ) -> Result<Vec<Stored>, BatchError> {
        let started = Instant::now();
        let result = self.decide_and_store(fence, items, look).await;
        self.context.wrote("decide", started.elapsed(), result.as_ref().err().and_then(BatchError::failure));
        result
    }

    async fn decide_and_store(
        &self,
        fence: &Fence,
        items: &[(&RawRecord, Item<D>)],
        look: Look,
    ) -> Result<Vec<Stored>, BatchError> {
        let mut tx = self.pool.begin().await?;
        look_up_by_key(&mut tx, None).await?;
        let (mut known, mut taken) = match look {
            Look::First => self.known(&mut tx, fence, items).await?,
            Look::OnConflict => Default::default(),
        };
        let guarded = self.guards == Guards::On;
        let is_fresh = |event: &Envelope<D::In>, known: &mut HashSet<_>, taken: &mut HashSet<String>| {
            let first = known.insert(key_of(event));
            let free = self.decider.effect_of(&event.payload).is_none_or(|effect| taken.insert(effect));
            (first && free) || !guarded
        };
        let fresh: Vec<bool> = items
            .iter()
            .map(|(_, item)| item.event().is_some_and(|event| is_fresh(event, &mut known, &mut taken)))
            .collect();
        let batch: Vec<Envelope<D::In>> = items
            .iter()
            .zip(&fresh)
            .filter_map(|((_, item), fresh)| match item {
                Item::Event(event) if *fresh => Some(event.clone()),
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
        let stored = items
            .iter()
            .zip(fresh)
            .map(|((record, item), fresh)| match item {
                Item::Bad(reason, detail) => Ok(self.stored_dead_letter(record, *reason, detail)),
                Item::Event(_) if fresh => match decisions.next() {
                    Some((event, decision)) => self.stored_decision(record, event, decision),
                    None => Ok(stored_repeat(record)),
                },
                Item::GivenUp(event, decision) if fresh => {
                    self.stored_decision(record, event, decision.as_ref().clone())
                }
                Item::Event(_) | Item::GivenUp(..) => Ok(stored_repeat(record)),
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(BatchError::Halt)?;
        let upto = items.last().map_or(fence.decided_upto, |(last, _)| last.position.offset + 1);
        fence.store(&mut tx, &stored, upto, self.context.clock.now()).await?;
        failpoint::at(Step::DecideStored);
        tx.commit().await?;
        failpoint::at(Step::DecideCommitted);
        Ok(stored)
    }

    /// Which events and effects of a batch were decided before.
    async fn known(
        &self,
        tx: &mut PgConnection,
        fence: &Fence,
        items: &[(&RawRecord, Item<D>)],
    ) -> Result<(HashSet<(Uuid, i32)>, HashSet<String>), FenceError> {
        let events = items.iter().filter_map(|(_, item)| item.event());
        let ids: Vec<_> = events.clone().map(key_of).collect();
        let effects: Vec<_> = events.filter_map(|event| self.decider.effect_of(&event.payload)).collect();
        fence.known(tx, &ids, &effects).await
    }
}

/// Whether a unique key refused a row.
fn is_taken(error: &StageError) -> bool {
    let mut cause = Some(error as &dyn Error);
    while let Some(error) = cause {
        let database = error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        if let Some(database) = database {
            return database.is_unique_violation();
        }
        cause = error.source();
    }
    false
}
