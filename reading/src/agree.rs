//! How sure a number is: the share of differently cut and treated copies of its line in which it is read again.
//!
//! The recogniser's own probability is no measure: it is 0.97 on numbers whose last digit the box has cut off.

use image::RgbImage;

use crate::{
    crop::{Strip, strip},
    geometry::{Quad, grow, height},
    plane::percentile,
    recognise::{ROWS, WIDEST},
};

/// A way of cutting a line out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Both ends further out by half a height and at least a digit: shows digits that the box has cut off.
    LongerEnds,
    /// A tenth of the height off each side.
    Tighter,
    /// An eighth of the height on each side.
    Looser,
    /// Grey, its 2nd to 98th percentile stretched.
    Contrast,
    /// Digits a fifth broader.
    Broader,
}

/// Every variant: each shows the network another picture of the same digits.
pub(crate) const VARIANTS: [Variant; 5] =
    [Variant::LongerEnds, Variant::Tighter, Variant::Looser, Variant::Contrast, Variant::Broader];

impl Variant {
    /// The quad that it is cut from. `pitch` is the distance of neighbouring digits; pixels.
    pub fn quad(self, quad: &Quad, pitch: f32) -> Quad {
        let tall = height(quad);
        match self {
            Self::LongerEnds => {
                let more = room(tall, pitch);
                grow(quad, more, more, 0.0)
            }
            Self::Tighter => grow(quad, 0.0, 0.0, -0.1 * tall),
            Self::Looser => grow(quad, 0.1 * tall, 0.1 * tall, 0.125 * tall),
            Self::Contrast | Self::Broader => *quad,
        }
    }

    /// The strip that is read. `quad` is this variant's own.
    pub fn cut(self, picture: &RgbImage, quad: &Quad) -> Strip {
        let stretch = if self == Self::Broader { 1.2 } else { 1.0 };
        let cut = strip(picture, quad, ROWS, stretch, WIDEST);
        if self == Self::Contrast { stretched(cut) } else { cut }
    }
}

/// How far an end moves out for one more digit: half a height and at least a digit and its distance; pixels.
pub(crate) fn room(tall: f32, pitch: f32) -> f32 {
    (0.5 * tall).max(1.1 * pitch)
}

/// The strip in grey with its contrast stretched.
fn stretched(mut cut: Strip) -> Strip {
    let grey: Vec<u8> = cut
        .pixels
        .iter()
        .map(|pixel| crate::plane::luma_of(pixel.map(|value| value.round() as u8)))
        .collect();
    let (low, high) = (percentile(&grey, 0.02) as f32, percentile(&grey, 0.98) as f32);
    let gain = 255.0 / (high - low).max(1.0);
    for (pixel, value) in cut.pixels.iter_mut().zip(grey) {
        *pixel = [((f32::from(value) - low) * gain).clamp(0.0, 255.0); 3];
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUAD: Quad = [[100.0, 0.0], [200.0, 0.0], [200.0, 40.0], [100.0, 40.0]];

    #[test]
    fn longer_ends_hold_half_a_height_and_at_least_one_more_digit_on_each_side() {
        let ends = |pitch: f32| {
            let quad = Variant::LongerEnds.quad(&QUAD, pitch);
            (quad[0][0], quad[1][0])
        };
        assert_eq!(ends(10.0), (80.0, 220.0));
        assert_eq!(ends(40.0), (56.0, 244.0));
    }

    #[test]
    fn the_contrast_variant_is_grey_from_black_to_white() {
        let pixels: Vec<[f32; 3]> = (0..100).map(|i| [60.0 + i as f32 * 0.5; 3]).collect();
        let cut = stretched(Strip { width: 100, height: 1, pixels });
        assert_eq!((cut.pixels[0], cut.pixels[99]), ([0.0; 3], [255.0; 3]));
    }
}
