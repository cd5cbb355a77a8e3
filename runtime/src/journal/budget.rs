//! How many documents of one kind a minute may make: a fault that comes a thousand times a second is told, and floods nothing.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use schemas::ids::Micros;

/// A minute, in microseconds.
const MINUTE: i64 = 60_000_000;

/// Counts documents by kind and minute. Its size is that of the kinds, which are a closed set.
#[derive(Debug)]
pub(super) struct Budget<K> {
    per_minute: u32,
    counts: Mutex<HashMap<K, Count>>,
}

#[derive(Debug, Default)]
struct Count {
    minute: i64,
    taken: u32,
    left_out: u64,
}

/// Whether a document may be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Granted {
    No,
    Yes,
    /// It may, and is the first after so many that might not.
    After(u64),
}

impl<K> Budget<K> {
    /// So many documents of a kind in a minute.
    pub(super) fn of(per_minute: u32) -> Self {
        Self { per_minute, counts: Mutex::default() }
    }
}

impl<K: Eq + Hash> Budget<K> {
    /// Asks for one document.
    pub(super) fn take(&self, kind: K, now: Micros) -> Granted {
        let minute = now.0.div_euclid(MINUTE);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(kind).or_default();
        if count.minute != minute {
            (count.minute, count.taken) = (minute, 0);
        }
        if count.taken >= self.per_minute {
            count.left_out += 1;
            return Granted::No;
        }
        count.taken += 1;
        match std::mem::take(&mut count.left_out) {
            0 => Granted::Yes,
            left_out => Granted::After(left_out),
        }
    }
}
