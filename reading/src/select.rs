//! Which numbers on a dashboard may be the mileage: found in the text, weighed by form, size and neighbours.

use schemas::events::Unit;

mod words;

use words::{ELSEWHERE, elsewhere};

use crate::{
    geometry::{Quad, axes, centre, height, width},
    recognise::Glyph,
};

/// A line with its characters.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    pub quad: Quad,
    pub glyphs: Vec<Glyph>,
}

/// A number that may be a mileage.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Number {
    /// The line that it stands in.
    pub line: usize,
    /// Its digits' indices among the line's characters; separators left out.
    pub digits: Vec<usize>,
    /// The digits before a decimal point.
    pub text: String,
    /// Whether it is written without separators other than spaces and without a decimal point.
    pub plain: bool,
    /// How many digits stand behind its decimal point.
    pub decimals: usize,
    /// How much it looks like a mileage, 0-1.
    pub weight: f32,
    /// The unit beside it.
    pub unit: Option<Unit>,
}

/// Fewest and most digits of a mileage: a car of under 1,000 km shows leading zeros or earns nothing yet.
pub(crate) const DIGITS: std::ops::RangeInclusive<usize> = 4..=7;

/// A run of digits as written.
struct Run {
    groups: Vec<Vec<usize>>,
    decimals: usize,
    before: Option<char>,
    after: String,
}

/// The numbers of one line, weighed by their form alone.
pub(crate) fn numbers(line: usize, glyphs: &[Glyph]) -> Vec<Number> {
    let runs = runs(glyphs);
    let number = |run: &Run| {
        let digits: Vec<usize> = run.groups.concat();
        let text: String = digits.iter().map(|index| glyphs[*index].character).collect();
        let weight = form(run, glyphs, digits.len());
        let unit = unit(&run.after);
        let separated = |pair: &[usize]| !(pair[0] + 1..pair[1]).all(|index| glyphs[index].character == ' ');
        let plain = run.decimals == 0 && !digits.windows(2).any(separated);
        let possible = DIGITS.contains(&digits.len()) && weight > 0.0;
        possible.then_some(Number { line, digits, text, plain, decimals: run.decimals, weight, unit })
    };
    let wheels: Vec<Run> = runs.iter().filter_map(|run| wheels(run, glyphs)).collect();
    runs.iter().chain(&wheels).filter_map(number).collect()
}

/// The wheels of a run that numbers of the speed scale have run into: the longest even stretch, where what stands beyond each
/// of its ends is closer in itself. A single digit beyond a gap is another matter: a wheel between was not read.
fn wheels(run: &Run, glyphs: &[Glyph]) -> Option<Run> {
    let digits: Vec<usize> = run.groups.concat();
    let gaps: Vec<f32> = digits.windows(2).map(|pair| glyphs[pair[1]].at - glyphs[pair[0]].at).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f32::total_cmp);
    let usual = *sorted.get(sorted.len() / 2)?;
    let mut best = 0..1;
    let mut from = 0;
    for (index, gap) in gaps.iter().enumerate() {
        if !(0.7 * usual..1.45 * usual).contains(gap) {
            from = index + 1;
        }
        if index + 2 - from > best.len() {
            best = from..index + 2;
        }
    }
    let closer = |rest: &[usize]| rest.is_empty() || (rest.len() >= 2 && pitch(glyphs, rest) < 0.75 * usual);
    let alone = best.len() < digits.len() && closer(&digits[..best.start]) && closer(&digits[best.end..]);
    let last = best.end == digits.len();
    (alone && DIGITS.contains(&best.len())).then(|| Run {
        groups: vec![digits[best.clone()].to_vec()],
        decimals: if last { run.decimals } else { 0 },
        before: run.before.filter(|_| best.start == 0),
        after: if last { run.after.clone() } else { String::new() },
    })
}

/// Splits a line into runs of digits. A separator with three digits behind it joins (`128 456`, `128,456`); wheels that
/// stand apart come as digits with spaces between and join as well.
fn runs(glyphs: &[Glyph]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < glyphs.len() {
        if !glyphs[at].character.is_ascii_digit() {
            at += 1;
            continue;
        }
        let before = at.checked_sub(1).map(|index| glyphs[index].character);
        let mut groups = vec![digits_from(glyphs, at)];
        let mut end = at + groups[0].len();
        while let Some(next) = joined(glyphs, &groups, end) {
            end = next.last().map_or(end, |last| last + 1);
            groups.push(next);
        }
        let mut decimals = 0;
        if matches!(glyphs.get(end), Some(point) if ".,".contains(point.character)) {
            decimals = digits_from(glyphs, end + 1).len();
            end += if decimals > 0 { 1 + decimals } else { 0 };
        }
        let after = glyphs[end..].iter().map(|glyph| glyph.character).collect();
        runs.push(Run { groups, decimals, before, after });
        at = end;
    }
    runs
}

fn digits_from(glyphs: &[Glyph], at: usize) -> Vec<usize> {
    (at..glyphs.len()).take_while(|index| glyphs[*index].character.is_ascii_digit()).collect()
}

