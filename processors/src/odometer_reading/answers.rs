//! Answers of the reader, kept under photo and reader version.

use std::future::Future;

use reading::{FileInfo, Reading};
use runtime::StageError;
use schemas::events::{ImageSize, ReadingResult, UploadHeader};
use schemas::ids::{UploadId, UserId};
use schemas::sealed::UserKey;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::{PgPool, query_scalar};

use crate::documents::file_info;

/// One answer, with all that the event and the documents about it say: a redelivery says the same again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The upload that it was read for; the detected text is sealed for it.
    pub upload_id: UploadId,
    /// Its user, whose key seals the text.
    pub user_id: UserId,
    /// What goes into the event.
    pub result: ReadingResult,
    /// The upright photo.
    pub size: ImageSize,
    /// The file as it came: `image_quality_logs.original_file_info`.
    pub file: serde_json::Value,
    /// Milliseconds of decoding and reading.
    pub spent_ms: f64,
    /// Mean, contrast, gradient and glare of the reading's box.
    pub box_metrics: Option<BoxMetrics>,
    /// Labels of `image_quality_logs.detected_issues`, frame and box together.
    pub issues: Vec<String>,
    /// Labels of `image_quality_logs.preprocessing_applied`.
    pub preprocessing: Vec<String>,
}

/// What was measured on the reading's own box, luma 0-255; `glare` is a share, 0-1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoxMetrics {
    /// Mean.
    pub mean: f64,
    /// 95th less 5th percentile.
    pub contrast: f64,
    /// 90th percentile of the gradient.
    pub gradient: f64,
    /// Share at and above 245.
    pub glare: f64,
}

impl Answer {
    pub(super) fn new(
        header: &UploadHeader,
        result: ReadingResult,
        reading: &Reading,
        photo: (FileInfo, ImageSize),
        spent_ms: f64,
    ) -> Self {
        let owned = |labels: &[&'static str]| labels.iter().map(|label| (*label).to_owned()).collect();
        Self {
            upload_id: header.upload_id,
            user_id: header.user_id,
            result,
            size: photo.1,
            file: file_info(&photo.0),
            spent_ms,
            box_metrics: reading.box_metrics.as_ref().map(|measured| BoxMetrics {
                mean: measured.mean,
                contrast: measured.contrast,
                gradient: measured.gradient,
                glare: measured.glare,
            }),
            issues: owned(&reading.issues),
            preprocessing: owned(&reading.preprocessing),
        }
    }
}

/// Keeps answers, and the keys that seal their text.
pub trait Answers: Send + Sync + 'static {
    /// The answer of this reader about a photo.
    ///
    /// # Errors
    /// [`StageError`] when the store does not answer.
    fn find(
        &self,
        image_hash: &str,
        reader_version: &str,
    ) -> impl Future<Output = Result<Option<Answer>, StageError>> + Send;

    /// Keeps an answer, unless there is one: answers the one that is kept from now on.
    ///
    /// # Errors
    /// [`StageError`] when the store does not answer.
    fn keep(
        &self,
        image_hash: &str,
        reader_version: &str,
        answer: Answer,
    ) -> impl Future<Output = Result<Answer, StageError>> + Send;

    /// The key of a user; none once the user is erased.
    ///
    /// # Errors
    /// [`StageError`] when the store does not answer.
    fn user_key(&self, user: UserId) -> impl Future<Output = Result<Option<UserKey>, StageError>> + Send;
}

/// Answers in `reading_results`, keys in `user_keys`.
#[derive(Clone, Debug)]
pub struct PostgresAnswers(PgPool);

impl PostgresAnswers {
    /// Answers in this database.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }
}

impl Answers for PostgresAnswers {
    async fn find(&self, image_hash: &str, reader_version: &str) -> Result<Option<Answer>, StageError> {
        let found: Option<Json<Answer>> =
            query_scalar("select result from reading_results where image_hash = $1 and reader_version = $2")
                .bind(image_hash)
                .bind(reader_version)
                .fetch_optional(&self.0)
                .await?;
        Ok(found.map(|Json(answer)| answer))
    }

    async fn keep(
        &self,
        image_hash: &str,
        reader_version: &str,
        answer: Answer,
    ) -> Result<Answer, StageError> {
        let kept: Option<Json<Answer>> = query_scalar(
            "insert into reading_results (image_hash, reader_version, result) values ($1, $2, $3)
             on conflict do nothing returning result",
        )
        .bind(image_hash)
        .bind(reader_version)
        .bind(Json(&answer))
        .fetch_optional(&self.0)
        .await?;
        match kept {
            Some(Json(kept)) => Ok(kept),
            // Another owner of the partition was faster; its answer stands.
            None => Ok(self.find(image_hash, reader_version).await?.unwrap_or(answer)),
        }
    }

    async fn user_key(&self, user: UserId) -> Result<Option<UserKey>, StageError> {
        let key: Option<Vec<u8>> = query_scalar("select key from user_keys where user_id = $1")
            .bind(user.0)
            .fetch_optional(&self.0)
            .await?;
        key.map(|key| UserKey::from_bytes(&key))
            .transpose()
            .map_err(|error| StageError::new("user_keys", error))
    }
}
