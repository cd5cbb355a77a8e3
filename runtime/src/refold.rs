//! Folds back what a deciding stage has decided and a restored database has forgotten: each record between the decisions that are stored
//! and the group's offset is given the outcome that the stage has published. Nothing is decided a second time and nothing is published.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::ops::ControlFlow;

use rdkafka::config::ClientConfig;
use schemas::codec;
use schemas::events::Event;
use schemas::ids::{EventId, Micros, derived};
use schemas::reason::Reason;
use schemas::topic::Topic;
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;

use crate::deciding::BATCH;
use crate::deciding::rows::{key_of, stored, stored_repeat};
use crate::fence::{Fence, FenceError, Stored};
use crate::letters::place_of;
use crate::offsets::{self, GroupOffset, OffsetsError};
use crate::outbound::Message;
use crate::planner::look_up_by_key;
use crate::registry::{RegistryError, SchemaSource};
use crate::snapshot::{self, Ranges, SnapshotError};
use crate::source::RawRecord;
use crate::stage::{Decided as _, Decider, Decision, Envelope, FromRecord, Position, StageError};
use crate::stored::pack;
use crate::worker::envelope;

/// Input records whose outputs are looked for together: of 2 kB each they are 20 MB with their outputs. Where one was dropped, the outputs
/// are read to their end for it: once for so many records.
const WINDOW: i64 = 5_000;
/// How much earlier than its input an output may stand by the clocks of two machines, milliseconds.
const SKEW_MS: i64 = 10 * 60 * 1_000;
/// Records that wait to be taken.
const WAITING: usize = 1_000;

/// A record that was decided, with what was published of it.
#[derive(Clone, Debug)]
pub struct Recorded<I, O> {
    /// The record.
    pub record: Envelope<I>,
    /// The event that was made of it; none where it was dropped.
    pub output: Option<O>,
}

/// A stage whose state follows from its input and what it has published.
pub trait Refolds: Decider {
    /// Gives the stage's own state what recorded outcomes have given it, in order, inside a transaction. Returns for each record the
    /// decision as it is stored, without documents; none where something must have been published of it and was not found.
    ///
    /// # Errors
    /// [`StageError`]: the transaction is rolled back.
    fn refold(
        &self,
        tx: &mut PgConnection,
        batch: &[Recorded<Self::In, Self::Out>],
    ) -> impl Future<Output = Result<Vec<Option<Decision<Self::Out>>>, StageError>> + Send;
}

/// Why decisions were not folded back. What was folded before stays; running it again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RefoldError {
    /// The database, or the stage.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The group.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// A topic.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The fence: somebody else decides on the partition.
    #[error("{0}. Stop every instance of the stage")]
    Fence(#[from] FenceError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Records that were decided are not kept.
    #[error("{topic}/{partition} is kept from offset {low} on, and decisions are missing from {from} on")]
    NotKept {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The first that is missing.
        from: i64,
        /// The oldest that is kept.
        low: i64,
    },
    /// An outcome is on no topic.
    #[error(
        "{stage} has passed {topic}/{partition}@{offset}, and what became of it is on no topic. If the topics were lost as well, \
         `milestream offsets align {stage}` has the records decided again"
    )]
    Lost {
        /// The stage.
        stage: &'static str,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
}

impl From<sqlx::Error> for RefoldError {
    fn from(error: sqlx::Error) -> Self {
        Self::Stage(error.into())
    }
}

/// What was folded back of a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refolded {
    /// The stage.
    pub stage: &'static str,
    /// The topic, with its prefix.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first record that was missing.
    pub from: i64,
    /// The first record that is to be decided.
    pub upto: i64,
}

/// Folds back.
pub struct Refold<'a> {
    /// The stages' database.
    pub pool: &'a PgPool,
    /// Kafka.
    pub kafka: &'a ClientConfig,
    /// In front of every topic's and group's name.
    pub prefix: &'a str,
    /// By which records are read.
    pub schemas: &'a dyn SchemaSource,
    /// Who does it, for operators.
    pub owner: &'a str,
}

