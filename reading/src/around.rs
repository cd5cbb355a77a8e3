//! What the stock networks see around a line that others found: they look for its ends themselves.

use image::{Rgb, RgbImage};

use crate::{
    crop::{Strip, fitted, strip},
    detect::detect,
    geometry::{Quad, axes, centre, grow, height, spanned, width},
    network::{Network, NetworkError, Thread},
    recognise::{Glyph, ROWS, WIDEST},
    select::unit,
};

/// Room around a line that the detector sees, beyond its ends and above and below, in its heights.
const ROOM: (f32, f32) = (2.5, 1.5);
/// Rows of the detector's picture: with that room, digits are 32 pixels high, which it finds best; and half as high, where wheels
/// that stand far apart become one line.
pub(crate) const TALL: [usize; 2] = [128, 64];
/// The picture's least and most columns.
const WIDE: (usize, usize) = (64, 768);
/// How far the middle of a box may lie above or below the line's, and how high it may be, in heights of the line.
const LEVEL: f32 = 0.4;
const HEIGHTS: std::ops::Range<f32> = 0.45..2.2;
/// The most room between two boxes of one row, in distances of digits.
const BESIDE: f32 = 1.1;
/// Distances between the digits of one number, in usual ones. A colon or a gap is wider.
const NEXT: std::ops::Range<f32> = 0.45..1.6;
/// From which probability on a digit beyond the known ones counts.
const SEEN: f32 = 0.35;

/// What the recogniser reads on the row of boxes that the detector finds where a line is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// The digits of the number, from its first to its last.
    pub digits: String,
    /// The probability of the least sure of them, 0-1.
    pub sure: f32,
    /// Whether another character stands among them: a colon, a letter.
    pub other: bool,
    /// Digits that stand before the line's first and behind its last, as the line was given.
    pub beyond: (usize, usize),
    /// The unit behind the number.
    pub unit: Option<schemas::events::Unit>,
}

/// The row of boxes around a line: one quad from the first box to the last; none where the detector finds no text.
pub(crate) fn row(
    detector: &Network,
    picture: &RgbImage,
    (line, pitch, rows): (&Quad, f32, usize),
    thread: &Thread,
) -> Result<Option<Quad>, NetworkError> {
    let tall = height(line);
    let part = grow(line, ROOM.0 * tall, ROOM.0 * tall, ROOM.1 * tall);
    let columns = (width(&part) * rows as f32 / height(&part).max(1.0)).round() as usize;
    let columns = columns.next_multiple_of(32).clamp(WIDE.0, WIDE.1);
    let cut = pixels(&fitted(picture, &part, rows, columns));
    let (x, y) = (width(&part) / columns as f32, height(&part) / rows as f32);
    // Boxes from the line's middle, along it and down, in pixels of the photo.
    let middle = [columns as f32 / 2.0, rows as f32 / 2.0];
    let mut boxes: Vec<(f32, f32, Quad)> = Vec::new();
    for quad in detect(detector, &cut, columns as u32, thread)? {
        let quad = quad.map(|[a, b]| [(a - middle[0]) * x, (b - middle[1]) * y]);
        let [_, down] = centre(&quad);
        if down.abs() <= LEVEL * tall && HEIGHTS.contains(&(height(&quad) / tall)) {
            let along = || quad.iter().map(|point| point[0]);
            boxes.push((along().fold(f32::MAX, f32::min), along().fold(f32::MIN, f32::max), quad));
        }
    }
    boxes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = width(line) / 2.0;
    let Some(chosen) = joined(&boxes, half, BESIDE * pitch) else { return Ok(None) };
    let ((right, below), at) = (axes(line), centre(line));
    let placed =
        |[a, d]: [f32; 2]| [at[0] + right[0] * a + below[0] * d, at[1] + right[1] * a + below[1] * d];
    Ok(Some(match chosen {
        [(.., quad)] => quad.map(placed),
        several => {
            let corners: Vec<[f32; 2]> = several.iter().flat_map(|(.., quad)| quad.map(placed)).collect();
            spanned(&corners, right)
        }
    }))
}

/// The boxes that touch the span around zero, with those beside them; each is its first and last place and its quad. Sorted.
fn joined(boxes: &[(f32, f32, Quad)], half: f32, beside: f32) -> Option<&[(f32, f32, Quad)]> {
    let first = boxes.iter().position(|(left, right, _)| *right > -half && *left < half)?;
    let (mut from, mut to) = (first, first + 1);
    while from > 0 && boxes[from].0 - boxes[from - 1].1 < beside {
        from -= 1;
    }
    let mut end = boxes[first].1;
    while let Some(next) = boxes.get(to).filter(|next| next.0 - end < beside) {
        end = end.max(next.1);
        to += 1;
    }
    Some(&boxes[from..to])
}

fn pixels(strip: &Strip) -> RgbImage {
    let pixel = |x: u32, y: u32| {
        Rgb(strip.pixels[y as usize * strip.width + x as usize].map(|value| value.round() as u8))
    };
    RgbImage::from_fn(strip.width as u32, strip.height as u32, pixel)
}

