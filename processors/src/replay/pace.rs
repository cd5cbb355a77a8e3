//! How fast a replay goes: it is beside live traffic, and need not be at its cost.

use std::num::NonZeroU32;

use tokio::time::{Duration, Instant, sleep_until};

/// At most so many records a second, from its first record on.
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
        let Some(rate) = self.rate else { return };
        sleep_until(self.next).await;
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        self.next = self.next.max(Instant::now()) + Duration::from_secs(1) * records / rate.get();
    }
}