/// The group behind a separator at `end`, where it belongs to the same number.
fn joined(glyphs: &[Glyph], groups: &[Vec<usize>], end: usize) -> Option<Vec<usize>> {
    let separator = glyphs.get(end)?.character;
    let next = digits_from(glyphs, end + 1);
    let thousands =
        next.len() == 3 && groups[0].len() <= 3 && groups[1..].iter().all(|group| group.len() == 3);
    let wheels =
        separator == ' ' && next.len() + groups.concat().len() <= *DIGITS.end() && close(glyphs, end);
    let joins = !next.is_empty() && ((" ,.'".contains(separator) && thousands) || wheels);
    joins.then_some(next)
}

/// Whether the digits around a space stand as near as wheels do: no further than 1.7 times the line's usual pitch.
fn close(glyphs: &[Glyph], space: usize) -> bool {
    let digits: Vec<f32> =
        glyphs.iter().filter(|glyph| glyph.character.is_ascii_digit()).map(|glyph| glyph.at).collect();
    let mut pitches: Vec<f32> = digits.windows(2).map(|pair| pair[1] - pair[0]).collect();
    pitches.sort_by(f32::total_cmp);
    let usual = pitches.get(pitches.len() / 2).copied().unwrap_or_default();
    let (Some(left), Some(right)) = (space.checked_sub(1), glyphs.get(space + 1)) else {
        return false;
    };
    right.at - glyphs[left].at <= 1.7 * usual
}

/// How much a run looks like a mileage by its form, 0-1; 0 for what cannot be one.
fn form(run: &Run, glyphs: &[Glyph], digits: usize) -> f32 {
    let after = run.after.trim_start().to_ascii_lowercase();
    let clock = run.before == Some(':') || run.after.starts_with(':');
    let ratio = matches!(run.before, Some('/' | '-' | 'x' | 'X')) || run.after.starts_with('/');
    let speed = ["km/h", "kmh", "mph", "mi/h", "rpm"].iter().any(|unit| after.starts_with(unit));
    let degrees = after.starts_with(['°', '℃', '%']);
    if clock || ratio || speed || degrees || run.before == Some('.') {
        return 0.0;
    }
    // Four are more often a trip meter whose point was not seen: accepted only beside a unit and a word for the total.
    let by_length = match digits {
        4 => 0.3,
        5 => 0.9,
        6 => 1.0,
        _ => 0.6,
    };
    // One decimal behind five digits is an odometer with tenths; behind four it is nearly always a trip meter.
    let by_decimals = match (run.decimals, digits) {
        (0, _) => 1.0,
        (1, 5..) => 0.8,
        _ => 0.1,
    };
    let by_scale = if is_scale(run, glyphs) { 0.05 } else { 1.0 };
    let by_pitch = if even(run, glyphs) { 1.0 } else { 0.4 };
    by_length * by_decimals * by_scale * by_pitch
}

/// Whether the digits of each group stand evenly: a gap of 1.7 times the usual is a digit that was not read, or the seam of
/// two numbers.
fn even(run: &Run, glyphs: &[Glyph]) -> bool {
    let place = |index: &usize| glyphs[*index].at;
    evenly(run.groups.iter().map(|group| group.iter().map(place).collect()))
}

/// Whether places stand evenly within their groups.
fn evenly(groups: impl Iterator<Item = Vec<f32>>) -> bool {
    let mut gaps: Vec<f32> =
        groups.flat_map(|group| group.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>()).collect();
    gaps.sort_by(f32::total_cmp);
    let usual = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    gaps.last().is_none_or(|widest| *widest <= 1.7 * usual)
}

/// The digits of a line that is nothing but evenly standing digits, as a row of wheels is.
pub(crate) fn row(glyphs: &[Glyph]) -> Option<String> {
    let ink = || glyphs.iter().filter(|glyph| glyph.character != ' ');
    let row = ink().all(|glyph| glyph.character.is_ascii_digit())
        && evenly(std::iter::once(ink().map(|glyph| glyph.at).collect()));
    row.then(|| ink().map(|glyph| glyph.character).collect())
}

/// Whether the digits of `glyphs` hold the number `known` and beyond its ends only digits at its own distance: a number of
/// the speed scale stands closer in itself.
pub(crate) fn extends(known: &str, glyphs: &[Glyph], digits: &[usize]) -> bool {
    let text: String = digits.iter().map(|index| glyphs[*index].character).collect();
    let Some(first) = text.find(known).filter(|_| known.len() > 1 && text.len() > known.len()) else {
        return false;
    };
    let last = first + known.len() - 1;
    let gaps: Vec<f32> = digits.windows(2).map(|pair| glyphs[pair[1]].at - glyphs[pair[0]].at).collect();
    let usual = pitch(glyphs, &digits[first..=last]);
    let beyond = gaps[..first].iter().chain(&gaps[last..]);
    beyond.copied().all(|gap| (0.75 * usual..1.5 * usual).contains(&gap))
}

