//! Which record of a partition is worked on next: several keys at once, one key in order.
//!
//! A plain structure without clocks, locks or wake-ups: the one worker that owns it asks again after each change, so there
//! is no notice that could be lost.

use std::collections::{HashSet, VecDeque};

/// Records that wait for their next attempt at most before no fresh one is started: where so many fail, a dependency is down,
/// and asking it for more would only add to its load.
const PAUSED: usize = 32;

/// A record's key. Without one a record has no order to keep, as with Kafka itself: it waits for no other.
pub type Key = Option<Vec<u8>>;

/// Records that were taken up and have not ended, oldest first.
#[derive(Debug)]
pub struct ByKey<T> {
    most: usize,
    waiting: VecDeque<(Key, T)>,
    /// Between two attempts: their keys are busy, their places are not.
    paused: usize,
    resumed: VecDeque<(Key, T)>,
    busy: HashSet<Vec<u8>>,
    in_work: usize,
}

impl<T> ByKey<T> {
    /// Nothing taken up; at most `most` records are in work at once.
    #[must_use]
    pub fn at_most(most: usize) -> Self {
        let (waiting, resumed) = (VecDeque::new(), VecDeque::new());
        Self { most, waiting, paused: 0, resumed, busy: HashSet::new(), in_work: 0 }
    }

    /// Takes a record up behind all others.
    pub fn push(&mut self, key: Key, record: T) {
        self.waiting.push_back((key, record));
    }

    /// Puts a record in work: the oldest whose key is not, so that no record is passed over for ever and the frontier
    /// moves as early as it can; one whose pause is over goes first. `None` while `most` are in work, every waiting record's key
    /// is, or too many are paused.
    ///
    /// Looks through what waits, a few hundred records at most; a stage that asks for this works for milliseconds.
    pub fn start(&mut self) -> Option<(Key, T)> {
        if self.in_work >= self.most {
            return None;
        }
        if let Some(resumed) = self.resumed.pop_front() {
            self.in_work += 1;
            return Some(resumed);
        }
        if self.paused >= PAUSED {
            return None;
        }
        let is_free = |key: &Key| key.as_ref().is_none_or(|key| !self.busy.contains(key));
        let at = self.waiting.iter().position(|(key, _)| is_free(key))?;
        let (key, record) = self.waiting.remove(at)?;
        self.busy.extend(key.clone());
        self.in_work += 1;
        Some((key, record))
    }

    /// A record in work has ended, with all that it publishes handed over: the next one of its key may start.
    pub fn end(&mut self, key: &Key) {
        if let Some(key) = key {
            self.busy.remove(key);
        }
        self.in_work = self.in_work.saturating_sub(1);
    }

    /// A record in work waits for its next attempt: its place is another's, its key stays its own.
    pub fn pause(&mut self) {
        self.in_work = self.in_work.saturating_sub(1);
        self.paused += 1;
    }

    /// The pause of a record is over.
    pub fn resume(&mut self, key: Key, record: T) {
        self.paused = self.paused.saturating_sub(1);
        self.resumed.push_back((key, record));
    }

    /// Records that have not ended: those that wait, those that are paused, and those in work.
    #[must_use]
    pub fn open(&self) -> usize {
        self.waiting.len() + self.paused + self.resumed.len() + self.in_work
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ledger::Ledger;

    fn key(n: u8) -> Key {
        (n > 0).then(|| vec![n])
    }

    #[test]
    fn a_busy_key_holds_up_its_own_records_and_no_others() {
        let mut records = ByKey::at_most(3);
        for (n, record) in [(1, 'a'), (1, 'b'), (2, 'c'), (1, 'd'), (3, 'e'), (4, 'f')] {
            records.push(key(n), record);
        }
        let started: Vec<char> = std::iter::from_fn(|| records.start()).map(|(_, record)| record).collect();
        assert_eq!(started, ['a', 'c', 'e']);
        records.end(&key(2));
        assert_eq!(records.start(), Some((key(4), 'f')));
        records.end(&key(1));
        assert_eq!(records.start(), Some((key(1), 'b')));
        assert_eq!((records.start(), records.open()), (None, 4));
    }

    #[test]
    fn a_paused_record_keeps_its_key_gives_up_its_place_and_is_the_next_to_start_when_its_pause_is_over() {
        let mut records = ByKey::at_most(1);
        for (n, record) in [(1, 'a'), (1, 'b'), (2, 'c'), (3, 'd')] {
            records.push(key(n), record);
        }
        assert_eq!(records.start(), Some((key(1), 'a')));
        records.pause();
        assert_eq!((records.start(), records.start(), records.open()), (Some((key(2), 'c')), None, 4));
        records.resume(key(1), 'a');
        assert_eq!(records.start(), None);
        records.end(&key(2));
        assert_eq!(records.start(), Some((key(1), 'a')));
        records.end(&key(1));
        assert_eq!((records.start(), records.open()), (Some((key(1), 'b')), 2));
    }

    #[test]
    fn while_too_many_are_paused_no_fresh_record_is_started() {
        let mut records = ByKey::at_most(2);
        (0..=PAUSED).for_each(|record| records.push(None, record));
        for _ in 0..PAUSED {
            assert!(records.start().is_some());
            records.pause();
        }
        assert_eq!(records.start(), None);
        records.resume(None, 0);
        assert_eq!((records.start(), records.start()), (Some((None, 0)), Some((None, PAUSED))));
    }

    #[test]
    fn records_without_a_key_wait_for_none_but_count() {
        let mut records = ByKey::at_most(2);
        (0..3).for_each(|record| records.push(None, record));
        assert_eq!(
            (records.start(), records.start(), records.start()),
            (Some((None, 0)), Some((None, 1)), None)
        );
        records.end(&None);
        assert_eq!(records.start(), Some((None, 2)));
    }

    /// A run of the structure beside a ledger, as the worker uses the two; `pick` chooses what happens next.
    struct Run<'a> {
        keys: &'a [u8],
        most: usize,
        records: ByKey<usize>,
        ledger: Ledger,
        taken: usize,
        in_work: Vec<(Key, usize)>,
        ended: Vec<usize>,
    }

