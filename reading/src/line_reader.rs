//! Reads the digits of one line, and which of them stand on a wheel of tenths: a network of our own (`tools/training`), trained
//! on lines of dashboards.

use image::RgbImage;

use crate::{
    crop::fitted,
    geometry::{Quad, grow, height, width},
    network::{Network, NetworkError, Thread},
    recognise::{ROWS, planes},
};

/// The network's widest and narrowest input; pixels. Longer lines are squeezed, shorter ones padded.
const WIDEST: usize = 384;
const NARROWEST: usize = 64;
/// The classes: CTC's blank, ten digits, ten digits on a wheel of tenths, a decimal point, a gap between two numbers.
const CLASSES: usize = 23;
const POINT: usize = 21;
const GAP: usize = 22;

/// The least and most distance of neighbouring digits of one number, in median distances: 1 is narrow in many typefaces.
const EVEN: std::ops::Range<f32> = 0.6..1.6;
/// The least distance of a drum's first two wheels, in median distances; below it one before them may be cut off.
const FIRST: f32 = 0.75;

/// A number as it is read in a line.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LineReading {
    /// All its digits, those of tenths included.
    pub digits: String,
    /// How many of the last are tenths, by their wheel or behind a point.
    pub tenths: usize,
    /// Whether a point stands before the tenths.
    pub point: bool,
    /// The probability of the least sure digit, 0-1.
    pub sure: f32,
    /// The probability of the least sure digit before the last, 0-1.
    pub sure_before: f32,
    /// How sure it is that the last digit is, or is not, on a wheel of tenths, 0.5-1.
    pub sure_of_tenths: f32,
    /// Where each digit lies along the strip, 0-1.
    pub places: Vec<f32>,
}

impl LineReading {
    /// The mean distance of neighbouring digits, in widths of the strip; none of fewer than two.
    pub fn pitch(&self) -> Option<f32> {
        let (first, last) = (self.places.first()?, self.places.last()?);
        (self.places.len() > 1).then(|| (last - first) / (self.places.len() - 1) as f32)
    }

    /// Whether its digits stand as evenly as those of one number do.
    pub fn is_even(&self) -> bool {
        self.gaps().all(|gap| EVEN.contains(&(gap / self.usual())))
    }

    /// Whether the first digit stands nearer to the second than the wheels of a drum do.
    pub fn starts_crowded(&self) -> bool {
        self.places.len() > 2 && self.gaps().next().is_some_and(|first| first < FIRST * self.usual())
    }

    /// The longest stretch of digits that stand evenly: a number of the speed scale beside a drum stands apart.
    pub fn even_part(&self) -> Self {
        let usual = self.usual();
        let (mut best, mut from) = (0..0, 0);
        let broken = self.gaps().map(|gap| !EVEN.contains(&(gap / usual))).chain([true]);
        for (index, broken) in broken.enumerate().take(self.places.len()) {
            if broken {
                if index + 1 - from > best.len() {
                    best = from..index + 1;
                }
                from = index + 1;
            }
        }
        Self { digits: self.digits[best.clone()].into(), places: self.places[best].to_vec(), ..self.clone() }
    }

