//! How fast a replay goes: it is beside live traffic, and need not be at its cost.

use std::num::NonZeroU32;

use tokio::time::{Duration, Instant, sleep_until};

/// What may be taken at once after a wait that was too long: timers are no finer than a millisecond.
const BURST: Duration = Duration::from_millis(100);

/// At most so many records a second.
#[derive(Debug)]
pub struct Pace {
    rate: Option<NonZeroU32>,
    next: Instant,
}

impl Pace {
    /// None for no bound.
    #[must_use]
    pub fn new(rate: Option<NonZeroU32>) -> Self {
        Self { rate, next: Instant::now() }
    }

    /// Waits until so many more records may be taken.
    pub async fn take(&mut self, records: usize) {
        if let Some(due) = self.due(records, Instant::now()) {
            sleep_until(due).await;
        }
    }

    /// When so many more may be taken; none for at once.
    fn due(&mut self, records: usize, now: Instant) -> Option<Instant> {
        let rate = self.rate?;
        if self.next + BURST < now {
            self.next = now;
        }
        let due = self.next;
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        self.next += Duration::from_secs(1) * records / rate.get();
        (due > now).then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_records_a_second_are_taken_and_what_was_not_taken_for_long_is_not_made_up_for() {
        let begun = Instant::now();
        let mut pace = Pace { rate: NonZeroU32::new(200), next: begun };
        let (mut now, mut taken) = (begun, 0);
        while now < begun + Duration::from_secs(2) {
            now = pace.due(50, now).unwrap_or(now).max(now) + Duration::from_millis(1);
            taken += 50;
        }
        assert_eq!(taken, 450, "those of the beginning and of two seconds");
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.due(50, later), None);
        assert_eq!(pace.due(50, later), Some(later + Duration::from_millis(250)));
        assert_eq!(Pace::new(None).due(1_000_000, now), None);
    }
}
