//! One pass over one picture: its lines, the numbers in them, and how sure each is.

use std::cell::Cell;

use image::RgbImage;
use schemas::events::Unit;

use crate::{
    agree::{VARIANTS, Variant, room},
    crop::{Strip, strip},
    detect::detect,
    digits::opinions,
    geometry::{Quad, centre, distance, grow, height, overlap, width},
    network::{Network, NetworkError, Thread},
    reading::Evidence,
    recognise::{Classes, Glyph, ROWS, WIDEST, recognise, text},
    select::{Number, Read, candidates, extends, numbers, pitch, row},
    sequence::sequences,
    votes::Votes,
};

/// How many numbers are read again in all variants: 5 variants of 10 ms each.
const AGAIN: usize = 3;
/// Numbers that look less like a mileage than this share of the best are not read again.
const WORTH: f32 = 0.3;
/// Boxes narrower than this share of their height hold one character: not read by themselves, only as part of a row.
const LONE: f32 = 0.95;
/// From a million on a value is that much less likely: rarer than a wheel of tenths whose colours do not show, or a number of
/// the scale that has run into the wheels. So a person looks at it.
const MILLION: (u64, f64) = (1_000_000, 0.6);
/// From which confidence on a longer value in another box says that a digit is cut off, and the most that both are worth
/// then: not enough to be accepted.
const CUT: (f64, f64) = (0.4, 0.75);
/// How sure a look at the whole photo must be of a value to speak for it: the words around it are weighed there.
const WHOLE: f64 = 0.6;
/// What a look at the whole photo adds to a closer one that gave the same value.
const AGREED: f64 = 0.35;
/// Confidence from which on the closer look needs no other.
pub(crate) const SURE: f64 = 0.8;
/// The line reader's share from which what it read at a place counts.
const HEARD: f64 = 0.5;
/// How often a number's ends may be moved outward.
const LONGER: usize = 2;

/// The networks.
pub(crate) struct Networks {
    pub detector: Network,
    pub recogniser: Network,
    pub classes: Classes,
    pub digits: Network,
    pub locator: Network,
    pub line_reader: Network,
}

/// A value that was read, and where.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// The mileage.
    pub value: u64,
    /// The unit beside it.
    pub unit: Option<Unit>,
    /// Calibrated agreement, 0-1.
    pub confidence: f64,
    /// The line that it was read from.
    pub line: usize,
    /// What speaks for it, where it was looked at closely.
    pub evidence: Option<Evidence>,
}

/// What a pass found.
#[derive(Default)]
pub(crate) struct Found {
    pub lines: Vec<Read>,
    /// Surest first; one for each value.
    pub values: Vec<Value>,
}

impl Found {
    /// How sure the best value is; 0 where there is none.
    pub fn sure(&self) -> f64 {
        self.values.first().map_or(0.0, |best| best.confidence)
    }

    /// Whether the whole photo need not be looked at after this closer look.
    pub fn is_settled(&self) -> bool {
        let settled = |best: &Value| best.evidence.as_ref().is_some_and(Evidence::is_whole);
        self.values.first().is_some_and(|best| best.confidence >= SURE || settled(best))
    }

    /// Whether the best value is as sure as this.
    pub fn is_plain(&self, least: f64) -> bool {
        self.values.first().is_some_and(|best| best.confidence >= least && best.evidence.is_some())
    }

    /// Whether the best value's last wheel, form or role is in doubt: then agreement makes it no surer. A digit that it may lack is none of
    /// these: another look often shows that there is none.
    pub fn is_doubted(&self) -> bool {
        let best = self.values.first().and_then(|best| best.evidence.as_ref());
        best.is_some_and(|evidence| evidence.doubt && !evidence.longer)
    }

    /// Whether the networks agree about the best value, and its form is no trip meter's.
    pub fn is_read(&self) -> bool {
        let best = self.values.first().and_then(|best| best.evidence.as_ref());
        best.is_some_and(Evidence::is_agreed)
    }

    /// Adds what another pass over the same picture found. A value that both read keeps the surer one's confidence: they
    /// share picture and networks, so that they agree on the same mistakes.
    pub fn add(&mut self, other: Self) {
        let behind = self.lines.len();
        self.lines.extend(other.lines);
        for mut value in other.values {
            value.line += behind;
            keep(&mut self.values, value);
        }
        self.rank();
    }

