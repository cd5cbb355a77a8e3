//! What a photo shows around its number, small enough to be kept for every photo and to be compared by the hundred. A copy that was
//! cropped, turned a little, brightened or compressed again still looks like its original there.

use std::fmt;

use image::RgbImage;

use crate::{
    crop::fitted,
    geometry::{Point, Quad, grow, height, width},
    plane::{luma_of, percentile},
};

/// Cells along the number and across it.
const CELLS: (usize, usize) = (32, 22);
/// How much is looked at, in widths of the number: half the dashboard of a usual photo, or all of one taken closely.
const WIDE: f32 = 4.0;
/// Samples of the photo along each side of a cell, so that no texture aliases.
const FINE: usize = 4;
/// Levels of a cell; 0 is what lies outside the photo.
const LEVELS: f64 = 15.0;
/// Luma between the darkest and the brightest cells below which there is nothing to compare.
const FLAT: f64 = 12.0;
/// The share of the cells that two photos must have in common.
const COMMON: f32 = 0.25;
/// How far a box may stand off that of the same number on another copy, in cells, and the steps between: a sixth of the number's width.
const SHIFTS: [f32; 5] = [-1.33, -0.67, 0.0, 0.67, 1.33];
/// How much wider or narrower it may be: a digit more or less is a sixth, and boxes stand off by some pixels.
const SCALES: [f32; 7] = [0.8, 0.86, 0.93, 1.0, 1.08, 1.16, 1.25];

/// Cells on each side of one whose mean is taken from it: a bright display in the dark is alike in every car, what stands around it is not.
const AROUND: usize = 3;

/// Likeness from which two photos are taken to be copies of one: where nine of ten copies lie above and one of 170 pairs of photos of
/// different cars; ADR 17 has the measurement.
pub const COPY: f32 = 0.8;

/// The surroundings of a number: 32 by 22 cells of brightness, 4 bits each.
#[derive(Clone, PartialEq, Eq)]
pub struct Surroundings([u8; CELLS.0 * CELLS.1]);

impl Surroundings {
    /// Bytes that they are stored in.
    pub const BYTES: usize = CELLS.0 * CELLS.1 / 2;

    /// Around the number in this box; none where there is nothing but one shade.
    pub(crate) fn of(picture: &RgbImage, number: &Quad) -> Option<Self> {
        let (columns, rows) = CELLS;
        let wide = width(number);
        let tall = wide * rows as f32 / columns as f32 * WIDE;
        let beside = (wide * WIDE - wide) / 2.0;
        let window = grow(number, beside, beside, (tall - height(number)) / 2.0);
        let fine = fitted(picture, &window, rows * FINE, columns * FINE);
        let mean = |column: usize, row: usize| {
            let of = |n: usize| fine.pixels[(row * FINE + n / FINE) * fine.width + column * FINE + n % FINE];
            let sum: u32 =
                (0..FINE * FINE).map(|n| u32::from(luma_of(of(n).map(|value| value.round() as u8)))).sum();
            (sum / (FINE * FINE) as u32) as u8
        };
        let inside = |column: usize, row: usize| {
            let [x, y] = centre_of_cell(&window, column, row);
            x >= 0.0 && y >= 0.0 && x < picture.width() as f32 && y < picture.height() as f32
        };
        let cells: Vec<Option<u8>> = (0..columns * rows)
            .map(|n| (n % columns, n / columns))
            .map(|(column, row)| inside(column, row).then(|| mean(column, row)))
            .collect();
        let seen: Vec<u8> = cells.iter().flatten().copied().collect();
        let (low, high) = (percentile(&seen, 0.02), percentile(&seen, 0.98));
        if high - low < FLAT {
            return None;
        }
        let level = |luma: u8| {
            let share = (f64::from(luma) - low) / (high - low);
            (1.0 + share * (LEVELS - 1.0)).round().clamp(1.0, LEVELS) as u8
        };
        let mut out = [0; CELLS.0 * CELLS.1];
        for (to, cell) in out.iter_mut().zip(cells) {
            *to = cell.map_or(0, level);
        }
        Some(Self(out))
    }

