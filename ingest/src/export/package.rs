//! What goes into an archive, and in which order: a page about it, a file of rows per store, log documents, the photos.

use std::pin::Pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use object_store::Error as ObjectError;
use reading::Format;
use schemas::ids::UserId;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use super::archive::{Archive, ArchiveError};
use super::logs::PersonLogs;
use super::stores::{STORES, Store};
use crate::erasure::traces;
use crate::queries::payout::instant;
use crate::uploads::store::{PhotoStore, StoreError};

/// Rows that are in memory at once: of the largest store about 8 KiB each, 1.6 MB.
const PAGE: i64 = 200;

/// Why an archive ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackageError {
    /// Its client, or the format.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The rows.
    #[error("postgres")]
    Database(#[from] sqlx::Error),
    /// The photos.
    #[error(transparent)]
    Photos(#[from] StoreError),
    /// The page about the archive does not encode: a bug of ours.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// What somebody is given.
pub(super) struct Package {
    pub(super) pool: PgPool,
    pub(super) photos: PhotoStore,
    pub(super) logs: Option<Arc<dyn PersonLogs>>,
    pub(super) user: UserId,
    pub(super) now: DateTime<Utc>,
}

impl Package {
    /// Writes all of it.
    pub(super) async fn write(&self, mut archive: Archive) -> Result<(), PackageError> {
        archive.begin_text("about.json")?;
        archive.write(&serde_json::to_vec_pretty(&self.about())?).await?;
        for store in STORES {
            self.rows(store, &mut archive).await?;
        }
        self.documents(&mut archive).await?;
        self.pictures(&mut archive).await?;
        Ok(archive.finish().await?)
    }

    fn about(&self) -> Value {
        let files = STORES.iter().map(|store| (format!("{}.json", store.name), json!(store.holds)));
        let folders = [
            ("logs/", "what was written down while you used the service: it is forgotten after some time"),
            ("photos/", "your photos as they were received, by upload"),
        ];
        let folders = folders.map(|(folder, holds)| (folder.to_owned(), json!(holds)));
        json!({
            "user_id": self.user,
            "made_at": instant(self.now),
            "files": files.chain(folders).collect::<serde_json::Map<String, Value>>(),
        })
    }

    /// A file with an array of rows. No transaction is open while the client takes them.
    async fn rows(&self, store: &Store, archive: &mut Archive) -> Result<(), PackageError> {
        let mut array = archive.begin_array(&format!("{}.json", store.name))?;
        let statement = format!(
            "select key, row::text from ({}) rows where key collate \"C\" > $2 order by key collate \"C\" limit $3",
            store.rows
        );
        let mut after = String::new();
        loop {
            let page: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(statement.as_str()))
                .bind(self.user.0)
                .bind(&after)
                .bind(PAGE)
                .fetch_all(&self.pool)
                .await?;
            for (_, row) in &page {
                array.push(row).await?;
            }
            match page.into_iter().last() {
                Some((key, _)) => after = key,
                None => break,
            }
        }
        Ok(array.end().await?)
    }

    /// A file per collection. What cannot be had is said; a person is given the rest.
    async fn documents(&self, archive: &mut Archive) -> Result<(), PackageError> {
        let Some(logs) = &self.logs else { return Ok(()) };
        let (uploads, wallets) = traces(&self.pool, self.user).await?;
        let mut documents = logs.about(self.user, uploads, wallets).peekable();
        while let Some(next) = documents.next().await {
            let (collection, first) = match next {
                Ok(document) => document,
                Err(error) => {
                    tracing::error!(error = %error, "an export lacks log documents");
                    archive.begin_text("logs/incomplete.txt")?;
                    let why = b"The logs could not be read to their end: ask again later.\n";
                    return Ok(archive.write(why).await?);
                }
            };
            let mut array = archive.begin_array(&format!("logs/{collection}.json"))?;
            array.push(&first.to_string()).await?;
            let is_of_it =
                |next: &Result<(&str, Value), _>| next.as_ref().is_ok_and(|(other, _)| *other == collection);
            while let Some(Ok((_, document))) = Pin::new(&mut documents).next_if(is_of_it).await {
                array.push(&document.to_string()).await?;
            }
            array.end().await?;
        }
        Ok(())
    }

    /// The photos by their uploads; those that are not there any more are named.
    async fn pictures(&self, archive: &mut Archive) -> Result<(), PackageError> {
        let (mut after, mut missing) = (Uuid::nil(), Vec::new());
        loop {
            // An upload whose photo was sent again has no reservation any more, and a new one no row yet.
            let page: Vec<(Uuid, String)> = sqlx::query_as(
                "select upload_id, image_hash from photo_hashes where user_id = $1 and upload_id > $2
                 union
                 select id, image_hash from odometer_uploads where user_id = $1 and id > $2 and image_hash is not null
                 order by 1 limit $3",
            )
            .bind(self.user.0)
            .bind(after)
            .bind(PAGE)
            .fetch_all(&self.pool)
            .await?;
            for (upload, hash) in &page {
                if !self.picture(archive, *upload, hash).await? {
                    missing.push(*upload);
                }
            }
            match page.last() {
                Some((upload, _)) => after = *upload,
                None => break,
            }
        }
        if !missing.is_empty() {
            archive.begin_text("photos/missing.json")?;
            archive.write(&serde_json::to_vec(&missing)?).await?;
        }
        Ok(())
    }

    /// A photo; false where it is not there.
    async fn picture(&self, archive: &mut Archive, upload: Uuid, hash: &str) -> Result<bool, PackageError> {
        let mut pieces = match self.photos.pieces(&PhotoStore::key(self.user, hash)).await {
            Ok((_, pieces)) => pieces,
            Err(StoreError::Store(ObjectError::NotFound { .. })) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut first = true;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(StoreError::from)?;
            if std::mem::take(&mut first) {
                archive.begin_photo(&format!("photos/{upload}.{}", extension(&piece)))?;
            }
            archive.write(&piece).await?;
        }
        Ok(!first)
    }
}

/// The end of a photo's name, by its first bytes.
fn extension(bytes: &[u8]) -> &'static str {
    match Format::sniff(bytes) {
        Ok(Format::Jpeg) => "jpg",
        Ok(other) => other.label(),
        Err(_) => "bin",
    }
}
