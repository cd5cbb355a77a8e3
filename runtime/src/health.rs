//! Liveness means progress or idleness; readiness means that a role may take work. One object for both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A polling loop that stands still for this long is dead: the longest call inside it is a 10 s coordinator call, three
/// times over.
const STALL: Duration = Duration::from_secs(45);

/// Liveness and readiness of the parts of a process.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Part>>>);

#[derive(Debug)]
struct Part {
    ready: bool,
    last_tick: Option<Instant>,
}

impl Health {
    /// A part's loop went round.
    pub fn tick(&self, part: &'static str) {
        self.with(part, |part| part.last_tick = Some(Instant::now()));
    }

    /// A part may take work.
    pub fn ready(&self, part: &'static str) {
        self.with(part, |part| part.ready = true);
    }

    /// A part waits for an operator, and takes work again once it says that it is ready.
    pub fn unready(&self, part: &'static str) {
        self.with(part, |part| part.ready = false);
    }

    /// Nothing takes work any more: first step of a shutdown.
    pub fn stop(&self) {
        for part in self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            part.ready = false;
        }
    }

    /// Names of parts that stand still at `now`.
    #[must_use]
    pub fn stalled(&self, now: Instant) -> Vec<&'static str> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled =
            |part: &Part| part.last_tick.is_some_and(|at| now.saturating_duration_since(at) > STALL);
        parts.iter().filter(|(_, part)| stalled(part)).map(|(name, _)| *name).collect()
    }

    /// Whether there are parts, all of them ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !parts.is_empty() && parts.values().all(|part| part.ready)
    }

    fn with(&self, name: &'static str, change: impl FnOnce(&mut Part)) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(parts.entry(name).or_insert(Part { ready: false, last_tick: None }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_stands_still_is_named_and_one_that_never_began_is_not() {
        let health = Health::default();
        health.ready("ingest");
        health.tick("quality_check");
        let now = Instant::now();
        assert!(health.stalled(now).is_empty());
        assert_eq!(health.stalled(now + STALL + Duration::from_secs(1)), ["quality_check"]);
    }

    #[test]
    fn a_process_is_ready_when_all_its_parts_are_and_not_while_stopping() {
        let health = Health::default();
        assert!(!health.is_ready());
        health.ready("a");
        health.tick("b");
        assert!(!health.is_ready());
        health.ready("b");
        assert!(health.is_ready());
        health.unready("a");
        assert!(!health.is_ready());
        health.ready("a");
        assert!(health.is_ready());
        health.stop();
        assert!(!health.is_ready());
    }
}
