//! What came of reading a photo.

use std::cmp::Reverse;

use std::time::Duration;

use rust_decimal::Decimal;
use schemas::events::{Candidate, Lighting};
use serde_json::{Value, json};

use crate::{boxes::BoxMetrics, surroundings::Surroundings};

/// The most candidates that are kept.
pub(crate) const MOST_CANDIDATES: usize = 16;
/// The most lines that are kept.
pub(crate) const MOST_LINES: usize = 64;
/// Two values this near in confidence are several readings.
pub(crate) const NEAR: Decimal = Decimal::from_parts(15, 0, 0, false, 2);
/// The most bytes of text that are kept.
const MOST_TEXT: usize = 4 << 10;

/// What a line of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The best reading.
    Reading,
    /// Another possible reading.
    Candidate,
    /// A unit of distance.
    Unit,
    /// Anything else.
    Other,
}

impl Role {
    /// The label in `upload_verifications.bounding_boxes`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Candidate => "candidate",
            Self::Unit => "unit",
            Self::Other => "other",
        }
    }
}

/// A line of text.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Corners clockwise from the text's top left, x and y; pixels of the upright photo.
    pub quad: [[f32; 2]; 4],
    /// The text.
    pub text: String,
    /// The recogniser's own confidence, 0-1: it is high on wrong readings too, so nothing is decided by it alone.
    pub confidence: f32,
    /// What it is.
    pub role: Role,
}

/// What speaks for a value that was looked at closely. Shares are 0-1.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Evidence {
    /// All digits that were read, a wheel of tenths included.
    pub digits: String,
    /// The line reader's cuts that read them, weighed by their least sure digit.
    pub lines: f64,
    /// The recogniser's copies that read them, weighed in the same way.
    pub copies: f64,
    /// The digit reader's opinions that are the same.
    pub opinions: f64,
    /// How sure the locator is that the line is the total.
    pub total: f64,
    /// How sure the locator is that it is another line.
    pub other: f64,
    /// Whether it is a drum.
    pub drum: bool,
    /// Whether it is decided if the last wheel is one of tenths.
    pub tenths_decided: bool,
    /// Whether the last digits are tenths.
    pub tenths: bool,
    /// Whether a digit more may belong to it.
    pub longer: bool,
    /// Whether its form is a trip meter's.
    pub trip: bool,
    /// Whether its digits stand unevenly, as those of two numbers do.
    pub uneven: bool,
    /// Whether a point was seen among its digits.
    pub point: bool,
    /// How sure the stock networks are of the same digits and no more, which they looked for at the place themselves.
    pub framed: f64,
    /// How sure the line reader is of the same digits and no more in a cut with room for a digit at either end.
    pub wide: f64,
    /// How sure the value would be if nothing were in doubt.
    pub agreement: f64,
    /// Whether a digit, its wheel or the line's role is in doubt: then no agreement makes it sure.
    pub doubt: bool,
}

/// What came of reading a photo.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The best candidate.
    pub best: Option<Candidate>,
    /// What speaks for it, where it was looked at closely.
    pub evidence: Option<Evidence>,
    /// All candidates, best first, at most 16.
    pub candidates: Vec<Candidate>,
    /// Whether two or more odometer values lie within 0.15 of confidence.
    pub several: bool,
    /// The lines of text, at most 64.
    pub lines: Vec<Line>,
    /// Quality of the best reading's box.
    pub box_metrics: Option<BoxMetrics>,
    /// What the photo shows around the best reading; none where a service outside has read it.
    pub surroundings: Option<Surroundings>,
    /// Quality of frame and box together, 0.00-1.00.
    pub quality_score: Decimal,
    /// Light on frame and box.
    pub lighting: Lighting,
    /// Whether frame or box is blurred.
    pub blur: bool,
    /// Whether frame or box has glare.
    pub glare: bool,
    /// What is wrong with frame or box, by the labels of `image_quality_logs.detected_issues`.
    pub issues: Vec<&'static str>,
    /// What was done to the photo, by the labels of `image_quality_logs.preprocessing_applied`.
    pub preprocessing: Vec<&'static str>,
    /// CPU time of the thread that read, without decoding; none where the system does not report it, or nothing was read here.
    pub cpu: Option<Duration>,
}

impl Reading {
    /// The boxes of [`Reading::bounding_boxes_json`]. Only digits and units of distance are shown; every other word becomes `*`, since a
    /// photo may show names and addresses.
    #[must_use]
    pub fn boxes(&self) -> Vec<Value> {
        let hundredth = |value: f32| f64::from((value * 100.0).round()) / 100.0;
        let box_of = |line: &Line| {
            json!({
                "quad": line.quad.map(|point| point.map(|pixel| pixel.round() as i32)),
                "text": masked(&line.text),
                "confidence": hundredth(line.confidence),
                "role": line.role.label(),
            })
        };
        self.lines.iter().map(box_of).collect()
    }

    /// Makes the best candidate as sure as `confidence`: more or less than this engine alone can say.
    pub fn set_confidence(&mut self, confidence: Decimal) {
        for candidate in self.best.iter_mut().chain(self.candidates.first_mut()) {
            candidate.confidence = confidence;
        }
    }

