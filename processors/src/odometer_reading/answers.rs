//! Answers, kept under photo, reader version and cascade.

use std::future::Future;

use providers::Attempt;
use reading::{FileInfo, Reading};
use runtime::StageError;
use schemas::events::{ImageSize, PixelHolder, ReadingResult, UploadHeader};
use schemas::ids::{Micros, UploadId, UserId, VehicleId};
use schemas::sealed::UserKey;
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgPool, query_as, query_scalar};
use uuid::Uuid;

use super::roster::ServiceRow;
use crate::documents::file_info;

/// What an answer is kept under.
#[derive(Clone, Copy, Debug)]
pub struct AnswerKey<'a> {
    /// SHA-256 of the photo, 64 hex digits.
    pub image_hash: &'a str,
    /// The embedded reader's models.
    pub reader_version: &'a str,
    /// The services, as [`providers::Cascade::id`] names them.
    pub cascade: &'a str,
}

/// One answer, with all that the event and the documents about it hold: a redelivery makes the same again.
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
    /// Every service that was tried, in order; none in an answer that was kept before there were others than the embedded one.
    #[serde(default)]
    pub attempts: Vec<Attempt>,
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
        attempts: Vec<Attempt>,
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
            attempts,
        }
    }
}

/// Keeps answers, the keys that seal their text, and the services that give them.
pub trait Answers: Send + Sync + 'static {
    /// The answer that is kept.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond.
    fn find(&self, key: AnswerKey<'_>) -> impl Future<Output = Result<Option<Answer>, StageError>> + Send;

    /// Keeps an answer, unless there is one: answers the one that is kept from now on.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond.
    fn keep(
        &self,
        key: AnswerKey<'_>,
        answer: Answer,
    ) -> impl Future<Output = Result<Answer, StageError>> + Send;

    /// The key of a user; none once the user is erased.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond.
    fn user_key(&self, user: UserId) -> impl Future<Output = Result<Option<UserKey>, StageError>> + Send;

    /// The first upload with these pixels, for good, where it sent them in another file: none where this one is the first, or the first
    /// sent the same file. Of one file acceptance knows who was first, in whichever order the two are read.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond.
    fn hold_pixels(
        &self,
        pixel_hash: &str,
        own: &UploadHeader,
    ) -> impl Future<Output = Result<Option<PixelHolder>, StageError>> + Send;

    /// The services that are active, and the embedded reader.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond.
    fn services(&self) -> impl Future<Output = Result<Vec<ServiceRow>, StageError>> + Send;
}

/// Answers in `reading_results`, keys in `user_keys`, services in `ai_service_configs`.
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
    async fn find(&self, key: AnswerKey<'_>) -> Result<Option<Answer>, StageError> {
        let found: Option<Json<Answer>> = query_scalar(
            "select result from reading_results where image_hash = $1 and reader_version = $2 and chain = $3",
        )
        .bind(key.image_hash)
        .bind(key.reader_version)
        .bind(key.cascade)
        .fetch_optional(&self.0)
        .await?;
        Ok(found.map(|Json(answer)| answer))
    }

    async fn keep(&self, key: AnswerKey<'_>, answer: Answer) -> Result<Answer, StageError> {
        let kept: Option<Json<Answer>> = query_scalar(
            "insert into reading_results (image_hash, reader_version, chain, result) values ($1, $2, $3, $4)
             on conflict do nothing returning result",
        )
        .bind(key.image_hash)
        .bind(key.reader_version)
        .bind(key.cascade)
        .bind(Json(&answer))
        .fetch_optional(&self.0)
        .await?;
        match kept {
            Some(Json(kept)) => Ok(kept),
            // Another owner of the partition was faster; its answer stands.
            None => Ok(self.find(key).await?.unwrap_or(answer)),
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

    async fn hold_pixels(
        &self,
        pixel_hash: &str,
        own: &UploadHeader,
    ) -> Result<Option<PixelHolder>, StageError> {
        // The update changes nothing: it waits for a holder that another transaction is about to commit, and returns it.
        let (user, vehicle, upload, accepted_at, same_file): (Uuid, Uuid, Uuid, DateTime<Utc>, bool) =
            query_as(
                "insert into pixel_holders as h (pixel_hash, user_id, vehicle_id, upload_id, accepted_at, image_hash)
                 values (decode($1, 'hex'), $2, $3, $4, $5, decode($6, 'hex'))
                 on conflict (pixel_hash) do update set upload_id = h.upload_id
                 returning user_id, vehicle_id, upload_id, accepted_at, image_hash = decode($6, 'hex')",
            )
            .bind(pixel_hash)
            .bind(own.user_id.0)
            .bind(own.vehicle_id.0)
            .bind(own.upload_id.0)
            .bind(own.accepted_at.to_utc())
            .bind(&own.image_hash)
            .fetch_one(&self.0)
            .await?;
        let holder = PixelHolder {
            upload_id: UploadId(upload),
            user_id: UserId(user),
            vehicle_id: VehicleId(vehicle),
            accepted_at: Micros::from(accepted_at),
        };
        Ok((!same_file).then_some(holder))
    }

    async fn services(&self) -> Result<Vec<ServiceRow>, StageError> {
        Ok(sqlx::query_as(ServiceRow::ACTIVE).fetch_all(&self.0).await?)
    }
}
