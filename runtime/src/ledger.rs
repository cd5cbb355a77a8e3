//! The contiguous offset ledger, one per assignment: Kafka's offset moves to the first record that is not finished,
//! never to "highest seen + 1".

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::publish::PublishError;
use crate::source::Lane;

/// Offsets in flight on one partition, oldest first.
#[derive(Debug)]
pub struct Ledger {
    state: Mutex<State>,
    moved: Notify,
    /// Whose offset to commit moves with the frontier.
    lane: Option<Arc<Lane>>,
}

#[derive(Debug)]
struct State {
    in_flight: VecDeque<Entry>,
    frontier: i64,
    failed: Option<(i64, PublishError)>,
    /// In flight at which the waiting worker is woken; one for every acknowledgement would cost more than the work. None while
    /// nobody waits for a count.
    awaited: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    /// Acknowledgements to come; `None` while nobody knows how many.
    acks_to_come: Option<usize>,
}

impl Ledger {
    /// A ledger whose first unfinished record is at `start`.
    #[must_use]
    pub fn starting_at(start: i64) -> Self {
        let state = State { in_flight: VecDeque::new(), frontier: start, failed: None, awaited: None };
        Self { state: Mutex::new(state), moved: Notify::new(), lane: None }
    }

    /// A ledger whose frontier is the lane's offset to commit, and moves it with every acknowledgement: no worker has to wake
    /// up for that.
    #[must_use]
    pub fn of(lane: &Arc<Lane>, start: i64) -> Self {
        Self { lane: Some(lane.clone()), ..Self::starting_at(start) }
    }

    /// A record is taken up of which nobody knows yet what it publishes: it is not finished before [`Ledger::begin`] says
    /// so. Offsets come in ascending order; control records leave gaps.
    pub fn take_up(&self, offset: i64) {
        self.lock().in_flight.push_back(Entry { offset, acks_to_come: None });
    }

    /// A record is finished after `acks` acknowledgements; with none it is finished at once. One that was not taken up
    /// before is taken up now, in ascending order of offsets.
    pub fn begin(&self, offset: i64, acks: usize) {
        let mut state = self.lock();
        match state.find(offset) {
            Some(entry) => entry.acks_to_come = Some(acks),
            None => state.in_flight.push_back(Entry { offset, acks_to_come: Some(acks) }),
        }
        self.advance(&mut state);
    }

    /// Records that were taken up and never begun will not be: the frontier stays below the first of them for good, and
    /// nobody waits any more for what is behind it.
    pub fn give_up(&self) {
        let mut state = self.lock();
        let begun = state.in_flight.iter().position(|entry| entry.acks_to_come.is_none());
        if let Some(begun) = begun {
            state.in_flight.truncate(begun);
        }
    }

    /// One acknowledgement for a record. One that is not in flight (an earlier assignment's) is ignored.
    pub fn acknowledge(&self, offset: i64) {
        let mut state = self.lock();
        if let Some(Entry { acks_to_come: Some(acks), .. }) = state.find(offset) {
            *acks = acks.saturating_sub(1);
        }
        self.advance(&mut state);
        let awaited = state.awaited.is_some_and(|awaited| state.in_flight.len() <= awaited);
        drop(state);
        if awaited {
            self.moved.notify_waiters();
        }
    }

    /// A record will never be acknowledged: the frontier stays below it for good.
    pub fn fail(&self, offset: i64, error: PublishError) {
        self.lock().failed.get_or_insert((offset, error));
        self.moved.notify_waiters();
    }

    /// The offset to commit: every record below it is finished.
    #[must_use]
    pub fn frontier(&self) -> i64 {
        self.lock().frontier
    }

