//! One photo on its way through the cascade: decoded anew for each use, so that no 150 MB are held while a service outside is waited
//! for.

use std::future::pending;
use std::sync::{Arc, OnceLock};

use providers::{CallError, Photo, Sent};
use reading::{FileInfo, Reader, Reading};
use runtime::{Clock, StageError};
use schemas::events::{FrameQuality, ImageSize};
use tokio::sync::OnceCell;

use super::measured::{Spent, measured};
use crate::photos::Fetched;
use crate::workers::{Panicked, Workers};

/// Long side of what a service outside is sent; pixels. Digits of a dashboard photo are then 30 and more pixels high, and the file
/// stays below the 5 MB that Amazon takes.
const OUTSIDE_LONG_SIDE: u32 = 2_048;

/// One photo.
pub(super) struct Upload {
    bytes: Fetched,
    image: Option<ImageSize>,
    frame: FrameQuality,
    reader: Arc<Reader>,
    workers: Workers,
    clock: Arc<dyn Clock>,
    facts: OnceLock<(FileInfo, ImageSize)>,
    spent: OnceLock<Spent>,
    outside: OnceCell<Arc<Sent>>,
}

impl Upload {
    pub fn new(
        bytes: Fetched,
        image: Option<ImageSize>,
        frame: FrameQuality,
        reader: Arc<Reader>,
        workers: Workers,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (facts, spent) = (OnceLock::new(), OnceLock::new());
        Self { bytes, image, frame, reader, workers, clock, facts, spent, outside: OnceCell::new() }
    }

    /// The file as it came and the upright photo's size, once somebody has decoded it.
    pub fn facts(&self) -> Option<(FileInfo, ImageSize)> {
        self.facts.get().copied()
    }

    /// What the embedded reader took of this machine, once it has read.
    pub fn spent(&self) -> Option<Spent> {
        self.spent.get().copied()
    }

    /// Decodes on a worker's place and does the work there, measured without the wait for the place.
    async fn decoded<T: Send + 'static>(
        &self,
        work: impl FnOnce(&reading::Photo) -> T + Send + 'static,
    ) -> Result<(T, Spent), CallError> {
        let (bytes, clock) = (self.bytes.clone(), self.clock.clone());
        let decoded = move || {
            measured(clock.as_ref(), || {
                let photo = reading::decode(&bytes)?;
                Ok((photo.info(), photo.size(), work(&photo)))
            })
        };
        let done: Result<Result<_, Panicked>, StageError> = self.workers.run(self.image, decoded).await;
        match done {
            Ok(Ok((Ok((info, size, done)), spent))) => {
                self.facts.get_or_init(|| (info, size));
                Ok((done, spent))
            }
            Ok(Ok((Err(fault), _))) => Err(CallError::Photo(fault)),
            Ok(Err(Panicked)) => Err(CallError::Internal("reading the photo failed")),
            // The process is ending, and this task with it. An answer now could still be published as the photo's fault.
            Err(_) => pending().await,
        }
    }
}

impl Photo for Upload {
    fn frame(&self) -> &FrameQuality {
        &self.frame
    }

    async fn read(&self) -> Result<Reading, CallError> {
        let (reader, frame) = (self.reader.clone(), self.frame.clone());
        let (reading, spent) = self.decoded(move |photo| reader.read(photo, &frame)).await?;
        // The networks run on a thread of the reader's own: decoding here, reading there.
        self.spent.get_or_init(|| spent.and_cpu(reading.cpu));
        Ok(reading)
    }

    async fn outside(&self) -> Result<Arc<Sent>, CallError> {
        let made = self.outside.get_or_try_init(|| async {
            let sent = self.decoded(|photo| {
                photo.to_jpeg(OUTSIDE_LONG_SIDE).map(|jpeg| Arc::new(Sent { jpeg, photo: photo.size() }))
            });
            sent.await?.0.map_err(CallError::Photo)
        });
        made.await.cloned()
    }
}
