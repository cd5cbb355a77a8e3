//! The sample photos and what must become of each: `examples/photos/expected.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use chrono::{DateTime, Duration, SecondsFormat, Utc};
use serde::Deserialize;
use uuid::Uuid;

use crate::client::{Photo, Posted, UploadView};

/// The scenario file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Photos in the order of posting.
    pub photos: Vec<Sample>,
}

/// One photo of the scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// File name beside the scenario file.
    pub file: String,
    /// Who sends it.
    pub driver: String,
    /// The driver's n-th vehicle.
    pub vehicle: u32,
    /// Days before now that it was taken; none leaves the time out.
    #[serde(default)]
    pub captured_days_ago: Option<i64>,
    /// What the driver typed.
    #[serde(default)]
    pub claimed_mileage: Option<String>,
    /// The unit that the driver chose.
    #[serde(default)]
    pub unit: Option<String>,
    /// What must become of it.
    pub expect: Expectation,
}

/// What must become of a photo.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The gateway's status.
    pub http: u16,
    /// The verdict; none for a refused photo.
    #[serde(default)]
    pub verdict: Option<String>,
    /// The reason of the verdict.
    #[serde(default)]
    pub reason: Option<String>,
    /// The mileage that the verdict names.
    #[serde(default)]
    pub reading: Option<String>,
}

/// Namespace of the scenario's drivers and vehicles: UUIDv5 of their names, so that every run has the same ones.
const NAMESPACE: Uuid = Uuid::from_u128(0x3f0e_7a52_8d5f_4a5b_9c53_0f4d_2e67_91aa);

impl Scenario {
    /// Reads `expected.json` in a folder.
    ///
    /// # Errors
    /// When it is missing or has another shape.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("expected.json");
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))
    }

    /// The JPEGs that are read with certainty: a comment makes any number of different files of one.
    pub fn verified_jpegs(&self) -> impl Iterator<Item = &Sample> {
        self.photos.iter().filter(|sample| {
            sample.file.ends_with(".jpg") && sample.expect.verdict.as_deref() == Some("verified")
        })
    }

    /// The bytes of the JPEGs that are read with certainty, per vehicle in the order in which they were taken; vehicles that have `least`.
    ///
    /// # Errors
    /// When a file is missing.
    pub fn series(&self, folder: &Path, least: usize) -> Result<Vec<Vec<Vec<u8>>>> {
        let mut vehicles: BTreeMap<(&str, u32), Vec<Vec<u8>>> = BTreeMap::new();
        for sample in self.verified_jpegs() {
            let bytes = std::fs::read(folder.join(&sample.file)).with_context(|| sample.file.clone())?;
            vehicles.entry((&sample.driver, sample.vehicle)).or_default().push(bytes);
        }
        Ok(vehicles.into_values().filter(|photos| photos.len() >= least).collect())
    }
}

/// The id of a driver.
#[must_use]
pub fn driver_id(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// The id of a vehicle: the gateway registers random ids only (version 4), so the name's hash takes that form.
#[must_use]
pub fn vehicle_id(name: &str) -> Uuid {
    uuid::Builder::from_random_bytes(driver_id(name).into_bytes()).into_uuid()
}

impl Sample {
    /// The sender.
    #[must_use]
    pub fn user(&self) -> Uuid {
        driver_id(&self.driver)
    }

    /// The photo as it is posted at `now`.
    ///
    /// # Errors
    /// When the file is missing.
    pub fn photo(&self, folder: &Path, now: DateTime<Utc>) -> Result<Photo> {
        let path: PathBuf = folder.join(&self.file);
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let captured = self.captured_days_ago.map(|days| now - Duration::days(days));
        Ok(Photo {
            file_name: self.file.clone(),
            media_type: None,
            bytes,
            vehicle_id: Some(vehicle_id(&format!("{}/{}", self.driver, self.vehicle))),
            claimed_mileage: self.claimed_mileage.clone(),
            unit: self.unit.clone(),
            captured_at: captured.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)),
        })
    }

    /// What differs from the expectation, in words; empty when all is as it should be.
    #[must_use]
    pub fn differences(&self, posted: &Posted, view: Option<&UploadView>) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, expected: Option<&str>, got: Option<&str>| {
            if expected != got {
                found.push(format!("{what}: expected {}, got {}", shown(expected), shown(got)));
            }
        };
        let status = match posted {
            // The same photo again, on parts that a run before has filled, gets status 200.
            Posted::Accepted { .. } => 202,
            Posted::Refused { status, .. } => *status,
        };
        compare("http", Some(&self.expect.http.to_string()), Some(&status.to_string()));
        compare("verdict", self.expect.verdict.as_deref(), view.and_then(|view| view.verdict.as_deref()));
        compare("reason", self.expect.reason.as_deref(), view.and_then(|view| view.reason.as_deref()));
        if let Some(reading) = self.expect.reading.as_deref() {
            let got = view.and_then(|view| view.reading.as_deref());
            compare("reading", Some(reading), got.map(|text| text.trim_end_matches(".00")));
        }
        found
    }
}

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("nothing")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(verdict: &str, reading: Option<&str>) -> Sample {
        let expect = Expectation {
            http: 202,
            verdict: Some(verdict.into()),
            reason: None,
            reading: reading.map(Into::into),
        };
        Sample {
            file: "a.jpg".into(),
            driver: "ada".into(),
            vehicle: 1,
            captured_days_ago: None,
            claimed_mileage: None,
            unit: None,
            expect,
        }
    }

    #[test]
    fn a_verdict_and_a_reading_other_than_expected_are_named() {
        let posted = Posted::Accepted { status: 202, upload_id: Uuid::nil() };
        let view = UploadView {
            verdict: Some("verified".into()),
            reading: Some("123.00".into()),
            ..UploadView::default()
        };
        assert!(sample("verified", Some("123")).differences(&posted, Some(&view)).is_empty());
        let found = sample("rejected", Some("124")).differences(&posted, Some(&view));
        assert_eq!(found, ["verdict: expected rejected, got verified", "reading: expected 124, got 123"]);
        let refused = Posted::Refused { status: 415, code: String::new(), detail: String::new() };
        assert_eq!(sample("verified", None).differences(&refused, None).len(), 2);
    }
}
