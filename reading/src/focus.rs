//! The closer look: the number that stands at a place that the locator found, cut out at the resolution that digits need and
//! read by three networks.

use std::{cell::Cell, collections::BTreeMap};

use image::RgbImage;

use crate::{
    agree::Variant,
    around::{Row, TALL, number, row, strip_of},
    crop::{Strip, strip},
    digits::opinions,
    geometry::{Quad, grow, height, width},
    line_reader::{LineReading, longest, numbers},
    locate::Place,
    network::{NetworkError, Thread},
    pass::{Networks, Value},
    recognise::{Glyph, ROWS, WIDEST, recognise},
    select::{DIGITS, Read, unit},
    tenths::last_is_tenths,
    weigh::{Sources, Support, values},
};

/// Ways of cutting a line out for the line reader: room beyond its ends and above and below it, in its heights. The first is
/// the one that it was trained around.
const CUTS: [(f32, f32); 2] = [(0.5, 0.25), (0.7, 0.12)];
/// A cut with so much room that a digit beyond the box would show.
const WIDE: (f32, f32) = (1.3, 0.2);
/// Room around the digits for the recogniser, in heights of the line: its own detector leaves as much.
const ROOM: (f32, f32) = (0.35, 0.15);
/// The copies that the recogniser reads beside the plain one. The first has the most room: a digit that the line lacks shows there.
const COPIES: [Variant; 3] = [Variant::Looser, Variant::Tighter, Variant::Contrast];
/// How many of the recogniser's copies are enough where all others read the same.
const ENOUGH: usize = 2;
/// How often a line's ends are looked for, and from which change on, in its heights, again.
const ENDS: (usize, f32) = (2, 0.35);
/// What lies this far from the middle of a cut belongs to another line.
const MIDDLE: (f32, f32) = (0.38, 0.62);
/// How sure the recogniser must be of digits beyond a line's ends for the line to grow.
const GROWS: f32 = 0.5;

/// How sure each reading of the line reader is, and the stock networks', where no more of them are asked.
const SURE: f32 = 0.9;
const SURE_ROW: f32 = 0.5;
/// The digit reader's share of the same digits there.
const CONFIRMED: f64 = 0.6;
/// Fewest digits there: fewer may be a trip meter's or a clock's.
const FEWEST: usize = 5;

/// A photo, and what reads it closely.
pub(crate) struct Focus<'a> {
    pub networks: &'a Networks,
    pub picture: &'a RgbImage,
    /// Columns of strips that may still be read on this photo.
    pub columns: &'a Cell<usize>,
    pub thread: &'a Thread,
}

