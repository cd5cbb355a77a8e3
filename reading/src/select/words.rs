//! Words that tell a number on a receipt, a label or paper from one on a dashboard.

use super::{Read, aligned};
use crate::{geometry::height, recognise::Glyph};

/// Words that stand on dashboards beside the mileage, in the languages of most cars. A radio's names, dates and menus may be any
/// words, so no list of them would do: they count only where a receipt has them.
const DASHBOARD: &[&str] = &[
    "ODO",
    "ODOMETER",
    "ODOMETRO",
    "TOTAL",
    "TOTALE",
    "TOPLAM",
    "GESAMT",
    "MILEAGE",
    "DIST",
    "DISTANCE",
    "KMS",
    "MLS",
    "MILE",
    "MILES",
    "KILOMETERS",
    "KILOMETRES",
    "KMH",
    "MPH",
    "RPM",
    "TRIP",
    "TRIPA",
    "TRIPB",
    "RANGE",
    "DTE",
    "SERVICE",
    "AVG",
    "MIN",
    "ECO",
    "SPORT",
    "NORMAL",
    "COMFORT",
    "DRIVE",
    "READY",
    "FUEL",
    "OIL",
    "TEMP",
    "ENGINE",
    "CHECK",
    "BATTERY",
    "CHARGE",
    "POWER",
    "CRUISE",
    "LIMIT",
    "AUTO",
    "HOLD",
    "PARK",
    "BRAKE",
    "ABS",
    "AIRBAG",
    "BELT",
    "DOOR",
    "OPEN",
    "LIGHTS",
    "TYRE",
    "TIRE",
    "PRESSURE",
    "OUTSIDE",
    "TIME",
    "MPG",
    "KWH",
    "PRND",
    "RESET",
    "MENU",
    "OFF",
];
/// So many words of about the number's own size, none of them a dashboard's, are a receipt or a label.
const DOCUMENT: usize = 3;
/// Fewest letters of a word, and how surely each is read: shorter or fainter runs are gears, icons and misread digits.
const LEGIBLE: (usize, f32) = (3, 0.8);
/// How much smaller or taller than the number a word of its own text is.
const OWN_SIZE: std::ops::Range<f32> = 0.6..1.7;
/// What is left of a number's weight where its words say that it is another number, or the photo's that it is no dashboard:
/// enough to be seen by a person, never to be accepted.
pub(crate) const ELSEWHERE: f32 = 0.3;

/// Whether a line's number stands among the words of something else than a dashboard: in its own row, as a label before or
/// behind it, or in several lines of its size.
pub(crate) fn elsewhere(lines: &[Read], number: usize) -> bool {
    let quad = &lines[number].quad;
    let own_size = |line: &Read| OWN_SIZE.contains(&(height(&line.quad) / height(quad).max(1.0)));
    let others = || lines.iter().enumerate().filter(|(other, line)| *other != number && own_size(line));
    let labelled =
        others().filter(|(_, line)| aligned(quad, &line.quad)).map(|(_, line)| foreign(&line.glyphs)).sum();
    let words: usize = others().map(|(_, line)| foreign(&line.glyphs)).sum();
    foreign(&lines[number].glyphs).max(labelled) > 0 || words >= DOCUMENT
}

/// How many legible words of a line do not belong on a dashboard.
fn foreign(glyphs: &[Glyph]) -> usize {
    let words = glyphs.split(|glyph| !glyph.character.is_ascii_alphabetic());
    let legible =
        |word: &&[Glyph]| word.len() >= LEGIBLE.0 && word.iter().all(|glyph| glyph.probability >= LEGIBLE.1);
    let text =
        |word: &[Glyph]| word.iter().map(|glyph| glyph.character.to_ascii_uppercase()).collect::<String>();
    words.filter(legible).filter(|word| !DASHBOARD.contains(&text(word).as_str())).count()
}
