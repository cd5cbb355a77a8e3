//! What the networks read at one place, weighed: the values, what speaks for each, and what leaves doubt.

use std::collections::BTreeMap;

use crate::{around::Row, line_reader::LineReading, locate::Place, reading::Evidence, select::DIGITS};

/// What the line reader weighs, and what the recogniser's copies and the digit reader together: neither is enough alone.
const WEIGHTS: (f64, f64) = (0.5, 0.5);
/// What the digit reader's opinions are worth beside the recogniser's copies.
const OPINIONS: f64 = 0.7;
/// How sure the locator must be of a total for a reading there to count in full. Its scores are low where it is right as well.
pub(crate) const CERTAIN: f32 = 0.2;
/// How sure it must be where nothing else shows that the line is a dashboard's total.
const TOTAL: f64 = 0.35;
/// What a reading is worth at most while a digit more may belong to it, or while its last wheel may or may not be one of tenths.
const UNDECIDED: f64 = 0.75;
/// A display's number of fewer digits is none unless it is this sure.
const FEWEST_ALONE: (usize, f64) = (5, 0.4);
/// How likely seven digits are, and digits that stand unevenly, where others are read at the same place.
const UNLIKELY: (f64, f64) = (0.5, 0.8);
/// The agreement from which on a number that the stock networks read as well is looked for nowhere else.
const SETTLED: f64 = 0.6;
/// How sure the stock networks must be of the same digits for a reading to be sure without the whole photo.
const FRAMED: f64 = 0.3;
/// How likely a number is the total where the locator rather sees another line.
const ELSEWHERE: f64 = 0.5;
/// How sure the line reader's widest cut, the digit reader and the recogniser's copies must be where those read something else.
const ALONE: (f64, f64, f64) = (0.9, 0.8, 0.4);
/// How sure one of the recogniser's copies and the line reader's widest cut must be of what the stock networks found as a row: where
/// neither is, the row may have lost its first digit.
const BESIDE: (f64, f64) = (0.2, 0.5);
/// The digit reader's share below which a drum's first wheel that stands too near the second may hide one before it.
const CONFIRMED: f64 = 0.3;
/// The most wheels of a drum, one of tenths among them: before so many none is missing.
const MOST_WHEELS: usize = 7;
/// How sure the line reader is of a digit more that counts.
const LONGER: f32 = 0.5;
/// How sure the line reader is of the last wheel's kind where that decides.
const KIND: f32 = 0.9;
/// Fewest wheels of a drum, its wheel of tenths included: with fewer it is a trip meter.
const FEWEST_WHEELS: usize = 6;
/// Fewest digits of a number that may be the total though the locator is this many times as sure that it is another line.
const FEWEST_DIGITS: (usize, f64) = (6, 1.5);

/// What a tachometer's scale is multiplied with: "x1000". It is on many dashboards, and a total of exactly 1,000 on hardly any.
const FACTOR: &str = "1000";

/// What speaks for one string of digits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Support {
    pub lines: f64,
    pub copies: f64,
    pub opinions: f64,
    /// Copies whose last digit stands in a cell of other colours, and copies that were asked.
    pub coloured: (u32, u32),
}

impl Evidence {
    /// Whether nothing that the whole photo shows could change what is known: the line is the total, and the stock networks, which
    /// look for its ends themselves, have the same digits. Where its form is a trip meter's, the total stands elsewhere.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_agreed() && self.framed >= FRAMED && is_total(self)
    }

    /// Whether the networks agree about the digits, and their form is no trip meter's.
    pub(crate) fn is_agreed(&self) -> bool {
        self.agreement >= SETTLED && !self.trip
    }
}

impl Support {
    fn add(&mut self, other: &Self) {
        self.copies += other.copies;
        self.opinions += other.opinions;
        self.coloured = (self.coloured.0 + other.coloured.0, self.coloured.1 + other.coloured.1);
    }
}

/// Whether the last wheel is one of tenths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Tenths,
    Units,
    Undecided,
}

/// What was read at a place.
pub(crate) struct Sources<'a> {
    /// The line reader's cuts of the line.
    pub readings: &'a [LineReading],
    /// Its cut with so much room that a digit beyond the line's ends shows.
    pub wide: &'a LineReading,
    /// What the stock networks find there.
    pub row: &'a Row,
    /// Whether a point was seen among the digits.
    pub point: bool,
}

