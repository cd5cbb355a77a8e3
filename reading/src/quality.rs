//! Quality of the whole frame, measured from pixels.
//!
//! Dashboards are dark and flat, so thresholds of document scanning reject half of the readable ones. Those here were
//! measured on 316 readable and 90 spoilt photos: a lower end of a ramp is the level below which next to no readable photo
//! lies. A fault is only what leaves nothing to read anywhere: quality is judged where the number is, which the reader finds.

use image::RgbImage;
use rust_decimal::{Decimal, RoundingStrategy, prelude::FromPrimitive};
use schemas::{
    events::{Fault, FrameQuality, ImageSize, Lighting},
    reason::Reason,
};

use crate::{
    boxes::BoxMetrics,
    decode::Photo,
    grid::grid,
    inspect::{fault, size},
    plane::{Plane, components, luma, mean, percentile, shrunk, squared_gradients},
};

/// The long side at which a frame is measured; pixels. Smaller photos are measured as they are.
const LONG_SIDE: u32 = 1024;
/// The side of the squares that sharpness is looked for in, at that size; pixels. The smallest display that is read is two of
/// them wide.
const TILE: usize = 32;
/// Squared gradient of the sharpest square below which nothing on the photo can be read. Of 273 real photos that a person
/// reads the least had 135, at night with a display of a hundredth of the frame; a photo far out of focus has 16, one in the
/// dark 5. What surrounds the display may be black, blurred or white.
const LEAST_SHARP: f64 = 60.0;

/// A frame's quality, and whether it is worth reading.
#[derive(Clone, Debug)]
pub struct Graded {
    /// The measurements.
    pub quality: FrameQuality,
    /// Set only where no place of the photo is sharp enough to be read: almost black, washed out, or far out of focus.
    pub fault: Option<Fault>,
    /// What is wrong, by the labels of `image_quality_logs.detected_issues`.
    pub issues: Vec<&'static str>,
    /// The size of the picture that was measured; pixels.
    pub measured: ImageSize,
    /// What was done to the photo before, by the labels of `image_quality_logs.preprocessing_applied`.
    pub preprocessing: Vec<&'static str>,
}

/// Measures a photo's frame.
#[must_use]
pub fn grade(photo: &Photo) -> Graded {
    let pixels = photo.pixels();
    let small = shrunk(pixels, LONG_SIDE);
    let frame = small.as_ref().unwrap_or(pixels);
    let plane = luma(frame);
    let gradients = squared_gradients(&plane);
    let measured = Measured::of(frame, &plane, &gradients);
    let fault = measured.fault(sharpest(&gradients, plane.width.saturating_sub(2)));
    let mut preprocessing = Vec::new();
    if photo.info().orientation != 1 {
        preprocessing.push("exif_rotate");
    }
    if small.is_some() {
        preprocessing.push("resize");
    }
    let quality = FrameQuality { grid: grid(pixels), ..measured.quality() };
    let mut issues = measured.issues(quality.blur, quality.glare, quality.lighting);
    if !photo.info().complete {
        issues.push("truncated");
    }
    Graded { issues, quality, fault, measured: size(frame.width(), frame.height()), preprocessing }
}

/// The five numbers that everything else follows from.
#[derive(Clone, Copy, Debug)]
struct Measured {
    mean: f64,
    p5: f64,
    p99: f64,
    tenengrad: f64,
    blob: f64,
}

impl Measured {
    /// `gradients` are the squared ones of the frame's luma, `plane`.
    fn of(frame: &RgbImage, plane: &Plane<u8>, gradients: &[f32]) -> Self {
        let sum: f64 = gradients.iter().map(|value| f64::from(*value)).sum();
        Self {
            mean: mean(&plane.values),
            p5: percentile(&plane.values, 0.05),
            p99: percentile(&plane.values, 0.99),
            tenengrad: sum / gradients.len().max(1) as f64,
            blob: near_white_blob(frame),
        }
    }

    fn quality(&self) -> FrameQuality {
        FrameQuality {
            mean: self.mean,
            p5: self.p5,
            p99: self.p99,
            tenengrad: self.tenengrad,
            blob: self.blob,
            score: score(self, None),
            lighting: lighting(self, None),
            blur: self.tenengrad < 12.0,
            glare: self.blob > 0.06,
            grid: None,
        }
    }

    /// Why nothing on the photo can be read; none where its sharpest square, of that mean squared gradient, may hold a display.
    fn fault(&self, sharpest: f64) -> Option<Fault> {
        if sharpest >= LEAST_SHARP {
            return None;
        }
        let (reason, detail) = if self.mean < 4.5 || self.p99 < 20.0 {
            (Reason::TooDark, format!("Mean luma {:.1} of 255, and nothing on the photo is lit.", self.mean))
        } else if self.p5 >= 150.0 {
            (Reason::OverExposed, format!("95 % of the pixels lie above luma {:.0} of 255.", self.p5))
        } else if self.blob > 0.30 {
            (Reason::Glare, format!("A white reflection covers {:.0} % of the frame.", self.blob * 100.0))
        } else {
            let detail =
                format!("Sharpness {sharpest:.0} at the sharpest place; at least {LEAST_SHARP} is needed.");
            (Reason::Blurred, detail)
        };
        Some(fault(reason, detail))
    }

