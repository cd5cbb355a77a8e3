//! The reader: its networks, and what is made of their passes.

use rust_decimal::Decimal;
use schemas::events::{Candidate, FrameQuality};
use sha2::{Digest, Sha256};

use crate::{
    boxes::{BoxMetrics, measure},
    decode::Photo,
    geometry::{Quad, overlap},
    ladder::Ladder,
    network::{Network, Threads},
    pass::{Found, Networks, Value},
    quality::{hundredths, together},
    reading::{Line, MOST_CANDIDATES, MOST_LINES, NEAR, Reading, Role},
    recognise::{Classes, confidence, text},
    select::unit_line,
    surroundings::Surroundings,
};

/// Confidence at and above which a reading needs no person.
pub const AUTO_ACCEPT: Decimal = Decimal::from_parts(80, 0, 0, false, 2);

/// Confidence from which a larger value at another place may be the total.
const LARGER: f64 = 0.4;

/// No reading is surer than this.
const CEILING: f64 = 0.99;

static DETECTOR: &[u8] = include_bytes!("../models/ppocrv5_det.onnx");
static RECOGNISER: &[u8] = include_bytes!("../models/ppocrv6_rec_ascii.onnx");
static DIGITS: &[u8] = include_bytes!("../models/digit_reader.onnx");
static LOCATOR: &[u8] = include_bytes!("../models/locator.onnx");
static LINE_READER: &[u8] = include_bytes!("../models/line_reader.onnx");
static CLASSES: &str = include_str!("../models/classes.txt");

