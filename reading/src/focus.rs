//! The closer look: the number that stands at a place that the locator found, cut out at the resolution that digits need and
//! read by three networks.

use std::{cell::Cell, collections::BTreeMap};

use image::RgbImage;

use crate::{
    agree::{VARIANTS, Variant},
    crop::{Strip, strip},
    digits::opinions,
    geometry::{Quad, grow, height, width},
    line_reader::{Told, longest, numbers},
    locate::Place,
    network::{NetworkError, Thread},
    pass::{Close, Networks, Value},
    reading::Evidence,
    recognise::{Glyph, ROWS, WIDEST, recognise},
    select::{DIGITS, Read, unit},
    tenths::last_is_tenths,
};

/// Ways of cutting a line out for the line reader: room beyond its ends and above and below it, in its heights. The first is
/// the one that it was trained around.
const CUTS: [(f32, f32); 3] = [(0.5, 0.25), (0.35, 0.12), (0.8, 0.3)];
/// A cut with so much room that a digit beyond the box would show.
const WIDE: (f32, f32) = (1.3, 0.2);
/// Room around the digits for the recogniser, in heights of the line: its own detector leaves as much.
const ROOM: (f32, f32) = (0.35, 0.15);
/// What the line reader weighs, and what the recogniser's copies and the digit reader together: neither is enough alone.
const WEIGHTS: (f64, f64) = (0.47, 0.47);
/// What the digit reader's opinions are worth beside the recogniser's copies.
const OPINIONS: f64 = 0.7;
/// How sure the locator must be of a total for a reading there to count in full. Its scores are low where it is right as well.
pub(crate) const CERTAIN: f32 = 0.2;
/// How often a line's ends are looked for, and from which change on, in its heights, again.
const ENDS: (usize, f32) = (2, 0.35);
/// What lies this far from the middle of a cut belongs to another line.
const MIDDLE: (f32, f32) = (0.38, 0.62);
/// What a reading is worth at most while a digit more may belong to it, or while its last wheel may or may not be one of tenths.
const UNDECIDED: f64 = 0.75;
/// A display's number of fewer digits is none unless it is this sure.
const FEWEST_ALONE: (usize, f64) = (5, 0.4);
/// How likely seven digits are, and digits that stand unevenly, where others are read at the same place.
const UNLIKELY: (f64, f64) = (0.5, 0.8);
/// How sure the line reader is of a digit more that counts.
const LONGER: f32 = 0.5;
/// How sure the line reader is of the last wheel's kind where that decides.
const KIND: f32 = 0.9;
/// Fewest wheels of a drum, its wheel of tenths included: with fewer it is a trip meter.
const FEWEST_WHEELS: usize = 6;
/// Fewest digits of a number that may be the total though the locator is this many times as sure that it is another line.
const FEWEST_DIGITS: (usize, f64) = (6, 1.5);

/// What speaks for one string of digits.
#[derive(Clone, Copy, Debug, Default)]
struct Support {
    lines: f64,
    copies: f64,
    opinions: f64,
    /// Copies whose last digit stands in a cell of other colours, and copies that were asked.
    coloured: (u32, u32),
}

/// Whether the last wheel is one of tenths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Tenths,
    Units,
    Undecided,
}

/// A photo, and what reads it closely.
pub(crate) struct Focus<'a> {
    pub networks: &'a Networks,
    pub close: &'a Close,
    pub picture: &'a RgbImage,
    /// Columns of strips that may still be read on this photo.
    pub columns: &'a Cell<usize>,
    pub thread: &'a Thread,
}