    /// Records from the frontier on: those that are not finished, and those that are behind one that is not.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lock().in_flight.len()
    }

    /// Waits until at most `count` records are in flight. One waits at a time: the partition's worker.
    ///
    /// # Errors
    /// The first failure, with its offset.
    pub async fn at_most_in_flight(&self, count: usize) -> Result<(), (i64, PublishError)> {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Registered before the check, so that a move in between is not missed.
            moved.as_mut().enable();
            {
                let mut state = self.lock();
                let is_reached = state.in_flight.len() <= count;
                state.awaited = (!is_reached).then_some(count);
                if let Some(failed) = &state.failed {
                    return Err(failed.clone());
                }
                if is_reached {
                    return Ok(());
                }
            }
            moved.await;
        }
    }

    /// Waits for the first failure, for as long as there is none; returns it with its offset.
    pub async fn failed(&self) -> (i64, PublishError) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Registered before the check, as above.
            moved.as_mut().enable();
            if let Some(failed) = self.lock().failed.clone() {
                return failed;
            }
            moved.await;
        }
    }

    fn advance(&self, state: &mut State) {
        if state.advance()
            && let Some(lane) = &self.lane
        {
            lane.advance(state.frontier);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn find(&mut self, offset: i64) -> Option<&mut Entry> {
        // A record that comes after all others is the common case of `begin`.
        if self.in_flight.back().is_none_or(|newest| newest.offset < offset) {
            return None;
        }
        // Acknowledgements come in the order of sending, most of them: the oldest is found at once.
        if self.in_flight.front().is_some_and(|oldest| oldest.offset == offset) {
            return self.in_flight.front_mut();
        }
        let at = self.in_flight.binary_search_by_key(&offset, |entry| entry.offset).ok()?;
        self.in_flight.get_mut(at)
    }

    /// Moves the frontier over what is finished; whether it has moved.
    fn advance(&mut self) -> bool {
        let before = self.frontier;
        while let Some(entry) = self.in_flight.front()
            && entry.acks_to_come == Some(0)
        {
            self.frontier = entry.offset + 1;
            self.in_flight.pop_front();
        }
        self.frontier != before
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_frontier_waits_for_the_oldest_record_even_if_later_ones_are_finished() {
        let ledger = Ledger::starting_at(10);
        ledger.begin(10, 1);
        ledger.begin(11, 2);
        ledger.begin(14, 1);
        ledger.acknowledge(14);
        ledger.acknowledge(11);
        assert_eq!(ledger.frontier(), 10);
        ledger.acknowledge(10);
        assert_eq!(ledger.frontier(), 11);
        ledger.acknowledge(11);
        assert_eq!(ledger.frontier(), 15);
    }

    #[test]
    fn stale_and_repeated_acknowledgements_change_nothing() {
        let ledger = Ledger::starting_at(0);
        ledger.begin(0, 1);
        ledger.begin(1, 1);
        ledger.acknowledge(0);
        ledger.acknowledge(0);
        ledger.acknowledge(99);
        assert_eq!(ledger.frontier(), 1);
    }

    #[test]
    fn a_record_that_was_taken_up_holds_the_frontier_until_its_acknowledgements_are_counted_and_acknowledged()
    {
        let ledger = Ledger::starting_at(7);
        ledger.take_up(7);
        ledger.take_up(9);
        ledger.begin(9, 1);
        ledger.acknowledge(9);
        assert_eq!((ledger.frontier(), ledger.in_flight()), (7, 2));
        ledger.begin(7, 2);
        ledger.acknowledge(7);
        assert_eq!(ledger.frontier(), 7);
        ledger.acknowledge(7);
        assert_eq!((ledger.frontier(), ledger.in_flight()), (10, 0));
    }

    #[tokio::test]
    async fn what_is_given_up_holds_the_frontier_and_nobody_waits_for_it() {
        let ledger = Ledger::starting_at(0);
        (0..4).for_each(|offset| ledger.take_up(offset));
        ledger.begin(0, 1);
        ledger.begin(2, 1);
        ledger.give_up();
        ledger.acknowledge(2);
        assert_eq!((ledger.frontier(), ledger.in_flight()), (0, 1));
        ledger.acknowledge(0);
        assert!(ledger.at_most_in_flight(0).await.is_ok());
        assert_eq!(ledger.frontier(), 1);
    }

    #[tokio::test]
    async fn a_failed_record_is_reported_to_who_waits_and_holds_the_frontier() {
        let ledger = Ledger::starting_at(0);
        ledger.begin(0, 1);
        ledger.fail(0, PublishError::Refused("too large".into()));
        let failed = ledger.at_most_in_flight(0).await;
        assert!(matches!(failed, Err((0, PublishError::Refused(detail))) if detail == "too large"));
        assert_eq!(ledger.frontier(), 0);
    }

    #[test]
    fn the_lanes_offset_moves_with_the_acknowledgements_while_nobody_waits() {
        let lane = Lane::starting_at(3);
        let ledger = Ledger::of(&lane, 3);
        (3..6).for_each(|offset| ledger.begin(offset, 1));
        ledger.acknowledge(4);
        assert_eq!(lane.frontier(), 3);
        ledger.acknowledge(3);
        assert_eq!(lane.frontier(), 5);
        ledger.begin(6, 0);
        ledger.acknowledge(5);
        assert_eq!(lane.frontier(), 7);
    }

    #[tokio::test]
    async fn a_failure_is_told_to_who_waits_for_nothing_else() {
        let ledger = Arc::new(Ledger::starting_at(0));
        ledger.begin(0, 1);
        ledger.begin(1, 1);
        let failed = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.failed().await.0 }
        });
        tokio::task::yield_now().await;
        ledger.acknowledge(0);
        tokio::task::yield_now().await;
        assert!(!failed.is_finished());
        ledger.fail(1, PublishError::Timeout("no response".into()));
        assert_eq!(failed.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn who_waits_for_a_count_is_woken_by_the_acknowledgement_that_reaches_it() {
        let ledger = Arc::new(Ledger::starting_at(0));
        (0..3).for_each(|offset| ledger.begin(offset, 1));
        let waiting = tokio::spawn({
            let ledger = ledger.clone();
            async move { ledger.at_most_in_flight(1).await }
        });
        tokio::task::yield_now().await;
        ledger.acknowledge(0);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        ledger.acknowledge(1);
        assert!(waiting.await.unwrap().is_ok());
    }

    proptest! {
        #[test]
        fn in_any_order_of_acknowledgement_no_unfinished_record_lies_below_the_frontier(
            counts in proptest::collection::vec(0usize..3, 1..40), seed in any::<u64>()
        ) {
            let ledger = Ledger::starting_at(0);
            let mut acks = Vec::new();
            for (offset, count) in counts.iter().enumerate() {
                let offset = i64::try_from(offset).unwrap();
                ledger.begin(offset, *count);
                acks.extend(std::iter::repeat_n(offset, *count));
            }
            let mut left: Vec<usize> = counts.clone();
            let mut state = seed | 1;
            while !acks.is_empty() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let pick = usize::try_from(state >> 33).unwrap() % acks.len();
                let offset = acks.swap_remove(pick);
                ledger.acknowledge(offset);
                left[usize::try_from(offset).unwrap()] -= 1;
                let expected = left.iter().position(|open| *open > 0).unwrap_or(left.len());
                prop_assert_eq!(ledger.frontier(), i64::try_from(expected).unwrap());
            }
        }
    }
}
