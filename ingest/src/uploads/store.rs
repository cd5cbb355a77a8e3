//! The photo store: a local folder, flushed to the disk, or S3, GCS or Azure by URL.
//!
//! A photo arrives under `incoming/<uuid>` while it is hashed and counted; once it is checked it moves to
//! `photos/{user_id}/{sha256}`. The bytes are kept as received: this version strips nothing from them, EXIF included.
//! What a crash leaves under `incoming/` is removed by [`PhotoStore::sweep`]. (A bucket also wants a lifecycle rule that
//! ends unfinished multipart uploads after a day.)

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, WriteMultipart};
use schemas::ids::UserId;
use sha2::{Digest as _, Sha256};
use url::Url;
use uuid::Uuid;

use crate::http::problem::{ApiError, PHOTO_STORE_UNAVAILABLE};

/// Chunk size on a local disk: small, so that an upload costs half a mebibyte (one chunk filling, one being written).
const LOCAL_CHUNK: usize = 256 * 1024;
/// Part size on a bucket: the smallest that S3 takes.
const BUCKET_CHUNK: usize = 5 * 1024 * 1024;
/// Longest store URL (data map: image_url is 500, the key 108).
const URL_MAX: usize = 390;
/// Users' folders that are remembered as flushed: 10,000 x about 150 bytes = 1.5 MB.
const FLUSHED_MAX: usize = 10_000;
/// Objects that one sweep removes at most.
const SWEEP: usize = 1000;

/// Why the photo store did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Neither `file:///folder` nor a bucket that this build knows.
    #[error("the photo store's URL {url:?} is not usable: {detail}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// The local disk.
    #[error("the photo store's disk: {0}")]
    Disk(#[from] io::Error),
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        PHOTO_STORE_UNAVAILABLE.caused_by(error)
    }
}

/// Where photos are kept.
#[derive(Clone, Debug)]
pub struct PhotoStore {
    store: Arc<dyn ObjectStore>,
    local: Option<Local>,
    url: String,
}

#[derive(Clone, Debug)]
struct Local {
    root: PathBuf,
    fsync: bool,
    /// Folders whose own entries are flushed already, as far as this process knows.
    flushed: Arc<Mutex<HashSet<PathBuf>>>,
}

impl PhotoStore {
    /// Opens the store at `url`: `file:///folder` (made if missing), `s3://bucket/prefix`, `gs://…`, `az://…` (cargo features
    /// `s3`, `gcs`, `azure`). `options` are the bucket client's settings, e.g. `aws_region`; names that it does not know are
    /// ignored. `fsync` false gives up the promise that an accepted photo outlives a power cut: for tests only.
    ///
    /// # Errors
    /// [`StoreError::Url`], or [`StoreError::Disk`] when the folder cannot be made.
    pub fn open(
        url: &str,
        fsync: bool,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        let wrong = |detail: String| StoreError::Url { url: url.to_owned(), detail };
        let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if parsed.password().is_some() || url.len() > URL_MAX {
            return Err(wrong(format!("it carries a password or has more than {URL_MAX} bytes")));
        }
        let shown = url.trim_end_matches('/').to_owned();
        if parsed.scheme() == "file" {
            let root = parsed.to_file_path().map_err(|()| wrong("not a local folder".into()))?;
            fs::create_dir_all(root.join("incoming"))?;
            let root = root.canonicalize()?;
            let store = Arc::new(LocalFileSystem::new_with_prefix(&root)?);
            return Ok(Self {
                store,
                local: Some(Local { root, fsync, flushed: Arc::default() }),
                url: shown,
            });
        }
        let (store, prefix) =
            object_store::parse_url_opts(&parsed, options).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { store: Arc::new(PrefixStore::new(store, prefix)), local: None, url: shown })
    }

    /// The store itself, for those that only read from it.
    #[must_use]
    pub fn object_store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    /// The unsigned URL of a key.
    #[must_use]
    pub fn url_of(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    /// The key of a user's photo.
    #[must_use]
    pub fn key(user: UserId, sha256: &str) -> String {
        format!("photos/{user}/{sha256}")
    }

    /// Begins a photo.
    pub(crate) async fn begin(&self) -> Result<Writer, StoreError> {
        let key = format!("incoming/{}", Uuid::now_v7());
        let chunk = if self.local.is_some() { LOCAL_CHUNK } else { BUCKET_CHUNK };
        let upload = self.store.put_multipart(&Path::from(key.as_str())).await?;
        let upload = WriteMultipart::new_with_chunk_size(upload, chunk);
        Ok(Writer { upload, key, hasher: Sha256::new(), bytes: 0 })
    }

    /// The whole object.
    ///
    /// # Errors
    /// [`StoreError::Store`].
    pub async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        Ok(self.store.get(&Path::from(key)).await?.bytes().await?)
    }

    /// Moves a photo to its place, durably: on a local disk the file is flushed before it is renamed (a photo that is already
    /// there is never replaced by one that a power cut could empty), then the folders that name it.
    pub(crate) async fn keep(&self, incoming: &Incoming, key: &str) -> Result<(), StoreError> {
        let Some(local) = self.local.clone() else {
            return Ok(self.store.rename(&Path::from(incoming.key.as_str()), &Path::from(key)).await?);
        };
        let (from, to) = (local.root.join(&incoming.key), local.root.join(key));
        blocking(move || local.rename(&from, &to)).await
    }

    /// Throws a photo away that was not kept. A failure costs disk until the next sweep, nothing else.
    pub(crate) async fn discard(&self, incoming: &Incoming) {
        if let Err(error) = self.store.delete(&Path::from(incoming.key.as_str())).await {
            tracing::debug!(error = %error, "an incoming photo stays until the next sweep");
        }
    }

    /// Removes incoming photos older than `age`, at most 1,000, and returns how many. `age` must be longer than any upload takes.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self, age: Duration) -> Result<usize, StoreError> {
        if let Some(local) = self.local.clone() {
            return blocking(move || local.sweep(age)).await;
        }
        let oldest = DateTime::<Utc>::from(SystemTime::now() - age);
        let old: Vec<Path> = self
            .store
            .list(Some(&Path::from("incoming")))
            .try_filter(|object| std::future::ready(object.last_modified < oldest))
            .map_ok(|object| object.location)
            .take(SWEEP)
            .try_collect()
            .await?;
        for path in &old {
            self.store.delete(path).await?;
        }
        Ok(old.len())
    }
}

