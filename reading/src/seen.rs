//! What a driver can do better with the next photo, by what was seen on this one.

use schemas::events::ImageSize;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    geometry,
    reading::{Reading, Role},
};

/// A number that takes less of the photo's width has digits of some 20 pixels at 1,280, and what is around it costs the reader more.
const SMALL: f32 = 0.08;
/// How labels of trip meters begin.
const TRIP: &str = "TRIP";

/// What stands in the way of a sure reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// The display shows a trip meter in place of the total.
    TripMeter,
    /// A wheel of the drum has turned half, so that it shows two digits.
    BetweenNumbers,
    /// The number takes so little of the photo's width; percent.
    Small(u8),
}

impl Seen {
    /// What keeps a photo of this size from being read for certain, the surest first; none where nothing of it was seen.
    #[must_use]
    pub fn of(reading: &Reading, size: ImageSize) -> Option<Self> {
        if is_trip_meter(reading) {
            return Some(Self::TripMeter);
        }
        if is_between_numbers(reading) {
            return Some(Self::BetweenNumbers);
        }
        let number = reading.lines.iter().find(|line| line.role == Role::Reading)?;
        let share = geometry::width(&number.quad) / size.width.max(1) as f32;
        // A share below 0.08 is a percentage of at most 8.
        (share < SMALL).then(|| Self::Small((share * 100.0).round().max(1.0) as u8))
    }

    /// What was seen of a photo, from `upload_verifications.bounding_boxes.seen`; none where a later release has written what this one does
    /// not know.
    #[must_use]
    pub fn from_json(seen: &Value) -> Option<Self> {
        Self::deserialize(seen).ok()
    }

    /// A sentence that tells the driver what to do.
    #[must_use]
    pub fn advice(self) -> String {
        match self {
            Self::TripMeter => "This is the trip meter: press its button until the total shows.".to_owned(),
            Self::BetweenNumbers => {
                "A wheel stands between two numbers: take a photo again some hundred metres further."
                    .to_owned()
            }
            Self::Small(percent) => {
                format!("Move closer: the number takes {percent} % of the photo's width.")
            }
        }
    }
}

impl Reading {
    /// `upload_verifications.bounding_boxes`: `{width,height,boxes:[{quad,text,confidence,role}],seen}`. `seen` is there where [`Seen`]
    /// is something.
    #[must_use]
    pub fn bounding_boxes_json(&self, size: ImageSize) -> String {
        let mut whole = json!({ "width": size.width, "height": size.height, "boxes": self.boxes() });
        if let Some(seen) = Seen::of(self, size) {
            whole["seen"] = json!(seen);
        }
        whole.to_string()
    }
}

/// Whether the number has a trip meter's form or label, or there is such a label and no number.
fn is_trip_meter(reading: &Reading) -> bool {
    let labelled = |text: &str| {
        text.to_ascii_uppercase()
            .split(|letter: char| !letter.is_ascii_alphabetic())
            .any(|word| word.starts_with(TRIP))
    };
    let mut lines = reading.lines.iter();
    match reading.best {
        None => lines.any(|line| labelled(&line.text)),
        Some(_) => {
            reading.evidence.as_ref().is_some_and(|evidence| evidence.trip)
                || lines.any(|line| line.role == Role::Reading && labelled(&line.text))
        }
    }
}

/// Whether a drum was read in two ways that differ by one turn of one wheel.
fn is_between_numbers(reading: &Reading) -> bool {
    let drum = reading.evidence.as_ref().is_some_and(|evidence| evidence.drum);
    let Some((best, others)) = reading.candidates.split_first() else { return false };
    let best = best.value.normalize().to_string();
    drum && others.iter().any(|other| is_neighbour(&best, &other.value.normalize().to_string()))
}