/// Every value with how sure it is and what speaks for it, surest first.
pub(crate) fn values(
    place: &Place,
    sources: &Sources<'_>,
    all: &BTreeMap<String, Support>,
) -> Vec<(u64, f64, Evidence)> {
    let drum = place.drum > place.display;
    let mut values: Vec<(u64, f64, Evidence)> = Vec::new();
    for digits in all.keys().filter(|digits| digits.len() >= *DIGITS.start() && *digits != FACTOR) {
        let Some((value, whole, evidence)) = weighed(digits, place, sources, all) else { continue };
        let doubt = doubtful(&evidence, whole);
        let likely = match whole {
            whole if whole >= *DIGITS.end() => UNLIKELY.0,
            _ if uneven(&evidence) => UNLIKELY.1,
            _ => 1.0,
        };
        let agreement = confidence(&evidence) * likely;
        let unsure = doubt || !has_its_ends(&evidence) || !is_total(&evidence);
        let confidence = agreement.min(if unsure { UNDECIDED } else { 1.0 });
        if !drum && whole < FEWEST_ALONE.0 && confidence < FEWEST_ALONE.1 {
            continue; // A clock.
        }
        let evidence = Evidence { doubt, agreement, ..evidence };
        match values.iter_mut().find(|(known, ..)| *known == value) {
            Some((_, sure, known)) if *sure < confidence => (*sure, *known) = (confidence, evidence),
            Some(_) => {}
            None => values.push((value, confidence, evidence)),
        }
    }
    values.sort_by(|a, b| b.1.total_cmp(&a.1));
    values
}

/// The value that digits give, how many of them, and what speaks for it; none where it can be no mileage.
fn weighed(
    digits: &str,
    place: &Place,
    sources: &Sources<'_>,
    all: &BTreeMap<String, Support>,
) -> Option<(u64, usize, Evidence)> {
    let drum = place.drum > place.display;
    let (same, mut support) = supported(digits, sources.readings, all, drum);
    let alike_five = five_alike(digits, &support, drum);
    let last = match last(&same, &support, drum) {
        Last::Tenths if alike_five => Last::Undecided,
        last => last,
    };
    let tenths = same.iter().map(|one| one.tenths).max().unwrap_or(0);
    let whole = match last {
        Last::Tenths => digits.len() - tenths.clamp(1, digits.len() - 1),
        Last::Undecided if drum && !alike_five => digits.len() - 1,
        Last::Undecided | Last::Units => digits.len(),
    };
    let trip = last != Last::Units && (digits.len() < FEWEST_WHEELS || tenths > 1);
    let value = digits[..whole].parse::<u64>().ok().filter(|_| DIGITS.contains(&whole))?;
    // The recogniser often overlooks a wheel of tenths: then it reads the value alone.
    if let Some(alone) = all.get(&digits[..whole]).filter(|_| last == Last::Tenths) {
        support.copies += alone.copies;
        support.opinions += alone.opinions;
    }
    let (wide, row) = (sources.wide, sources.row);
    let longer = wide.sure >= LONGER && is_longer(&wide.digits, digits) && wide.is_even()
        || row.sure >= LONGER && is_longer(&row.digits, digits)
        || all.iter().any(|(other, more)| is_longer(other, digits) && more.lines + more.copies > 0.3)
        || drum && support.opinions < CONFIRMED && is_crowded(digits, sources);
    // Of a wheel of tenths that stands between two digits each network may see another, and the stock ones often see none.
    let same_but_tenths = |other: &str| {
        other == digits
            || last == Last::Tenths && other.len() == digits.len() && other.starts_with(&digits[..whole])
    };
    let framed =
        !row.other && (same_but_tenths(&row.digits) || last == Last::Tenths && row.digits == digits[..whole]);
    let evidence = Evidence {
        digits: digits.to_owned(),
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
        uneven: !same.iter().all(|one| one.is_even()),
        point: sources.point,
        framed: if framed { f64::from(row.sure) } else { 0.0 },
        wide: if same_but_tenths(&wide.digits) { f64::from(wide.sure) } else { 0.0 },
        agreement: 0.0,
        doubt: false,
    };
    Some((value, whole, evidence))
}

