//! Lines that another engine has read: the same selector chooses among them, and how sure a candidate is follows from what that
//! engine says, up to a ceiling that its caller sets.

use schemas::events::FrameQuality;

use crate::{
    ladder::FLOOR,
    pass::{Found, Value, looks},
    reader::assemble,
    reading::{Line, MOST_LINES, Reading},
    recognise::Glyph,
    select::{Read, candidates},
};

/// Characters of a line that are looked at: forty digits are more than any display has.
const MOST_CHARACTERS: usize = 200;

/// The reading that lines of text give, chosen as the embedded reader chooses. Each line's `confidence` is the engine's own
/// word, 0-1; no candidate is surer than `ceiling`, 0-1. Roles are set here. Only the first 64 lines are looked at, and a
/// line's characters count as evenly spaced within its box.
///
/// The digits' colours and other cuts of a box are not seen: a wheel of tenths counts as a digit, and a digit that the engine
/// left out is not missed.
#[must_use]
pub fn from_lines(lines: &[Line], frame: &FrameQuality, ceiling: f64) -> Reading {
    let lines = &lines[..lines.len().min(MOST_LINES)];
    let read: Vec<Read> = lines.iter().map(evenly).collect();
    let texts: Vec<String> = lines.iter().map(|line| line.text.clone()).collect();
    let mut values: Vec<Value> = Vec::new();
    for number in candidates(&read, &texts) {
        let Ok(value) = number.text.parse::<u64>() else { continue };
        let claimed = f64::from(sure(lines[number.line].confidence));
        let confidence = ceiling * claimed * looks(&number, value);
        // Best first: a value that stands in two lines is kept where it looks more like a mileage.
        if confidence >= FLOOR && values.iter().all(|known| known.value != value) {
            values.push(Value { value, unit: number.unit, confidence, line: number.line, evidence: None });
        }
    }
    values.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    assemble(&Found { lines: read, values }, None, frame, Vec::new())
}

/// A confidence that is one: an engine may say anything.
fn sure(claimed: f32) -> f32 {
    if claimed.is_finite() { claimed.clamp(0.0, 1.0) } else { 0.0 }
}

/// A line with its characters in even places. The ideographic and full-width digits of some engines become ASCII's.
fn evenly(line: &Line) -> Read {
    let characters: Vec<char> = line.text.trim().chars().take(MOST_CHARACTERS).map(ascii).collect();
    let count = characters.len() as f32;
    let probability = sure(line.confidence);
    let glyph = |(index, character): (usize, char)| Glyph {
        character,
        at: (index as f32 + 0.5) / count,
        probability,
    };
    Read { quad: line.quad, glyphs: characters.into_iter().enumerate().map(glyph).collect() }
}

/// Full-width forms (U+FF01 to U+FF5E) lie 0xFEE0 behind ASCII's.
fn ascii(character: char) -> char {
    match u32::from(character) {
        code @ 0xFF01..=0xFF5E => char::from_u32(code - 0xFEE0).unwrap_or(character),
        _ => character,
    }
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use schemas::events::{Lighting, Unit};

    use super::*;
    use crate::reading::Role;

    fn frame() -> FrameQuality {
        FrameQuality {
            mean: 90.0,
            p5: 10.0,
            p99: 230.0,
            tenengrad: 50.0,
            blob: 0.0,
            score: Decimal::ONE,
            lighting: Lighting::Good,
            blur: false,
            glare: false,
            grid: None,
        }
    }

    /// Lines one below the other, twenty pixels high, each at a confidence.
    fn read(lines: &[(&str, f32)]) -> Reading {
        let line = |(row, (text, confidence)): (usize, &(&str, f32))| {
            let top = 100.0 * row as f32;
            let right = 12.0 * text.chars().count() as f32;
            let quad = [[0.0, top], [right, top], [right, top + 20.0], [0.0, top + 20.0]];
            Line { quad, text: (*text).to_owned(), confidence: *confidence, role: Role::Other }
        };
        from_lines(&lines.iter().enumerate().map(line).collect::<Vec<_>>(), &frame(), 0.75)
    }

    fn candidates(reading: &Reading) -> Vec<(i64, String)> {
        let one = |value: &schemas::events::Candidate| {
            (value.value.try_into().unwrap(), value.confidence.to_string())
        };
        reading.candidates.iter().map(one).collect()
    }

    #[test]
    fn the_selector_chooses_the_odometer_among_the_lines_of_another_engine() {
        let reading = read(&[("120 140", 1.0), ("TRIP 12.3", 1.0), ("123456 km", 1.0), ("12:45", 1.0)]);
        let best = reading.best.clone().unwrap();
        assert_eq!((best.value, best.unit), (Decimal::from(123_456), Some(Unit::Km)));
        let roles: Vec<Role> = reading.lines.iter().map(|line| line.role).collect();
        assert_eq!(roles[2], Role::Reading);
        assert!(!reading.several);
    }

    #[test]
    fn a_claim_of_certainty_is_worth_the_ceiling_and_a_claim_that_is_none_nothing() {
        assert_eq!(candidates(&read(&[("123456", 1.0)])), [(123_456, "0.75".to_owned())]);
        assert_eq!(candidates(&read(&[("123456", 40.0)])), [(123_456, "0.75".to_owned())]);
        assert_eq!(candidates(&read(&[("123456", 0.5)])), [(123_456, "0.37".to_owned())]);
        assert!(read(&[("123456", f32::NAN)]).best.is_none());
    }

    #[test]
    fn two_numbers_about_equally_sure_are_several_readings() {
        let reading = read(&[("123456", 0.9), ("98765", 0.9)]);
        assert!(reading.several && reading.candidates.len() == 2);
    }

    #[test]
    fn full_width_digits_are_digits() {
        assert_eq!(candidates(&read(&[("１２３４５６", 1.0)]))[0].0, 123_456);
    }

    #[test]
    fn no_text_is_no_reading_and_a_thousand_lines_are_cut() {
        assert!(read(&[]).best.is_none() && read(&[("", 1.0), ("km", 1.0)]).best.is_none());
        assert_eq!(read(&vec![("8", 1.0); 1_000]).lines.len(), MOST_LINES);
    }
}