impl Focus<'_> {
    /// The line at a place, and the values that it may show, surest first, as those of line 0. Where all agree, no more are asked.
    pub fn look(&self, place: &Place) -> Result<(Read, Vec<Value>), NetworkError> {
        let (mut quad, found, mut wide) = self.whole_line(place.quad)?;
        let count = found.digits.len().max(4);
        let pitch = width(&quad) / count as f32;
        let row = self.row(&quad, pitch, found.digits.len())?;
        if row.sure >= GROWS && !row.other && row.beyond != (0, 0) {
            quad = grow(&quad, row.beyond.0 as f32 * pitch, row.beyond.1 as f32 * pitch, 0.0);
            wide = None;
        }
        let place = &Place { quad, ..*place };
        let wide = wide.map_or_else(|| self.longest_in(place, WIDE), Ok)?;
        let readings = self.readings(place, &wide)?;
        let room = height(&place.quad);
        let quad = grow(&place.quad, ROOM.0 * room, ROOM.0 * room, ROOM.1 * room);
        let mut all: BTreeMap<String, Support> = BTreeMap::new();
        for one in readings.iter().filter(|one| !one.digits.is_empty()) {
            all.entry(one.digits.clone()).or_default().lines += f64::from(one.sure) / readings.len() as f64;
        }
        let digits = readings.iter().map(|one| one.digits.len()).max().unwrap_or_default().max(4);
        let pitch = width(&place.quad) / digits as f32;
        self.ask_digit_reader(place, &quad, digits, &mut all)?;
        let agreed = Agreed::of(place, &readings, &wide, &row).filter(|agreed| agreed.is_confirmed(&all));
        let mut read = Read { quad, glyphs: Vec::new() };
        let (mut beside, mut point, mut asked, mut same) = (row.unit, false, 0, 0);
        for variant in [None].into_iter().chain(COPIES.map(Some)) {
            let copy = self.copy(variant, &quad, pitch)?;
            let seen = within(&copy, &place.quad, pitch);
            point |= seen.point;
            asked += 1;
            let Copied { cut, glyphs, .. } = &copy;
            if let Some(number) = seen.digits(glyphs).filter(|_| !seen.other) {
                let coloured = last_is_tenths(cut, glyphs, &seen.digits);
                same += usize::from(agreed.as_ref().is_some_and(|agreed| agreed.has(&number, coloured)));
                let support = all.entry(number).or_default();
                support.copies += f64::from(seen.sure(glyphs));
                support.coloured = (support.coloured.0 + u32::from(coloured), support.coloured.1 + 1);
            }
            beside = beside.or(seen.unit);
            if variant.is_none() {
                read.glyphs = copy.glyphs;
            }
            if asked == ENOUGH && same == ENOUGH {
                break;
            }
        }
        for support in all.values_mut() {
            support.copies /= asked as f64;
        }
        let sources = Sources { readings: &readings, wide: &wide, row: &row, point };
        let values = values(place, &sources, &all);
        let value = |(value, confidence, evidence)| Value {
            value,
            unit: beside,
            confidence,
            line: 0,
            evidence: Some(evidence),
        };
        Ok((read, values.into_iter().map(value).collect()))
    }

    /// What the line reader reads in two cuts of a line; its widest is the second where that reads the same, and as surely.
    fn readings(&self, place: &Place, wide: &LineReading) -> Result<[LineReading; 2], NetworkError> {
        let [first, second] = CUTS;
        let first = self.longest_in(place, first)?;
        let second = if agree(&first, wide) { wide.clone() } else { self.longest_in(place, second)? };
        Ok([first, second])
    }

    /// The line from its first digit to its last, and what it says: the locator knows where it is better than where it ends. With all
    /// that the last, widest cut shows, where the line's ends have hardly moved since.
    fn whole_line(&self, mut quad: Quad) -> Result<(Quad, LineReading, Option<LineReading>), NetworkError> {
        let mut known = LineReading::default();
        for _ in 0..ENDS.0 {
            let (tall, room) = (height(&quad), WIDE.0 * height(&quad));
            let all = width(&quad) + 2.0 * room;
            let all_numbers = numbers(&self.networks.line_reader, self.picture, &quad, WIDE, self.thread)?;
            let mut numbers: Vec<LineReading> = all_numbers.iter().map(LineReading::even_part).collect();
            numbers.retain(|one| {
                one.digits.len() >= 3
                    && one.places.first().is_some_and(|first| *first < MIDDLE.1)
                    && one.places.last().is_some_and(|last| *last > MIDDLE.0)
            });
            let one = longest(numbers);
            let (Some(pitch), Some(first), Some(last)) = (one.pitch(), one.places.first(), one.places.last())
            else {
                break;
            };
            let left = room - (first - pitch / 2.0) * all;
            let right = room - (1.0 - last - pitch / 2.0) * all;
            quad = grow(&quad, left, right, 0.0);
            known = one;
            if left.abs() + right.abs() < ENDS.1 * tall {
                return Ok((quad, known, Some(longest(all_numbers))));
            }
        }
        Ok((quad, known, None))
    }

    /// What the stock networks read where a line is, which they look for themselves: coarser where they find fewer digits than this.
    fn row(&self, line: &Quad, pitch: f32, digits: usize) -> Result<Row, NetworkError> {
        let mut best = Row::default();
        for rows in TALL {
            let seen = row(&self.networks.detector, self.picture, (line, pitch, rows), self.thread)?;
            if let Some(quad) = seen {
                let one = number(&quad, &self.recognised(&strip_of(self.picture, &quad))?, line, pitch);
                if one.digits.len() > best.digits.len() {
                    best = one;
                }
            }
            // A wheel of tenths is often not seen as text.
            if best.digits.len() + 1 >= digits {
                break;
            }
        }
        Ok(best)
    }

    fn longest_in(&self, place: &Place, cut: (f32, f32)) -> Result<LineReading, NetworkError> {
        numbers(&self.networks.line_reader, self.picture, &place.quad, cut, self.thread).map(longest)
    }

    fn copy(&self, variant: Option<Variant>, quad: &Quad, pitch: f32) -> Result<Copied, NetworkError> {
        let (quad, cut) = match variant {
            None => (*quad, strip(self.picture, quad, ROWS, 1.0, WIDEST)),
            Some(variant) => {
                let quad = variant.quad(quad, pitch);
                (quad, variant.cut(self.picture, &quad))
            }
        };
        let glyphs = self.recognised(&cut)?;
        Ok(Copied { quad, cut, glyphs })
    }

    /// What stands on a strip; nothing once the photo has cost enough.
    fn recognised(&self, cut: &Strip) -> Result<Vec<Glyph>, NetworkError> {
        let Some(left) = self.columns.get().checked_sub(cut.width) else { return Ok(Vec::new()) };
        self.columns.set(left);
        recognise(&self.networks.recogniser, &self.networks.classes, cut, self.thread)
    }

    /// Adds the digit reader's opinions. One that another has with more digits says nothing: its ends were cut off.
    fn ask_digit_reader(
        &self,
        place: &Place,
        quad: &Quad,
        count: usize,
        all: &mut BTreeMap<String, Support>,
    ) -> Result<(), NetworkError> {
        let share = width(&place.quad) / width(quad);
        let glyph = |index: usize| Glyph {
            character: '0',
            at: 0.5 - share / 2.0 + share * (index as f32 + 0.5) / count as f32,
            probability: 1.0,
        };
        let glyphs: Vec<Glyph> = (0..count).map(glyph).collect();
        let indices: Vec<usize> = (0..count).collect();
        let asked = opinions(&self.networks.digits, self.picture, (quad, &glyphs, &indices), self.thread)?;
        for (text, sure) in asked.iter().filter(|(text, _)| DIGITS.contains(&text.len()) || text.len() == 8) {
            all.entry(text.clone()).or_default().opinions += f64::from(*sure) / asked.len() as f64;
        }
        Ok(())
    }
}

