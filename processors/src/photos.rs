//! Photos by reference: the event carries the key, the store the bytes.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _};
use runtime::StageError;
use schemas::events::{Fault, UploadHeader};
use schemas::reason::Reason;

/// Bytes that are fetched at most: twice the largest body that the gateway takes, so that a wrong object in the store
/// cannot fill the memory.
const BYTES_MAX: u64 = 64 << 20;

/// The photo store.
#[derive(Clone, Debug)]
pub(crate) struct Photos(Arc<dyn ObjectStore>);

impl Photos {
    /// Photos in this store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self(store)
    }

    /// The photo of an upload, or the fault that stands in its place: a photo that was accepted is durable, so one that
    /// is gone was erased, or is our fault.
    ///
    /// # Errors
    /// [`StageError`] when the store does not answer: the record is tried again.
    pub async fn fetch(&self, header: &UploadHeader) -> Result<Result<Bytes, Fault>, StageError> {
        let Ok(path) = Path::parse(&header.object_key) else {
            return Ok(Err(processing_failed("the photo's key is no path")));
        };
        let found = match self.0.get(&path).await {
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
        Ok(Ok(bytes))
    }
}

/// Our fault, in a sentence without personal data.
pub(crate) fn processing_failed(detail: &str) -> Fault {
    Fault { reason: Reason::ProcessingFailed, detail: detail.to_owned() }
}
