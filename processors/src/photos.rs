//! Photos by reference: the event carries the key, the store the bytes.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _};
use runtime::{Clock, StageError};
use schemas::events::{Fault, UploadHeader};
use schemas::reason::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::workers::Workers;

/// Bytes that are fetched at most: twice the largest request body that the gateway takes, so that a wrong object in the store
/// cannot fill the memory.
const BYTES_MAX: u64 = 32 << 20;
/// Bytes of photos that are in memory or on their way at once, all partitions together: eight of 4 MB, or two of the
/// largest. The number of records in work does not bound them: four partitions of 8 are 32 photos.
const ROOM: u32 = 32 << 20;

/// The photo store.
#[derive(Clone, Debug)]
pub(crate) struct Photos {
    store: Arc<dyn ObjectStore>,
    room: Arc<Semaphore>,
    /// The newest photo that the store handed out.
    newest: Arc<Mutex<Option<Path>>>,
}

/// What a stage needs that looks at photos.
pub(crate) struct PhotoContext {
    pub photos: Photos,
    pub workers: Workers,
    pub clock: Arc<dyn Clock>,
    pub rules_version: &'static str,
}

/// A photo's file; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Fetched {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Deref for Fetched {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl Photos {
    /// Photos in this store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store, room: Arc::new(Semaphore::new(ROOM as usize)), newest: Arc::default() }
    }

    /// The photo of an upload once there is room for it, or the fault that stands in its place: a photo that was accepted is
    /// durable, so one that is gone was erased, or is our fault.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond: the record is tried again.
    pub async fn fetch(&self, header: &UploadHeader) -> Result<Result<Fetched, Fault>, StageError> {
        let Ok(path) = Path::parse(&header.object_key) else {
            return Ok(Err(processing_failed("the photo's key is no path")));
        };
        let size = u32::try_from(header.file_size).unwrap_or(ROOM).min(ROOM);
        let room = self.room.clone().acquire_many_owned(size).await;
        let room = room.map_err(|error| StageError::new("photos", error))?;
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => {
                return Ok(Err(processing_failed("the photo is no longer in the store")));
            }
            Err(error) => return Err(StageError::new("photo store", error)),
        };
        if found.meta.size > BYTES_MAX {
            return Ok(Err(processing_failed("the stored photo is larger than any that is accepted")));
        }
        let bytes = found.bytes().await.map_err(|error| StageError::new("photo store", error))?;
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
        Ok(Ok(Fetched { bytes, _room: room }))
    }

    /// Whether the store answers for another photo: for the newest that it handed out, or else for one that is not there.
    pub async fn answer(&self) -> bool {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = self.store.get(&newest.unwrap_or_else(|| Path::from("no-photo"))).await;
        match asked {
            Ok(found) => found.bytes().await.is_ok(),
            Err(error) => matches!(error, Error::NotFound { .. }),
        }
    }
}

/// Our fault, in a sentence without personal data.
pub(crate) fn processing_failed(detail: &str) -> Fault {
    Fault { reason: Reason::ProcessingFailed, detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::memory::InMemory;
    use schemas::events::UploadReceived;
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn a_photo_is_fetched_once_the_files_in_memory_leave_room_for_it() {
        let example = include_str!("../../schemas/examples/uploads.received/normal-claim.json");
        let example: Value = serde_json::from_str(example).unwrap();
        let received: UploadReceived = serde_json::from_value(example["event"].clone()).unwrap();
        let header = UploadHeader { file_size: i64::from(ROOM / 2), ..received.header };
        let store = Arc::new(InMemory::new());
        store.put(&header.object_key.as_str().into(), "photo".into()).await.unwrap();
        let photos = Photos::new(store);
        let held =
            (photos.fetch(&header).await.unwrap().unwrap(), photos.fetch(&header).await.unwrap().unwrap());
        assert_eq!(held.0.as_ref(), b"photo");
        assert!(tokio::time::timeout(Duration::ZERO, photos.fetch(&header)).await.is_err());
        drop(held);
        let largest = UploadHeader { file_size: i64::MAX, ..header };
        assert!(photos.fetch(&largest).await.unwrap().is_ok());
    }
}