/// Dead letters of a stage, by the place of their original.
type Letters = HashMap<Position, RawRecord>;

/// A partition on its way.
struct Partition {
    fence: Fence,
    place: GroupOffset,
    committed: i64,
    /// Where the next outputs are looked for.
    outputs_from: i64,
}

impl Refold<'_> {
    /// Folds back what is missing of a stage that is stopped.
    ///
    /// # Errors
    /// [`RefoldError`].
    pub async fn run<D: Refolds>(&self, decider: &D) -> Result<Vec<Refolded>, RefoldError> {
        let topic = self.name(D::In::READS);
        let group = format!("{}{}", self.prefix, D::NAME);
        let mut behind = Vec::new();
        for place in offsets::show(self.kafka, &group, vec![topic]).await? {
            let upto: Option<i64> = sqlx::query_scalar(
                "select decided_upto from stage_offsets where stage = $1 and topic = $2 and partition = $3",
            )
            .bind(D::NAME)
            .bind(&place.topic)
            .bind(place.partition)
            .fetch_optional(self.pool)
            .await?;
            let (upto, committed) = (upto.unwrap_or(0), place.committed.unwrap_or(0));
            if committed > upto.max(0) {
                behind.push((place, upto, committed));
            }
        }
        let mut oldest = BTreeMap::new();
        for (place, upto, _) in &behind {
            if *upto < place.low {
                let GroupOffset { topic, partition, low, .. } = place.clone();
                return Err(RefoldError::NotKept { topic, partition, from: *upto, low });
            }
            let first = self.read(&place.topic, Ranges::from([(place.partition, (*upto, upto + 1))])).await?;
            let at = first.first().map_or(0, |record| record.timestamp_ms);
            oldest.insert(place.partition, (at - SKEW_MS).max(0));
        }
        let Some(since) = oldest.values().min().copied() else { return Ok(Vec::new()) };
        let letters = self.letters(D::NAME, since).await?;
        let mut refolded = Vec::new();
        for (place, from, committed) in behind {
            let since = oldest.get(&place.partition).copied().unwrap_or(0);
            let outputs = self.since(&self.name(D::Out::TOPIC), since).await?;
            let outputs_from = outputs.get(&place.partition).map_or(0, |(low, _)| *low);
            let fence = Fence::seize(self.pool, D::NAME, (&place.topic, place.partition), self.owner).await?;
            let mut partition = Partition { fence, place, committed, outputs_from };
            while self.window(decider, &mut partition, &letters).await? {}
            let GroupOffset { topic, partition: of, .. } = partition.place;
            let upto = partition.fence.decided_upto;
            refolded.push(Refolded { stage: D::NAME, topic, partition: of, from, upto });
        }
        Ok(refolded)
    }

    fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// Folds the next records of a partition; false at its end. Behind the group's offset only what was published before a crash kept
    /// the offset from moving is folded: the stage decides the rest.
    async fn window<D: Refolds>(
        &self,
        decider: &D,
        partition: &mut Partition,
        letters: &Letters,
    ) -> Result<bool, RefoldError> {
        let (from, of) = (partition.fence.decided_upto, partition.place.partition);
        let passed = from < partition.committed;
        let end = if passed { partition.committed } else { partition.place.end };
        let upto = end.min(from + WINDOW);
        let records = self.read(&partition.place.topic, Ranges::from([(of, (from, upto))])).await?;
        let mut events = Vec::with_capacity(records.len());
        for record in &records {
            events.push(decoded::<D::In>(self.schemas, record).await?);
        }
        let wanted = events.iter().flatten().map(|event| derived(event.payload.id(), D::NAME, 0)).collect();
        let mut outputs = self.outputs::<D::Out>(partition, wanted).await?;
        let mut items: Vec<Item<D>> = Vec::with_capacity(records.len());
        for (record, event) in records.into_iter().zip(events) {
            let letter = letters.get(&record.position).cloned();
            // One that was given up and redriven since has the same event id, and what was published is the other's.
            let decided = event.as_ref().filter(|_| letter.is_none());
            let output = decided.and_then(|event| outputs.remove(&derived(event.payload.id(), D::NAME, 0)));
            if !passed && letter.is_none() && output.is_none() {
                break;
            }
            items.push(Item { record, event, letter, output });
        }
        for batch in items.chunks_mut(BATCH) {
            self.store(decider, &mut partition.fence, batch).await?;
        }
        Ok(partition.fence.decided_upto == upto && upto > from)
    }

    async fn store<D: Refolds>(
        &self,
        decider: &D,
        fence: &mut Fence,
        batch: &mut [Item<D>],
    ) -> Result<(), RefoldError> {
        let mut tx = self.pool.begin().await?;
        look_up_by_key(&mut tx, None).await?;
        let decided: Vec<&Envelope<D::In>> = batch
            .iter()
            .filter(|item| item.letter.is_none())
            .filter_map(|item| item.event.as_ref())
            .collect();
        let ids: Vec<_> = decided.iter().map(|event| key_of(event)).collect();
        let effects: Vec<_> = decided.iter().filter_map(|event| decider.effect_of(&event.payload)).collect();
        let (mut known, mut taken) = fence.known(&mut tx, &ids, &effects).await?;
        let mut fresh = Vec::with_capacity(batch.len());
        let mut recorded = Vec::new();
        for item in batch.iter_mut() {
            let event = item.event.as_ref().filter(|_| item.letter.is_none());
            let is_fresh = event.is_some_and(|event| {
                let first = known.insert(key_of(event));
                let free = decider.effect_of(&event.payload).is_none_or(|effect| taken.insert(effect));
                first && free
            });
            fresh.push(is_fresh);
            if let (true, Some(event)) = (is_fresh, event) {
                let output = item.output.as_mut().and_then(|(_, output)| output.take());
                recorded.push(Recorded { record: event.clone(), output });
            }
        }
        let mut decisions = decider.refold(&mut tx, &recorded).await?.into_iter();
        let mut rows = Vec::with_capacity(batch.len());
        for (item, fresh) in batch.iter().zip(fresh) {
            let decision = if fresh { decisions.next().flatten() } else { None };
            rows.push(item.row(fresh, decision)?);
        }
        let at =
            batch.iter().filter_map(|item| item.output.as_ref()).map(|(output, _)| output.timestamp_ms).min();
        let at = at.or_else(|| batch.first().map(|item| item.record.timestamp_ms)).unwrap_or(0);
        let upto = batch.last().map_or(fence.decided_upto, |item| item.record.position.offset + 1);
        fence.store(&mut tx, &rows, upto, Micros(at.saturating_mul(1_000))).await?;
        tx.commit().await?;
        fence.decided_upto = upto;
        Ok(())
    }

    /// What was published first under these event ids.
    async fn outputs<O: Event>(
        &self,
        partition: &mut Partition,
        mut wanted: HashSet<EventId>,
    ) -> Result<HashMap<EventId, (RawRecord, Option<O>)>, RefoldError> {
        let (topic, of) = (self.name(O::TOPIC), partition.place.partition);
        let mut ranges = self.since(&topic, 0).await?;
        ranges.retain(|partition, _| *partition == of);
        if let Some((low, high)) = ranges.get_mut(&of) {
            *low = partition.outputs_from.clamp(*low, *high);
        }
        let mut found = HashMap::new();
        if wanted.is_empty() {
            return Ok(found);
        }
        let (sender, mut records) = mpsc::channel(WAITING);
        let kafka = self.kafka.clone();
        let reading = tokio::task::spawn_blocking(move || {
            snapshot::each_of(&kafka, &topic, ranges, |record| match sender.blocking_send(record) {
                Ok(()) => ControlFlow::Continue(()),
                // Everything is found.
                Err(_) => ControlFlow::Break(()),
            })
        });
        while let Some(record) = records.recv().await {
            let Some(output) = decoded::<O>(self.schemas, &record).await? else { continue };
            let id = output.payload.event_id();
            if wanted.remove(&id) {
                partition.outputs_from = record.position.offset;
                found.insert(id, (record, Some(output.payload)));
            }
            if wanted.is_empty() {
                break;
            }
        }
        drop(records);
        joined(reading.await)??;
        Ok(found)
    }

    /// The stage's dead letters since a time.
    async fn letters(&self, stage: &str, since: i64) -> Result<Letters, RefoldError> {
        let topic = self.name(Topic::DeadLetters);
        let ranges = self.since(&topic, since).await?;
        let letters = self.read(&topic, ranges).await?;
        let of_stage = letters.into_iter().filter_map(|letter| Some((place_of(&letter, stage)?, letter)));
        Ok(of_stage.collect())
    }

    async fn since(&self, topic: &str, at_ms: i64) -> Result<Ranges, RefoldError> {
        let (kafka, topic) = (self.kafka.clone(), topic.to_owned());
        let found = tokio::task::spawn_blocking(move || snapshot::since(&kafka, &topic, at_ms)).await;
        Ok(joined(found)?.map_err(SnapshotError::from)?)
    }

    async fn read(&self, topic: &str, ranges: Ranges) -> Result<Vec<RawRecord>, RefoldError> {
        let (kafka, topic) = (self.kafka.clone(), topic.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let mut records = Vec::new();
            snapshot::each_of(&kafka, &topic, ranges, |record| {
                records.push(record);
                ControlFlow::Continue(())
            })?;
            Ok::<_, SnapshotError>(records)
        });
        Ok(joined(read.await)??)
    }
}

