//! What came of reading a photo.

use rust_decimal::Decimal;
use schemas::events::{Candidate, ImageSize, Lighting};
use serde_json::json;

use crate::boxes::BoxMetrics;

/// The most candidates that are kept.
pub(crate) const MOST_CANDIDATES: usize = 16;
/// The most lines that are kept.
pub(crate) const MOST_LINES: usize = 64;
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

/// What came of reading a photo.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The best candidate.
    pub best: Option<Candidate>,
    /// All candidates, best first, at most 16.
    pub candidates: Vec<Candidate>,
    /// Whether two or more odometer values lie within 0.15 of confidence.
    pub several: bool,
    /// The lines of text, at most 64.
    pub lines: Vec<Line>,
    /// Quality of the best reading's box.
    pub box_metrics: Option<BoxMetrics>,
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
}

impl Reading {
    /// `upload_verifications.bounding_boxes`: `{width,height,boxes:[{quad,text,confidence,role}]}`. Only digits and units
    /// of distance are told; every other word becomes `*`, since a photo may show names and addresses.
    #[must_use]
    pub fn bounding_boxes_json(&self, size: ImageSize) -> String {
        let hundredth = |value: f32| f64::from((value * 100.0).round()) / 100.0;
        let boxes: Vec<_> = self
            .lines
            .iter()
            .map(|line| {
                json!({
                    "quad": line.quad.map(|point| point.map(|pixel| pixel.round() as i32)),
                    "text": told(&line.text),
                    "confidence": hundredth(line.confidence),
                    "role": line.role.label(),
                })
            })
            .collect();
        json!({ "width": size.width, "height": size.height, "boxes": boxes }).to_string()
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
fn told(text: &str) -> String {
    let word = |word: &str| {
        let number = word.chars().all(|c| c.is_ascii_digit() || ".,:'".contains(c));
        let unit = ["km", "mi", "miles"].contains(&word.to_ascii_lowercase().as_str());
        if number || unit { word.to_owned() } else { "*".to_owned() }
    };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(texts: &[&str]) -> Reading {
        let line = |text: &&str| Line {
            quad: [[1.2, 2.0], [3.0, 2.0], [3.0, 4.6], [1.2, 4.6]],
            text: (*text).to_owned(),
            confidence: 0.987,
            role: Role::Reading,
        };
        Reading {
            best: None,
            candidates: Vec::new(),
            several: false,
            lines: texts.iter().map(line).collect(),
            box_metrics: None,
            quality_score: Decimal::ONE,
            lighting: Lighting::Good,
            blur: false,
            glare: false,
            issues: Vec::new(),
            preprocessing: Vec::new(),
        }
    }

    #[test]
    fn boxes_tell_digits_and_units_and_hide_every_other_word() {
        let json = reading(&["ODO 123,456 km", "Mr Smith 12a"])
            .bounding_boxes_json(ImageSize { width: 640, height: 480 });
        let expected = json!({"width": 640, "height": 480, "boxes": [
            {"quad": [[1, 2], [3, 2], [3, 5], [1, 5]], "text": "* 123,456 km", "confidence": 0.99, "role": "reading"},
            {"quad": [[1, 2], [3, 2], [3, 5], [1, 5]], "text": "* * *", "confidence": 0.99, "role": "reading"},
        ]});
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), expected);
    }

    #[test]
    fn the_text_is_cut_at_a_characters_edge() {
        assert_eq!(reading(&["12", "km"]).text(), "12\nkm");
        let long = "°".repeat(MOST_TEXT);
        assert_eq!(reading(&["1", &long]).text().len(), MOST_TEXT);
        assert_eq!(reading(&["12", &long]).text().len(), MOST_TEXT - 1);
    }
}