/// Whether numbers of as many digits differ in one wheel that turns from the one's digit to the other's: 0 follows 9, and a wheel turns
/// only while those behind it do.
fn is_neighbour(one: &str, other: &str) -> bool {
    let Some(at) = one.bytes().zip(other.bytes()).position(|(a, b)| a != b) else { return false };
    let (one, other) = (&one.as_bytes()[at..], &other.as_bytes()[at..]);
    let turns = |digits: &[u8]| digits[1..].iter().all(|digit| b"09".contains(digit));
    one.len() == other.len() && [1, 9].contains(&one[0].abs_diff(other[0])) && turns(one) && turns(other)
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use schemas::events::Candidate;

    use super::*;
    use crate::reading::{Evidence, Line, tests};

    const SIZE: ImageSize = ImageSize { width: 1280, height: 960 };

    fn line(text: &str, wide: f32, role: Role) -> Line {
        let quad = [[100.0, 50.0], [100.0 + wide, 50.0], [100.0 + wide, 80.0], [100.0, 80.0]];
        Line { quad, text: text.to_owned(), confidence: 0.9, role }
    }

    /// A reading of these values, best first, on a drum or a display.
    fn reading(values: &[i64], drum: bool, lines: Vec<Line>) -> Reading {
        let candidate =
            |value: &i64| Candidate { value: Decimal::from(*value), unit: None, confidence: Decimal::ZERO };
        let candidates: Vec<Candidate> = values.iter().map(candidate).collect();
        Reading {
            best: candidates.first().cloned(),
            evidence: candidates.first().map(|_| Evidence { drum, ..Evidence::default() }),
            candidates,
            lines,
            ..tests::reading(&[])
        }
    }

    #[test]
    fn a_number_of_a_small_part_of_the_photo_is_to_be_photographed_closer() {
        let of =
            |wide| Seen::of(&reading(&[123_456], false, vec![line("123456", wide, Role::Reading)]), SIZE);
        assert_eq!(of(38.4), Some(Seen::Small(3)));
        assert_eq!(of(1.0), Some(Seen::Small(1)));
        assert_eq!(of(120.0), None);
        assert_eq!(Seen::Small(3).advice(), "Move closer: the number takes 3 % of the photo's width.");
    }

    #[test]
    fn a_drum_that_was_read_in_two_ways_a_turn_of_one_wheel_apart_stands_between_numbers() {
        let of = |values: &[i64], drum| Seen::of(&reading(values, drum, Vec::new()), SIZE);
        for (best, other) in [(123_456, 123_457), (123_459, 123_450), (123_459, 123_469), (123_459, 123_460)]
        {
            assert_eq!(of(&[best, 98_765, other], true), Some(Seen::BetweenNumbers), "{best} {other}");
            assert_eq!(of(&[other, best], true), Some(Seen::BetweenNumbers), "{other} {best}");
        }
        for other in [12_345, 123_458, 123_466, 223_456] {
            assert_eq!(of(&[123_456, other], true), None, "{other}");
        }
        assert_eq!(of(&[123_456, 123_457], false), None, "a display's digits do not turn");
    }

    #[test]
    fn a_trip_meter_is_known_by_its_form_or_by_its_label_where_it_stands_alone() {
        let label = || line("TRIP A", 60.0, Role::Other);
        assert_eq!(Seen::of(&reading(&[], false, vec![label()]), SIZE), Some(Seen::TripMeter));
        let own = line("Trip 3904", 200.0, Role::Reading);
        assert_eq!(Seen::of(&reading(&[3904], false, vec![own]), SIZE), Some(Seen::TripMeter));
        let total = || line("123456", 200.0, Role::Reading);
        assert_eq!(Seen::of(&reading(&[123_456], false, vec![label(), total()]), SIZE), None);
        let mut formed = reading(&[3904], true, vec![total()]);
        formed.evidence = Some(Evidence { trip: true, ..Evidence::default() });
        assert_eq!(Seen::of(&formed, SIZE), Some(Seen::TripMeter));
        assert_eq!(Seen::of(&reading(&[], false, vec![line("STRIP", 60.0, Role::Other)]), SIZE), None);
    }

    #[test]
    fn what_was_seen_travels_beside_the_boxes_and_what_is_not_known_is_nothing() {
        let small = reading(&[123_456], false, vec![line("123456", 38.4, Role::Reading)]);
        let json: Value = serde_json::from_str(&small.bounding_boxes_json(SIZE)).unwrap();
        assert_eq!(json["seen"], serde_json::json!({ "small": 3 }));
        assert_eq!(Seen::from_json(&json["seen"]), Some(Seen::Small(3)));
        let plain = reading(&[123_456], false, Vec::new());
        let json: Value = serde_json::from_str(&plain.bounding_boxes_json(SIZE)).unwrap();
        assert_eq!(json.get("seen"), None);
        assert_eq!(Seen::from_json(&serde_json::json!("mirrored")), None);
    }
}
