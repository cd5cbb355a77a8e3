//! The photo store: a local folder, flushed to the disk, or S3, GCS or Azure by URL.
//!
//! A photo is whole in memory when it is kept, under `photos/{user_id}/{sha256}`. That is the hash of the file as it came; what the camera
//! wrote beside the picture is gone by then, unless its owner wants it kept. On a local disk it is written under `incoming/<uuid>` first
//! and renamed once it is flushed; what a crash leaves there is removed by [`PhotoStore::sweep`].

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use schemas::ids::UserId;
use url::Url;
use uuid::Uuid;

use crate::http::problem::{ApiError, PHOTO_STORE_UNAVAILABLE};

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

    /// The whole object.
    ///
    /// # Errors
    /// [`StoreError::Store`].
    pub async fn read(&self, key: &str) -> Result<Bytes, StoreError> {
        Ok(self.store.get(&Path::from(key)).await?.bytes().await?)
    }

    /// The object's size and its content, piece by piece.
    ///
    /// # Errors
    /// [`StoreError::Store`].
    pub(crate) async fn pieces(
        &self,
        key: &str,
    ) -> Result<(u64, BoxStream<'static, Result<Bytes, object_store::Error>>), StoreError> {
        let found = self.store.get(&Path::from(key)).await?;
        Ok((found.meta.size, found.into_stream()))
    }

    /// Keeps a photo on the local disk, durably: the file is flushed before it has its name (a photo that is already there is never
    /// replaced by one that a power cut could empty), then the folders that name it. Blocks. None where the store is a bucket.
    pub(crate) fn keep_on_disk(&self, photo: &[u8], key: &str) -> Option<Result<(), StoreError>> {
        self.local.as_ref().map(|local| Ok(local.keep(photo, key)?))
    }

    /// Keeps a photo in a bucket, which has all of it or nothing.
    pub(crate) async fn keep_in_bucket(&self, photo: Bytes, key: &str) -> Result<(), StoreError> {
        self.store.put(&Path::from(key), PutPayload::from_bytes(photo)).await?;
        Ok(())
    }

    /// Removes all photos of a user; returns how many. It may be repeated.
    ///
    /// # Errors
    /// [`StoreError::Store`].
    pub async fn erase(&self, user: UserId) -> Result<u64, StoreError> {
        let mut photos = self.store.list(Some(&Path::from(format!("photos/{user}"))));
        let mut removed = 0;
        while let Some(photo) = photos.try_next().await? {
            match self.store.delete(&photo.location).await {
                Ok(()) => removed += 1,
                // Another run was faster.
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(removed)
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
    fn keep(&self, photo: &[u8], key: &str) -> io::Result<()> {
        let (incoming, place) = (self.root.join(format!("incoming/{}", Uuid::now_v7())), self.root.join(key));
        let folder = place.parent().unwrap_or(&self.root);
        if !self.is_flushed(folder) {
            fs::create_dir_all(folder)?;
        }
        let kept = self.write(photo, &incoming).and_then(|()| fs::rename(&incoming, &place));
        if kept.is_err() {
            // What cannot be removed now is swept later.
            let _ = fs::remove_file(&incoming);
        }
        kept?;
        if self.fsync { self.flush(folder) } else { Ok(()) }
    }

    fn write(&self, photo: &[u8], path: &FsPath) -> io::Result<()> {
        let mut file = fs::File::create_new(path)?;
        file.write_all(photo)?;
        if self.fsync { file.sync_all() } else { Ok(()) }
    }

    fn is_flushed(&self, folder: &FsPath) -> bool {
        self.flushed.lock().unwrap_or_else(PoisonError::into_inner).contains(folder)
    }

    /// Makes a photo's entry last: its folder is flushed each time, the folders above only until they are known to be, since each may be
    /// new and an entry lasts once its own folder is flushed.
    fn flush(&self, folder: &FsPath) -> io::Result<()> {
        fs::File::open(folder)?.sync_all()?;
        if self.is_flushed(folder) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn store(folder: &tempfile::TempDir) -> PhotoStore {
        let url = Url::from_directory_path(folder.path()).unwrap();
        PhotoStore::open(url.as_str(), true, []).unwrap()
    }

    #[tokio::test]
    async fn a_photo_is_whole_under_its_key_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        let key = PhotoStore::key(UserId(Uuid::from_u128(1)), &"ab".repeat(32));
        for photo in [b"abc", b"abc"] {
            store.keep_on_disk(photo, &key).unwrap().unwrap();
            assert_eq!(store.read(&key).await.unwrap().as_ref(), photo);
        }
        assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
        assert!(store.url_of(&key).len() <= 500);
    }

    #[tokio::test]
    async fn a_photo_that_cannot_be_kept_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        // A file stands where the user's folder would.
        std::fs::write(folder.path().join("photos"), "x").unwrap();
        assert!(store.keep_on_disk(b"abc", "photos/user/hash").unwrap().is_err());
        assert_eq!(std::fs::read_dir(folder.path().join("incoming")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_a_crash_leaves_behind_is_swept_and_what_is_young_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder);
        std::fs::write(folder.path().join("incoming/left"), "x").unwrap();
        assert_eq!(store.sweep(Duration::from_secs(3600)).await.unwrap(), 0);
        assert_eq!(store.sweep(Duration::ZERO).await.unwrap(), 1);
    }

    #[test]
    fn a_url_with_a_password_or_of_an_unknown_kind_is_refused() {
        assert!(PhotoStore::open("s3://key:secret@bucket", true, []).is_err());
        assert!(PhotoStore::open("ftp://bucket", true, []).is_err());
    }
}
