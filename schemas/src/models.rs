//! Which models read photos: the type of `models.deployed`.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::ids::{EventId, Micros};

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelType {
    /// Reads text.
    Ocr,
    /// Says what a picture shows.
    ImageClassification,
    /// Finds where something is.
    ObjectDetection,
}

impl ModelType {
    /// The label of the column's enum.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ocr => "ocr",
            Self::ImageClassification => "image_classification",
            Self::ObjectDetection => "object_detection",
        }
    }
}

/// A version of a model reads photos from now on. The same for every start and every instance of one deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelDeployed {
    /// This event's id.
    pub event_id: EventId,
    /// When this version took over: later than every earlier deployment of the model.
    pub occurred_at: Micros,
    /// The model.
    pub model_name: String,
    /// Its tag, a hyphen and the first eight hex digits of `sha256`; at most 20 characters.
    pub model_version: String,
    /// What it does.
    pub model_type: ModelType,
    /// Share of photos of a held-out seed that were read exactly with it, 0-1.
    pub accuracy: Decimal,
    /// Median milliseconds of CPU for a photo on one thread, with the models that it works with.
    pub cpu_ms: i32,
    /// Bytes of its file.
    pub file_size: i64,
    /// SHA-256 of its file, 64 lower-case hex digits.
    pub sha256: String,
    /// When the file was made.
    pub built_at: Micros,
    /// When this version first read photos here.
    pub first_deployed_at: Micros,
}
