//! The worker of a [`Processor`] that takes several records of its partition at once: different keys side by side, one
//! key in order, results in the order in which they are done. A stage that takes one at a time comes here as well, while a
//! record of it has to be tried again.
//!
//! # What bounds it
//!
//! At most [`Processor::IN_FLIGHT`] records are in work. At most [`OPEN`] are taken up and not done, so that a key which
//! stands still lets its own records wait without holding up those behind them. At most [`UNACKNOWLEDGED`] lie between
//! the frontier and the newest: that is what a crash repeats. Where a bound is reached nothing more is taken from the
//! lane: what comes waits in the client's queue.
//!
//! # Why no wake-up is lost
//!
//! All of it is one task that owns [`ByKey`], the records in work and the receiver; nobody else changes them. In each
//! round it puts in work what may be, works out how much room there is, and then waits for everything that could change
//! either: a record in work that is done, a pause that is over, the frontier that moves, a new record, the stop. Each of
//! the five keeps its state until it is asked again (a future that is ready stays ready, [`Ledger::at_most_in_flight`] registers before it
//! looks), so an event between two rounds is found by the next one. The room grows only by the first and the frontier. A source
//! is left out of a round only where it could not change anything: the lane without room, the ledger while it is empty.

use std::future::Future;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::by_key::{ByKey, Key};
use crate::ledger::Ledger;
use crate::pure::{Attempt, Partition, PureWorker, UNACKNOWLEDGED};
use crate::retry::{Failing, Next, responds};
use crate::source::{Assignment, RawRecord};
use crate::stage::Processor;
use crate::worker::Halt;

/// Records that are taken up and not done: 256 of about 1.5 kB. One user's photos of a day are 20.
pub(crate) const OPEN: usize = 256;

/// A record that is taken up, and its failed attempts.
struct Open {
    key: Key,
    record: RawRecord,
    failing: Option<Failing>,
}

/// A record that was in work, and what came of it.
struct Ended<P: Processor> {
    open: Open,
    attempt: Result<Attempt<P>, Halt>,
}

impl<P: Processor> PureWorker<P> {
    /// Works until the lane is stopped or ends, or a record halts it; then those in work may end, within
    /// [`PureWorker::grace`]. What has not ended by then is repeated by the next owner. Begins with `first`, which came before
    /// what is on the lane; a stage that takes one record at a time goes back to that when nothing is taken up.
    pub(crate) async fn consume_by_key(
        &self,
        assignment: &mut Assignment,
        partition: &mut Partition,
        first: Vec<RawRecord>,
    ) -> Result<(), Halt> {
        let (lane, ledger) = (assignment.lane.clone(), partition.ledger.clone());
        let seconds = partition.seconds.clone();
        let start = |open: Open| {
            let (seconds, stop) = (&seconds, &lane.stop);
            async move {
                let attempt = self.attempt(&open.record, seconds, stop).await;
                Ended { open, attempt }
            }
        };
        let mut in_work = FuturesUnordered::new();
        let mut records = ByKey::at_most(P::IN_FLIGHT);
        for record in first {
            take_up(&ledger, &mut records, record);
        }
        let result = self.serve(assignment, partition, &mut records, (&mut in_work, start)).await;
        if matches!(result, Err(Halt::Publish(_) | Halt::Refused(_))) {
            return result;
        }
        let rest = async {
            while let Some(Ended { open, attempt }) = in_work.next().await {
                // One that failed, was halted or was stopped in the middle of a retry stays where it is.
                let Ok(Attempt::Done(work)) = attempt else { continue };
                self.publish(&open.record, work, partition).await?;
            }
            Ok(())
        };
        let rest = tokio::time::timeout(self.grace, rest).await.unwrap_or(Ok(()));
        ledger.give_up();
        // The first halt is the cause.
        result.and(rest)
    }

    async fn serve<F: Future<Output = Ended<P>>>(
        &self,
        assignment: &mut Assignment,
        partition: &mut Partition,
        records: &mut ByKey<Open>,
        (in_work, start): (&mut FuturesUnordered<F>, impl Fn(Open) -> F),
    ) -> Result<(), Halt> {
        let (lane, ledger) = (assignment.lane.clone(), partition.ledger.clone());
        let mut pauses = FuturesUnordered::new();
        let (mut fresh, mut goes_on) = (Vec::with_capacity(OPEN), true);
        while records.open() > 0 || goes_on && P::IN_FLIGHT > 1 {
            in_work.extend(std::iter::from_fn(|| records.start()).map(|(_, open)| start(open)));
            let unfinished = ledger.in_flight();
            let room = OPEN.saturating_sub(records.open()).min(UNACKNOWLEDGED.saturating_sub(unfinished));
            tokio::select! {
                biased;
                () = lane.stop.cancelled() => break,
                Some(Ended { open, attempt }) = in_work.next() => {
                    if let Some((wait, open)) = self.settle(open, attempt?, partition, records).await? {
                        records.pause();
                        pauses.push(self.pause(wait, open));
                    }
                }
                Some(open) = pauses.next() => records.resume(open.key.clone(), open),
                moved = ledger.at_most_in_flight(unfinished.saturating_sub(1)), if unfinished > 0 => {
                    moved.map_err(|failed| self.undelivered(assignment, failed))?;
                }
                taken = assignment.records.recv_many(&mut fresh, room), if goes_on && room > 0 => {
                    goes_on = taken > 0;
                    self.context.consumed(&assignment.topic, taken);
                    fresh.drain(..).for_each(|record| take_up(&ledger, records, record));
                }
            }
        }
        Ok(())
    }

    /// Waits for the next attempt; where no other record has succeeded meanwhile, the dependencies are asked.
    async fn pause(&self, wait: Duration, mut open: Open) -> Open {
        tokio::time::sleep(wait).await;
        if let Some(failing) = &mut open.failing
            && failing.knows_nothing_new()
            && responds(Box::pin(self.processor.dependencies_respond())).await
        {
            failing.dependencies_responded();
        }
        open
    }

    /// Publishes what came of an attempt; a record that is to be tried again comes back, with the time until then.
    async fn settle(
        &self,
        mut open: Open,
        attempt: Attempt<P>,
        partition: &mut Partition,
        records: &mut ByKey<Open>,
    ) -> Result<Option<(Duration, Open)>, Halt> {
        let work = match attempt {
            Attempt::Done(work) => work,
            Attempt::Failed(event, error) => {
                let failing = open.failing.get_or_insert_with(|| self.context.failing());
                match self.context.failed(failing, &open.record.position, "stage", &error) {
                    Next::Again(wait) => return Ok(Some((wait, open))),
                    Next::GiveUp => self.give_up(&event, &error),
                }
            }
        };
        self.publish(&open.record, work, partition).await?;
        records.end(&open.key);
        Ok(None)
    }
}

fn take_up(ledger: &Ledger, records: &mut ByKey<Open>, record: RawRecord) {
    ledger.take_up(record.position.offset);
    let key = record.key.clone();
    records.push(key.clone(), Open { key, record, failing: None });
}