impl Focus<'_> {
    /// The line at a place, and the values that it may show, surest first, as those of line 0.
    pub fn look(&self, place: &Place) -> Result<(Read, Vec<Value>), NetworkError> {
        let place = &Place { quad: self.whole_line(place.quad)?, ..*place };
        let mut tolds = Vec::new();
        for cut in CUTS {
            tolds.push(self.told(place, cut)?);
        }
        let wide = self.told(place, WIDE)?;
        let room = height(&place.quad);
        let quad = grow(&place.quad, ROOM.0 * room, ROOM.0 * room, ROOM.1 * room);
        let mut all: BTreeMap<String, Support> = BTreeMap::new();
        for one in tolds.iter().filter(|one| !one.digits.is_empty()) {
            all.entry(one.digits.clone()).or_default().lines += f64::from(one.sure) / CUTS.len() as f64;
        }
        let digits = tolds.iter().map(|one| one.digits.len()).max().unwrap_or_default().max(4);
        let pitch = width(&place.quad) / digits as f32;
        let mut read = Read { quad, glyphs: Vec::new() };
        let (mut beside, mut point) = (None, false);
        let plain = [None].into_iter().chain(VARIANTS.map(Some));
        for variant in plain {
            let copy = self.copy(variant, &quad, pitch)?;
            let seen = within(&copy, &place.quad, pitch);
            point |= seen.point;
            let Copied { cut, glyphs, .. } = &copy;
            if let Some(number) = seen.digits(glyphs).filter(|_| !seen.other) {
                let support = all.entry(number).or_default();
                support.copies += f64::from(seen.sure(glyphs)) / (VARIANTS.len() + 1) as f64;
                let coloured = last_is_tenths(cut, glyphs, &seen.digits);
                support.coloured = (support.coloured.0 + u32::from(coloured), support.coloured.1 + 1);
            }
            beside = beside.or(seen.unit);
            if variant.is_none() {
                read.glyphs = copy.glyphs;
            }
        }
        self.ask_digit_reader(place, &quad, digits, &mut all)?;
        let values = values(place, (&tolds, &wide, point), &all);
        let value = |(value, confidence, evidence)| Value {
            value,
            unit: beside,
            confidence,
            line: 0,
            evidence: Some(evidence),
        };
        Ok((read, values.into_iter().map(value).collect()))
    }

    /// The line from its first digit to its last: the locator knows where it is better than where it ends.
    fn whole_line(&self, mut quad: Quad) -> Result<Quad, NetworkError> {
        for _ in 0..ENDS.0 {
            let (tall, room) = (height(&quad), WIDE.0 * height(&quad));
            let all = width(&quad) + 2.0 * room;
            let numbers = numbers(&self.close.line_reader, self.picture, &quad, WIDE, self.thread)?;
            let mut numbers: Vec<Told> = numbers.iter().map(Told::even_part).collect();
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
            let whole = self.with_ends(quad, one.digits.len())?;
            let grown = width(&whole) > width(&quad);
            quad = whole;
            if !grown && left.abs() + right.abs() < ENDS.1 * tall {
                break;
            }
        }
        Ok(quad)
    }

    /// The line of so many digits with those beyond its ends that the recogniser sees at the digits' own distance.
    fn with_ends(&self, quad: Quad, digits: usize) -> Result<Quad, NetworkError> {
        let pitch = width(&quad) / digits.max(1) as f32;
        let copied = self.copy(Some(Variant::LongerEnds), &quad, pitch)?;
        let (all, half) = (width(&copied.quad), width(&quad) / 2.0);
        let is_digit = |glyph: &&Glyph| glyph.character.is_ascii_digit() && glyph.probability >= LONGER;
        let places = || copied.glyphs.iter().filter(is_digit).map(|glyph| (glyph.at - 0.5) * all);
        // A digit's middle lies half a distance beyond the end of the one before it.
        let beyond = |out: f32| (0.3 * pitch..0.9 * pitch).contains(&(out - half));
        let left = if places().any(|at| beyond(-at)) { pitch } else { 0.0 };
        let right = if places().any(beyond) { pitch } else { 0.0 };
        Ok(grow(&quad, left, right, 0.0))
    }

    fn told(&self, place: &Place, cut: (f32, f32)) -> Result<Told, NetworkError> {
        numbers(&self.close.line_reader, self.picture, &place.quad, cut, self.thread).map(longest)
    }

    fn copy(&self, variant: Option<Variant>, quad: &Quad, pitch: f32) -> Result<Copied, NetworkError> {
        let (quad, cut) = match variant {
            None => (*quad, strip(self.picture, quad, ROWS, 1.0, WIDEST)),
            Some(variant) => {
                let quad = variant.quad(quad, pitch);
                (quad, variant.cut(self.picture, &quad))
            }
        };
        let glyphs = match self.columns.get().checked_sub(cut.width) {
            Some(left) => {
                self.columns.set(left);
                recognise(&self.networks.recogniser, &self.networks.classes, &cut, self.thread)?
            }
            None => Vec::new(),
        };
        Ok(Copied { quad, cut, glyphs })
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
        let said = opinions(&self.networks.digits, self.picture, (quad, &glyphs, &indices), self.thread)?;
        for (text, sure) in said.iter().filter(|(text, _)| DIGITS.contains(&text.len()) || text.len() == 8) {
            all.entry(text.clone()).or_default().opinions += f64::from(*sure) / said.len() as f64;
        }
        Ok(())
    }
}

