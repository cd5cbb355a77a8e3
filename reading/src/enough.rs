//! When enough has been read at a place: each network has the same digits, so that more copies of the line would say no more.

use std::collections::BTreeMap;

use crate::{around::Row, line_reader::LineReading, locate::Place, weigh::Support};

/// How sure each reading of the line reader is, and the stock networks', where no more of them are asked.
const SURE: f32 = 0.9;
const SURE_ROW: f32 = 0.5;
/// The digit reader's share of the same digits there.
const CONFIRMED: f64 = 0.6;
/// Fewest digits there: fewer may be a trip meter's or a clock's.
const FEWEST: usize = 5;

/// What the line reader and the stock networks agree about at a place. On 80 real photos more copies of
/// such a line made none surer.
pub(crate) struct Agreed<'a> {
    digits: &'a str,
    /// Whether the last is one of tenths.
    tenths: bool,
}

impl<'a> Agreed<'a> {
    /// None where one of them is not sure or reads another number, and where colours must tell the last wheel's kind.
    pub fn of(place: &Place, readings: &'a [LineReading; 2], wide: &LineReading, row: &Row) -> Option<Self> {
        let [first, second] = readings;
        let drum = place.drum > place.display;
        let tenths = first.tenths == 1;
        let agreed = Self { digits: &first.digits, tenths };
        let known = drum == tenths && first.tenths < 2 && first.digits.len() >= FEWEST;
        let alike = agree(first, second) && agree(first, wide) && !row.other && row.sure >= SURE_ROW;
        (known && alike && agreed.holds(&row.digits)).then_some(agreed)
    }

    /// Whether digits are the same, but for a wheel of tenths: it stands between two digits, or is not seen.
    fn holds(&self, other: &str) -> bool {
        let before = &self.digits[..self.digits.len() - usize::from(self.tenths)];
        other == self.digits
            || self.tenths
                && (other == before || other.len() == self.digits.len() && other.starts_with(before))
    }

    /// Whether the digit reader has the same.
    pub fn is_confirmed(&self, all: &BTreeMap<String, Support>) -> bool {
        let same = all.iter().filter(|(digits, _)| self.holds(digits));
        same.map(|(_, support)| support.opinions).sum::<f64>() >= CONFIRMED
    }

    /// Whether a copy of the recogniser has the same, and colours that do not speak against it.
    pub fn has(&self, number: &str, coloured: bool) -> bool {
        self.holds(number) && (self.tenths || !coloured)
    }
}

/// Whether two readings of a line are the same, the kind of its last wheel included, and each is sure.
pub(crate) fn agree(one: &LineReading, other: &LineReading) -> bool {
    let sure = |one: &LineReading| one.sure >= SURE && one.sure_of_tenths >= SURE;
    one.digits == other.digits && one.tenths == other.tenths && sure(one) && sure(other) && other.is_even()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line reading of digits that stand evenly, the last so many of them tenths.
    fn reading(digits: &str, tenths: usize) -> LineReading {
        let places = (0..digits.len()).map(|index| index as f32 / 10.0).collect();
        let sure =
            LineReading { sure: 0.99, sure_before: 0.99, sure_of_tenths: 0.99, ..LineReading::default() };
        LineReading { digits: digits.into(), tenths, places, ..sure }
    }

    /// Whether a drum's, or a display's, readings need no more than two copies where the stock networks and the digit reader read these.
    fn is_enough(drum: bool, (one, wide): (&LineReading, &LineReading), row: &str, opinion: &str) -> bool {
        let (display, drum) = if drum { (0.1, 0.9) } else { (0.9, 0.1) };
        let place = Place { quad: [[0.0; 2]; 4], display, drum, other: 0.0 };
        let row = Row { digits: row.into(), sure: 0.9, ..Row::default() };
        let said = Support { opinions: 0.9, ..Support::default() };
        let readings = [one.clone(), one.clone()];
        let agreed = Agreed::of(&place, &readings, wide, &row);
        agreed.is_some_and(|agreed| agreed.is_confirmed(&BTreeMap::from([(opinion.to_owned(), said)])))
    }

    #[test]
    fn fewer_copies_are_read_only_where_every_network_has_the_same_digits() {
        let one = reading("123456", 0);
        let display =
            |wide: &str, row: &str, opinion: &str| is_enough(false, (&one, &reading(wide, 0)), row, opinion);
        assert!(display("123456", "123456", "123456"));
        assert!(!display("9123456", "123456", "123456"), "the widest cut shows a digit more");
        assert!(!display("123456", "12345", "123456"), "the stock networks see one less");
        assert!(!display("123456", "123456", "123457"), "the digit reader sees another");
    }

    #[test]
    fn of_a_drum_without_a_wheel_of_tenths_every_copys_colours_are_asked() {
        let all = |tenths: usize, row: &str, opinion: &str| {
            let one = reading("0123456", tenths);
            is_enough(true, (&one, &one), row, opinion)
        };
        assert!(all(1, "0123456", "0123456"));
        assert!(
            all(1, "012345", "0123457"),
            "a wheel of tenths between two digits, and one that is not seen"
        );
        assert!(!all(0, "0123456", "0123456"), "its last wheel may be one of tenths in the others' colours");
        assert!(!all(2, "0123456", "0123456"), "a trip meter");
        let copies =
            |tenths: bool, coloured: bool| Agreed { digits: "123456", tenths }.has("123456", coloured);
        assert!(copies(true, false) && copies(false, false) && !copies(false, true));
    }
}
