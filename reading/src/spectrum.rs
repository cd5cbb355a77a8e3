//! How strong each spatial frequency is in a square of brightness: a window against the square's own edges, and a Fourier transform.

use std::f64::consts::TAU;

/// The side of a square; pixels, a power of two. Frequencies are counted in waves a side.
pub(crate) const SIDE: usize = 128;

#[derive(Clone, Copy, Debug, Default)]
struct Complex {
    re: f32,
    im: f32,
}

/// What every square needs, made once.
pub(crate) struct Transform {
    /// The turns of a transform as long as the side: exp(-2πi k / SIDE), half of them.
    turns: Vec<Complex>,
    /// Hann's window along one axis: it lets no straight edge of the square look like a line of frequencies.
    window: Vec<f32>,
    cells: Vec<Complex>,
}

impl Transform {
    pub(crate) fn new() -> Self {
        let angle = |n: f64| TAU * n / SIDE as f64;
        let turns = (0..SIDE / 2).map(|n| {
            let (sin, cos) = angle(n as f64).sin_cos();
            Complex { re: cos as f32, im: -sin as f32 }
        });
        let window = (0..SIDE).map(|n| (0.5 - 0.5 * angle(n as f64 + 0.5).cos()) as f32);
        Self {
            turns: turns.collect(),
            window: window.collect(),
            cells: vec![Complex::default(); SIDE * SIDE],
        }
    }

    /// The power of each frequency of a square, row by row; rows are vertical frequencies, of which those in the second half are
    /// negative. A sine of an amplitude of one level has a power of one at its place.
    pub(crate) fn power(&mut self, square: &[u8]) -> Vec<f32> {
        let mean = square.iter().map(|level| f32::from(*level)).sum::<f32>() / square.len().max(1) as f32;
        for (n, (cell, level)) in self.cells.iter_mut().zip(square).enumerate() {
            let weight = self.window[n / SIDE] * self.window[n % SIDE];
            *cell = Complex { re: (f32::from(*level) - mean) * weight, im: 0.0 };
        }
        for _ in 0..2 {
            self.columns();
            self.transpose();
        }
        let sum: f32 = self.window.iter().sum();
        let unit = 4.0 / sum.powi(4);
        self.cells.iter().map(|cell| (cell.re * cell.re + cell.im * cell.im) * unit).collect()
    }

    /// Transforms every column (Cooley and Tukey, radix 2, in place). Whole rows are added to each other, which compilers turn into
    /// vector instructions.
    fn columns(&mut self) {
        let shift = usize::BITS - SIDE.trailing_zeros();
        for row in 0..SIDE {
            let other = row.reverse_bits() >> shift;
            if row < other {
                let (before, after) = self.cells.split_at_mut(other * SIDE);
                before[row * SIDE..][..SIDE].swap_with_slice(&mut after[..SIDE]);
            }
        }
        let mut half = 1;
        while half < SIDE {
            for (n, block) in
                self.cells.chunks_exact_mut(2 * half * SIDE).flat_map(|block| pairs(block, half))
            {
                butterfly(block, self.turns[n * (SIDE / 2 / half)]);
            }
            half *= 2;
        }
    }

    fn transpose(&mut self) {
        for row in 0..SIDE {
            for column in 0..row {
                self.cells.swap(row * SIDE + column, column * SIDE + row);
            }
        }
    }
}

/// The rows of a block that are added to each other, with the number of each pair.
fn pairs(
    block: &mut [Complex],
    half: usize,
) -> impl Iterator<Item = (usize, (&mut [Complex], &mut [Complex]))> {
    let (upper, lower) = block.split_at_mut(half * SIDE);
    upper.chunks_exact_mut(SIDE).zip(lower.chunks_exact_mut(SIDE)).enumerate()
}

fn butterfly((upper, lower): (&mut [Complex], &mut [Complex]), turn: Complex) {
    for (above, below) in upper.iter_mut().zip(lower) {
        let turned = Complex {
            re: below.re * turn.re - below.im * turn.im,
            im: below.re * turn.im + below.im * turn.re,
        };
        *below = Complex { re: above.re - turned.re, im: above.im - turned.im };
        *above = Complex { re: above.re + turned.re, im: above.im + turned.im };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square(level: impl Fn(f64, f64) -> f64) -> Vec<u8> {
        let at = |n: usize| level((n % SIDE) as f64, (n / SIDE) as f64).round() as u8;
        (0..SIDE * SIDE).map(at).collect()
    }

    #[test]
    fn a_sine_of_ten_levels_has_a_power_of_a_hundred_at_its_frequency_and_next_to_none_elsewhere() {
        let wave = square(|x, y| 128.0 + 10.0 * (TAU * (20.0 * x - 7.0 * y) / SIDE as f64).sin());
        let power = Transform::new().power(&wave);
        let (right, left) = ((SIDE - 7) * SIDE + 20, 7 * SIDE + SIDE - 20);
        assert!([right, left].iter().all(|at| (power[*at] - 100.0).abs() < 1.0), "{}", power[right]);
        let far = |at: usize| {
            [right, left]
                .iter()
                .all(|peak| (at % SIDE).abs_diff(peak % SIDE) > 1 || (at / SIDE).abs_diff(peak / SIDE) > 1)
        };
        let most = (0..power.len()).filter(|at| far(*at)).map(|at| power[at]).fold(0.0, f32::max);
        // Rounding to whole levels.
        assert!(most < 0.1, "{most}");
    }

    #[test]
    fn an_even_square_has_no_frequency() {
        let power = Transform::new().power(&square(|_, _| 200.0));
        assert!(power.iter().all(|power| *power < 1e-6));
    }

    #[test]
    fn the_transform_is_the_sum_that_defines_it() {
        let noise = square(|x, y| ((x * 37.0 + y * 101.0 + x * y * 13.0) % 251.0).floor());
        let mut transform = Transform::new();
        let power = transform.power(&noise);
        let mean = noise.iter().map(|level| f64::from(*level)).sum::<f64>() / noise.len() as f64;
        let hann = |n: usize| 0.5 - 0.5 * (TAU * (n as f64 + 0.5) / SIDE as f64).cos();
        for (row, column) in [(0, 1), (5, 64), (100, 33), (64, 127)] {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, level) in noise.iter().enumerate() {
                let (x, y) = (n % SIDE, n / SIDE);
                let value = (f64::from(*level) - mean) * hann(x) * hann(y);
                let (sin, cos) = (-TAU * (row * y + column * x) as f64 / SIDE as f64).sin_cos();
                (re, im) = (re + value * cos, im + value * sin);
            }
            let sum = SIDE as f64 / 2.0;
            let expected = (re * re + im * im) * 4.0 / sum.powi(4);
            let found = f64::from(power[row * SIDE + column]);
            assert!((found - expected).abs() < 1e-3 * expected + 1e-4, "{row} {column}: {found} {expected}");
        }
    }
}
