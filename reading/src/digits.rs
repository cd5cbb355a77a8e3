//! A second opinion on a number: a small network of our own (`tools/digitreader`), which knows digits and nothing else.
//!
//! It has seen no picture that the recogniser was trained with, so that it makes other mistakes.

use image::RgbImage;

use crate::{
    crop::fitted,
    geometry::{Quad, grow, height},
    network::{Network, NetworkError, Thread},
    plane::luma_of,
    recognise::Glyph,
    select::pitch,
};

/// The size that the network reads, whatever the shape of the digits; pixels.
const ROWS: usize = 32;
const COLUMNS: usize = 192;
/// The network's classes: CTC's blank, then the ten digits.
const CLASSES: usize = 11;

/// The ways that a number is cut out: room beyond its first and last digit in distances of digits, and above and below in
/// heights of the line. With a whole digit's room, one that the line's box has cut off is read as well.
const CUTS: [(f32, f32); 3] = [(0.35, 0.0), (0.65, 0.1), (1.0, -0.06)];

/// What it reads where a number stands, and how sure it is of the least sure digit, 0-1; one for each way of cutting.
pub(crate) fn opinions(
    network: &Network,
    picture: &RgbImage,
    (quad, glyphs, digits): (&Quad, &[Glyph], &[usize]),
    thread: &Thread,
) -> Result<Vec<(String, f32)>, NetworkError> {
    let (Some(first), Some(last)) = (digits.first(), digits.last()) else { return Ok(Vec::new()) };
    let pitch = pitch(glyphs, digits);
    let (first, last) = (glyphs[*first].at - pitch / 2.0, glyphs[*last].at + pitch / 2.0);
    let opinion = |(aside, above): (f32, f32)| {
        let part = between(quad, first - aside * pitch, last + aside * pitch);
        read(network, picture, &grow(&part, 0.0, 0.0, above * height(quad)), thread)
    };
    CUTS.into_iter().map(opinion).collect()
}

/// The part of a quad between two places along it, in widths of the quad; they may lie outside.
pub(crate) fn between(quad: &Quad, from: f32, to: f32) -> Quad {
    let on = |[a, b]: [[f32; 2]; 2], share: f32| [a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share];
    let (upper, lower) = ([quad[0], quad[1]], [quad[3], quad[2]]);
    [on(upper, from), on(upper, to), on(lower, to), on(lower, from)]
}

fn read(
    network: &Network,
    picture: &RgbImage,
    quad: &Quad,
    thread: &Thread,
) -> Result<(String, f32), NetworkError> {
    let strip = fitted(picture, quad, ROWS, COLUMNS);
    let grey = strip.pixels.iter().map(|pixel| f32::from(luma_of(pixel.map(|value| value.round() as u8))));
    let output = network.run(normal(grey.collect()), ROWS, COLUMNS, thread)?;
    if output.columns != CLASSES {
        return Err(NetworkError::Output);
    }
    Ok(decode(&output.values))
}

/// Less their mean, over their deviation, as in training.
fn normal(mut values: Vec<f32>) -> Vec<f32> {
    let count = values.len() as f32;
    let mean = values.iter().sum::<f32>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
    let deviation = variance.sqrt().max(1.0);
    for value in &mut values {
        *value = (*value - mean) / deviation;
    }
    values
}

/// Greedy CTC over rows of classes: the digits, and the probability of the least sure of them; 0 for none.
fn decode(values: &[f32]) -> (String, f32) {
    let mut text = String::new();
    let mut probabilities: Vec<f32> = Vec::new();
    let mut before = 0;
    for row in values.chunks_exact(CLASSES) {
        let best = row.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((class, probability)) = best else { continue };
        match (class, probabilities.last_mut()) {
            (0, _) => {}
            (class, Some(last)) if class == before => *last = last.max(probability),
            (class, _) => {
                text.extend(char::from_digit(class as u32 - 1, 10));
                probabilities.push(probability);
            }
        }
        before = class;
    }
    let sure = probabilities.into_iter().reduce(f32::min);
    (text, sure.unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_sure_digit_speaks_for_the_number_and_a_repeat_is_one_digit_unless_a_blank_parts_it() {
        let row = |class: usize, probability: f32| {
            std::array::from_fn::<f32, CLASSES, _>(|i| if i == class { probability } else { 0.01 })
        };
        let steps = [row(2, 0.5), row(2, 0.9), row(0, 0.9), row(2, 0.8), row(10, 0.7), row(0, 0.9)];
        assert_eq!(decode(&steps.concat()), ("119".to_owned(), 0.7));
        assert_eq!(decode(&row(0, 0.9)), (String::new(), 0.0));
    }

    #[test]
    fn a_part_of_a_quad_may_reach_beyond_its_ends() {
        let quad = [[0.0, 10.0], [100.0, 10.0], [100.0, 30.0], [0.0, 30.0]];
        assert_eq!(between(&quad, 0.25, 1.5), [[25.0, 10.0], [150.0, 10.0], [150.0, 30.0], [25.0, 30.0]]);
    }

    #[test]
    fn light_and_contrast_do_not_matter() {
        let bright = normal(vec![100.0, 150.0, 200.0]);
        assert_eq!(bright, normal(vec![10.0, 60.0, 110.0]));
        assert_eq!(normal(vec![7.0; 4]), [0.0; 4]);
    }
}
