//! The closer look: the number that stands at a place that the locator found, cut out at the resolution that digits need and
//! read by three networks.

use std::{cell::Cell, collections::BTreeMap};

use image::RgbImage;

use crate::{
    agree::Variant,
    around::{Row, TALL, number, row, strip_of},
    crop::{Strip, strip},
    digits::opinions,
    enough::{Agreed, agree},
    geometry::{Quad, grow, height, shared, width},
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

/// Two lines that share this much of their joint area are one, cut out in the same way.
const SAME: f32 = 0.85;
/// From which certainty of the locator on more of it counts for nothing.
const PLAIN: f32 = 0.35;

/// A photo, and what reads it closely.
pub(crate) struct Focus<'a> {
    pub networks: &'a Networks,
    pub picture: &'a RgbImage,
    /// Columns of strips that may still be read on this photo.
    pub columns: &'a Cell<usize>,
    pub thread: &'a Thread,
}

impl Focus<'_> {
    /// The line at a place, and the values that it may show, surest first, as those of line 0; nothing where its ends are found to be
    /// those of a line that was looked at before. Where all agree, no more are asked.
    pub fn look(
        &self,
        place: &Place,
        before: &[Place],
    ) -> Result<Option<(Place, Read, Vec<Value>)>, NetworkError> {
        let (mut quad, found) = self.whole_line(place.quad)?;
        let count = found.digits.len().max(4);
        let pitch = width(&quad) / count as f32;
        let row = self.row(&quad, pitch, found.digits.len())?;
        if row.sure >= GROWS && !row.other && row.beyond != (0, 0) {
            quad = grow(&quad, row.beyond.0 as f32 * pitch, row.beyond.1 as f32 * pitch, 0.0);
        }
        let place = &Place { quad, ..*place };
        if before.iter().any(|known| is_known(place, known)) {
            return Ok(None);
        }
        let wide = self.longest_in(place, WIDE)?;
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
        Ok(Some((*place, read, values.into_iter().map(value).collect())))
    }

    /// What the line reader reads in two cuts of a line; its widest is the second where that reads the same, and as surely.
    fn readings(&self, place: &Place, wide: &LineReading) -> Result<[LineReading; 2], NetworkError> {
        let [first, second] = CUTS;
        let first = self.longest_in(place, first)?;
        let second = if agree(&first, wide) { wide.clone() } else { self.longest_in(place, second)? };
        Ok([first, second])
    }

    /// The line from its first digit to its last, and what it says: the locator knows where it is better than where it ends.
    fn whole_line(&self, mut quad: Quad) -> Result<(Quad, LineReading), NetworkError> {
        let mut known = LineReading::default();
        for _ in 0..ENDS.0 {
            let (tall, room) = (height(&quad), WIDE.0 * height(&quad));
            let all = width(&quad) + 2.0 * room;
            let numbers = numbers(&self.networks.line_reader, self.picture, &quad, WIDE, self.thread)?;
            let mut numbers: Vec<LineReading> = numbers.iter().map(LineReading::even_part).collect();
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
                break;
            }
        }
        Ok((quad, known))
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

/// Whether a look at a place would show what one at another has shown: the same line, and the locator no surer of its role.
fn is_known(place: &Place, known: &Place) -> bool {
    let sure = |place: &Place| place.total().min(PLAIN);
    shared(&place.quad, &known.quad) >= SAME
        && sure(place) <= sure(known)
        && (place.drum > place.display) == (known.drum > known.display)
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
}
