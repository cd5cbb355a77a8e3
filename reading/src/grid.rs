//! The grid of a screen's pixels, or the moiré that a sensor makes of it, all over a photo: who photographs a screen shows what somebody
//! else's dashboard, or an edited picture, shows on it.
//!
//! A screen's pixels are one regular pattern over the whole frame, over dull surfaces as well as over what is shown on them: a few single
//! spatial frequencies, which differ little between squares side by side. A dashboard's own display has such a grid too, within its
//! bounds; fabrics and scales have frequencies that change from square to square. So what is measured is no strength, but the share of the
//! frame whose squares have a frequency in common with the square beside them. Only the photo as it came shows it: shrinking takes it out.

use image::RgbImage;
use rust_decimal::Decimal;

use crate::{
    plane::luma_of,
    spectrum::{SIDE, Transform},
};

/// The share of a frame from which on a person looks whether it is a photo of a screen; measured in
/// `docs/adr/0039-a-photo-of-a-screen.md`.
pub const SCREEN_GRID: Decimal = Decimal::from_parts(30, 0, 0, false, 2);

/// At most so many squares along a frame's long side and along its short one, evenly spread: they bound the time that a photo takes.
const SQUARES: (usize, usize) = (8, 6);
/// A frame of fewer squares is too small to tell a pattern all over it from one in places.
const LEAST_SQUARES: usize = 12;
/// Frequencies below a wave in sixteen pixels, in waves a square's side, are of what is photographed.
const LOWEST: i32 = 8;
/// The breadth of a ring of frequencies that are as fine as each other.
const RING: i32 = 4;
/// Times the median power of its ring that a grid's frequency has at least.
const ABOVE_RING: f32 = 30.0;
/// Times the largest power around it that it has at least: edges and textures have lines and clouds of frequencies.
const ABOVE_AROUND: f32 = 3.0;
/// What lies around a frequency: farther than the window spreads it, and no farther than this.
const AROUND: (i32, i32) = (4, 6);
/// The least amplitude of a grid, in levels of luma; the compression's rounding has less.
const LEAST_AMPLITUDE: f32 = 0.2;
/// How far apart the frequencies of two squares side by side may lie, in waves a side and as a share of the frequency: a screen that is
/// seen aslant has larger pixels where it is near.
const APART: (f32, f32) = (1.0, 0.03);

/// A frequency that stands out: waves a square's side, down and across.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frequency {
    down: i32,
    across: i32,
}

/// The share of the frame that a screen's grid covers, 0-1; none where the frame is too small to say.
pub(crate) fn grid(frame: &RgbImage) -> Option<f64> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let (most_across, most_down) = if width >= height { SQUARES } else { (SQUARES.1, SQUARES.0) };
    let (lefts, tops) = (starts(width, most_across), starts(height, most_down));
    if lefts.len() * tops.len() < LEAST_SQUARES {
        return None;
    }
    let (mut transform, rings) = (Transform::new(), Rings::new());
    let rows: Vec<Vec<Vec<Frequency>>> = tops
        .iter()
        .map(|top| {
            lefts.iter().map(|left| rings.peaks(&transform.power(&square(frame, *left, *top)))).collect()
        })
        .collect();
    let in_common = (0..tops.len()).flat_map(|row| (0..lefts.len()).map(move |column| (row, column)));
    let covered = in_common.filter(|(row, column)| has_company(&rows, *row, *column)).count();
    Some(covered as f64 / (lefts.len() * tops.len()) as f64)
}

/// Where squares begin along a side of that many pixels.
fn starts(pixels: usize, most: usize) -> Vec<usize> {
    let count = (pixels / SIDE).min(most);
    (0..count).map(|n| n * (pixels - SIDE) / (count - 1).max(1)).collect()
}

fn square(frame: &RgbImage, left: usize, top: usize) -> Vec<u8> {
    let row = frame.width() as usize * 3;
    let pixels = frame.as_raw();
    let of_row = |y: usize| pixels[y * row + left * 3..][..SIDE * 3].chunks_exact(3);
    (top..top + SIDE).flat_map(of_row).map(|pixel| luma_of([pixel[0], pixel[1], pixel[2]])).collect()
}