    /// Two cells a byte.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// The same back; none where the bytes are not as many as [`Surroundings::BYTES`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let cells: Vec<u8> = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).collect();
        cells.try_into().ok().map(Self)
    }

    /// How alike two photos are around their numbers, -1 to 1: the highest correlation of their cells' detail over small shifts and
    /// changes of size (normalised cross-correlation; Lewis, "Fast normalized cross-correlation", 1995). Brightness and contrast
    /// have no say. -1 where they have too little in common. Takes about a millisecond.
    #[must_use]
    pub fn likeness(&self, other: &Self) -> f32 {
        let (ours, theirs) = (self.detail(), other.detail());
        let mut best = -1.0f32;
        for scale in SCALES {
            for down in SHIFTS {
                for right in SHIFTS {
                    best = best.max(correlation(&ours, &theirs, [right, down], scale));
                }
            }
        }
        best
    }

    /// Each cell less the mean of those around it; NaN outside the photo.
    fn detail(&self) -> Vec<f32> {
        let (columns, rows) = CELLS;
        let around = |at: usize, count: usize| at.saturating_sub(AROUND)..(at + AROUND + 1).min(count);
        let mean = |column: usize, row: usize| {
            let cells =
                around(row, rows).flat_map(|y| around(column, columns).map(move |x| self.0[y * columns + x]));
            let (sum, count) = cells
                .filter(|cell| *cell > 0)
                .fold((0.0, 0.0), |(sum, n), cell| (sum + f32::from(cell), n + 1.0));
            sum / count
        };
        let cells = self.0.iter().enumerate();
        cells
            .map(|(n, cell)| match cell {
                0 => f32::NAN,
                cell => f32::from(*cell) - mean(n % columns, n / columns),
            })
            .collect()
    }
}

/// The correlation where one's middle is moved by so many cells and its size changed.
fn correlation(ours: &[f32], theirs: &[f32], [right, down]: [f32; 2], scale: f32) -> f32 {
    let (columns, rows) = CELLS;
    let at = |n: usize, count: usize, shift: f32| {
        let middle = (count - 1) as f32 / 2.0;
        (n as f32 - middle) * scale + middle + shift
    };
    let across: Vec<f32> = (0..columns).map(|n| at(n, columns, right)).collect();
    let (mut count, mut a, mut b, mut ab, mut aa, mut bb) = (0.0f32, 0.0f32, 0.0, 0.0, 0.0, 0.0);
    for row in 0..rows {
        let y = at(row, rows, down);
        for (column, x) in across.iter().enumerate() {
            let (mine, other) = (between(ours, *x, y), theirs[row * columns + column]);
            if mine.is_nan() || other.is_nan() {
                continue;
            }
            count += 1.0;
            a += mine;
            b += other;
            ab += mine * other;
            aa += mine * mine;
            bb += other * other;
        }
    }
    if count < COMMON * (columns * rows) as f32 {
        return -1.0;
    }
    let spread = (aa - a * a / count) * (bb - b * b / count);
    if spread <= f32::EPSILON { -1.0 } else { (ab - a * b / count) / spread.sqrt() }
}

/// The value between four cells; NaN where one of them lies outside.
fn between(cells: &[f32], x: f32, y: f32) -> f32 {
    if x < 0.0 || y < 0.0 {
        return f32::NAN;
    }
    let (left, top) = (x as usize, y as usize);
    if left + 1 >= CELLS.0 || top + 1 >= CELLS.1 {
        return f32::NAN;
    }
    let (fx, fy) = (x - left as f32, y - top as f32);
    let row = |row: usize| {
        let at = row * CELLS.0 + left;
        cells[at] * (1.0 - fx) + cells[at + 1] * fx
    };
    row(top) * (1.0 - fy) + row(top + 1) * fy
}