/// Why the reader cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// An embedded network cannot be loaded: the build is damaged.
    #[error("the network {name}: {reason}")]
    Network {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The list of the networks does not parse: the build is damaged.
    #[error("the list of the networks")]
    Manifest(#[from] serde_json::Error),
}

/// Reads odometers. Load it once and share it: it keeps nothing of a read.
pub struct Reader {
    networks: Networks,
    threads: Threads,
    version: String,
}

impl Reader {
    /// Loads the networks that are part of the program; takes tens of milliseconds.
    ///
    /// # Errors
    /// [`ReaderError`] where one cannot be loaded.
    pub fn embedded() -> Result<Self, ReaderError> {
        Self::with(LOCATOR, LINE_READER)
    }

    /// The same with another locator and line reader: those trained without the photos that they are measured on.
    ///
    /// # Errors
    /// [`ReaderError`] where one cannot be loaded.
    pub fn with(locator: &'static [u8], line_reader: &'static [u8]) -> Result<Self, ReaderError> {
        let load = |name: &'static str, onnx: &'static [u8]| {
            Network::load(onnx).map_err(|error| ReaderError::Network { name, reason: error.to_string() })
        };
        let networks = [
            ("ppocrv5_det", DETECTOR),
            ("ppocrv6_rec_ascii", RECOGNISER),
            ("digit_reader", DIGITS),
            ("locator", locator),
            ("line_reader", line_reader),
        ];
        let stamp =
            |(name, onnx): (&str, &[u8])| format!("{name}@{}", &hex::encode(Sha256::digest(onnx))[..8]);
        Ok(Self {
            networks: Networks {
                detector: load("ppocrv5_det", DETECTOR)?,
                recogniser: load("ppocrv6_rec_ascii", RECOGNISER)?,
                classes: Classes::parse(CLASSES),
                digits: load("digit_reader", DIGITS)?,
                locator: load("locator", locator)?,
                line_reader: load("line_reader", line_reader)?,
            },
            threads: Threads::default(),
            version: networks.map(stamp).join(","),
        })
    }

    /// The networks, `name@` and the first eight hex digits of the file's SHA-256, joined by a comma.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Reads a photo on one thread: usually 0.5-1.3 s of CPU, up to 3 s where nothing is found and the photo is turned.
    /// `frame` is the photo's [`grade`](crate::grade).
    #[must_use]
    pub fn read(&self, photo: &Photo, frame: &FrameQuality) -> Reading {
        let ((found, steps), cpu) =
            self.threads.with(|thread| Ladder::new(&self.networks, thread).climb(photo.pixels()));
        let best = found.values.first();
        let box_metrics = best.map(|value| measure(photo.pixels(), &found.lines[value.line].quad));
        let reading = assemble(&found, box_metrics, frame, [vec!["resize", "crop"], steps].concat());
        let surroundings =
            best.and_then(|value| Surroundings::of(photo.pixels(), &found.lines[value.line].quad));
        Reading { cpu, surroundings, ..reading }
    }
}

/// What was found as a reading: `box_metrics` of the best value's box, where the pixels were seen.
pub(crate) fn assemble(
    found: &Found,
    box_metrics: Option<BoxMetrics>,
    frame: &FrameQuality,
    preprocessing: Vec<&'static str>,
) -> Reading {
    let together = together(frame, box_metrics.as_ref());
    let candidates: Vec<Candidate> = found.values.iter().take(MOST_CANDIDATES).map(candidate).collect();
    Reading {
        best: candidates.first().cloned(),
        evidence: found.values.first().and_then(|value| value.evidence.clone()),
        candidates,
        several: several(found),
        lines: lines(found),
        box_metrics,
        quality_score: together.score,
        lighting: together.lighting,
        blur: together.blur,
        glare: together.glare,
        issues: together.issues,
        preprocessing,
        cpu: None,
        surroundings: None,
    }
}

fn candidate(value: &Value) -> Candidate {
    Candidate {
        value: Decimal::from(value.value),
        unit: value.unit,
        confidence: hundredths(value.confidence.min(CEILING)),
    }
}

/// Whether values at two places are about equally sure, or the best was looked at closely and a larger one elsewhere is likely: of a
/// dashboard's numbers the total is the largest, and a smaller one may be a trip meter whose point was not seen. Two readings of the
/// same digits, in one box or in boxes that overlap, are one uncertain reading.
fn several(found: &Found) -> bool {
    let Some((best, others)) = found.values.split_first() else { return false };
    let quad = |value: &Value| -> &Quad { &found.lines[value.line].quad };
    let behind = |other: &Value| hundredths(best.confidence) - hundredths(other.confidence);
    let larger =
        |other: &Value| best.evidence.is_some() && other.value > best.value && other.confidence >= LARGER;
    others.iter().any(|other| (behind(other) <= NEAR || larger(other)) && !overlap(quad(best), quad(other)))
}

fn lines(found: &Found) -> Vec<Line> {
    let role = |index: usize, text: &str| {
        let rank = found.values.iter().position(|value| value.line == index);
        match rank {
            Some(0) => Role::Reading,
            Some(_) => Role::Candidate,
            None if unit_line(text).is_some() => Role::Unit,
            None => Role::Other,
        }
    };
    let line = |(index, read): (usize, &crate::select::Read)| {
        let text = text(&read.glyphs);
        Line { quad: read.quad, confidence: confidence(&read.glyphs), role: role(index, &text), text }
    };
    found.lines.iter().enumerate().map(line).filter(|line| !line.text.is_empty()).take(MOST_LINES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values at confidences, each in a line at a height of its own or at another's.
    fn found(of: &[(u64, f64, f32)]) -> Found {
        Found::of(of.iter().map(|(value, confidence, top)| (*value, *confidence, [0.0, *top])))
    }

    #[test]
    fn two_places_about_equally_sure_are_several_readings_but_two_readings_of_one_place_are_not() {
        assert!(several(&found(&[(123_456, 0.9, 0.0), (98_765, 0.75, 50.0)])));
        assert!(!several(&found(&[(123_456, 0.9, 0.0), (98_765, 0.74, 50.0)])));
        assert!(!several(&found(&[(123_456, 0.5, 0.0), (12_345, 0.5, 5.0)])));
        assert!(!several(&found(&[(123_456, 0.9, 0.0)])) && !several(&found(&[])));
    }

    #[test]
    fn a_smaller_number_beside_a_likely_larger_one_is_not_accepted_alone() {
        let both = |other: (u64, f64, f32)| {
            let mut found = found(&[(10_956, 0.99, 0.0), other]);
            found.values[0].evidence = Some(crate::reading::Evidence::default());
            several(&found)
        };
        assert!(both((152_011, 0.75, 50.0)), "a trip meter without its point above the total");
        assert!(!both((152_011, 0.39, 50.0)) && !both((152_011, 0.75, 5.0)) && !both((8_403, 0.75, 50.0)));
    }

    #[test]
    fn no_candidate_is_surer_than_the_ceiling() {
        let surest = candidate(&found(&[(123_456, 1.0, 0.0)]).values[0]);
        assert_eq!((surest.value, surest.confidence), (Decimal::from(123_456), Decimal::new(99, 2)));
    }
}
