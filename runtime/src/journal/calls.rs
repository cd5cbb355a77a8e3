//! Which calls are recorded: those that failed or were slow, and of the others one in a hundred and at least one a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use schemas::ids::Micros;

use super::budget::{Budget, Granted};
use super::{Call, Operation};

/// One in so many calls of a name is recorded.
const ONE_IN: u32 = 100;
/// Longest time between two recorded calls of a name that is called, in microseconds.
const AT_LEAST_EVERY: i64 = 60_000_000;

/// Failed and slow calls of a name in a minute.
const NOTEWORTHY_PER_MINUTE: u32 = 10;

/// Counts calls by name. Its size is that of the names, which are a closed set.
#[derive(Debug)]
pub(super) struct Calls {
    passed: Mutex<HashMap<(Operation, &'static str), Passed>>,
    /// Of what is always recorded.
    noteworthy: Budget<(Operation, &'static str)>,
}

/// Calls since the one that was recorded last.
#[derive(Debug)]
struct Passed {
    calls: u32,
    recorded_at: Micros,
}

impl Default for Calls {
    fn default() -> Self {
        Self { passed: Mutex::default(), noteworthy: Budget::of(NOTEWORTHY_PER_MINUTE) }
    }
}

impl Calls {
    /// The share of calls of its kind that the recorded one stands for, 0 to 1; `None` where it is not recorded.
    pub(super) fn sampled(&self, call: &Call<'_>, now: Micros) -> Option<f64> {
        let of = (call.operation, call.name);
        if call.error.is_some() || call.took >= call.operation.slow() {
            return (self.noteworthy.take(of, now) != Granted::No).then_some(1.0);
        }
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = passed.get_mut(&of) else {
            passed.insert(of, Passed { calls: 0, recorded_at: now });
            return Some(1.0);
        };
        known.calls += 1;
        if known.calls < ONE_IN && now.0 - known.recorded_at.0 < AT_LEAST_EVERY {
            return None;
        }
        let share = 1.0 / f64::from(known.calls);
        *known = Passed { calls: 0, recorded_at: now };
        Some(share)
    }
}
