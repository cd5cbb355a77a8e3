//! Whether a service may be asked now: its circuit breaker and our budget of calls. Both live in this process alone: a restart
//! begins with a closed breaker and full budgets, and several instances share a quota by each having its part as budget.

use std::sync::{Mutex, MutexGuard, PoisonError};

use schemas::ids::Micros;

use crate::{CallError, Limits};

/// Failures in a row after which a service is left alone.
pub(crate) const FAILURES_MAX: u32 = 5;
/// How long it is left alone before one call tries it again; microseconds. Half a minute: an overloaded service gets rest, and at a
/// second a photo some thirty photos go on without it.
pub(crate) const COOL_DOWN_US: i64 = 30_000_000;

const MINUTE_US: i64 = 60_000_000;
/// Lengths of the windows of [`Limits`]; microseconds.
const WINDOWS_US: [i64; 3] = [MINUTE_US, 60 * MINUTE_US, 24 * 60 * MINUTE_US];

/// Breaker and budget of one service.
#[derive(Debug, Default)]
pub(crate) struct Guard(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    breaker: Breaker,
    /// Number of the window since 1970 and calls in it, for each of [`WINDOWS_US`].
    used: [(i64, u32); 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Breaker {
    Closed {
        failures: u32,
    },
    Open {
        until: Micros,
    },
    /// One call is under way to see whether the service is back.
    HalfOpen,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// The right to make one call. One that is dropped without an outcome says nothing about the service.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    guard: &'a Guard,
    probes: bool,
    settled: bool,
    asked_at: Micros,
}

impl Guard {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the breaker stands: `closed`, `open` or `half_open`.
    pub fn breaker(&self) -> &'static str {
        match self.state().breaker {
            Breaker::Closed { .. } => "closed",
            Breaker::Open { .. } => "open",
            Breaker::HalfOpen => "half_open",
        }
    }

    /// Takes one call out of the budget, unless the breaker or the budget forbids it.
    ///
    /// # Errors
    /// [`CallError::CircuitOpen`] and [`CallError::RateLimited`].
    pub fn admit(&self, limits: &Limits, now: Micros) -> Result<Permit<'_>, CallError> {
        let mut state = self.state();
        let probes = match state.breaker {
            Breaker::Closed { .. } => false,
            Breaker::Open { until } if now >= until => true,
            Breaker::Open { .. } | Breaker::HalfOpen => return Err(CallError::CircuitOpen(FAILURES_MAX)),
        };
        let limits = [limits.per_minute, limits.per_hour, limits.per_day];
        let mut used = state.used;
        for ((window, length), limit) in used.iter_mut().zip(WINDOWS_US).zip(limits) {
            let number = now.0.div_euclid(length);
            *window = (number, if window.0 == number { window.1.saturating_add(1) } else { 1 });
            if limit.is_some_and(|limit| window.1 > limit) {
                return Err(CallError::RateLimited("our own budget of calls is used up"));
            }
        }
        state.used = used;
        if probes {
            state.breaker = Breaker::HalfOpen;
        }
        Ok(Permit { guard: self, probes, settled: false, asked_at: now })
    }
}