impl Local {
    fn rename(&self, from: &FsPath, to: &FsPath) -> io::Result<()> {
        let folder = to.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        if self.fsync {
            fs::File::open(from)?.sync_all()?;
        }
        fs::rename(from, to)?;
        if self.fsync {
            self.flush(folder)?;
        }
        Ok(())
    }

    /// Makes a photo's entry last: its folder is flushed each time, the folders above only until they are known to be, since each may be
    /// new and an entry lasts once its own folder is flushed.
    fn flush(&self, folder: &FsPath) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()?;
        if self.flushed.lock().unwrap_or_else(PoisonError::into_inner).contains(folder) {
            return Ok(());
        }
        for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(&self.root)) {
            fs::File::open(above)?.sync_all()?;
        }
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        if flushed.len() >= FLUSHED_MAX {
            flushed.clear();
        }
        flushed.insert(folder.to_owned());
        Ok(())
    }

    /// Looks at the folder itself: object_store does not list the files of unfinished uploads.
    fn sweep(&self, age: Duration) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(self.root.join("incoming"))?.take(SWEEP) {
            let entry = entry?;
            let modified = entry.metadata()?.modified()?;
            if SystemTime::now().duration_since(modified).unwrap_or_default() > age {
                fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(io::Error::other)??)
}

/// A photo on its way in: hashed and counted as it is written. Dropping it gives it up.
pub(crate) struct Writer {
    upload: WriteMultipart,
    key: String,
    hasher: Sha256,
    bytes: u64,
}

/// A photo under its temporary key.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    /// Its temporary key.
    pub(crate) key: String,
    /// SHA-256, 64 lower-case hex digits.
    pub(crate) sha256: String,
    /// Its size.
    pub(crate) bytes: u64,
}

impl Writer {
    /// Bytes so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds bytes; waits while a chunk is still being written, so that two chunks are held at most.
    pub(crate) async fn write(&mut self, chunk: &[u8]) -> Result<(), StoreError> {
        self.upload.wait_for_capacity(1).await?;
        self.hasher.update(chunk);
        self.bytes += chunk.len() as u64;
        self.upload.write(chunk);
        Ok(())
    }

    /// The end of the photo.
    pub(crate) async fn finish(self) -> Result<Incoming, StoreError> {
        self.upload.finish().await?;
        Ok(Incoming { key: self.key, sha256: hex::encode(self.hasher.finalize()), bytes: self.bytes })
    }

    /// Gives the photo up.
    pub(crate) async fn abort(self) {
        if let Err(error) = self.upload.abort().await {
            tracing::debug!(error = %error, "an incoming photo stays until the next sweep");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &tempfile::TempDir) -> PhotoStore {
        let url = Url::from_directory_path(folder.path()).unwrap();
        PhotoStore::open(url.as_str(), true, []).unwrap()
    }

    #[tokio::test]
    async fn a_photo_is_hashed_while_it_is_written_and_moves_to_its_users_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let mut writer = store.begin().await.unwrap();
        writer.write(b"ab").await.unwrap();
        writer.write(b"c").await.unwrap();
        let incoming = writer.finish().await.unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(incoming.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(incoming.bytes, 3);
        let key = PhotoStore::key(UserId(Uuid::from_u128(1)), &incoming.sha256);
        store.keep(&incoming, &key).await.unwrap();
        assert_eq!(store.read(&key).await.unwrap().as_ref(), b"abc");
        assert!(store.read(&incoming.key).await.is_err());
        assert!(store.url_of(&key).len() <= 500);
    }

    #[tokio::test]
    async fn what_a_crash_leaves_behind_is_swept_and_what_is_young_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        store.begin().await.unwrap().finish().await.unwrap();
        std::fs::write(folder.path().join("incoming/left#1"), "x").unwrap();
        assert_eq!(store.sweep(Duration::from_secs(3600)).await.unwrap(), 0);
        assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 2);
    }

    #[test]
    fn a_url_with_a_password_or_of_an_unknown_kind_is_refused() {
        assert!(PhotoStore::open("s3://key:secret@bucket", true, []).is_err());
        assert!(PhotoStore::open("ftp://bucket", true, []).is_err());
    }
}
