//! Answers, kept under photo, reader version and cascade.

use std::future::Future;

use providers::Attempt;
use reading::{FileInfo, Reading};
use runtime::StageError;
use schemas::events::{ImageSize, ReadingResult, UploadHeader};
use schemas::ids::{UploadId, UserId};
use schemas::sealed::UserKey;
use serde::{Deserialize, Serialize};

use super::pictures::Pictures;
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
    /// What the photo shows around the number, in hex; none where the embedded reader did not read it.
    #[serde(default)]
    pub surroundings: Option<String>,
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
            surroundings: reading.surroundings.as_ref().map(|seen| hex::encode(seen.to_bytes())),
        }
    }
}

/// Keeps answers, the keys that seal their text, and the services that give them.
pub trait Answers: Pictures {
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

    /// The services that are active, and the embedded reader.
    ///
    /// # Errors
    /// [`StageError`] when the store does not respond.
    fn services(&self) -> impl Future<Output = Result<Vec<ServiceRow>, StageError>> + Send;
}
