//! Joins what the detector took apart: a quarter of all drums comes as one box a wheel.

use crate::{
    geometry::{Point, Quad, axes, distance, grow, height, spanned, width},
    select::Read,
};

/// How far the next digit may be, in heights of a box: wheels stand 0.7 apart; a wheel that was not found leaves twice that.
const REACH: f32 = 1.6;
/// How far the next digit may lie above or below, in heights of a box.
const OFFSET: f32 = 0.3;
/// How much taller or lower the next box may be: a wheel in mid-roll makes its box taller, one found by half lower.
const TALLER: f32 = 2.2;
/// The least and most distance of neighbours, in median distances. The most leaves room for one wheel that was not found.
const PITCH: std::ops::RangeInclusive<f32> = 0.7..=2.2;
/// Room beyond the first and last digit, in heights of the row: the network overlooks a digit that touches the edge.
const ROOM: f32 = 0.35;
/// Fewer digits in a row are no odometer taken apart.
const FEWEST: usize = 3;

/// A line of digits, and where its digits stand in the picture.
struct Piece {
    quad: Quad,
    digits: Vec<Point>,
}

/// The quads of rows of digits that stand in two or more lines.
pub(crate) fn sequences(lines: &[Read]) -> Vec<Quad> {
    let mut pieces: Vec<Piece> = lines.iter().filter_map(piece).collect();
    pieces.sort_by(|a, b| a.digits[0][0].total_cmp(&b.digits[0][0]));
    let mut used = vec![false; pieces.len()];
    let mut quads = Vec::new();
    for start in 0..pieces.len() {
        if used[start] {
            continue;
        }
        let mut row = vec![start];
        while let Some(next) =
            row.last().and_then(|last| follower(&pieces, *last)).filter(|next| !used[*next])
        {
            row.push(next);
        }
        let row = regular(&pieces, &row);
        let digits: usize = row.iter().map(|index| pieces[*index].digits.len()).sum();
        if row.len() >= 2 && digits >= FEWEST {
            row.iter().for_each(|index| used[*index] = true);
            quads.extend(around(&pieces, row));
        }
    }
    quads
}

/// A line as a piece of a row: nothing but digits, or a box no wider than one digit, whatever is read in it, since a lone
/// digit is often misread.
fn piece(line: &Read) -> Option<Piece> {
    let glyphs: Vec<_> = line.glyphs.iter().filter(|glyph| glyph.character != ' ').collect();
    let lone = glyphs.len() <= 1 && width(&line.quad) < 1.4 * height(&line.quad);
    if !lone && (glyphs.is_empty() || !glyphs.iter().all(|glyph| glyph.character.is_ascii_digit())) {
        return None;
    }
    let quad = line.quad;
    let middle = |at: f32| {
        let top = [quad[0][0] + (quad[1][0] - quad[0][0]) * at, quad[0][1] + (quad[1][1] - quad[0][1]) * at];
        let low = [quad[3][0] + (quad[2][0] - quad[3][0]) * at, quad[3][1] + (quad[2][1] - quad[3][1]) * at];
        [(top[0] + low[0]) / 2.0, (top[1] + low[1]) / 2.0]
    };
    // A lone digit fills its box: the peak of its probability may lie at an edge, the box's middle does not.
    let digits = if lone { vec![middle(0.5)] } else { glyphs.iter().map(|glyph| middle(glyph.at)).collect() };
    Some(Piece { quad, digits })
}

/// The nearest piece to the right that may belong to the same row.
fn follower(pieces: &[Piece], index: usize) -> Option<usize> {
    let piece = &pieces[index];
    let last = *piece.digits.last()?;
    let tall = height(&piece.quad);
    let (along, down) = axes(&piece.quad);
    let fits = |other: &Piece| {
        let apart = [other.digits[0][0] - last[0], other.digits[0][1] - last[1]];
        let ahead = apart[0] * along[0] + apart[1] * along[1];
        let aside = (apart[0] * down[0] + apart[1] * down[1]).abs();
        let ratio = height(&other.quad) / tall.max(1.0);
        let fits = ahead > 0.1 * tall
            && ahead < REACH * tall
            && aside < OFFSET * tall
            && (1.0 / TALLER..TALLER).contains(&ratio);
        fits.then_some(ahead)
    };
    let ahead = pieces.iter().enumerate().filter(|(other, _)| *other != index);
    ahead
        .filter_map(|(other, piece)| Some((other, fits(piece)?)))
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(i, _)| i)
}

