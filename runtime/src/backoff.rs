//! Capped, jittered exponential backoff for retryable errors.

use std::time::Duration;

use rand::Rng as _;
use tokio_util::sync::CancellationToken;

/// First wait. A blip (a connection reset) is over by then.
const FIRST: Duration = Duration::from_millis(50);
/// Longest wait: a dependency that is back is used again within this time.
const LONGEST: Duration = Duration::from_secs(5);

/// Waits between attempts: 50 ms doubling up to 5 s, each cut to a random share of 50-100 % so that instances do not
/// knock at the same moment.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Attempts that failed so far.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let full = FIRST.saturating_mul(1 << self.attempts.min(10)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        full.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Waits; false when `stop` came first.
    pub async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let wait = self.next_wait();
        tokio::select! {
            () = stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_half_and_all_of_the_cap() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..12).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] >= FIRST / 2 && waits[0] <= FIRST);
        assert!(waits[11] >= LONGEST / 2 && waits[11] <= LONGEST);
    }
}
