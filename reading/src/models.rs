//! What is known of the networks that are built in: `models/models.json` is the one list of them.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::ModelType;
use serde::Deserialize;

use crate::reader::ReaderError;

static MANIFEST: &str = include_str!("../models/models.json");

/// A network, as the manifest describes it. What was measured was measured with the networks that it works with, on readable photos
/// that it was not made with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name, as in [`Reader::version`](crate::Reader::version).
    pub name: String,
    /// The name of its release, at most 11 characters.
    pub tag: String,
    /// What it does.
    #[serde(rename = "type")]
    pub model_type: ModelType,
    /// Its file in `models/`.
    pub file: String,
    /// SHA-256 of the file, 64 lower-case hex digits.
    pub sha256: String,
    /// Bytes of the file.
    pub bytes: i64,
    /// How many photos of `tools/photogen` it was measured on.
    pub photos: u32,
    /// Share of them that were read exactly, 0-1.
    pub accuracy: Decimal,
    /// Median milliseconds of CPU for one of them, on one thread.
    pub cpu_ms: i32,
    /// When the file was made.
    pub built_at: DateTime<Utc>,
}

impl Model {
    /// `ai_models.model_version`: the tag, a hyphen and the first eight hex digits of the file's SHA-256.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}-{}", self.tag, self.sha256.get(..8).unwrap_or(&self.sha256))
    }
}

/// The networks of this release, in the order of [`Reader::version`](crate::Reader::version).
///
/// # Errors
/// [`ReaderError::Manifest`]; a unit test holds that the built-in list parses.
pub fn models() -> Result<Vec<Model>, ReaderError> {
    Ok(serde_json::from_str(MANIFEST)?)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::Reader;

    #[test]
    fn the_manifest_names_the_files_that_are_there_and_fits_its_columns() {
        for model in models().unwrap() {
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(&model.file);
            let bytes = fs::read(file).unwrap();
            let found = (hex::encode(Sha256::digest(&bytes)), i64::try_from(bytes.len()).unwrap());
            assert_eq!((model.sha256.clone(), model.bytes), found, "{}", model.name);
            assert!(model.version().len() <= 20 && model.name.len() <= 100, "{}", model.version());
            assert!(model.accuracy > Decimal::ZERO && model.accuracy <= Decimal::ONE && model.cpu_ms > 0);
        }
    }

    #[test]
    fn the_manifest_lists_the_networks_that_the_reader_is_made_of_and_no_other() {
        let listed: Vec<String> =
            models().unwrap().iter().map(|model| format!("{}@{}", model.name, &model.sha256[..8])).collect();
        assert_eq!(Reader::embedded().unwrap().version(), listed.join(","));
    }
}