    /// Makes the values surer that another look, at the whole photo, gave as well, unless a digit is in doubt.
    pub fn agree_with(&mut self, whole: &Self) {
        for value in &mut self.values {
            let doubt = value.evidence.as_ref().is_none_or(|evidence| evidence.doubt);
            let same = whole.values.iter().find(|known| {
                known.value == value.value
                    && known.confidence >= WHOLE
                    && overlap(&whole.lines[known.line].quad, &self.lines[value.line].quad)
            });
            if let (Some(same), Some(evidence)) = (same.filter(|_| !doubt), &value.evidence) {
                value.confidence = (evidence.agreement + AGREED * same.confidence).min(1.0);
            }
        }
        self.rank();
    }

    /// Whether this closer look read something where the whole photo gave a value, and nothing that speaks against it: other
    /// digits, one more, or a wheel of tenths at its end. Part of its digits speaks for it: the place's ends are less sure.
    pub fn supports(&self, whole: &Self, value: &Value) -> bool {
        let text = value.value.to_string();
        let here = |known: &&Value| overlap(&whole.lines[value.line].quad, &self.lines[known.line].quad);
        let evidence = self.values.iter().filter(here).filter_map(|known| known.evidence.as_ref());
        let read: Vec<&Evidence> = evidence.filter(|evidence| evidence.lines >= HEARD).collect();
        let agrees = |evidence: &&Evidence| {
            let digits = evidence.digits.trim_start_matches('0');
            text.contains(digits) && !(evidence.tenths && digits == text)
        };
        !read.is_empty() && read.iter().all(agrees)
    }

    /// Drops what this look took for a value and a closer one knows to end with a wheel of tenths.
    pub fn without_tenths_of(&mut self, closer: &Self) {
        let with_tenths = |value: &Value, known: &Value| {
            let evidence = known.evidence.as_ref().filter(|evidence| evidence.tenths);
            evidence.is_some_and(|evidence| evidence.digits.parse() == Ok(value.value))
                && overlap(&self.lines[value.line].quad, &closer.lines[known.line].quad)
        };
        self.values.retain(|value| !closer.values.iter().any(|known| with_tenths(value, known)));
    }

    /// Puts the surest value first, unless another box shows that a digit is cut off it. The one with the digit comes first
    /// then, and a person decides.
    fn rank(&mut self) {
        self.values.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let Some((best, others)) = self.values.split_first() else { return };
        let longer = |other: &Value| {
            other.confidence >= CUT.0
                && other.line != best.line
                && is_cut(best.value, other.value)
                && overlap(&self.lines[best.line].quad, &self.lines[other.line].quad)
        };
        if let Some(index) = others.iter().position(longer) {
            // A closer look has tried whether a digit more belongs there.
            if best.evidence.is_none() && others[index].evidence.is_none() {
                self.values[..=index + 1].rotate_right(1);
            }
            for value in &mut self.values {
                value.confidence = value.confidence.min(CUT.1);
            }
        }
    }
}

/// Adds a value, or what makes it surer.
fn keep(values: &mut Vec<Value>, value: Value) {
    match values.iter_mut().find(|known| known.value == value.value) {
        Some(known) if known.confidence >= value.confidence => {
            known.evidence = known.evidence.take().or(value.evidence);
        }
        Some(known) => *known = value,
        None => values.push(value),
    }
}

/// Whether `short` is `long` without its first or last digit.
fn is_cut(short: u64, long: u64) -> bool {
    let (short, long) = (short.to_string(), long.to_string());
    short.len() + 1 == long.len() && (long.starts_with(&short) || long.ends_with(&short))
}

/// One picture and what reads it.
pub(crate) struct Pass<'a> {
    pub networks: &'a Networks,
    pub picture: &'a RgbImage,
    /// The long side that the detector sees; pixels.
    pub long_side: u32,
    /// Columns of strips that may still be read on this photo.
    pub columns: &'a Cell<usize>,
    pub thread: &'a Thread,
}

