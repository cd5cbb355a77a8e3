//! The topics that the books are rebuilt from, read from their beginning to their present end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use chain::BlockId;
use chain::follow::Checkpoint;
use runtime::registry::SchemaSource;
use runtime::snapshot::SnapshotError;
use runtime::source::RawRecord;
use runtime::{Envelope, FromRecord as _, StageError};
use schemas::codec;
use schemas::events::{Event as _, PayoutUpdated};
use schemas::topic::Topic;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Input;
use crate::chain_submission::consume::PayoutInput;

/// Records on their way, of each partition in order.
pub(super) type Records = mpsc::Receiver<Result<RawRecord, StageError>>;

/// Records that wait to be taken.
const WAITING: usize = 1_000;

/// Takes records one by one, until it breaks off.
pub type Take<'a> = dyn FnMut(RawRecord) -> ControlFlow<()> + 'a;
/// Hands over every record of a topic up to its present end, of each partition in order. Blocks.
pub type EachRecord = dyn Fn(&str, &mut Take<'_>) -> Result<(), SnapshotError> + Send + Sync;

/// The topics.
pub struct Topics {
    /// Reads them.
    pub each: Arc<EachRecord>,
    /// By which records are read.
    pub schemas: Arc<dyn SchemaSource>,
    /// In front of every topic's name.
    pub prefix: String,
}

impl Topics {
    /// Every record of a topic.
    fn records(&self, topic: Topic) -> Records {
        let (sender, receiver) = mpsc::channel(WAITING);
        let (each, name) = (self.each.clone(), format!("{}{}", self.prefix, topic.name()));
        tokio::task::spawn_blocking(move || {
            let mut sent = |record| match sender.blocking_send(Ok(record)) {
                Ok(()) => ControlFlow::Continue(()),
                // Whoever reads has ended.
                Err(_) => ControlFlow::Break(()),
            };
            if let Err(error) = each(&name, &mut sent) {
                // Whoever reads has ended.
                let _ = sender.blocking_send(Err(StageError::new("read a topic", error)));
            }
        });
        receiver
    }

    /// Grants and claims.
    pub(super) fn grants(&self) -> Records {
        self.records(Topic::RewardsGranted)
    }

    /// Decisions about uploads, among them those that correct a reading.
    pub(super) fn decisions(&self) -> Records {
        self.records(Topic::UploadsDecided)
    }

    /// Those of the records that the consumer of payments takes.
    pub(super) async fn inputs(&self, records: &[RawRecord]) -> Result<Vec<Input>, StageError> {
        let mut inputs = Vec::with_capacity(records.len());
        for record in records {
            let Some(payload) = &record.payload else { continue };
            let wrong = |error| StageError::new("read a record", error);
            let (id, datum) = codec::unframe(payload).map_err(wrong)?;
            let schema = self.schemas.schema(id).await.map_err(|error| StageError::new("schema", error))?;
            let Some(input) = PayoutInput::from_record(&schema, id, datum) else { continue };
            let payload = input.map_err(wrong)?;
            let position = record.position.clone();
            inputs.push(Envelope { payload, position, timestamp_ms: 0, redrive: 0, traceparent: None });
        }
        Ok(inputs)
    }

    /// What the topics say last of each payout of the network.
    pub(super) async fn newest_payouts(
        &self,
        genesis_id: &str,
    ) -> Result<BTreeMap<Uuid, PayoutUpdated>, StageError> {
        let mut records = self.records(Topic::PayoutsUpdated);
        let mut newest: BTreeMap<Uuid, PayoutUpdated> = BTreeMap::new();
        while let Some(record) = records.recv().await {
            let Some(payload) = record?.payload else { continue };
            let wrong = |error| StageError::new("read a payout", error);
            let (id, datum) = codec::unframe(&payload).map_err(wrong)?;
            let schema = self.schemas.schema(id).await.map_err(|error| StageError::new("schema", error))?;
            if schema.name() != PayoutUpdated::NAME {
                continue;
            }
            let Some(event) = PayoutUpdated::from_record(&schema, id, datum) else { continue };
            let event = event.map_err(wrong)?;
            let elsewhere = event.transaction.as_ref().is_some_and(|paying| paying.genesis_id != genesis_id);
            let known = newest.get(&event.reward_id.0).is_some_and(|known| known.revision >= event.revision);
            if !elsewhere && !known {
                newest.insert(event.reward_id.0, event);
            }
        }
        Ok(newest)
    }

    /// The last steps of the chain that were told of the network, at most so many, without a gap; blocks that were told again are among
    /// them.
    pub(super) async fn last_steps(&self, genesis_id: &str, most: usize) -> Result<Vec<Input>, StageError> {
        let mut records = self.records(Topic::ChainEvents);
        let mut last: VecDeque<RawRecord> = VecDeque::new();
        while let Some(record) = records.recv().await {
            last.push_back(record?);
            if last.len() > most {
                last.pop_front();
            }
        }
        let inputs = self.inputs(last.make_contiguous()).await?;
        let mut steps: HashMap<i64, Input> = HashMap::new();
        for input in inputs {
            let (genesis, seq) = match &input.payload {
                PayoutInput::Adopted(step) => (&step.genesis_id, step.seq),
                PayoutInput::Undone(step) => (&step.genesis_id, step.seq),
                PayoutInput::Granted(_) | PayoutInput::Claimed(_) | PayoutInput::Decided(_) => continue,
            };
            // A database that was set back lets the watcher tell steps a second time: who reads on has taken the first.
            if genesis == genesis_id {
                steps.entry(seq).or_insert(input);
            }
        }
        let mut found = Vec::new();
        let mut next = steps.keys().max().copied();
        while let Some(step) = next.and_then(|seq| steps.remove(&seq)) {
            found.push(step);
            next = next.map(|seq| seq - 1);
        }
        found.reverse();
        // A branch begins with a block that follows another.
        let adopted = |step: &Input| matches!(&step.payload, PayoutInput::Adopted(block) if !block.retold);
        let begin = found.iter().position(adopted).unwrap_or(found.len());
        Ok(found.split_off(begin))
    }
}

/// Where a watcher goes on behind these steps: the number of the last one, and the branch that they lead to.
pub(super) fn place<'a>(steps: impl Iterator<Item = &'a PayoutInput>) -> Option<(i64, Checkpoint)> {
    let mut place: Option<(i64, Checkpoint)> = None;
    for step in steps {
        let (seq, before) = match step {
            PayoutInput::Adopted(block) => (block.seq, block.parent_id.parse::<BlockId>().ok()?),
            PayoutInput::Undone(block) => (block.seq, block.block_id.parse().ok()?),
            PayoutInput::Granted(_) | PayoutInput::Claimed(_) | PayoutInput::Decided(_) => continue,
        };
        let (highest, checkpoint) = place.get_or_insert_with(|| (seq, Checkpoint::after(before)));
        *highest = seq;
        match step {
            PayoutInput::Adopted(block) if !block.retold => {
                checkpoint.note_adopted(block.block.id.parse().ok()?)
            }
            PayoutInput::Undone(_) => checkpoint.note_undone(),
            _ => {}
        }
    }
    place
}
