//! Places for work that is bounded in number, and memory for what is bounded in bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{ApiError, BUSY};

/// Bytes of a unit of memory: a semaphore counts with 32 bits.
const UNIT: u64 = 1024;
/// Seconds after which to try again where places are kept for long, as those of event streams are.
pub(crate) const LONG: u64 = 10;

/// So many places; a request waits for one a while, then is refused as busy.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    wait: Duration,
}

impl Places {
    pub(crate) fn new(count: usize, wait: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), wait }
    }

    /// A place, until it is dropped.
    pub(crate) async fn take(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        match tokio::time::timeout(self.wait, self.free.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(BUSY.error()),
        }
    }

    /// A place at once or not at all, for work that lasts long.
    pub(crate) fn take_now(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.free.clone().try_acquire_owned().map_err(|_| BUSY.error().retry_after(LONG))
    }
}

/// So many bytes; a request waits a while for its share, in the order in which they came, then is refused as busy.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    units: u32,
    wait: Duration,
}

impl Memory {
    pub(crate) fn new(bytes: u64, wait: Duration) -> Self {
        let units = units(bytes);
        Self { free: Arc::new(Semaphore::new(units as usize)), units, wait }
    }

    /// Room for `bytes`, until it is dropped; all of it for a request of more than there is.
    pub(crate) async fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        let share = units(bytes).min(self.units);
        match tokio::time::timeout(self.wait, self.free.clone().acquire_many_owned(share)).await {
            Ok(Ok(share)) => Ok(share),
            _ => Err(BUSY.error()),
        }
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_shared_by_bytes_and_a_request_waits_for_its_share_or_is_refused() {
        let memory = Memory::new(10 * UNIT, Duration::from_secs(5));
        let (small, large) = (memory.take(1).await.unwrap(), memory.take(9 * UNIT).await.unwrap());
        assert_eq!(memory.take(1).await.unwrap_err().code(), "busy");
        drop(small);
        let small = memory.take(UNIT).await.unwrap();
        drop((small, large));
        let all = memory.take(100 * UNIT).await.unwrap();
        assert_eq!(all.num_permits(), 10);
    }
}