impl Pass<'_> {
    /// Finds and reads everything.
    pub fn run(&self) -> Result<Found, NetworkError> {
        let mut lines = Vec::new();
        for quad in detect(&self.networks.detector, self.picture, self.long_side, self.thread)? {
            let lone = width(&quad) < LONE * height(&quad);
            lines.push(if lone { Read { quad, glyphs: Vec::new() } } else { self.line(quad)? });
        }
        for quad in sequences(&lines) {
            let row = self.line(quad)?;
            lines.push(self.whole(row)?);
        }
        let texts: Vec<String> = lines.iter().map(|line| text(&line.glyphs)).collect();
        let numbers = candidates(&lines, &texts);
        let least = numbers.first().map_or(0.0, |best| best.weight * WORTH);
        let mut values: Vec<Value> = Vec::new();
        for number in numbers.iter().filter(|number| number.weight >= least).take(AGAIN) {
            for value in self.again(&mut lines[number.line], number)? {
                keep(&mut values, value);
            }
        }
        let mut found = Found { lines, values };
        found.rank();
        Ok(found)
    }

    fn line(&self, quad: Quad) -> Result<Read, NetworkError> {
        let glyphs = self.recognise(&strip(self.picture, &quad, ROWS, 1.0, WIDEST))?;
        Ok(Read { quad, glyphs })
    }

    /// A row of wheels with those at its ends that the detector did not find: each end grows while another wheel shows.
    fn whole(&self, mut line: Read) -> Result<Read, NetworkError> {
        for (left, right) in [(1.0, 0.0), (0.0, 1.0)] {
            for _ in 0..LONGER {
                let Some(known) = row(&line.glyphs) else { return Ok(line) };
                let more =
                    room(height(&line.quad), pitch(&line.glyphs, &digits(&line.glyphs)) * width(&line.quad));
                let grown = self.line(grow(&line.quad, left * more, right * more, 0.0))?;
                if !extends(&known, &grown.glyphs, &digits(&grown.glyphs)) {
                    break;
                }
                line = grown;
            }
        }
        Ok(line)
    }

    /// What stands on a strip; nothing once the photo has cost enough.
    fn recognise(&self, strip: &Strip) -> Result<Vec<Glyph>, NetworkError> {
        let Some(left) = self.columns.get().checked_sub(strip.width) else { return Ok(Vec::new()) };
        self.columns.set(left);
        recognise(&self.networks.recogniser, &self.networks.classes, strip, self.thread)
    }

    /// Reads a number again in every variant and asks the digit reader: the values seen, each with how sure it is.
    fn again(&self, line: &mut Read, number: &Number) -> Result<Vec<Value>, NetworkError> {
        let number = self.longer(line, number)?;
        let place = place(&line.quad, &line.glyphs, &number);
        let mut votes = Votes::default();
        votes.copy(&strip(self.picture, &line.quad, ROWS, 1.0, WIDEST), &line.glyphs, &number);
        for variant in VARIANTS {
            let (quad, cut, glyphs) = self.variant(variant, line, &number.digits)?;
            match nearest(&quad, &glyphs, place) {
                Some(same) => votes.copy(&cut, &glyphs, &same),
                // With longer ends a number of the scale may run into the wheels and make one of eight digits or more: that
                // tells nothing. Any other copy without a number counts against all.
                None if variant == Variant::LongerEnds => {}
                None => votes.silent(),
            }
        }
        let seen = (&line.quad, line.glyphs.as_slice(), number.digits.as_slice());
        let opinions = opinions(&self.networks.digits, self.picture, seen, self.thread)?;
        votes.opinions(&opinions, number.decimals);
        let value = |(value, agreement): (u64, f64)| Value {
            value,
            unit: number.unit,
            confidence: agreement * looks(&number, value),
            line: number.line,
            evidence: None,
        };
        Ok(votes.agreement().map(value).collect())
    }

    /// The number with the digits that its box had cut off: the box grows while more digits show at its ends.
    fn longer(&self, line: &mut Read, number: &Number) -> Result<Number, NetworkError> {
        let mut number = number.clone();
        for _ in 0..LONGER {
            let place = place(&line.quad, &line.glyphs, &number);
            let (quad, _, glyphs) = self.variant(Variant::LongerEnds, line, &number.digits)?;
            let Some(more) = nearest(&quad, &glyphs, place) else { break };
            if !extends(&number.text, &glyphs, &more.digits) {
                break;
            }
            *line = Read { quad, glyphs };
            number = Number { weight: number.weight, unit: number.unit, line: number.line, ..more };
        }
        Ok(number)
    }

    /// A variant of a line with a number at `digits`: where it is cut from, the cut, and what is read in it.
    fn variant(
        &self,
        variant: Variant,
        line: &Read,
        digits: &[usize],
    ) -> Result<(Quad, Strip, Vec<Glyph>), NetworkError> {
        let quad = variant.quad(&line.quad, pitch(&line.glyphs, digits) * width(&line.quad));
        let cut = variant.cut(self.picture, &quad);
        let glyphs = self.recognise(&cut)?;
        Ok((quad, cut, glyphs))
    }
}

/// How much a number looks like a mileage, 0-1: by its form and neighbours, and by how common such a value is.
pub(crate) fn looks(number: &Number, value: u64) -> f64 {
    let rare = if value >= MILLION.0 { MILLION.1 } else { 1.0 };
    f64::from((number.weight / 0.6).min(1.0)) * rare
}

/// Where a line's digits are among its characters.
fn digits(glyphs: &[Glyph]) -> Vec<usize> {
    (0..glyphs.len()).filter(|index| glyphs[*index].character.is_ascii_digit()).collect()
}