/// The longest stretch of a row whose digits stand evenly: a number of the speed scale beside the drum stands closer in
/// itself and further from it.
fn regular<'a>(pieces: &[Piece], row: &'a [usize]) -> &'a [usize] {
    let digits: Vec<(usize, Point)> = row
        .iter()
        .enumerate()
        .flat_map(|(at, index)| pieces[*index].digits.iter().map(move |d| (at, *d)))
        .collect();
    let mut pitches: Vec<f32> = digits.windows(2).map(|pair| distance(pair[0].1, pair[1].1)).collect();
    let gaps = pitches.clone();
    pitches.sort_by(f32::total_cmp);
    let Some(usual) = pitches.get(pitches.len() / 2).copied() else {
        return row;
    };
    let mut best = 0..0;
    let mut from = 0;
    for (index, gap) in gaps.iter().enumerate() {
        let ((left, _), (right, _)) = (digits[index], digits[index + 1]);
        if !PITCH.contains(&(gap / usual)) {
            // An uneven piece ends the stretch before it and belongs to none itself.
            from = if left == right { right + 1 } else { right };
        }
        if from <= right && right + 1 - from > best.len() {
            best = from..right + 1;
        }
    }
    &row[best]
}

/// The rectangle around a row's boxes, along the line from its first digit to its last.
fn around(pieces: &[Piece], row: &[usize]) -> Option<Quad> {
    let (first, last) = (pieces.get(*row.first()?)?, pieces.get(*row.last()?)?);
    let (from, to) = (*first.digits.first()?, *last.digits.last()?);
    let length = distance(from, to);
    let along = [(to[0] - from[0]) / length, (to[1] - from[1]) / length];
    let corners: Vec<Point> = row.iter().flat_map(|index| pieces[*index].quad).collect();
    let quad = (length > 0.0).then(|| spanned(&corners, along))?;
    let room = ROOM * height(&quad);
    Some(grow(&quad, room, room, 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recognise::Glyph;

    fn line(text: &str, left: f32, top: f32, width: f32) -> Read {
        let count = text.len() as f32;
        let glyph =
            |(index, character)| Glyph { character, at: (index as f32 + 0.5) / count, probability: 1.0 };
        let (right, bottom) = (left + width, top + 40.0);
        Read {
            quad: [[left, top], [right, top], [right, bottom], [left, bottom]],
            glyphs: text.chars().enumerate().map(glyph).collect(),
        }
    }

    #[test]
    fn wheels_in_boxes_of_their_own_become_one_row() {
        let wheels = ["1", "4", "3", "4", "I", "2"];
        let lines: Vec<Read> = wheels
            .iter()
            .enumerate()
            .map(|(i, text)| line(text, 100.0 + 28.0 * i as f32, 50.0, 20.0))
            .collect();
        assert_eq!(sequences(&lines), [[[86.0, 50.0], [274.0, 50.0], [274.0, 90.0], [86.0, 90.0]]]);
    }

    #[test]
    fn a_number_of_the_scale_beside_the_wheels_stays_out() {
        let mut lines: Vec<Read> = (0..5).map(|i| line("7", 100.0 + 28.0 * i as f32, 50.0, 20.0)).collect();
        lines.push(line("10", 50.0, 50.0, 26.0));
        assert_eq!(sequences(&lines), [[[86.0, 50.0], [246.0, 50.0], [246.0, 90.0], [86.0, 90.0]]]);
    }

    #[test]
    fn words_and_lone_numbers_make_no_row() {
        assert!(sequences(&[line("123456", 0.0, 0.0, 120.0)]).is_empty());
        assert!(sequences(&[line("km", 0.0, 0.0, 20.0), line("1", 25.0, 0.0, 20.0)]).is_empty());
    }
}