/// Every value with how sure it is and what speaks for it, surest first.
fn values(
    place: &Place,
    (tolds, wide, point): (&Vec<Told>, &Told, bool),
    all: &BTreeMap<String, Support>,
) -> Vec<(u64, f64, Evidence)> {
    let drum = place.drum > place.display;
    let mut values: Vec<(u64, f64, Evidence)> = Vec::new();
    for (digits, support) in all.iter().filter(|(digits, _)| digits.len() >= *DIGITS.start()) {
        let last = match last(digits, tolds, support, drum) {
            Last::Tenths if five_alike(digits, support, drum) => Last::Undecided,
            last => last,
        };
        let tenths =
            tolds.iter().filter(|one| one.digits == *digits).map(|one| one.tenths).max().unwrap_or(0);
        let whole = match last {
            Last::Tenths => digits.len() - tenths.clamp(1, digits.len() - 1),
            Last::Undecided if drum && !five_alike(digits, support, drum) => digits.len() - 1,
            Last::Undecided | Last::Units => digits.len(),
        };
        let trip = last != Last::Units && (digits.len() < FEWEST_WHEELS || tenths > 1);
        let Some(value) = digits[..whole].parse::<u64>().ok().filter(|_| DIGITS.contains(&whole)) else {
            continue;
        };
        let same = || tolds.iter().filter(|one| one.digits == *digits);
        let longer = wide.sure >= LONGER && is_longer(&wide.digits, digits) && wide.is_even()
            || all.iter().any(|(other, more)| is_longer(other, digits) && more.lines + more.copies > 0.3);
        // The recogniser often overlooks a wheel of tenths: then it reads the value alone.
        let alone = all.get(&digits[..whole]).filter(|_| last == Last::Tenths).copied().unwrap_or_default();
        let support = Support {
            copies: support.copies + alone.copies,
            opinions: support.opinions + alone.opinions,
            ..*support
        };
        let evidence = Evidence {
            digits: digits.clone(),
            lines: support.lines,
            copies: support.copies,
            opinions: support.opinions,
            total: f64::from(place.total()),
            other: f64::from(place.other),
            drum,
            tenths_decided: last != Last::Undecided,
            tenths: last == Last::Tenths,
            longer,
            trip,
            uneven: !same().all(Told::is_even),
            point,
            doubt: false,
        };
        let doubt = doubtful(&evidence, whole);
        let likely = match whole {
            whole if whole >= *DIGITS.end() => UNLIKELY.0,
            _ if evidence.uneven => UNLIKELY.1,
            _ => 1.0,
        };
        let confidence = (confidence(&evidence) * likely).min(if doubt { UNDECIDED } else { 1.0 });
        if !drum && whole < FEWEST_ALONE.0 && confidence < FEWEST_ALONE.1 {
            continue; // "x1000" of a tachometer, a clock.
        }
        let evidence = Evidence { doubt, ..evidence };
        match values.iter_mut().find(|(known, ..)| *known == value) {
            Some((_, sure, known)) if *sure < confidence => (*sure, *known) = (confidence, evidence),
            Some(_) => {}
            None => values.push((value, confidence, evidence)),
        }
    }
    values.sort_by(|a, b| b.1.total_cmp(&a.1));
    values
}
/// How sure a value is, 0-1.
fn confidence(evidence: &Evidence) -> f64 {
    let others = (evidence.copies + OPINIONS * evidence.opinions).min(1.0);
    let role = (evidence.total / f64::from(CERTAIN)).min(1.0);
    (WEIGHTS.0 * evidence.lines + WEIGHTS.1 * others) * role
}

/// Whether a digit, the last wheel or the line's role is in doubt, for a value of so many digits.
fn doubtful(evidence: &Evidence, digits: usize) -> bool {
    let elsewhere = evidence.other > FEWEST_DIGITS.1 * evidence.total && digits < FEWEST_DIGITS.0;
    let short = !evidence.drum && digits < *DIGITS.start() + 1;
    let long = digits >= *DIGITS.end();
    evidence.longer
        || !evidence.tenths_decided
        || evidence.trip
        || evidence.uneven
        || elsewhere
        || short
        || long
}

/// Whether the last wheel is one of tenths: the line reader and the colours must agree, or one be sure and the other silent.
fn last(digits: &str, tolds: &[Told], support: &Support, drum: bool) -> Last {
    let same: Vec<&Told> = tolds.iter().filter(|one| one.digits == digits).collect();
    let all = |tenths: bool| {
        !same.is_empty() && same.iter().all(|one| (one.tenths > 0) == tenths && one.sure_of_tenths >= KIND)
    };
    let (coloured, asked) = support.coloured;
    let (each, none) = (asked > 0 && 2 * coloured > asked, 4 * coloured <= asked);
    if all(true) && (drum || each || same.iter().all(|one| one.point)) || drum && each && !all(false) {
        Last::Tenths
    } else if (all(false) || same.is_empty() && !drum) && none {
        Last::Units
    } else {
        Last::Undecided
    }
}