/// What the line reader and the stock networks agree about at a place. On 80 photos more copies of such a line changed nothing.
struct Agreed<'a> {
    digits: &'a str,
    /// Whether the last is one of tenths.
    tenths: bool,
}

impl<'a> Agreed<'a> {
    /// None where one of them is not sure or reads another number, and where colours must tell the last wheel's kind.
    fn of(place: &Place, readings: &'a [LineReading; 2], wide: &LineReading, row: &Row) -> Option<Self> {
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
    fn is_confirmed(&self, all: &BTreeMap<String, Support>) -> bool {
        let same = all.iter().filter(|(digits, _)| self.holds(digits));
        same.map(|(_, support)| support.opinions).sum::<f64>() >= CONFIRMED
    }

    /// Whether a copy of the recogniser has the same, and colours that do not speak against it.
    fn has(&self, number: &str, coloured: bool) -> bool {
        self.holds(number) && (self.tenths || !coloured)
    }
}

/// Whether two readings of a line are the same, the kind of its last wheel included, and each is sure.
fn agree(one: &LineReading, other: &LineReading) -> bool {
    let sure = |one: &LineReading| one.sure >= SURE && one.sure_of_tenths >= SURE;
    one.digits == other.digits && one.tenths == other.tenths && sure(one) && sure(other) && other.is_even()
}

/// A copy of a line: where it was cut from, the cut, and what is read in it.
struct Copied {
    quad: Quad,
    cut: Strip,
    glyphs: Vec<Glyph>,
}

/// What a copy shows within the located digits' span.
#[derive(Default)]
struct Within {
    /// Indices of the digits.
    digits: Vec<usize>,
    /// A point before the last digit.
    point: bool,
    /// Another character among the digits: a colon, a letter.
    other: bool,
    /// The unit behind.
    unit: Option<schemas::events::Unit>,
}

impl Within {
    fn digits(&self, glyphs: &[Glyph]) -> Option<String> {
        let text: String = self.digits.iter().map(|index| glyphs[*index].character).collect();
        (text.len() >= 3).then_some(text)
    }

    fn sure(&self, glyphs: &[Glyph]) -> f32 {
        self.digits.iter().map(|index| glyphs[*index].probability).fold(1.0, f32::min)
    }
}

/// What stands within the digits' span; icons and units beyond its ends are left out.
fn within(copy: &Copied, line: &Quad, pitch: f32) -> Within {
    let (whole, half) = (width(&copy.quad), width(line) / 2.0 - 0.1 * pitch);
    let inside = |glyph: &Glyph| ((glyph.at - 0.5) * whole).abs() <= half;
    let mut within = Within::default();
    let glyphs = &copy.glyphs;
    within.digits = (0..glyphs.len())
        .filter(|at| glyphs[*at].character.is_ascii_digit() && inside(&glyphs[*at]))
        .collect();
    let (Some(first), Some(end)) = (within.digits.first(), within.digits.last()) else { return within };
    for glyph in &glyphs[*first..*end] {
        match glyph.character {
            '0'..='9' | ' ' => {}
            '.' | ',' => within.point = true,
            _ => within.other = true,
        }
    }
    let after: String = glyphs[end + 1..].iter().map(|glyph| glyph.character).collect();
    within.unit = unit(&after);
    within
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_or_an_icon_beyond_the_digits_is_no_digit() {
        let glyph = |(index, character): (usize, char)| Glyph {
            character,
            at: (index as f32 + 0.5) / 10.0,
            probability: 0.9,
        };
        let copied = |text: &str| Copied {
            quad: [[0.0, 0.0], [200.0, 0.0], [200.0, 20.0], [0.0, 20.0]],
            cut: Strip { width: 8, height: 1, pixels: vec![[0.0; 3]; 8] },
            glyphs: text.chars().enumerate().map(glyph).collect(),
        };
        let line = [[40.0, 0.0], [160.0, 0.0], [160.0, 20.0], [40.0, 20.0]];
        let read = |text: &str| {
            let copied = copied(text);
            let seen = within(&copied, &line, 20.0);
            (seen.digits(&copied.glyphs), seen.other, seen.unit)
        };
        assert_eq!(read("20240869km"), (Some("240869".into()), false, Some(schemas::events::Unit::Km)));
        assert_eq!(read("  12:34   "), (Some("1234".into()), true, None));
    }

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
