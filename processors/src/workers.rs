//! Work that keeps a core busy, off the threads that talk to the network, and only so much of it at a time.

use std::sync::Arc;
use std::thread::available_parallelism;

use runtime::StageError;
use tokio::sync::Semaphore;

/// Places for work on pixels: one a core. A photo of 50 megapixels takes 150 MB decoded, so the places bound the memory.
#[derive(Clone, Debug)]
pub(crate) struct Workers(Arc<Semaphore>);

impl Default for Workers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))))
    }
}

/// The work panicked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

impl Workers {
    /// Runs `work` on a thread of its own once a place is free. A panic is an answer, not an error: the same photo would
    /// panic for ever, and one bad photo must not hold up the partition.
    ///
    /// # Errors
    /// [`StageError`] when the process is ending.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Result<T, Panicked>, StageError> {
        let place =
            self.0.clone().acquire_owned().await.map_err(|error| StageError::new("workers", error))?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        match done.await {
            Ok(result) => Ok(Ok(result)),
            Err(error) if error.is_panic() => Ok(Err(Panicked)),
            Err(error) => Err(StageError::new("workers", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_and_gives_its_place_back() {
        let workers = Workers(Arc::new(Semaphore::new(1)));
        let panics: fn() -> i32 = || panic!("a decoder's bug");
        assert_eq!(workers.run(panics).await.unwrap(), Err(Panicked));
        assert_eq!(workers.run(|| 7).await.unwrap(), Ok(7));
    }
}