/// Whether five wheels of a drum look alike: then they may well be the whole number, or one in front of them is missing.
fn five_alike(digits: &str, support: &Support, drum: bool) -> bool {
    drum && digits.len() == FEWEST_WHEELS - 1 && support.coloured.0 == 0 && support.coloured.1 >= 3
}

/// Whether `long` holds `short` and one or two digits more at one end.
fn is_longer(long: &str, short: &str) -> bool {
    (1..=2).contains(&(long.len().saturating_sub(short.len())))
        && (long.starts_with(short) || long.ends_with(short))
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

    fn told(digits: &str, tenths: usize) -> Told {
        let places = (0..digits.len()).map(|index| index as f32 / 10.0).collect();
        Told { digits: digits.into(), tenths, sure: 0.95, sure_of_tenths: 0.95, places, ..Told::default() }
    }

    fn coloured(coloured: u32) -> Support {
        Support { coloured: (coloured, 6), ..Support::default() }
    }

    #[test]
    fn the_last_wheel_is_decided_only_where_the_line_reader_and_the_colours_do_not_differ() {
        let tenths = [told("123456", 1), told("123456", 1), told("123456", 1)];
        let units = [told("123456", 0), told("123456", 0), told("123456", 0)];
        let mixed = [told("123456", 1), told("123456", 0), told("123456", 1)];
        for (tolds, seen, drum, expected) in [
            (&tenths, 0, true, Last::Tenths),
            (&tenths, 6, false, Last::Tenths),
            (&tenths, 0, false, Last::Undecided),
            (&units, 0, true, Last::Units),
            (&units, 6, true, Last::Undecided),
            (&units, 0, false, Last::Units),
            (&mixed, 0, true, Last::Undecided),
            (&mixed, 6, true, Last::Tenths),
        ] {
            assert_eq!(last("123456", tolds, &coloured(seen), drum), expected, "{tolds:?} {seen} {drum}");
        }
    }

    const PLACE: Place = Place {
        quad: [[0.0, 0.0], [120.0, 0.0], [120.0, 20.0], [0.0, 20.0]],
        display: 0.9,
        drum: 0.1,
        other: 0.0,
    };

    /// Values of a place where all three networks read these digits.
    fn agreed(digits: &str, tolds: Vec<Told>, wide: &Told, place: &Place) -> Vec<(u64, f64, Evidence)> {
        let support = Support { lines: 0.95, copies: 0.95, opinions: 0.95, coloured: (0, 6) };
        values(place, (&tolds, wide, false), &BTreeMap::from([(digits.to_owned(), support)]))
    }

    #[test]
    fn what_all_networks_read_at_a_sure_place_is_sure_and_at_a_doubtful_one_it_is_not() {
        let tolds = || vec![told("123456", 0); 3];
        let sure = agreed("123456", tolds(), &told("123456", 0), &PLACE);
        assert!(sure.len() == 1 && sure[0].0 == 123_456 && sure[0].1 > 0.85, "{sure:?}");
        let doubtful = Place { display: 0.1, ..PLACE };
        assert!(agreed("123456", tolds(), &told("123456", 0), &doubtful)[0].1 < 0.5);
        let other = Place { display: 0.5, other: 0.95, ..PLACE };
        assert!(agreed("12345", vec![told("12345", 0); 3], &told("12345", 0), &other)[0].1 <= UNDECIDED);
        assert!(agreed("1234", vec![told("1234", 0); 3], &told("1234", 0), &PLACE)[0].1 <= UNDECIDED);
    }

    #[test]
    fn a_digit_more_in_a_wider_cut_and_an_undecided_wheel_are_for_a_person() {
        let longer = agreed("123456", vec![told("123456", 0); 3], &told("1234567", 0), &PLACE);
        assert!(longer[0].1 <= UNDECIDED && longer[0].2.longer);
        let drum = Place { display: 0.1, drum: 0.9, ..PLACE };
        let mixed = vec![told("123456", 0), told("123456", 1), told("123456", 0)];
        let undecided = agreed("123456", mixed, &told("123456", 0), &drum);
        assert_eq!((undecided[0].0, undecided[0].2.tenths_decided), (12_345, false));
        assert!(undecided[0].1 <= UNDECIDED);
    }

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
