//! Straight strips out of a picture.

use image::RgbImage;

use crate::geometry::{Quad, height, width};

/// A strip of pixels, red, green, blue, row by row.
#[derive(Clone, Debug)]
pub(crate) struct Strip {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<[f32; 3]>,
}

/// Cuts the parallelogram of a quad's first, second and fourth corner out as a strip of `rows` rows whose width keeps the
/// shape, times `stretch`, and is at most `widest`. Bilinear; where the source is finer, each pixel is the mean of a grid
/// of samples, so that nothing aliases.
pub(crate) fn strip(picture: &RgbImage, quad: &Quad, rows: usize, stretch: f32, widest: usize) -> Strip {
    let tall = height(quad).max(1.0);
    let columns = ((width(quad) * rows as f32 / tall * stretch).round() as usize).clamp(8, widest);
    fitted(picture, quad, rows, columns)
}

/// The same at a size that is given, whatever the shape.
pub(crate) fn fitted(picture: &RgbImage, quad: &Quad, rows: usize, columns: usize) -> Strip {
    let step = |from: [f32; 2], to: [f32; 2], count: usize| {
        [(to[0] - from[0]) / count as f32, (to[1] - from[1]) / count as f32]
    };
    let (right, down) = (step(quad[0], quad[1], columns), step(quad[0], quad[3], rows));
    let grid = |step: [f32; 2]| (step[0].hypot(step[1]).round() as usize).clamp(1, 4);
    let (across, along) = (grid(down), grid(right));
    let share = 1.0 / (across * along) as f32;
    let mut pixels = Vec::with_capacity(columns * rows);
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = [0.0; 3];
            for j in 0..across {
                for i in 0..along {
                    let x = column as f32 + (i as f32 + 0.5) / along as f32;
                    let y = row as f32 + (j as f32 + 0.5) / across as f32;
                    let at =
                        [quad[0][0] + right[0] * x + down[0] * y, quad[0][1] + right[1] * x + down[1] * y];
                    let sample = bilinear(picture, at);
                    sum = [sum[0] + sample[0], sum[1] + sample[1], sum[2] + sample[2]];
                }
            }
            pixels.push(sum.map(|value| value * share));
        }
    }
    Strip { width: columns, height: rows, pixels }
}

/// The picture at a point whose pixel centres lie at halves; beyond the border the border's pixel.
fn bilinear(picture: &RgbImage, [x, y]: [f32; 2]) -> [f32; 3] {
    let clamp = |value: f32, side: u32| (value - 0.5).clamp(0.0, (side - 1) as f32);
    let (x, y) = (clamp(x, picture.width()), clamp(y, picture.height()));
    let (left, top) = (x as u32, y as u32);
    let (right, bottom) = ((left + 1).min(picture.width() - 1), (top + 1).min(picture.height() - 1));
    let (fx, fy) = (x - left as f32, y - top as f32);
    let pixel = |x: u32, y: u32| picture.get_pixel(x, y).0.map(f32::from);
    let (a, b, c, d) = (pixel(left, top), pixel(right, top), pixel(left, bottom), pixel(right, bottom));
    std::array::from_fn(|i| {
        let upper = a[i] + (b[i] - a[i]) * fx;
        let lower = c[i] + (d[i] - c[i]) * fx;
        upper + (lower - upper) * fy
    })
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn picture() -> RgbImage {
        RgbImage::from_fn(40, 10, |x, y| Rgb([x as u8, y as u8, 7]))
    }

    #[test]
    fn a_strip_of_the_same_size_is_the_picture_itself() {
        let cut = strip(&picture(), &[[0.0, 0.0], [40.0, 0.0], [40.0, 10.0], [0.0, 10.0]], 10, 1.0, 960);
        assert_eq!((cut.width, cut.height), (40, 10));
        assert_eq!((cut.pixels[0], cut.pixels[399]), ([0.0, 0.0, 7.0], [39.0, 9.0, 7.0]));
    }

    #[test]
    fn a_quarter_turned_quad_gives_a_turned_strip() {
        let cut = strip(&picture(), &[[40.0, 0.0], [40.0, 10.0], [0.0, 10.0], [0.0, 0.0]], 40, 1.0, 960);
        assert_eq!((cut.width, cut.height), (10, 40));
        assert_eq!(cut.pixels[0], [39.0, 0.0, 7.0]);
    }

    #[test]
    fn a_smaller_strip_is_the_mean_of_what_it_covers_and_outside_the_border_goes_on() {
        let cut = strip(&picture(), &[[0.0, 0.0], [40.0, 0.0], [40.0, 10.0], [0.0, 10.0]], 5, 1.0, 960);
        assert_eq!((cut.width, cut.pixels[0]), (20, [0.5, 0.5, 7.0]));
        let outside = strip(
            &picture(),
            &[[-20.0, -20.0], [-10.0, -20.0], [-10.0, -10.0], [-20.0, -10.0]],
            10,
            1.0,
            960,
        );
        assert!(outside.pixels.iter().all(|pixel| *pixel == [0.0, 0.0, 7.0]));
    }

    #[test]
    fn a_strip_is_never_wider_than_asked_nor_empty() {
        let flat = [[0.0, 0.0], [40.0, 0.0], [40.0, 0.0], [0.0, 0.0]];
        assert_eq!(strip(&picture(), &flat, 48, 1.0, 960).width, 960);
        assert_eq!(strip(&picture(), &[[5.0; 2]; 4], 48, 1.0, 960).width, 8);
    }
}