    impl<'a> Run<'a> {
        fn new(keys: &'a [u8], most: usize) -> Self {
            let (records, ledger) = (ByKey::at_most(most), Ledger::starting_at(0));
            Self { keys, most, records, ledger, taken: 0, in_work: Vec::new(), ended: Vec::new() }
        }

        /// Choices that are possible: take the next record up, or end one of those in work.
        fn choices(&self) -> usize {
            usize::from(self.taken < self.keys.len()) + self.in_work.len()
        }

        fn act(&mut self, choice: usize) -> Result<(), TestCaseError> {
            if choice < self.in_work.len() {
                let (key, record) = self.in_work.remove(choice);
                self.ledger.begin(offset(record), 0);
                self.records.end(&key);
                self.ended.push(record);
            } else {
                self.ledger.take_up(offset(self.taken));
                self.records.push(key(self.keys[self.taken]), self.taken);
                self.taken += 1;
            }
            while let Some((key, record)) = self.records.start() {
                self.in_work.push((key, record));
            }
            self.check()
        }

        fn check(&self) -> Result<(), TestCaseError> {
            let in_work: Vec<usize> = self.in_work.iter().map(|(_, record)| *record).collect();
            prop_assert!(in_work.len() <= self.most);
            prop_assert_eq!(self.records.open(), self.taken - self.ended.len());
            let first_open = (0..).find(|record| !self.ended.contains(record)).unwrap_or_default();
            prop_assert_eq!(self.ledger.frontier(), offset(first_open));
            // In work are the oldest that can be: whoever waits has `most` in work before it, or its own key.
            let waiting = (0..self.taken).filter(|n| !in_work.contains(n) && !self.ended.contains(n));
            for record in waiting {
                let own = self.keys[record];
                let key_in_work = own > 0 && in_work.iter().any(|other| self.keys[*other] == own);
                prop_assert!(in_work.len() == self.most || key_in_work, "{record} waits for nothing");
            }
            Ok(())
        }

        fn finished(&self) -> Result<(), TestCaseError> {
            prop_assert_eq!(self.ended.len(), self.keys.len());
            let mut by_key: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for record in &self.ended {
                by_key.entry(self.keys[*record]).or_default().push(*record);
            }
            by_key.remove(&0);
            prop_assert!(by_key.values().all(|records| records.is_sorted()));
            Ok(())
        }
    }

    fn offset(record: usize) -> i64 {
        i64::try_from(record).unwrap()
    }

    /// Follows every order of events from here to the end; returns how many there are.
    fn every_order(keys: &[u8], most: usize, path: &mut Vec<usize>) -> usize {
        let mut run = Run::new(keys, most);
        path.iter().for_each(|choice| run.act(*choice).unwrap());
        if run.choices() == 0 {
            run.finished().unwrap();
            return 1;
        }
        (0..run.choices())
            .map(|choice| {
                path.push(choice);
                let orders = every_order(keys, most, path);
                path.pop();
                orders
            })
            .sum()
    }

    #[test]
    fn in_every_order_of_events_of_a_few_records_each_ends_in_its_keys_order() {
        for keys in [[1, 1, 2, 0, 2], [1, 1, 1, 2, 3], [0, 0, 1, 0, 1]] {
            for most in 1..=3 {
                assert!(every_order(&keys, most, &mut Vec::new()) > 0);
            }
        }
    }

    proptest! {
        #[test]
        fn in_any_order_of_events_every_record_ends_in_its_keys_order_within_the_cap_and_above_the_frontier(
            keys in proptest::collection::vec(0u8..6, 1..60),
            most in 1usize..6,
            picks in proptest::collection::vec(any::<prop::sample::Index>(), 120),
        ) {
            let mut run = Run::new(&keys, most);
            for pick in picks {
                let choices = run.choices();
                if choices > 0 {
                    run.act(pick.index(choices))?;
                }
            }
            run.finished()?;
        }
    }
}
