//! The wheel of tenths: distinguished from the others by its colours.

use crate::{crop::Strip, recognise::Glyph, select::pitch};

/// Least distance of the last cell's paper from the others', in RGB: black to white is 300 in daylight, black to red 150, and
/// 60 is left of it in a dark photo.
const PAPER: f32 = 45.0;
/// The last cell stands out when it is this many times as far from the usual as any other.
const OUTSTANDING: f32 = 2.2;
/// Least excess of red over the others' in the ink; a white digit in warm light has 20.
const RED: f32 = 60.0;

/// Least distance of digits, in heights of the strip, from which they stand on wheels, with room around them.
const WHEELS: f32 = 0.6;

/// A wheel's colours.
struct Cell {
    /// The median above and below the digit.
    paper: [f32; 3],
    /// The median around the digit: the paper as well where the digit leaves most of the cell free.
    most: [f32; 3],
    /// The mean of the tenth of the pixels that differs most from the paper.
    ink: [f32; 3],
}

/// Whether the last digit stands in a cell of other colours than all before it: white on a black drum, black on white, or
/// red. `digits` are indices into `glyphs`, which were read from `strip`.
pub(crate) fn last_is_tenths(strip: &Strip, glyphs: &[Glyph], digits: &[usize]) -> bool {
    let pitch = pitch(glyphs, digits);
    let cells: Vec<Cell> =
        digits.iter().filter_map(|index| cell(strip, glyphs[*index].at, pitch * 0.45)).collect();
    let [others @ .., tenths] = cells.as_slice() else { return false };
    if others.is_empty() || others.len() + 1 != digits.len() {
        return false;
    }
    let usual = |of: fn(&Cell) -> [f32; 3]| -> [f32; 3] {
        std::array::from_fn(|channel| {
            others.iter().map(|cell| of(cell)[channel]).sum::<f32>() / others.len() as f32
        })
    };
    let other_paper = |of: fn(&Cell) -> [f32; 3]| {
        let usual = usual(of);
        let spread = others.iter().map(|cell| distance(of(cell), usual)).fold(0.0, f32::max);
        let apart = distance(of(tenths), usual);
        apart > PAPER && apart > OUTSTANDING * spread
    };
    let wheels = pitch * strip.width as f32 > WHEELS * strip.height as f32;
    let redness = |[red, green, blue]: [f32; 3]| red - f32::midpoint(green, blue);
    other_paper(|cell| cell.paper)
        || (wheels && other_paper(|cell| cell.most))
        || redness(tenths.ink) - redness(usual(|cell| cell.ink)) > RED
}

fn distance(a: [f32; 3], b: [f32; 3]) -> f32 {
    (0..3).map(|channel| (a[channel] - b[channel]).powi(2)).sum::<f32>().sqrt()
}

/// The colours around a digit.
fn cell(strip: &Strip, at: f32, half: f32) -> Option<Cell> {
    let column = |share: f32| (share * strip.width as f32).clamp(0.0, strip.width as f32) as usize;
    let columns = column(at - half)..column(at + half);
    let part = |from: usize, to: usize| {
        let rows = strip.height * from / 100..strip.height * to / 100;
        rows.flat_map(|row| strip.pixels[row * strip.width..][columns.clone()].iter().copied())
    };
    // Just above and below the digit, where a wheel shows its paper and a display its ground. Between the digits would not
    // do: those of a narrow typeface fill their cells.
    let mut edges: Vec<[f32; 3]> = part(8, 17).chain(part(83, 92)).collect();
    let mut middle: Vec<[f32; 3]> = part(20, 80).collect();
    if edges.is_empty() || middle.is_empty() {
        return None;
    }
    let (paper, most) = (median(&mut edges), median(&mut middle));
    let tenth = middle.len() / 10;
    middle.select_nth_unstable_by(tenth, |a, b| distance(*b, paper).total_cmp(&distance(*a, paper)));
    let far = &middle[..tenth.max(1)];
    let ink =
        std::array::from_fn(|channel| far.iter().map(|pixel| pixel[channel]).sum::<f32>() / far.len() as f32);
    Some(Cell { paper, most, ink })
}

/// The median of each channel; of at least one pixel.
fn median(pixels: &mut [[f32; 3]]) -> [f32; 3] {
    let middle = pixels.len() / 2;
    std::array::from_fn(|channel| {
        pixels.select_nth_unstable_by(middle, |a, b| a[channel].total_cmp(&b[channel])).1[channel]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wheels of 30 x 48 pixels with a bar for a digit: `paper` and `ink` of each.
    fn drum(colours: &[([f32; 3], [f32; 3])]) -> (Strip, Vec<Glyph>) {
        let width = colours.len() * 30;
        let pixel = |index: usize| {
            let (x, (paper, ink)) = (index % width % 30, colours[index % width / 30]);
            if (10..20).contains(&x) { ink } else { paper }
        };
        let glyph = |index| Glyph {
            character: '1',
            at: (index as f32 + 0.5) / colours.len() as f32,
            probability: 1.0,
        };
        let strip = Strip { width, height: 48, pixels: (0..width * 48).map(pixel).collect() };
        (strip, (0..colours.len()).map(glyph).collect())
    }

    fn last(colours: &[([f32; 3], [f32; 3])]) -> bool {
        let (strip, glyphs) = drum(colours);
        last_is_tenths(&strip, &glyphs, &(0..colours.len()).collect::<Vec<_>>())
    }

    const BLACK: [f32; 3] = [20.0; 3];
    const WHITE: [f32; 3] = [220.0; 3];
    const RED_INK: [f32; 3] = [180.0, 30.0, 30.0];

    #[test]
    fn a_last_wheel_of_other_paper_or_red_ink_is_tenths() {
        for odd in [(WHITE, BLACK), (RED_INK, WHITE), (BLACK, RED_INK)] {
            let mut colours = vec![(BLACK, WHITE); 5];
            colours.push(odd);
            assert!(last(&colours), "{odd:?}");
        }
    }

    #[test]
    fn equal_wheels_have_no_tenths_and_neither_has_a_drum_that_gets_darker() {
        assert!(!last(&[(BLACK, WHITE); 6]));
        let fading: Vec<_> = (0..6).map(|i| ([90.0 - 14.0 * i as f32; 3], WHITE)).collect();
        assert!(!last(&fading));
    }
}