/// The line reader's cuts that read these digits, and what speaks for them. A wheel of tenths stands between two digits in every other
/// photo: where the line reader sees one, what the wheels before it show is one number, whichever it takes for the last.
fn supported<'a>(
    digits: &str,
    readings: &'a [LineReading],
    all: &BTreeMap<String, Support>,
    drum: bool,
) -> (Vec<&'a LineReading>, Support) {
    let before = &digits[..digits.len() - 1];
    let alike = |other: &str| drum && other.len() == digits.len() && other.starts_with(before);
    let is_same = |one: &&LineReading| one.digits == digits || one.tenths == 1 && alike(&one.digits);
    let same: Vec<&LineReading> = readings.iter().filter(is_same).collect();
    let mut support = Support::default();
    for (other, more) in all {
        if other == digits || same.len() > 1 && alike(other) {
            support.add(more);
        }
    }
    let sure = |one: &&LineReading| f64::from(if one.digits == digits { one.sure } else { one.sure_before });
    support.lines = same.iter().map(sure).sum::<f64>() / readings.len().max(1) as f64;
    (same, support)
}

/// How sure a value is, 0-1.
fn confidence(evidence: &Evidence) -> f64 {
    let others = (evidence.copies + OPINIONS * evidence.opinions).min(1.0);
    let role = (evidence.total / f64::from(CERTAIN)).min(1.0);
    let elsewhere = if elsewhere(evidence) { ELSEWHERE } else { 1.0 };
    (WEIGHTS.0 * evidence.lines.min(1.0) + WEIGHTS.1 * others) * role * elsewhere
}

/// Whether its digits stand unevenly and the stock networks, which measure their distances themselves, do not read the same: a 1
/// stands aside in many typefaces, but so do two numbers that were read as one.
fn uneven(evidence: &Evidence) -> bool {
    evidence.uneven && evidence.framed < FRAMED
}

/// Whether something shows that no digit is missing at its ends: the stock networks looked for them themselves, and they are not alone
/// with what they read; or each of the others read the same with room for a digit more.
fn has_its_ends(evidence: &Evidence) -> bool {
    let (wide, opinions, copies) = ALONE;
    evidence.framed >= FRAMED && (evidence.copies >= BESIDE.0 || evidence.wide >= BESIDE.1)
        || evidence.wide >= wide && evidence.opinions >= opinions && evidence.copies >= copies
}

/// Whether the locator alone may say that the line is the total. Where it is less sure, or another look has found the line, the words
/// around it must be read: a receipt has numbers too.
fn is_total(evidence: &Evidence) -> bool {
    evidence.total >= TOTAL && evidence.total >= evidence.other
}

/// Whether the line is rather another than the total: a clock, a trip meter.
fn elsewhere(evidence: &Evidence) -> bool {
    evidence.other > FEWEST_DIGITS.1 * evidence.total && evidence.digits.len() < FEWEST_DIGITS.0
}

/// Whether a digit, the last wheel or the line's role is in doubt, for a value of so many digits.
fn doubtful(evidence: &Evidence, digits: usize) -> bool {
    let short = !evidence.drum && digits < *DIGITS.start() + 1;
    let long = digits >= *DIGITS.end();
    evidence.longer
        || !evidence.tenths_decided
        || evidence.trip
        || uneven(evidence)
        || elsewhere(evidence)
        || short
        || long
}