    fn gaps(&self) -> impl Iterator<Item = f32> {
        self.places.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// The median distance of neighbouring digits.
    fn usual(&self) -> f32 {
        let mut gaps: Vec<f32> = self.gaps().collect();
        gaps.sort_by(f32::total_cmp);
        gaps.get(gaps.len() / 2).copied().unwrap_or(1.0).max(f32::EPSILON)
    }
}

/// The numbers of a line, cut out with room beyond its ends and above and below it, each in heights of the line, which is tight
/// around the digits.
pub(crate) fn numbers(
    network: &Network,
    picture: &RgbImage,
    line: &Quad,
    (ends, sides): (f32, f32),
    thread: &Thread,
) -> Result<Vec<LineReading>, NetworkError> {
    let tall = height(line);
    let quad = grow(line, ends * tall, ends * tall, sides * tall);
    let columns = (width(&quad) * ROWS as f32 / height(&quad).max(1.0)).round() as usize;
    let strip = fitted(picture, &quad, ROWS, columns.clamp(8, WIDEST));
    let padded = strip.width.max(NARROWEST).next_multiple_of(8);
    let output = network.run(planes(&strip, padded), ROWS, padded, thread)?;
    if output.columns != CLASSES {
        return Err(NetworkError::Output);
    }
    Ok(decode(&output.values, padded as f32 / strip.width as f32))
}

/// The longest of a line's numbers; an empty one where there is none.
pub(crate) fn longest(numbers: Vec<LineReading>) -> LineReading {
    let longer = |a: LineReading, b: LineReading| if b.digits.len() > a.digits.len() { b } else { a };
    numbers.into_iter().reduce(longer).unwrap_or_default()
}

/// A character as it was read.
struct Mark {
    class: usize,
    /// Its probability on either kind of wheel.
    sure: f32,
    /// How much of that is for its own kind.
    of_kind: f32,
    at: f32,
}

/// Greedy CTC over rows of classes, split at gaps. `padded` is input width over strip width.
fn decode(values: &[f32], padded: f32) -> Vec<LineReading> {
    let steps = (values.len() / CLASSES).max(1) as f32;
    let mut marks: Vec<Mark> = Vec::new();
    let mut before = 0;
    for (step, row) in values.chunks_exact(CLASSES).enumerate() {
        let best = row.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((class, probability)) = best else { continue };
        // The same digit on the other kind of wheel: the two share what is known of the digit.
        let other = match class {
            1..=10 => row[class + 10],
            11..=20 => row[class - 10],
            _ => 0.0,
        };
        let sure = probability + other;
        let mark =
            Mark { class, sure, of_kind: probability / sure, at: (step as f32 + 0.5) / steps * padded };
        match marks.last_mut() {
            Some(last) if class == before && class != 0 => {
                if sure > last.sure {
                    *last = mark;
                }
            }
            _ if class == 0 => {}
            _ => marks.push(mark),
        }
        before = class;
    }
    marks.split(|mark| mark.class == GAP).filter_map(number).collect()
}

/// Characters without a gap as a number; none without a digit.
fn number(marks: &[Mark]) -> Option<LineReading> {
    let mut reading = LineReading { sure: 1.0, sure_before: 1.0, ..LineReading::default() };
    for mark in marks {
        if mark.class == POINT {
            (reading.point, reading.tenths) = (true, 0);
            continue;
        }
        reading.digits.extend(char::from_digit((mark.class as u32 - 1) % 10, 10));
        reading.tenths = if mark.class > 10 || reading.point { reading.tenths + 1 } else { 0 };
        reading.sure_before = reading.sure;
        reading.sure = reading.sure.min(mark.sure);
        reading.sure_of_tenths = mark.of_kind;
        reading.places.push(mark.at);
    }
    (!reading.digits.is_empty()).then_some(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows in which these classes are sure by 0.9.
    fn rows(classes: &[usize]) -> Vec<f32> {
        let row = |class: &usize| {
            let mut row = [0.1 / 22.0; CLASSES];
            row[*class] = 0.9;
            row
        };
        classes.iter().flat_map(row).collect()
    }

    #[test]
    fn a_number_ends_with_its_tenths_by_wheel_or_point() {
        let wheel = &decode(&rows(&[2, 0, 3, 3, 0, 14]), 1.0)[0];
        assert_eq!((wheel.digits.as_str(), wheel.tenths, wheel.point), ("123", 1, false));
        assert!(wheel.sure > 0.9 && wheel.sure_of_tenths > 0.99);
        let point = &decode(&rows(&[2, 0, 2, POINT, 6]), 1.0)[0];
        assert_eq!((point.digits.as_str(), point.tenths, point.point), ("115", 1, true));
    }

    #[test]
    fn a_number_of_the_scale_beside_the_wheels_is_no_part_of_them() {
        let reading = |digits: &str, places: &[f32]| LineReading {
            digits: digits.into(),
            places: places.into(),
            ..LineReading::default()
        };
        let wheels = reading("002505", &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]);
        assert!(wheels.is_even() && wheels.even_part() == wheels);
        let scale = reading("20002505", &[0.0, 0.05, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75]);
        assert!(!scale.is_even());
        assert_eq!(scale.even_part().digits, "002505");
        assert_eq!(reading("", &[]).even_part().digits, "");
    }

    #[test]
    fn a_gap_parts_two_numbers_and_nothing_is_none() {
        let both: Vec<String> =
            decode(&rows(&[2, GAP, 3, 0, 3]), 1.0).into_iter().map(|reading| reading.digits).collect();
        assert_eq!(both, ["1", "22"]);
        assert!(decode(&rows(&[0, 0]), 1.0).is_empty());
    }
}