/// Whether one of the squares beside this one has a frequency of it.
fn has_company(rows: &[Vec<Vec<Frequency>>], row: usize, column: usize) -> bool {
    let own = &rows[row][column];
    let beside =
        [(row.wrapping_sub(1), column), (row + 1, column), (row, column.wrapping_sub(1)), (row, column + 1)];
    beside
        .into_iter()
        .filter_map(|(row, column)| rows.get(row)?.get(column))
        .any(|other| own.iter().any(|frequency| other.iter().any(|second| frequency.is_near(*second))))
}

impl Frequency {
    /// Whether both are of one pattern. A frequency and its negative are the same; those beyond half a wave a pixel come back from
    /// the other side.
    fn is_near(self, other: Self) -> bool {
        let size = ((self.down * self.down + self.across * self.across) as f32).sqrt();
        let most = APART.0 + APART.1 * size;
        [1, -1].into_iter().any(|sign| {
            let apart = [self.down - sign * other.down, self.across - sign * other.across];
            apart.into_iter().all(|apart| signed(apart.rem_euclid(SIDE as i32)).abs() as f32 <= most)
        })
    }

    /// Whether it lies on an axis at a multiple of an eighth of a wave a pixel, as the edges of JPEG's blocks do.
    fn is_of_blocks(self) -> bool {
        let eighth = SIDE as i32 / 8;
        let near = |at: i32| at.rem_euclid(eighth).min(eighth - at.rem_euclid(eighth)) <= 1;
        (self.down.abs() <= 1 && near(self.across)) || (self.across.abs() <= 1 && near(self.down))
    }
}

/// A place along an axis of a spectrum as a frequency: the second half is negative.
fn signed(place: i32) -> i32 {
    if place > SIDE as i32 / 2 { place - SIDE as i32 } else { place }
}

/// The power at a frequency; both may lie beyond a spectrum's bounds, which has no end.
fn power_at(power: &[f32], down: i32, across: i32) -> f32 {
    let place = |frequency: i32| frequency.rem_euclid(SIDE as i32) as usize;
    power[place(down) * SIDE + place(across)]
}

/// The frequencies of half a spectrum, whose other half mirrors it, by how fine they are.
struct Rings(Vec<Vec<(Frequency, usize)>>);

impl Rings {
    fn new() -> Self {
        let side = SIDE as i32;
        let mut rings = vec![Vec::new(); SIDE / RING as usize];
        for (down, across) in (0..side).flat_map(|down| (0..=side / 2).map(move |across| (down, across))) {
            let frequency = Frequency { down: signed(down), across };
            let fine = f64::from(frequency.down.pow(2) + across.pow(2)).sqrt() as i32;
            if fine >= LOWEST {
                rings[(fine / RING) as usize].push((frequency, (down * side + across) as usize));
            }
        }
        rings.retain(|ring| !ring.is_empty());
        Self(rings)
    }

    /// The frequencies that stand out alone.
    fn peaks(&self, power: &[f32]) -> Vec<Frequency> {
        let mut found = Vec::new();
        for ring in &self.0 {
            let mut powers: Vec<f32> = ring.iter().map(|(_, place)| power[*place]).collect();
            let middle = powers.len() / 2;
            let median = *powers.select_nth_unstable_by(middle, f32::total_cmp).1;
            let least = (ABOVE_RING * median).max(LEAST_AMPLITUDE * LEAST_AMPLITUDE);
            let strong = ring.iter().filter(|(_, place)| power[*place] >= least);
            found.extend(
                strong
                    .map(|(frequency, _)| *frequency)
                    .filter(|frequency| !frequency.is_of_blocks() && is_alone(power, *frequency)),
            );
        }
        found
    }
}

/// Whether a frequency is the strongest of its neighbours, and far stronger than what lies around them.
fn is_alone(power: &[f32], Frequency { down, across }: Frequency) -> bool {
    let own = power_at(power, down, across);
    let (inner, outer) = AROUND;
    let all = || (-outer..=outer).flat_map(|y| (-outer..=outer).map(move |x| (y, x)));
    all().all(|(y, x)| {
        let other = power_at(power, down + y, across + x);
        match y.abs().max(x.abs()) {
            0..=1 => other <= own,
            distance if distance >= inner => own >= ABOVE_AROUND * other,
            _ => true,
        }
    })
}

#[cfg(test)]
mod tests;