/// The number whose middle is nearest to a place.
fn nearest(quad: &Quad, glyphs: &[Glyph], place: [f32; 2]) -> Option<Number> {
    let away = |number: &Number| distance(self::place(quad, glyphs, number), place);
    numbers(0, glyphs).into_iter().min_by(|a, b| away(a).total_cmp(&away(b)))
}

/// Where the middle of a number lies in the picture.
fn place(quad: &Quad, glyphs: &[Glyph], number: &Number) -> [f32; 2] {
    let (Some(first), Some(last)) = (number.digits.first(), number.digits.last()) else {
        return centre(quad);
    };
    let at = (glyphs[*first].at + glyphs[*last].at) / 2.0;
    let [x, y] = centre(quad);
    [x + (quad[1][0] - quad[0][0]) * (at - 0.5), y + (quad[1][1] - quad[0][1]) * (at - 0.5)]
}

#[cfg(test)]
impl Found {
    /// Values at confidences, each in a line of its own, whose top left corner is told.
    pub fn of(values: impl Iterator<Item = (u64, f64, [f32; 2])>) -> Self {
        let (mut lines, mut found) = (Vec::new(), Vec::new());
        for (line, (value, confidence, [left, top])) in values.enumerate() {
            let (right, bottom) = (left + 100.0, top + 20.0);
            let quad = [[left, top], [right, top], [right, bottom], [left, bottom]];
            lines.push(Read { quad, glyphs: Vec::new() });
            found.push(Value { value, unit: None, confidence, line, evidence: None });
        }
        Self { lines, values: found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values at confidences, each in a line that begins that far to the right.
    fn found(of: &[(u64, f64, f32)]) -> Found {
        Found::of(of.iter().map(|(value, confidence, left)| (*value, *confidence, [*left, 0.0])))
    }

    fn ranked(of: &[(u64, f64, f32)]) -> Vec<(u64, f64)> {
        let mut found = found(of);
        found.rank();
        found.values.iter().map(|value| (value.value, value.confidence)).collect()
    }

    #[test]
    fn a_number_whose_box_cuts_a_digit_off_comes_behind_the_whole_one_and_neither_is_accepted() {
        assert_eq!(ranked(&[(96_626, 0.98, 0.0), (966_269, 0.82, 5.0)]), [(966_269, 0.75), (96_626, 0.75)]);
        assert_eq!(ranked(&[(66_269, 0.98, 0.0), (966_269, 0.82, 5.0)])[0].0, 966_269);
    }

    #[test]
    fn another_place_another_number_or_a_doubtful_one_says_nothing_about_a_cut() {
        for other in [(966_269, 0.82, 300.0), (966_169, 0.82, 5.0), (966_269, 0.3, 5.0)] {
            assert_eq!(ranked(&[(96_626, 0.98, 0.0), other])[0], (96_626, 0.98), "{other:?}");
        }
    }

    #[test]
    fn what_the_networks_agree_about_is_read_once_unless_its_form_is_a_trip_meters() {
        let read = |agreement: f64, trip: bool| {
            let mut close = found(&[(123_456, 0.7, 0.0)]);
            close.values[0].evidence = Some(Evidence { agreement, trip, doubt: true, ..Evidence::default() });
            (close.is_read(), close.is_doubted())
        };
        assert_eq!((read(0.6, false), read(0.59, false)), ((true, true), (false, true)));
        assert_eq!(read(0.9, true), (false, true), "the total stands elsewhere");
        assert!(!found(&[(123_456, 0.9, 0.0)]).is_read(), "nobody has looked closely");
    }

    #[test]
    fn the_whole_photo_makes_a_value_of_the_closer_look_sure_only_where_it_is_sure_itself() {
        let agreed = |whole: f64, doubt: bool| {
            let mut close = found(&[(123_456, 0.75, 0.0)]);
            let evidence = Evidence { agreement: 0.9, doubt, ..Evidence::default() };
            close.values[0].evidence = Some(evidence);
            close.agree_with(&found(&[(123_456, whole, 5.0)]));
            close.values[0].confidence
        };
        assert_eq!((agreed(0.9, false), agreed(0.3, false), agreed(0.9, true)), (1.0, 0.75, 0.75));
    }

    #[test]
    fn two_passes_give_each_value_once_at_its_surer_place() {
        let mut first = found(&[(1_234, 0.2, 0.0)]);
        first.add(found(&[(1_234, 0.6, 0.0), (99_999, 0.5, 300.0)]));
        let all: Vec<_> =
            first.values.iter().map(|value| (value.value, value.confidence, value.line)).collect();
        assert_eq!(all, [(1_234, 0.6, 1), (99_999, 0.5, 2)]);
        assert_eq!((first.sure(), Found::default().sure()), (0.6, 0.0));
    }
}