impl Permit<'_> {
    /// The service answered as it should.
    pub fn succeeded(mut self) {
        self.settled = true;
        let mut state = self.guard.state();
        // A call from before the breaker opened says less than the failures that opened it.
        if self.probes || matches!(state.breaker, Breaker::Closed { .. }) {
            state.breaker = Breaker::default();
        }
    }

    /// The service failed.
    pub fn failed(mut self, now: Micros) {
        self.settled = true;
        let mut state = self.guard.state();
        let open = Breaker::Open { until: Micros(now.0.saturating_add(COOL_DOWN_US)) };
        state.breaker = match state.breaker {
            Breaker::HalfOpen if self.probes => open,
            Breaker::Closed { failures } if failures + 1 >= FAILURES_MAX => open,
            Breaker::Closed { failures } => Breaker::Closed { failures: failures + 1 },
            other => other,
        };
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.probes && !self.settled {
            // Not known whether the service is back: the next call finds out.
            self.guard.state().breaker = Breaker::Open { until: self.asked_at };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE: Limits = Limits { per_minute: None, per_hour: None, per_day: None };
    /// 2026-03-02 08:00:00 UTC, the beginning of an hour.
    const START: i64 = 1_772_438_400_000_000;

    fn at(seconds: i64) -> Micros {
        Micros(START + seconds * 1_000_000)
    }

    fn fail(guard: &Guard, times: u32) {
        for _ in 0..times {
            guard.admit(&FREE, at(0)).unwrap().failed(at(0));
        }
    }

    #[test]
    fn five_failures_in_a_row_open_the_breaker_and_a_success_among_them_does_not() {
        let guard = Guard::default();
        fail(&guard, 4);
        guard.admit(&FREE, at(0)).unwrap().succeeded();
        fail(&guard, 4);
        assert_eq!(guard.breaker(), "closed");
        fail(&guard, 1);
        assert_eq!(guard.breaker(), "open");
        assert_eq!(guard.admit(&FREE, at(29)).unwrap_err(), CallError::CircuitOpen(5));
    }

    #[test]
    fn after_the_cool_down_one_call_tries_and_closes_it_or_opens_it_again() {
        let guard = Guard::default();
        fail(&guard, 5);
        let probe = guard.admit(&FREE, at(30)).unwrap();
        assert_eq!(guard.breaker(), "half_open");
        assert!(guard.admit(&FREE, at(30)).is_err(), "one at a time");
        probe.failed(at(31));
        assert!(guard.admit(&FREE, at(60)).is_err(), "left alone from the second failure on");
        guard.admit(&FREE, at(61)).unwrap().succeeded();
        assert_eq!(guard.breaker(), "closed");
    }

    #[test]
    fn a_try_without_an_outcome_leaves_the_next_call_to_try() {
        let guard = Guard::default();
        fail(&guard, 5);
        drop(guard.admit(&FREE, at(30)).unwrap());
        guard.admit(&FREE, at(30)).unwrap().succeeded();
        assert_eq!(guard.breaker(), "closed");
    }

    #[test]
    fn a_late_answer_from_before_it_opened_does_not_close_it() {
        let guard = Guard::default();
        let early = guard.admit(&FREE, at(0)).unwrap();
        fail(&guard, 5);
        early.succeeded();
        assert_eq!(guard.breaker(), "open");
    }

    #[test]
    fn a_budget_holds_within_its_minute_hour_and_day_and_is_whole_in_the_next() {
        let calls = |limits: Limits, seconds: &[i64]| -> Vec<bool> {
            let guard = Guard::default();
            seconds.iter().map(|second| guard.admit(&limits, at(*second)).is_ok()).collect()
        };
        let minute = Limits { per_minute: Some(2), ..FREE };
        assert_eq!(calls(minute, &[0, 1, 59, 60, 61, 62]), [true, true, false, true, true, false]);
        let hour = Limits { per_hour: Some(1), ..FREE };
        assert_eq!(calls(hour, &[0, 3_599, 3_600]), [true, false, true]);
        let day = Limits { per_day: Some(1), ..FREE };
        assert_eq!(calls(day, &[0, 57_599, 57_600]), [true, false, true], "the next day is 16 hours ahead");
        let none = Limits { per_day: Some(0), ..FREE };
        assert_eq!(calls(none, &[0, 90_000]), [false, false]);
    }

    #[test]
    fn a_call_that_a_longer_window_forbids_is_not_counted_in_the_shorter() {
        let guard = Guard::default();
        let limits = Limits { per_minute: Some(1), per_hour: Some(1), ..FREE };
        guard.admit(&limits, at(0)).unwrap().succeeded();
        assert!(guard.admit(&limits, at(60)).is_err());
        let wider = Limits { per_minute: Some(1), per_hour: Some(2), ..FREE };
        assert!(guard.admit(&wider, at(61)).is_ok());
    }
}
