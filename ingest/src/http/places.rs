//! Places for work that is bounded in number.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{ApiError, BUSY};

/// Seconds after which to try again where places are kept for long, as those of event streams are.
const LONG: u64 = 10;

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
