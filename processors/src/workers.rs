//! Work that keeps a core busy, off the threads that talk to the network, and only so much of it at a time.

use std::sync::Arc;
use std::thread::available_parallelism;

use runtime::StageError;
use schemas::events::ImageSize;
use tokio::sync::Semaphore;

/// Photos of one partition that are in work at once, each of another user. One a core keeps the cores busy. The others
/// wait for the photo store, for a provider, or for a place here: 6 of 8 may stand still before one of two cores does. More
/// would only wait: with four partitions of 8 in one process and 3 photos a second, a call takes 10 s under a backlog.
/// A photo that waits has no decoded picture; of its file, [`Photos`](crate::photos::Photos) bounds what is in memory.
pub(crate) const PHOTOS_IN_FLIGHT: usize = 8;
/// Pixels that one place is meant for: what most phones send has 12.2 to 12.5 million. A decoded picture takes 3 bytes a
/// pixel, and as much again while it is turned upright.
const PLACE_PIXELS: u64 = 13_000_000;

/// Places for work on pixels: one per core. A picture takes a place for every 13 million pixels begun, so the places bound the
/// memory: on two cores two pictures of 13 million pixels, or one of the largest, which has 40 million.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    places: Arc<Semaphore>,
    count: u32,
}

impl Default for Workers {
    fn default() -> Self {
        Self::with_places(available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)))
    }
}

/// The work panicked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Panicked;

impl Workers {
    fn with_places(count: u32) -> Self {
        Self { places: Arc::new(Semaphore::new(count as usize)), count }
    }

    /// Places that a picture of this size takes; one where none is decoded.
    fn places_for(&self, picture: Option<ImageSize>) -> u32 {
        let side = |pixels: i32| u64::try_from(pixels).unwrap_or(0);
        let pixels = picture.map_or(0, |size| side(size.width) * side(size.height));
        u32::try_from(pixels.div_ceil(PLACE_PIXELS)).unwrap_or(u32::MAX).clamp(1, self.count)
    }

    /// Runs `work` on a thread of its own once there is room for a picture of this size. Who asked first is served
    /// first. A panic is a result, not an error: the same photo would
    /// panic for ever, and one bad photo must not hold up the partition.
    ///
    /// # Errors
    /// [`StageError`] when the process is ending.
    pub async fn run<T: Send + 'static>(
        &self,
        picture: Option<ImageSize>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Result<T, Panicked>, StageError> {
        let places = self.places.clone().acquire_many_owned(self.places_for(picture)).await;
        let places = places.map_err(|error| StageError::new("workers", error))?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(places);
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
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_a_result_and_gives_its_place_back() {
        let workers = Workers::with_places(1);
        let panics: fn() -> i32 = || panic!("a decoder's bug");
        assert_eq!(workers.run(None, panics).await.unwrap(), Err(Panicked));
        assert_eq!(workers.run(None, || 7).await.unwrap(), Ok(7));
    }

    #[test]
    fn a_picture_takes_a_place_for_every_13_million_pixels_and_never_more_than_there_are() {
        let size = |width, height| Some(ImageSize { width, height });
        let two = Workers::with_places(2);
        let pictures =
            [None, size(0, -1), size(640, 480), size(4080, 3072), size(5000, 4000), size(8000, 5000)];
        assert_eq!(pictures.map(|picture| two.places_for(picture)), [1, 1, 1, 1, 2, 2]);
        assert_eq!(Workers::with_places(8).places_for(size(8000, 5000)), 4);
    }

    #[tokio::test]
    async fn no_more_pictures_are_alive_at_once_than_there_are_places() {
        let workers = Workers::with_places(2);
        let (alive, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let mut running = tokio::task::JoinSet::new();
        for n in 0..12 {
            let (workers, alive, most) = (workers.clone(), alive.clone(), most.clone());
            let places = 1 + n % 2;
            let size = ImageSize { width: 13_000, height: 1_000 * i32::try_from(places).unwrap() };
            running.spawn(async move {
                let work = move || {
                    most.fetch_max(alive.fetch_add(places, Ordering::SeqCst) + places, Ordering::SeqCst);
                    std::thread::yield_now();
                    alive.fetch_sub(places, Ordering::SeqCst);
                };
                workers.run(Some(size), work).await.unwrap().unwrap();
            });
        }
        running.join_all().await;
        assert_eq!((most.load(Ordering::SeqCst), alive.load(Ordering::SeqCst)), (2, 0));
    }
}