    fn issues(&self, blur: bool, glare: bool, light: Lighting) -> Vec<&'static str> {
        let found = [
            (blur, "blur"),
            (glare, "glare"),
            (light == Lighting::Poor, "poor_lighting"),
            (self.mean < 4.5 || self.p99 < 20.0, "too_dark"),
            (self.p5 > 100.0, "over_exposed"),
        ];
        found.into_iter().filter_map(|(is, label)| is.then_some(label)).collect()
    }
}

/// The largest mean of squared gradients over a square, `columns` of them a row.
fn sharpest(gradients: &[f32], columns: usize) -> f64 {
    let rows: Vec<&[f32]> = gradients.chunks_exact(columns.max(1)).collect();
    let tile = |band: &[&[f32]], left: usize| -> f64 {
        let right = (left + TILE).min(columns);
        let sum: f64 = band.iter().flat_map(|row| &row[left..right]).map(|value| f64::from(*value)).sum();
        sum / (band.len() * (right - left)) as f64
    };
    let bands = rows.chunks(TILE).filter(|band| band.len() == TILE.min(rows.len()));
    let lefts = || (0..columns).step_by(TILE).filter(|left| left + TILE.min(columns) <= columns);
    bands.flat_map(|band| lefts().map(move |left| tile(band, left))).fold(0.0, f64::max)
}

/// Share of the frame that the largest near-white blob covers: every channel at least 245, chroma (largest less smallest
/// channel) below 14.
fn near_white_blob(frame: &RgbImage) -> f64 {
    let white = frame.pixels().map(|pixel| {
        let [red, green, blue] = pixel.0;
        let (low, high) = (red.min(green).min(blue), red.max(green).max(blue));
        low >= 245 && high - low < 14
    });
    let plane = Plane::new(frame.width() as usize, frame.height() as usize, white.collect());
    let largest = components(&plane, |white| white).iter().map(Vec::len).max().unwrap_or(0);
    largest as f64 / plane.values.len().max(1) as f64
}

/// 0 at or below `from`, 1 at or above `to`, linear between.
fn ramp(value: f64, from: f64, to: f64) -> f64 {
    ((value - from) / (to - from)).clamp(0.0, 1.0)
}

/// Half the worst and half the mean of light, sharpness, glare and, where a reading was found, its box; two decimals,
/// truncated.
fn score(frame: &Measured, reading: Option<&BoxMetrics>) -> Decimal {
    let light =
        ramp(frame.mean, 4.5, 9.0).min(ramp(frame.p99, 20.0, 40.0)).min(1.0 - ramp(frame.p5, 50.0, 150.0));
    let mut grades = vec![light, ramp(frame.tenengrad, 8.0, 24.0), 1.0 - ramp(frame.blob, 0.015, 0.3)];
    grades.extend(reading.map(|metrics| {
        ramp(metrics.contrast, 20.0, 60.0)
            .min(ramp(metrics.gradient, 4.5, 13.5))
            .min(1.0 - ramp(metrics.glare, 0.0, 0.5))
    }));
    let worst = grades.iter().copied().fold(1.0, f64::min);
    let mean = grades.iter().sum::<f64>() / grades.len() as f64;
    hundredths((worst + mean) / 2.0)
}

/// A number as a decimal of two places, truncated.
pub(crate) fn hundredths(value: f64) -> Decimal {
    // Nine places first: 0.29 as a float is 0.28999…, which must not become 0.28.
    let exact = Decimal::from_f64(value).unwrap_or_default().round_dp(9);
    exact.round_dp_with_strategy(2, RoundingStrategy::ToZero)
}

/// Poor, fair (within a factor of two of poor) or good, by the frame and, where a reading was found, its box.
fn lighting(frame: &Measured, reading: Option<&BoxMetrics>) -> Lighting {
    let boxed = |mean: f64, contrast: f64| reading.is_some_and(|m| m.mean < mean || m.contrast < contrast);
    if frame.mean < 4.5 || frame.p99 < 20.0 || frame.p5 > 100.0 || boxed(10.0, 20.0) {
        Lighting::Poor
    } else if frame.mean < 9.0 || frame.p99 < 40.0 || frame.p5 > 50.0 || boxed(20.0, 40.0) {
        Lighting::Fair
    } else {
        Lighting::Good
    }
}

/// Frame and reading's box taken together.
pub(crate) struct Together {
    pub score: Decimal,
    pub lighting: Lighting,
    pub blur: bool,
    pub glare: bool,
    pub issues: Vec<&'static str>,
}

/// The frame's grades, corrected by the box of the reading where one was found.
pub(crate) fn together(frame: &FrameQuality, reading: Option<&BoxMetrics>) -> Together {
    let measured = Measured {
        mean: frame.mean,
        p5: frame.p5,
        p99: frame.p99,
        tenengrad: frame.tenengrad,
        blob: frame.blob,
    };
    // Where the number is known its box alone tells whether it is sharp: all else may be blurred or dazzled.
    let blur = reading.map_or(frame.blur, |metrics| metrics.gradient < 4.5);
    let glare = reading.map_or(frame.glare, |metrics| metrics.glare > 0.5);
    let light = lighting(&measured, reading);
    Together {
        score: score(&measured, reading),
        lighting: light,
        blur,
        glare,
        issues: measured.issues(blur, glare, light),
    }
}

#[cfg(test)]
mod tests;
