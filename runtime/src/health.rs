//! Liveness means progress or idleness; readiness means that a role may take work. One object for both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A polling loop that stands still for this long is dead: the longest call inside it is a 10 s coordinator call, three
/// times over.
const STALL: Duration = Duration::from_secs(45);

/// Liveness and readiness of the components of a process.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Component>>>);

#[derive(Debug, Default)]
struct Component {
    ready: bool,
    last_tick: Option<Instant>,
    /// It needs a new process: building it anew inside this one has not helped.
    hopeless: bool,
}

impl Health {
    /// A component's loop went round.
    pub fn tick(&self, component: &'static str) {
        self.with(component, |component| component.last_tick = Some(Instant::now()));
    }

    /// The process will have a component, and is not ready before it: of several that start beside each other one is the first.
    pub fn expect(&self, component: &'static str) {
        self.with(component, |_| ());
    }

    /// A component may take work.
    pub fn ready(&self, component: &'static str) {
        self.with(component, |component| component.ready = true);
    }

    /// A component waits for an operator, and takes work again once it says that it is ready.
    pub fn unready(&self, component: &'static str) {
        self.with(component, |component| component.ready = false);
    }

    /// Whether a component needs a new process.
    pub fn hopeless(&self, component: &'static str, is_hopeless: bool) {
        let mut components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match components.get_mut(component) {
            Some(component) => component.hopeless = is_hopeless,
            None if is_hopeless => {
                components.insert(component, Component { ready: true, last_tick: None, hopeless: true });
            }
            None => {}
        }
    }

    /// Nothing takes work any more: the first thing that a shutdown does.
    pub fn stop(&self) {
        for component in self.0.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            component.ready = false;
        }
    }

    /// Names of components that stand still at `now`.
    #[must_use]
    pub fn stalled(&self, now: Instant) -> Vec<&'static str> {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = |component: &Component| {
            component.hopeless
                || component.last_tick.is_some_and(|at| now.saturating_duration_since(at) > STALL)
        };
        components.iter().filter(|(_, component)| stalled(component)).map(|(name, _)| *name).collect()
    }

    /// Whether there are components, all of them ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !components.is_empty() && components.values().all(|component| component.ready && !component.hopeless)
    }

    fn with(&self, name: &'static str, change: impl FnOnce(&mut Component)) {
        let mut components = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(components.entry(name).or_default());
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
    fn a_process_is_not_ready_before_a_component_that_it_expects() {
        let health = Health::default();
        health.expect("ingest");
        health.ready("outbox");
        assert!(!health.is_ready());
        health.ready("ingest");
        health.expect("ingest");
        assert!(health.is_ready() && health.stalled(Instant::now() + STALL * 2).is_empty());
    }

    #[test]
    fn a_process_is_ready_when_all_its_components_are_and_not_while_stopping() {
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

    #[test]
    fn a_component_that_needs_a_new_process_fails_liveness_until_it_gets_on() {
        let health = Health::default();
        health.ready("ingest");
        health.hopeless("producer", false);
        assert!(health.is_ready() && health.stalled(Instant::now()).is_empty());
        health.hopeless("producer", true);
        assert!(!health.is_ready());
        assert_eq!(health.stalled(Instant::now()), ["producer"]);
        health.hopeless("producer", false);
        assert!(health.is_ready() && health.stalled(Instant::now()).is_empty());
    }
}
