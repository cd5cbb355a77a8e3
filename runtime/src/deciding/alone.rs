//! Decides one record alone, where its batch was not decided: until it is decided, or given up because others succeed.

use std::time::Duration;

use schemas::reason::Reason;

use super::{BatchError, DecidingWorker, Item, Look, Partition};
use crate::fence::Fence;
use crate::retry::{Next, database_responds, responds};
use crate::source::RawRecord;
use crate::stage::Decider;
use crate::worker::{Decoded, ErrorReport, Halt};

/// Wait before a record whose decision the database does not take is tried again.
const GIVEN_UP_WAIT: Duration = Duration::from_secs(5);

impl<D: Decider> DecidingWorker<D> {
    /// Decides the first of `items` alone, until it is decided or given up.
    pub(super) async fn decide_alone(
        &self,
        items: &mut [(&RawRecord, Item<D>)],
        partition: &mut Partition<'_, D>,
    ) -> Result<(), Halt> {
        let mut failing = None;
        loop {
            let error = match self.transaction(&partition.fence, &items[..1], Look::First).await {
                Ok(stored) => return self.decided(stored, &items[..1], partition).await,
                Err(BatchError::Halt(halt)) => return Err(halt),
                Err(BatchError::Retryable(error)) => error,
            };
            let failing = failing.get_or_insert_with(|| self.context.failing());
            let (record, item) = &items[0];
            match (self.context.failed(failing, &record.position, "postgres", &error), item) {
                (Next::Again(wait), _) => partition.feed.pause(wait).await?,
                (Next::GiveUp, Item::Event(event)) => {
                    items[0].1 = match self.decider.give_up(event, &error) {
                        Some(decision) => Item::GivenUp(event.clone(), Box::new(decision)),
                        None => Item::Bad(Reason::ProcessingFailed, ErrorReport(&error).to_string()),
                    };
                    continue;
                }
                // What the stage itself did not take part in fails for the sake of the database.
                (Next::GiveUp, _) => partition.feed.pause(GIVEN_UP_WAIT).await?,
            }
            if failing.knows_nothing_new() && self.probe(items, partition).await {
                failing.dependencies_responded();
            }
        }
    }

    /// Decides another event in a transaction that is rolled back: whether the database lets others be decided. Where there is no other,
    /// whether it responds at all: the stage's own table is asked.
    async fn probe(&self, items: &[(&RawRecord, Item<D>)], partition: &Partition<'_, D>) -> bool {
        let behind = items[1..].iter().find_map(|(_, item)| item.event());
        let ahead = match partition.feed.other(items[0].0, std::iter::empty()) {
            Some(record) => self.context.decode::<D::In>(record, &partition.feed.lane().stop).await.ok(),
            None => None,
        };
        let ahead = ahead.as_ref().and_then(|decoded| match decoded {
            Decoded::Event(event) => Some(event),
            Decoded::Bad(..) => None,
        });
        let other = behind.or(ahead);
        if other.is_none() && partition.last_decided.is_none() {
            return responds(Box::pin(self.store_responds(&partition.fence))).await;
        }
        for event in other.into_iter().chain(&partition.last_decided) {
            let Ok(mut tx) = self.pool.begin().await else { return false };
            let decided = self.decider.decide(&mut tx, std::slice::from_ref(event)).await.is_ok();
            if tx.rollback().await.is_ok() && decided {
                self.context.progress.succeeded(1);
                return false;
            }
        }
        false
    }

    /// Whether the database responds, of the stage's own table, and takes writes.
    async fn store_responds(&self, fence: &Fence) -> bool {
        database_responds(&self.pool).await && fence.outputs(&self.pool, &[]).await.is_ok()
    }
}