/// Where a cell's centre lies on the photo.
fn centre_of_cell(window: &Quad, column: usize, row: usize) -> Point {
    let (right, down) = ((column as f32 + 0.5) / CELLS.0 as f32, (row as f32 + 0.5) / CELLS.1 as f32);
    [0, 1].map(|axis| {
        let side = |corner: usize| window[corner][axis] - window[0][axis];
        window[0][axis] + side(1) * right + side(3) * down
    })
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use image::{Rgb, imageops};

    use super::*;

    /// A dashboard: patches that no other `n` has, with a number of 200 by 40 pixels at (500, 400).
    fn dashboard(n: u32) -> RgbImage {
        const PATCH: u32 = 55;
        RgbImage::from_fn(1200, 800, |x, y| {
            let seed = n.wrapping_mul(0x9E37_79B9)
                ^ (x / PATCH).wrapping_mul(0x85EB_CA6B)
                ^ (y / PATCH).wrapping_mul(0xC2B2_AE35);
            let mixed = (seed ^ seed >> 15).wrapping_mul(0x2C1B_3C6D);
            let mixed = (mixed ^ mixed >> 12).wrapping_mul(0x297A_2D39);
            Rgb([40 + (mixed >> 16) as u8 / 2; 3])
        })
    }

    fn around(picture: &RgbImage, left: f32, top: f32, wide: f32) -> Surroundings {
        let tall = wide / 5.0;
        let number = [[left, top], [left + wide, top], [left + wide, top + tall], [left, top + tall]];
        Surroundings::of(picture, &number).unwrap()
    }

    #[test]
    fn a_copy_that_was_cropped_or_made_smaller_or_darker_is_a_copy_and_another_photo_is_none() {
        let picture = dashboard(1);
        let whole = around(&picture, 500.0, 400.0, 200.0);
        let cropped = imageops::crop_imm(&picture, 300, 250, 700, 450).to_image();
        assert!(whole.likeness(&around(&cropped, 200.0, 150.0, 200.0)) > 0.9);
        let small = imageops::resize(&picture, 600, 400, imageops::FilterType::Triangle);
        assert!(whole.likeness(&around(&small, 250.0, 200.0, 100.0)) > 0.97);
        let dark = imageops::brighten(&imageops::contrast(&picture, -40.0), -30);
        assert!(whole.likeness(&around(&dark, 500.0, 400.0, 200.0)) > 0.97);
        // The reader's box stands off by some pixels, and is a digit narrower.
        assert!(whole.likeness(&around(&picture, 512.0, 396.0, 180.0)) > COPY);
        for n in 2..20 {
            let likeness = whole.likeness(&around(&dashboard(n), 500.0, 400.0, 200.0));
            assert!(likeness < COPY, "{n}: {likeness}");
        }
    }

    #[test]
    fn the_window_turns_with_the_number() {
        let picture = dashboard(3);
        let upright = around(&picture, 500.0, 400.0, 200.0);
        let (sine, cosine) = (TAU / 45.0).sin_cos();
        let turned = |[x, y]: Point| {
            let (x, y) = (x - 600.0, y - 400.0);
            [600.0 + x * cosine - y * sine, 400.0 + x * sine + y * cosine]
        };
        let leaning = RgbImage::from_fn(1200, 800, |x, y| {
            let (dx, dy) = (x as f32 - 600.0, y as f32 - 400.0);
            let (sx, sy) = (600.0 + dx * cosine + dy * sine, 400.0 - dx * sine + dy * cosine);
            let inside = sx >= 0.0 && sy >= 0.0 && sx < 1200.0 && sy < 800.0;
            if inside { *picture.get_pixel(sx as u32, sy as u32) } else { Rgb([128; 3]) }
        });
        let number = [[500.0, 400.0], [700.0, 400.0], [700.0, 440.0], [500.0, 440.0]].map(turned);
        assert!(upright.likeness(&Surroundings::of(&leaning, &number).unwrap()) > 0.95);
    }

    #[test]
    fn they_are_kept_as_bytes_and_one_shade_has_none() {
        let one = around(&dashboard(5), 20.0, 10.0, 300.0);
        assert_eq!(one.to_bytes().len(), Surroundings::BYTES);
        assert_eq!(Surroundings::from_bytes(&one.to_bytes()), Some(one.clone()));
        assert_eq!(Surroundings::from_bytes(&[0; 7]), None);
        assert!((one.likeness(&one) - 1.0).abs() < 1e-3);
        let grey = RgbImage::from_pixel(400, 300, Rgb([90; 3]));
        assert_eq!(Surroundings::of(&grey, &[[10.0, 10.0], [60.0, 10.0], [60.0, 20.0], [10.0, 20.0]]), None);
    }

    #[test]
    fn a_corner_of_a_photo_has_too_little_in_common_with_another() {
        let left = around(&dashboard(6), 0.0, 0.0, 400.0);
        let right = around(&dashboard(6), 900.0, 720.0, 400.0);
        assert!(left.likeness(&right) < 0.0);
    }
}