/// The mean distance of neighbouring digits among these, in widths of the strip; 0 for fewer than two.
pub(crate) fn pitch(glyphs: &[Glyph], digits: &[usize]) -> f32 {
    match digits {
        [first, .., last] => (glyphs[*last].at - glyphs[*first].at) / (digits.len() - 1) as f32,
        _ => 0.0,
    }
}

/// Neighbouring numbers of a speed scale (`120 140`): an arithmetic series in steps of tens. Where the space was not read
/// (`100120`), a number that splits into two such neighbours counts as well: of true mileages one in 3,000 does.
fn is_scale(run: &Run, glyphs: &[Glyph]) -> bool {
    let value = |group: &[usize]| {
        group.iter().fold(0i64, |sum, index| sum * 10 + i64::from(glyphs[*index].character as u8 - b'0'))
    };
    match run.groups.as_slice() {
        [group] => {
            let (left, right) = group.split_at(group.len() / 2);
            matches!(group.len(), 4..=6) && left.len() >= 2 && is_series(&[value(left), value(right)])
        }
        groups => is_series(&groups.iter().map(|group| value(group)).collect::<Vec<_>>()),
    }
}

fn is_series(values: &[i64]) -> bool {
    let steps: Vec<i64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let even = |step: &i64| *step == steps[0] && (10..=50).contains(&step.abs()) && step % 10 == 0;
    !steps.is_empty() && values.iter().all(|value| value % 10 == 0) && steps.iter().all(even)
}

/// The unit that a text begins with.
pub(crate) fn unit(text: &str) -> Option<Unit> {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect::<String>()
        .to_ascii_lowercase();
    match word.as_str() {
        "km" | "kms" | "kilometers" | "kilometres" => Some(Unit::Km),
        "mi" | "mls" | "mile" | "miles" => Some(Unit::Miles),
        _ => None,
    }
}

/// The unit that a whole line is.
pub(crate) fn unit_line(text: &str) -> Option<Unit> {
    let letters: String = text.chars().filter(|c| !c.is_whitespace() && !".:()".contains(*c)).collect();
    let unit = unit(&letters)?;
    letters.chars().all(|c| c.is_ascii_alphabetic()).then_some(unit)
}

/// What a word beside a number says about it.
fn word_weight(text: &str) -> f32 {
    let text = text.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if has(&["TRIP", "RANGE", "DTE", "SERVICE", "AVG", "RPM", "X1000"]) {
        0.15
    } else if has(&["ODO", "TOTAL", "MILEAGE"]) {
        1.5
    } else {
        1.0
    }
}

/// All numbers that may be the mileage, weighed by form, size and what stands beside them; best first.
pub(crate) fn candidates(lines: &[Read], texts: &[String]) -> Vec<Number> {
    let mut all: Vec<Number> =
        lines.iter().enumerate().flat_map(|(index, line)| numbers(index, &line.glyphs)).collect();
    let tallest = all.iter().map(|number| height(&lines[number.line].quad)).fold(1.0, f32::max);
    for number in &mut all {
        let quad = &lines[number.line].quad;
        let own = word_weight(&texts[number.line]);
        let beside =
            (0..lines.len()).filter(|other| *other != number.line && near(quad, &lines[*other].quad));
        let (mut word, mut unit) = (own, number.unit);
        for other in beside {
            // Its own words outweigh a neighbour's: "ODO 123456" above "TRIP 12.3".
            if (own - 1.0).abs() < f32::EPSILON && !texts[other].chars().any(|c| c.is_ascii_digit()) {
                word *= word_weight(&texts[other]);
            }
            unit = unit.or_else(|| unit_line(&texts[other]));
        }
        let size = 0.5 + 0.5 * height(quad) / tallest;
        let unit_weight = if unit.is_some() { 1.3 } else { 1.0 };
        number.unit = unit;
        let dashboard = if elsewhere(lines, number.line) { ELSEWHERE } else { 1.0 };
        number.weight = (number.weight * size * word * unit_weight).min(1.0) * dashboard;
    }
    all.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    all
}

/// Whether a word stands beside a number: within two heights left or right of it, or one above or below.
fn near(number: &Quad, word: &Quad) -> bool {
    let (aside, across) = between(number, word);
    aligned(number, word) || (across < height(number) && aside < 0.0)
}

/// Whether a word stands in the number's own row, within two heights left or right of it.
pub(crate) fn aligned(number: &Quad, word: &Quad) -> bool {
    let (aside, across) = between(number, word);
    let tall = height(number);
    aside < 2.0 * tall && across < -0.3 * height(word).min(tall)
}

/// The room between two lines along and across the first; negative where they overlap. Pixels.
fn between(number: &Quad, word: &Quad) -> (f32, f32) {
    let (along, down) = axes(number);
    let (a, b) = (centre(number), centre(word));
    let apart = [b[0] - a[0], b[1] - a[1]];
    let across = (apart[0] * down[0] + apart[1] * down[1]).abs() - (height(number) + height(word)) / 2.0;
    let aside = (apart[0] * along[0] + apart[1] * along[1]).abs() - (width(number) + width(word)) / 2.0;
    (aside, across)
}

#[cfg(test)]
mod tests;