/// The number of a row at the place of a line: the digits within the line's span, and those beyond its ends at the same distance.
pub(crate) fn number(row: &Quad, glyphs: &[Glyph], line: &Quad, pitch: f32) -> Row {
    let ((along, _), from, to) = (axes(line), centre(line), centre(row));
    let offset = (to[0] - from[0]) * along[0] + (to[1] - from[1]) * along[1];
    let place = |glyph: &Glyph| (offset + (glyph.at - 0.5) * width(row)) / pitch.max(1.0);
    let half = width(line) / 2.0 / pitch.max(1.0);
    let is_digit = |index: &usize| glyphs[*index].character.is_ascii_digit();
    let digits: Vec<usize> = (0..glyphs.len()).filter(is_digit).collect();
    let inside = |index: &&usize| place(&glyphs[**index]).abs() <= half;
    let (Some(first), Some(last)) =
        (digits.iter().position(|index| inside(&index)), digits.iter().rposition(|index| inside(&index)))
    else {
        return Row::default();
    };
    let plain =
        |from: usize, to: usize| glyphs[from + 1..to].iter().all(|glyph| " .,'".contains(glyph.character));
    let next = |left: usize, right: usize| {
        NEXT.contains(&(place(&glyphs[right]) - place(&glyphs[left]))) && plain(left, right)
    };
    let seen = |index: usize| glyphs[index].probability >= SEEN;
    let (mut from, mut to) = (first, last);
    while from > 0 && next(digits[from - 1], digits[from]) && seen(digits[from - 1]) {
        from -= 1;
    }
    while to + 1 < digits.len() && next(digits[to], digits[to + 1]) && seen(digits[to + 1]) {
        to += 1;
    }
    let all = &digits[from..=to];
    let after: String = glyphs[digits[to] + 1..].iter().map(|glyph| glyph.character).collect();
    Row {
        digits: all.iter().map(|index| glyphs[*index].character).collect(),
        sure: all.iter().map(|index| glyphs[*index].probability).fold(1.0, f32::min),
        other: !all.windows(2).all(|pair| plain(pair[0], pair[1])),
        beyond: (first - from, to - last),
        unit: unit(&after),
    }
}

/// The strip of a row that the recogniser reads.
pub(crate) fn strip_of(picture: &RgbImage, row: &Quad) -> Strip {
    strip(picture, row, ROWS, 1.0, WIDEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of characters that stand 20 pixels apart, the first around 10.
    fn glyphs(text: &str) -> (Quad, Vec<Glyph>) {
        let count = text.chars().count();
        let glyph = |(index, character)| Glyph {
            character,
            at: (index as f32 + 0.5) / count as f32,
            probability: 0.9,
        };
        let right = 20.0 * count as f32;
        (
            [[0.0, 0.0], [right, 0.0], [right, 30.0], [0.0, 30.0]],
            text.chars().enumerate().map(glyph).collect(),
        )
    }

    /// The number of such a row at a line from one place to another.
    fn seen(text: &str, from: f32, to: f32) -> Row {
        let (quad, glyphs) = glyphs(text);
        number(&quad, &glyphs, &[[from, 3.0], [to, 3.0], [to, 27.0], [from, 27.0]], 20.0)
    }

    #[test]
    fn digits_beyond_a_lines_ends_at_its_own_distance_belong_to_its_number() {
        let cut = seen("545773km", 20.0, 120.0);
        assert_eq!((cut.digits.as_str(), cut.beyond), ("545773", (1, 0)));
        assert_eq!((cut.sure, cut.other, cut.unit), (0.9, false, Some(schemas::events::Unit::Km)));
        assert_eq!(seen("545773", 0.0, 100.0).beyond, (0, 1));
        assert_eq!(seen("545773", 0.0, 120.0).beyond, (0, 0));
    }

    #[test]
    fn what_stands_apart_or_behind_a_colon_is_another_number_and_a_letter_within_is_reported() {
        assert_eq!(seen("10 45773", 60.0, 160.0).digits, "45773");
        assert_eq!(seen("1:45773", 40.0, 140.0).digits, "45773");
        assert!(seen("45k73", 0.0, 100.0).other && !seen("457.3", 0.0, 100.0).other);
        assert_eq!(seen("km/h", 0.0, 80.0).digits, "");
    }

    #[test]
    fn boxes_beside_each_other_make_a_row_and_one_further_away_does_not_belong_to_it() {
        let at =
            |left: f32, right: f32| (left, right, [[left, 0.0], [right, 0.0], [right, 9.0], [left, 9.0]]);
        let boxes = [at(-200.0, -150.0), at(-60.0, -20.0), at(-10.0, 40.0), at(55.0, 70.0)];
        assert_eq!(joined(&boxes, 50.0, 22.0).map(<[_]>::len), Some(3));
        assert_eq!(joined(&boxes, 50.0, 12.0).map(<[_]>::len), Some(2));
        assert!(joined(&boxes[..1], 50.0, 22.0).is_none());
    }
}
