//! The worker of a [`Processor`] that takes several records of its partition at once: different keys side by side, one
//! key in order, results in the order in which they are done.
//!
//! # What bounds it
//!
//! At most [`Processor::IN_FLIGHT`] records are in work. At most [`OPEN`] are taken up and not done, so that a key which
//! stands still lets its own records wait without holding up those behind them. At most [`UNACKNOWLEDGED`] lie between
//! the frontier and the newest: that is what a crash repeats. Where a bound is reached nothing more is taken from the
//! lane; the lane fills, and the consumer pauses the partition until it is half empty again.
//!
//! # Why no wake-up is lost
//!
//! All of it is one task that owns [`ByKey`], the records in work and the receiver; nobody else changes them. In each
//! round it puts in work what may be, works out how much room there is, and then waits for everything that could change
//! either: a record in work that is done, the frontier that moves, a new record, the stop. Each of the four keeps its
//! state until it is asked again (a future that is ready stays ready, [`Ledger::at_most_in_flight`] registers before it
//! looks), so an event between two rounds is found by the next one. The room grows only by the first two. A source
//! is left out of a round only where it could not change anything: the lane without room, the ledger while it is empty.

use std::future::Future;
use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::by_key::{ByKey, Key};
use crate::dead_letter::DeadLetterCount;
use crate::ledger::Ledger;
use crate::pure::{PureWorker, UNACKNOWLEDGED, Work, unpublishable};
use crate::source::{Assignment, LANE_RECORDS, RawRecord};
use crate::stage::Processor;
use crate::worker::Halt;

/// Records that are taken up and not done: as many as the lane holds, 256 of about 1.5 kB. One user's photos of a day are
/// 20.
const OPEN: usize = LANE_RECORDS;

/// A record that was in work, and what came of it.
struct Done<O> {
    key: Key,
    record: RawRecord,
    work: Result<Work<O>, Halt>,
}

impl<P: Processor> PureWorker<P> {
    /// Works until the lane is stopped or ends, or a record halts it; then those in work may end, within
    /// [`PureWorker::grace`]. What has not ended by then is repeated by the next owner.
    pub(crate) async fn consume_by_key(
        &self,
        assignment: &mut Assignment,
        ledger: &Arc<Ledger>,
        dead_letters: &mut DeadLetterCount,
    ) -> Result<(), Halt> {
        let lane = assignment.lane.clone();
        let start = |(key, record): (Key, RawRecord)| {
            let stop = &lane.stop;
            async move {
                let work = self.work(&record, stop).await;
                Done { key, record, work }
            }
        };
        let mut in_work = FuturesUnordered::new();
        let result = self.serve(assignment, ledger, dead_letters, &mut in_work, start).await;
        if matches!(result, Err(Halt::Publish(_))) {
            return result;
        }
        let rest = async {
            while let Some(done) = in_work.next().await {
                match done.work {
                    Ok(work) => self.publish(&done.record, work, ledger, dead_letters).await?,
                    // Halted or stopped in the middle of a retry: it stays where it is.
                    Err(_) => continue,
                }
                lane.advance(ledger.frontier());
            }
            Ok(())
        };
        let rest = tokio::time::timeout(self.grace, rest).await.unwrap_or(Ok(()));
        ledger.give_up();
        // The first halt is the cause.
        result.and(rest)
    }

    async fn serve<F: Future<Output = Done<P::Out>>>(
        &self,
        assignment: &mut Assignment,
        ledger: &Arc<Ledger>,
        dead_letters: &mut DeadLetterCount,
        in_work: &mut FuturesUnordered<F>,
        start: impl Fn((Key, RawRecord)) -> F,
    ) -> Result<(), Halt> {
        let lane = assignment.lane.clone();
        let mut records = ByKey::at_most(P::IN_FLIGHT);
        let (mut fresh, mut goes_on) = (Vec::with_capacity(OPEN), true);
        while goes_on || records.open() > 0 {
            in_work.extend(std::iter::from_fn(|| records.start()).map(&start));
            lane.advance(ledger.frontier());
            let unfinished = ledger.in_flight();
            let room = (OPEN - records.open()).min(UNACKNOWLEDGED.saturating_sub(unfinished));
            tokio::select! {
                biased;
                () = lane.stop.cancelled() => break,
                Some(done) = in_work.next() => {
                    self.publish(&done.record, done.work?, ledger, dead_letters).await?;
                    records.end(&done.key);
                }
                moved = ledger.at_most_in_flight(unfinished.saturating_sub(1)), if unfinished > 0 => {
                    moved.map_err(unpublishable)?;
                }
                taken = assignment.records.recv_many(&mut fresh, room), if goes_on && room > 0 => {
                    goes_on = taken > 0;
                    self.context.consumed(&assignment.topic, taken);
                    for record in fresh.drain(..) {
                        ledger.take_up(record.position.offset);
                        records.push(record.key.clone(), record);
                    }
                }
            }
        }
        Ok(())
    }
}