/// The typed event of a record; none where it does not decode.
///
/// # Errors
/// [`RegistryError::Unavailable`].
pub async fn decoded<E: FromRecord>(
    schemas: &dyn SchemaSource,
    record: &RawRecord,
) -> Result<Option<Envelope<E>>, RegistryError> {
    let Ok((id, datum)) = codec::unframe(record.payload.as_deref().unwrap_or_default()) else {
        return Ok(None);
    };
    let schema = match schemas.schema(id).await {
        Ok(schema) => schema,
        Err(error @ RegistryError::Unavailable(_)) => return Err(error),
        Err(_) => return Ok(None),
    };
    let event = E::from_record(&schema, id, datum).and_then(Result::ok);
    Ok(event.map(|event| envelope(event, record)))
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, RefoldError> {
    result.map_err(|error| StageError::new("read a topic", error).into())
}

/// A record with everything that is known of its outcome.
struct Item<D: Decider> {
    record: RawRecord,
    /// None where it does not decode.
    event: Option<Envelope<D::In>>,
    letter: Option<RawRecord>,
    /// The record that was published, and its event until that is folded.
    output: Option<(RawRecord, Option<D::Out>)>,
}

impl<D: Decider> Item<D> {
    /// The row that was stored of it.
    fn row(&self, fresh: bool, decision: Option<Decision<D::Out>>) -> Result<Stored, RefoldError> {
        let repeat = stored_repeat(&self.record);
        if let Some(letter) = &self.letter {
            let reason = letter.header(crate::dead_letter::header::REASON);
            let reason = Reason::ALL.iter().find(|known| Some(known.label()) == reason);
            return Ok(Stored {
                outcome: "dead_letter",
                reason: reason.copied().map(Reason::label),
                output: packed(letter),
                ..repeat
            });
        }
        let (Some(event), Some(decision), true) = (&self.event, decision, fresh) else {
            if self.event.is_some() && !fresh {
                return Ok(repeat);
            }
            let Position { topic, partition, offset } = self.record.position.clone();
            return Err(RefoldError::Lost { stage: D::NAME, topic: topic.to_string(), partition, offset });
        };
        let output = self.output.as_ref().map(|(record, _)| packed(record)).unwrap_or_default();
        Ok(stored(key_of(event), self.record.position.offset, decision, output))
    }
}

/// A record as it stands in `decisions.output`. The documents that were published beside it are on their topic for some days and are not
/// published again from here.
fn packed(record: &RawRecord) -> Vec<u8> {
    let headers: Vec<_> =
        record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let (key, payload) = (record.key.as_deref(), record.payload.as_deref());
    let mut output = Vec::new();
    pack(&mut output, &Message { topic: &record.position.topic, key, payload, headers: &headers });
    output
}
