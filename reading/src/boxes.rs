//! Quality of the reading's own box: a good frame may hide the digits under a reflection.

use image::RgbImage;

use crate::{
    crop::strip,
    geometry::Quad,
    plane::{Plane, luma_of, mean, percentile, squared_gradients},
};

/// Measurements on the luma of the reading's box, cut out 48 pixels high.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxMetrics {
    /// Mean luma, 0-255.
    pub mean: f64,
    /// 95th less 5th percentile of luma, 0-255.
    pub contrast: f64,
    /// 90th percentile of the Sobel gradient; luma per pixel.
    pub gradient: f64,
    /// Share of luma at or above 245, 0-1.
    pub glare: f64,
}

pub(crate) fn measure(picture: &RgbImage, quad: &Quad) -> BoxMetrics {
    let cut = strip(picture, quad, 48, 1.0, 960);
    let values: Vec<u8> =
        cut.pixels.iter().map(|pixel| luma_of(pixel.map(|value| value.round() as u8))).collect();
    let plane = Plane::new(cut.width, cut.height, values);
    let mut gradients = squared_gradients(&plane);
    let rank = gradients.len() * 9 / 10;
    let gradient =
        if gradients.is_empty() { 0.0 } else { *gradients.select_nth_unstable_by(rank, f32::total_cmp).1 };
    let bright = plane.values.iter().filter(|value| **value >= 245).count();
    BoxMetrics {
        mean: mean(&plane.values),
        contrast: percentile(&plane.values, 0.95) - percentile(&plane.values, 0.05),
        gradient: f64::from(gradient.sqrt()),
        glare: bright as f64 / plane.values.len().max(1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    /// A quad that is cut out pixel by pixel.
    const QUAD: Quad = [[0.0, 0.0], [160.0, 0.0], [160.0, 48.0], [0.0, 48.0]];

    fn measured(level: impl Fn(u32) -> u8) -> BoxMetrics {
        measure(&RgbImage::from_fn(160, 48, |x, _| Rgb([level(x); 3])), &QUAD)
    }

    #[test]
    fn a_solid_box_has_neither_contrast_nor_gradient_and_a_white_one_is_all_glare() {
        assert_eq!(measured(|_| 50), BoxMetrics { mean: 50.0, contrast: 0.0, gradient: 0.0, glare: 0.0 });
        assert_eq!(measured(|_| 245), BoxMetrics { mean: 245.0, contrast: 0.0, gradient: 0.0, glare: 1.0 });
    }

    #[test]
    fn a_ramp_has_its_slope_as_gradient() {
        // Levels 0-159: the 5th percentile is level 7 (8 of 160 columns), the 95th level 151.
        assert_eq!(
            measured(|x| x as u8),
            BoxMetrics { mean: 79.5, contrast: 144.0, gradient: 1.0, glare: 0.0 }
        );
    }

    #[test]
    fn stripes_have_half_their_step_as_gradient() {
        let stripes = measured(|x| if x / 2 % 2 == 0 { 20 } else { 250 });
        assert_eq!(stripes, BoxMetrics { mean: 135.0, contrast: 230.0, gradient: 115.0, glare: 0.5 });
    }
}