/// Whether the last wheel is one of tenths: the line reader and the colours must agree, or one be sure and the other silent.
fn last(same: &[&LineReading], support: &Support, drum: bool) -> Last {
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

/// Whether a reading of these digits has its first wheel too near the second, where a drum may have one more: it may have taken parts of
/// two wheels for one. A 1 is narrow, and is seen off its wheel's middle.
fn is_crowded(digits: &str, sources: &Sources<'_>) -> bool {
    let mut readings = sources.readings.iter().chain([sources.wide]);
    digits.len() < MOST_WHEELS && readings.any(|one| one.digits == digits && one.starts_crowded())
}

/// Whether `long` holds `short` and one or two digits more at one end.
fn is_longer(long: &str, short: &str) -> bool {
    (1..=2).contains(&(long.len().saturating_sub(short.len())))
        && (long.starts_with(short) || long.ends_with(short))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(digits: &str, tenths: usize) -> LineReading {
        let places = (0..digits.len()).map(|index| index as f32 / 10.0).collect();
        LineReading {
            digits: digits.into(),
            tenths,
            sure: 0.95,
            sure_before: 0.95,
            sure_of_tenths: 0.95,
            places,
            ..LineReading::default()
        }
    }

    fn coloured(coloured: u32) -> Support {
        Support { coloured: (coloured, 4), ..Support::default() }
    }

    #[test]
    fn the_last_wheel_is_decided_only_where_the_line_reader_and_the_colours_do_not_differ() {
        let tenths = [reading("123456", 1), reading("123456", 1)];
        let units = [reading("123456", 0), reading("123456", 0)];
        let mixed = [reading("123456", 1), reading("123456", 0)];
        for (readings, seen, drum, expected) in [
            (&tenths, 0, true, Last::Tenths),
            (&tenths, 4, false, Last::Tenths),
            (&tenths, 0, false, Last::Undecided),
            (&units, 0, true, Last::Units),
            (&units, 4, true, Last::Undecided),
            (&units, 0, false, Last::Units),
            (&mixed, 0, true, Last::Undecided),
            (&mixed, 4, true, Last::Tenths),
        ] {
            let same: Vec<&LineReading> = readings.iter().collect();
            assert_eq!(last(&same, &coloured(seen), drum), expected, "{readings:?} {seen} {drum}");
        }
    }

    const PLACE: Place = Place {
        quad: [[0.0, 0.0], [120.0, 0.0], [120.0, 20.0], [0.0, 20.0]],
        display: 0.9,
        drum: 0.1,
        other: 0.0,
    };
    const DRUM: Place = Place { display: 0.1, drum: 0.9, ..PLACE };

    /// What the stock networks read where they looked for the line themselves.
    fn row(digits: &str) -> Row {
        Row { digits: digits.into(), sure: 0.95, ..Row::default() }
    }

    /// Values of a place where all networks read these digits, but for what is given.
    fn agreed(
        digits: &str,
        readings: &[LineReading],
        (wide, row): (&str, &Row),
        place: &Place,
    ) -> Vec<(u64, f64, Evidence)> {
        let support = Support { lines: 0.95, copies: 0.95, opinions: 0.95, coloured: (0, 4) };
        let wide = reading(wide, readings[0].tenths);
        let sources = Sources { readings, wide: &wide, row, point: false };
        values(place, &sources, &BTreeMap::from([(digits.to_owned(), support)]))
    }

    /// The surest value of a display where all read the same, and how sure it is.
    fn surest(digits: &str, place: &Place) -> (u64, f64) {
        let found = agreed(digits, &[reading(digits, 0), reading(digits, 0)], (digits, &row(digits)), place);
        (found[0].0, found[0].1)
    }

    #[test]
    fn what_all_networks_read_at_a_sure_place_is_sure_and_at_a_doubtful_one_it_is_not() {
        assert!(matches!(surest("123456", &PLACE), (123_456, sure) if sure > 0.85));
        assert!(surest("123456", &Place { display: 0.1, ..PLACE }).1 < 0.5);
        let receipt = Place { display: 0.3, other: 0.2, ..PLACE };
        assert_eq!(surest("123456", &receipt).1, UNDECIDED, "the words around it are not read yet");
        assert!(surest("12345", &Place { display: 0.5, other: 0.95, ..PLACE }).1 <= UNDECIDED);
        assert!(surest("1234", &PLACE).1 <= UNDECIDED);
    }

    #[test]
    fn a_trip_meter_by_its_form_does_not_end_the_search_for_the_total() {
        let whole = |tenths: usize| {
            let readings = [reading("181362", tenths), reading("181362", tenths)];
            let sources =
                Sources { readings: &readings, wide: &readings[0], row: &row("181362"), point: true };
            let support = Support { lines: 0.95, copies: 0.95, opinions: 0.95, coloured: (4, 4) };
            let found = values(&DRUM, &sources, &BTreeMap::from([("181362".to_owned(), support)]));
            (found[0].2.trip, found[0].2.is_whole())
        };
        assert_eq!((whole(1), whole(2)), ((false, true), (true, false)));
    }

    #[test]
    fn the_factor_of_a_tachometer_is_no_total_however_surely_it_is_read() {
        let found = |digits: &str| {
            agreed(digits, &[reading(digits, 0), reading(digits, 0)], (digits, &row(digits)), &PLACE).len()
        };
        assert_eq!((found("1000"), found("1001")), (0, 1));
    }

    #[test]
    fn a_number_whose_first_digit_only_one_other_network_sees_is_for_a_person() {
        let readings = [reading("45773", 0), reading("45773", 0)];
        let sure = |wide: &str, seen: &Row| {
            let found = agreed("45773", &readings, (wide, seen), &PLACE);
            (found[0].1 > UNDECIDED, found[0].2.longer)
        };
        assert_eq!(sure("45773", &row("45773")), (true, false));
        assert_eq!(sure("45773", &row("545773")), (false, true), "the stock networks see it");
        assert_eq!(sure("545773", &row("45773")), (false, true), "the wider cut shows it");
        assert_eq!(sure("45773", &Row::default()), (true, false), "every other network confirms the ends");
        assert_eq!(sure("4577", &Row::default()), (false, false), "nothing confirms the ends");
    }

    #[test]
    fn a_row_that_no_copy_and_no_wider_cut_gives_again_is_for_a_person() {
        let readings = [reading("11523", 0), reading("11523", 0)];
        let sure = |copies: f64| {
            let wide = reading("1152", 0);
            let sources = Sources { readings: &readings, wide: &wide, row: &row("11523"), point: false };
            let support = Support { lines: 0.99, copies, opinions: 1.0, coloured: (0, 0) };
            values(&PLACE, &sources, &BTreeMap::from([("11523".to_owned(), support)]))[0].1
        };
        assert_eq!(sure(0.0), UNDECIDED, "911523 was accepted without its first digit");
        assert!(sure(0.3) > UNDECIDED);
    }

    #[test]
    fn a_first_wheel_too_near_the_second_that_the_digit_reader_does_not_confirm_is_for_a_person() {
        let sure = |digits: &str, opinions: f64, second: f32| {
            let mut one = reading(digits, 1);
            one.places[0] = second - 0.07;
            let readings = [one.clone(), one.clone()];
            let sources = Sources { readings: &readings, wide: &one, row: &row(digits), point: false };
            let support = Support { lines: 0.98, copies: 0.94, opinions, coloured: (4, 4) };
            values(&DRUM, &sources, &BTreeMap::from([(digits.to_owned(), support)]))[0].1
        };
        assert_eq!(sure("733602", 0.24, 0.1), UNDECIDED, "873360 was accepted without its first digit");
        assert!(sure("733602", 0.9, 0.1) > UNDECIDED, "the digit reader confirms it");
        assert!(sure("733602", 0.24, 0.07) > UNDECIDED, "it stands where a wheel does");
        assert!(sure("1237897", 0.24, 0.1) > UNDECIDED, "no drum has a wheel before seven");
    }

    #[test]
    fn a_last_wheel_that_may_or_may_not_be_one_of_tenths_is_for_a_person() {
        let mixed = [reading("123456", 0), reading("123456", 1)];
        let undecided = &agreed("123456", &mixed, ("123456", &row("123456")), &DRUM)[0];
        assert_eq!((undecided.0, undecided.2.tenths_decided), (12_345, false));
        assert!(undecided.1 <= UNDECIDED);
    }

    #[test]
    fn a_wheel_of_tenths_between_two_digits_does_not_part_what_the_wheels_before_it_show() {
        let readings = [reading("0123456", 1), reading("0123457", 1)];
        let sources = Sources { readings: &readings, wide: &readings[0], row: &row("012345"), point: false };
        let support = |lines| Support { lines, copies: 0.45, opinions: 0.45, coloured: (2, 2) };
        let all = [("0123456".to_owned(), support(0.47)), ("0123457".to_owned(), support(0.47))];
        let found = values(&DRUM, &sources, &all.into());
        assert_eq!(found.len(), 1);
        assert!(found[0].0 == 12_345 && found[0].1 > 0.85, "{found:?}");
    }
}
