//! When a Kafka client is taken for frozen and built anew.
//!
//! librdkafka can lose all its brokers for good: a broker that thaws while it is fenced responds with topics and no
//! brokers, every broker is dropped, and nothing asks again (confluentinc/librdkafka#5301). Such a client looks like one
//! whose brokers are away; what distinguishes the two is that a fresh client gets a response.

use std::time::{Duration, Instant};

/// A client that does not get on is suspected after this time: a group's rebalance or a reconnect takes a few seconds.
const SUSPECTED: Duration = Duration::from_secs(5);
/// While the brokers have responded to a fresh client for this long, a client that has not got on with them is built anew. A
/// sound one is back within its reconnect backoff (1 s), a coordinator's response and a join: under 10 s.
const FROZEN: Duration = Duration::from_secs(20);
/// A client that has been built anew and has not got on for this long needs a new process.
const HOPELESS: Duration = Duration::from_secs(90);

/// How a client looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// It gets on.
    Well,
    /// It has nothing to do, which shows nothing.
    Idle,
    /// It does not get on.
    Unwell,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Nothing.
    None,
    /// Build the client anew.
    Rebuild,
}

/// Looks at one client again and again.
#[derive(Debug, Default)]
pub(crate) struct Watchdog {
    unwell_since: Option<Instant>,
    responding_since: Option<Instant>,
    rebuilt_at: Option<Instant>,
}

impl Watchdog {
    /// One look; `brokers_respond` asks with a fresh client, and is called only about a client that is suspected.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        pulse: Pulse,
        brokers_respond: impl FnOnce() -> bool,
    ) -> Remedy {
        match pulse {
            Pulse::Well => *self = Self::default(),
            Pulse::Idle => (self.unwell_since, self.responding_since) = (None, None),
            Pulse::Unwell => {
                let since = *self.unwell_since.get_or_insert(now);
                if now.saturating_duration_since(since) < SUSPECTED {
                    return Remedy::None;
                }
                if !brokers_respond() {
                    // The brokers are away: nothing is wrong with the client.
                    (self.responding_since, self.rebuilt_at) = (None, None);
                    return Remedy::None;
                }
                let responding = *self.responding_since.get_or_insert(now);
                if now.saturating_duration_since(responding) >= FROZEN {
                    (self.unwell_since, self.responding_since) = (None, None);
                    self.rebuilt_at.get_or_insert(now);
                    return Remedy::Rebuild;
                }
            }
        }
        Remedy::None
    }

    /// Whether building the client anew has not helped.
    pub(crate) fn is_hopeless(&self, now: Instant) -> bool {
        self.rebuilt_at.is_some_and(|at| now.saturating_duration_since(at) >= HOPELESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second from `from` on; returns the seconds at which the client was to be built anew.
    fn looks(dog: &mut Watchdog, start: Instant, seconds: std::ops::Range<u64>, responds: bool) -> Vec<u64> {
        seconds
            .filter(|second| {
                let now = start + Duration::from_secs(*second);
                dog.look(now, Pulse::Unwell, || responds) == Remedy::Rebuild
            })
            .collect()
    }

    #[test]
    fn a_client_that_does_not_get_on_while_brokers_respond_to_others_is_built_anew_and_then_taken_for_hopeless()
     {
        let (mut dog, start) = (Watchdog::default(), Instant::now());
        assert_eq!(looks(&mut dog, start, 0..100, true), [25, 51, 77]);
        assert!(!dog.is_hopeless(start + Duration::from_secs(100)));
        assert!(dog.is_hopeless(start + Duration::from_secs(25) + HOPELESS));
        dog.look(start, Pulse::Well, || true);
        assert!(!dog.is_hopeless(start + HOPELESS * 2));
    }

    #[test]
    fn while_the_brokers_are_away_no_client_is_built_anew_and_their_return_gives_it_time() {
        let (mut dog, start) = (Watchdog::default(), Instant::now());
        assert!(looks(&mut dog, start, 0..600, false).is_empty());
        assert_eq!(looks(&mut dog, start, 600..630, true), [620]);
    }

    #[test]
    fn a_client_that_is_sound_or_idle_is_left_alone_and_the_brokers_are_not_asked() {
        let (mut dog, start) = (Watchdog::default(), Instant::now());
        for (second, pulse) in (0..100).zip([Pulse::Well, Pulse::Idle, Pulse::Unwell].into_iter().cycle()) {
            let now = start + Duration::from_secs(second);
            assert_eq!(dog.look(now, pulse, || panic!("asked")), Remedy::None);
        }
    }
}
