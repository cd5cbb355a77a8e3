//! Reads one line: PP-OCRv6's small recogniser with its head cut to ASCII, decoded by CTC.

use crate::{
    crop::Strip,
    network::{Network, NetworkError, Output, Thread},
};

/// Height of the strip that the network reads; pixels.
pub(crate) const ROWS: usize = 48;
/// The widest strip that is read; pixels. 20 times as wide as high is 40 digits.
pub(crate) const WIDEST: usize = 960;
/// The narrowest input; narrower strips are padded with mid-grey, as in training.
const NARROWEST: usize = 64;

/// A character that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Glyph {
    pub character: char,
    /// Where its peak lies along the strip, 0-1.
    pub at: f32,
    /// The network's probability of it, 0-1.
    pub probability: f32,
}

/// The characters of a network's classes; class 0 is CTC's blank.
pub(crate) struct Classes(Vec<char>);

impl Classes {
    /// One class a line, the first for the blank, whatever it is called.
    pub fn parse(text: &str) -> Self {
        Self(text.split('\n').map(|line| line.chars().next().unwrap_or(' ')).collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The characters of a strip, from left to right.
pub(crate) fn recognise(
    network: &Network,
    classes: &Classes,
    strip: &Strip,
    thread: &Thread,
) -> Result<Vec<Glyph>, NetworkError> {
    let columns = strip.width.max(NARROWEST).next_multiple_of(8);
    let output = network.run(planes(strip, columns), strip.height, columns, thread)?;
    if output.columns != classes.len() {
        return Err(NetworkError::Output);
    }
    Ok(decode(&output, classes, columns as f32 / strip.width as f32))
}

/// Blue first, each value from -1 to 1.
pub(crate) fn planes(strip: &Strip, columns: usize) -> Vec<f32> {
    let mut planes = vec![0.0; 3 * strip.height * columns];
    for (channel, plane) in planes.chunks_exact_mut(strip.height * columns).enumerate() {
        for (row, pixels) in plane.chunks_exact_mut(columns).zip(strip.pixels.chunks_exact(strip.width)) {
            for (value, pixel) in row.iter_mut().zip(pixels) {
                *value = pixel[2 - channel] / 127.5 - 1.0;
            }
        }
    }
    planes
}

/// Greedy CTC: the likeliest class of every step, repeats and blanks dropped. `padded` is input width over strip width.
fn decode(output: &Output, classes: &Classes, padded: f32) -> Vec<Glyph> {
    let mut glyphs: Vec<Glyph> = Vec::new();
    let mut last = 0;
    for (step, row) in output.values.chunks_exact(output.columns).enumerate() {
        let Some((class, probability)) = row.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))
        else {
            continue;
        };
        let at = (step as f32 + 0.5) / output.rows as f32 * padded;
        if class != 0 && class == last {
            if let Some(glyph) = glyphs.last_mut().filter(|glyph| probability > glyph.probability) {
                (glyph.at, glyph.probability) = (at, probability);
            }
        } else if class != 0 {
            glyphs.push(Glyph { character: classes.0[class], at: at.min(1.0), probability });
        }
        last = class;
    }
    glyphs
}

/// The characters as text.
pub(crate) fn text(glyphs: &[Glyph]) -> String {
    glyphs.iter().map(|glyph| glyph.character).collect::<String>().trim().to_owned()
}

/// Mean probability; 0 for nothing.
pub(crate) fn confidence(glyphs: &[Glyph]) -> f32 {
    glyphs.iter().map(|glyph| glyph.probability).sum::<f32>() / glyphs.len().max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctc_drops_blanks_and_repeats_but_keeps_a_digit_twice_around_a_blank() {
        let classes = Classes::parse("<blank>\n1\n2\n ");
        let one_hot =
            |class: usize| std::array::from_fn::<f32, 4, _>(|i| if i == class { 0.9 } else { 0.03 });
        let steps = [1, 1, 0, 1, 2, 0].map(one_hot);
        let output = Output { rows: 6, columns: 4, values: steps.concat() };
        let glyphs = decode(&output, &classes, 1.0);
        assert_eq!(text(&glyphs), "112");
        assert_eq!(glyphs[1].at, 3.5 / 6.0);
        assert!((confidence(&glyphs) - 0.9).abs() < 1e-6);
    }
}