    /// Adds the candidates that only another engine saw on the same photo, behind this one's best. Where the other's best is
    /// another value and about as sure, there are several readings.
    pub fn join(&mut self, other: &Self) {
        if let (Some(ours), Some(theirs)) = (&self.best, &other.best) {
            self.several |= ours.value != theirs.value && ours.confidence - theirs.confidence <= NEAR;
        }
        for candidate in &other.candidates {
            if self.candidates.iter().all(|known| known.value != candidate.value) {
                self.candidates.push(candidate.clone());
            }
        }
        if self.best.is_none() {
            self.best = self.candidates.first().cloned();
        } else {
            self.candidates[1..].sort_by_key(|candidate| Reverse(candidate.confidence));
        }
        self.candidates.truncate(MOST_CANDIDATES);
    }

    /// The lines joined by line feeds, cut to 4 KiB at a character's edge.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n");
        text.truncate(text.floor_char_boundary(MOST_TEXT));
        text
    }
}

/// A text with every word masked that is neither a number nor a unit.
fn masked(text: &str) -> String {
    let word = |word: &str| {
        let number = word.chars().all(|c| c.is_ascii_digit() || ".,:'".contains(c));
        let unit = ["km", "mi", "miles"].contains(&word.to_ascii_lowercase().as_str());
        if number || unit { word.to_owned() } else { "*".to_owned() }
    };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A reading of these lines and of no value.
    pub(crate) fn reading(texts: &[&str]) -> Reading {
        let line = |text: &&str| Line {
            quad: [[1.2, 2.0], [3.0, 2.0], [3.0, 4.6], [1.2, 4.6]],
            text: (*text).to_owned(),
            confidence: 0.987,
            role: Role::Reading,
        };
        Reading {
            best: None,
            evidence: None,
            candidates: Vec::new(),
            several: false,
            lines: texts.iter().map(line).collect(),
            box_metrics: None,
            surroundings: None,
            quality_score: Decimal::ONE,
            lighting: Lighting::Good,
            blur: false,
            glare: false,
            issues: Vec::new(),
            preprocessing: Vec::new(),
            cpu: None,
        }
    }

    #[test]
    fn boxes_show_digits_and_units_and_hide_every_other_word() {
        let boxes = reading(&["ODO 123,456 km", "Mr Smith 12a"]).boxes();
        let expected = json!([
            {"quad": [[1, 2], [3, 2], [3, 5], [1, 5]], "text": "* 123,456 km", "confidence": 0.99, "role": "reading"},
            {"quad": [[1, 2], [3, 2], [3, 5], [1, 5]], "text": "* * *", "confidence": 0.99, "role": "reading"},
        ]);
        assert_eq!(json!(boxes), expected);
    }

    /// A reading of these values, best first.
    fn valued(values: &[(i64, i64)]) -> Reading {
        let candidate = |(value, hundredths): &(i64, i64)| Candidate {
            value: Decimal::from(*value),
            unit: None,
            confidence: Decimal::new(*hundredths, 2),
        };
        let candidates: Vec<Candidate> = values.iter().map(candidate).collect();
        Reading { best: candidates.first().cloned(), candidates, ..reading(&[]) }
    }

    #[test]
    fn candidates_of_another_engine_stand_behind_the_best_by_confidence_and_none_twice() {
        let mut reading = valued(&[(123_456, 60), (12_345, 20)]);
        reading.join(&valued(&[(123_456, 75), (98_765, 70), (777, 10)]));
        let values: Vec<i64> =
            reading.candidates.iter().map(|candidate| candidate.value.try_into().unwrap()).collect();
        assert_eq!(values, [123_456, 98_765, 12_345, 777]);
        assert!(!reading.several);
        reading.set_confidence(Decimal::new(85, 2));
        assert_eq!(reading.candidates[0].confidence, reading.best.unwrap().confidence);
    }

    #[test]
    fn engines_that_disagree_at_about_the_same_confidence_make_several_readings() {
        for (theirs, several) in [(45, true), (44, false), (75, true)] {
            let mut reading = valued(&[(123_456, 60)]);
            reading.join(&valued(&[(98_765, theirs)]));
            assert_eq!(reading.several, several, "{theirs}");
        }
        let mut nothing = valued(&[]);
        nothing.join(&valued(&[(98_765, 20)]));
        assert_eq!(nothing.best.unwrap().value, Decimal::from(98_765));
        let many: Vec<(i64, i64)> = (1_000..1_040).map(|value| (value, 10)).collect();
        let mut full = valued(&[(123_456, 60)]);
        full.join(&valued(&many));
        assert_eq!(full.candidates.len(), MOST_CANDIDATES);
    }

    #[test]
    fn the_text_is_cut_at_a_characters_edge() {
        assert_eq!(reading(&["12", "km"]).text(), "12\nkm");
        let long = "°".repeat(MOST_TEXT);
        assert_eq!(reading(&["1", &long]).text().len(), MOST_TEXT);
        assert_eq!(reading(&["12", &long]).text().len(), MOST_TEXT - 1);
    }
}
