//! Finds the lines that may hold the mileage: a small network of our own (`tools/training`), trained on dashboards.

use image::{RgbImage, imageops};

use crate::{
    geometry::{Quad, centre, height, scale, shared, width},
    network::{Network, NetworkError, Output, Thread, input_size},
    plane::resize,
};

/// The long side of a picture that the network sees; pixels.
const LONG_SIDE: u32 = 640;
/// The sides of what it sees of a line's surroundings; pixels.
const CLOSER: u32 = 320;
/// A line's surroundings are a square of so many of its widths.
const SURROUNDINGS: f32 = 2.5;
/// Pixels of the input that a cell of the output is wide and high.
const CELL: f32 = 4.0;
/// Numbers a cell has: the way to a line's centre, its width and height in pixels, sine and cosine of its direction, and how sure
/// it is a total on a display, a total on a drum, or another line of digits; 0-1 each.
const CHANNELS: usize = 9;
/// The first of the three that tell how sure.
const SURE: usize = 6;
/// Least certainty of a line that is looked at.
const SEEN: f32 = 0.1;
/// Two boxes that share more than this of their joint area are one line.
const SAME: f32 = 0.4;
/// The most lines that are kept.
const MOST: usize = 12;

/// A line of digits, and what it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    /// Tight around the digits; pixels of the picture.
    pub quad: Quad,
    /// How sure it is the total on a display, 0-1.
    pub display: f32,
    /// How sure it is the total on a drum, 0-1.
    pub drum: f32,
    /// How sure it is another line: a trip meter, a clock, a radio; 0-1.
    pub other: f32,
}

impl Place {
    /// How sure it is the total, 0-1.
    pub fn total(&self) -> f32 {
        self.display.max(self.drum)
    }

    fn sure(&self) -> f32 {
        self.total().max(self.other)
    }
}

/// The lines of digits on a picture; the surest first.
pub(crate) fn locate(
    network: &Network,
    picture: &RgbImage,
    thread: &Thread,
) -> Result<Vec<Place>, NetworkError> {
    let (width, height) = picture.dimensions();
    seen(network, picture, network_size(width, height), thread)
}

/// The lines of digits around a line, seen closer; the surest first.
pub(crate) fn locate_closer(
    network: &Network,
    picture: &RgbImage,
    line: &Quad,
    thread: &Thread,
) -> Result<Vec<Place>, NetworkError> {
    let side = (SURROUNDINGS * width(line).max(2.0 * height(line))).clamp(32.0, 12_000.0) as u32;
    let [x, y] = centre(line);
    let (left, top) = (x as i64 - i64::from(side / 2), y as i64 - i64::from(side / 2));
    // Black beyond the border, as in training.
    let mut part = RgbImage::new(side, side);
    imageops::replace(&mut part, picture, -left, -top);
    let mut places = seen(network, &part, (CLOSER, CLOSER), thread)?;
    for place in &mut places {
        place.quad = place.quad.map(|[x, y]| [x + left as f32, y + top as f32]);
    }
    Ok(places)
}

/// What the network finds on a picture that is stretched to fill its input.
fn seen(
    network: &Network,
    picture: &RgbImage,
    (columns, rows): (u32, u32),
    thread: &Thread,
) -> Result<Vec<Place>, NetworkError> {
    let Some(small) = resize(picture, columns, rows) else { return Ok(Vec::new()) };
    let output = network.run(planes(&small), rows as usize, columns as usize, thread)?;
    if output.values.len() != CHANNELS * output.rows * output.columns {
        return Err(NetworkError::Output);
    }
    let (x, y) = (picture.width() as f32 / columns as f32, picture.height() as f32 / rows as f32);
    let places = peaks(&output).into_iter().map(|cell| Place { quad: scale(&cell.quad, x, y), ..cell });
    Ok(distinct(places.collect()))
}

/// The size that the photo is stretched to fill; a small one is enlarged.
fn network_size(width: u32, height: u32) -> (u32, u32) {
    input_size(width, height, LONG_SIDE as f32 / width.max(height) as f32)
}

/// The cells that are surer of a kind of line than the eight around them.
fn peaks(output: &Output) -> Vec<Place> {
    let (rows, columns) = (output.rows, output.columns);
    let value =
        |channel: usize, row: usize, column: usize| output.values[(channel * rows + row) * columns + column];
    let is_peak = |channel: usize, row: usize, column: usize| {
        let here = value(channel, row, column);
        let around =
            |row: usize| (column.saturating_sub(1)..(column + 2).min(columns)).map(move |at| (row, at));
        here >= SEEN
            && (row.saturating_sub(1)..(row + 2).min(rows))
                .flat_map(around)
                .all(|(r, c)| value(channel, r, c) <= here)
    };
    let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    cells
        .filter(|(row, column)| (SURE..CHANNELS).any(|channel| is_peak(channel, *row, *column)))
        .filter_map(|(row, column)| {
            place(std::array::from_fn(|channel| value(channel, row, column)), row, column)
        })
        .collect()
}

/// Red first, from 0 to 1.
fn planes(picture: &RgbImage) -> Vec<f32> {
    let channel = |channel: usize| picture.as_raw().iter().skip(channel).step_by(3);
    (0..3).flat_map(channel).map(|value| f32::from(*value) / 255.0).collect()
}

/// A cell of the output as a place; pixels of the input.
fn place(cell: [f32; CHANNELS], row: usize, column: usize) -> Option<Place> {
    let [dx, dy, wide, tall, sine, cosine, display, drum, other] = cell;
    let finite = cell.iter().all(|value| value.is_finite());
    if !(finite && wide > 1.0 && tall > 1.0) {
        return None;
    }
    let centre = [CELL * (column as f32 + 0.5) + dx, CELL * (row as f32 + 0.5) + dy];
    let (sine, cosine) = sine.atan2(cosine).sin_cos();
    let (along, down) = ([cosine, sine], [-sine, cosine]);
    let corner = |a: f32, d: f32| {
        std::array::from_fn(|axis| centre[axis] + along[axis] * a * wide / 2.0 + down[axis] * d * tall / 2.0)
    };
    let quad = [corner(-1.0, -1.0), corner(1.0, -1.0), corner(1.0, 1.0), corner(-1.0, 1.0)];
    Some(Place { quad, display, drum, other })
}

/// The surest of those that lie at one place.
fn distinct(mut places: Vec<Place>) -> Vec<Place> {
    places.sort_by(|a, b| b.sure().total_cmp(&a.sure()));
    let mut kept: Vec<Place> = Vec::new();
    for place in places {
        if kept.len() < MOST && kept.iter().all(|known| shared(&known.quad, &place.quad) < SAME) {
            kept.push(place);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of 60 x 10 pixels around (50, 20), probably the total of a display.
    const LINE: [f32; 9] = [0.0, 2.0, 60.0, 10.0, 0.0, 2.0, 0.9, 0.1, 0.2];

    fn line(change: impl Fn(&mut [f32; 9])) -> Place {
        let mut cell = LINE;
        change(&mut cell);
        place(cell, 4, 12).unwrap()
    }

    #[test]
    fn a_cell_becomes_a_quad_and_a_turned_one_stands_on_its_side() {
        let level = line(|_| ());
        assert_eq!(level.quad, [[20.0, 15.0], [80.0, 15.0], [80.0, 25.0], [20.0, 25.0]]);
        assert_eq!(level.total(), 0.9);
        let turned = line(|cell| (cell[4], cell[5]) = (1.0, 0.0)).quad;
        let expected = [[55.0, -10.0], [55.0, 50.0], [45.0, 50.0], [45.0, -10.0]];
        for (corner, expected) in turned.iter().zip(expected) {
            assert!(crate::geometry::distance(*corner, expected) < 1e-3, "{turned:?}");
        }
        assert_eq!(place([f32::NAN; 9], 0, 0), None);
    }

    #[test]
    fn a_line_is_where_its_map_is_surer_than_all_around() {
        let (rows, columns) = (3, 4);
        let mut values = vec![0.0; CHANNELS * rows * columns];
        let mut set = |channel: usize, row: usize, column: usize, value: f32| {
            values[(channel * rows + row) * columns + column] = value;
        };
        for (column, sure) in [(0, 0.5), (1, 0.7), (2, 0.3)] {
            for (channel, value) in [(2, 40.0), (3, 8.0), (5, 1.0), (7, sure)] {
                set(channel, 1, column, value);
            }
        }
        let found = peaks(&Output { rows, columns, values });
        assert_eq!((found.len(), found[0].drum), (1, 0.7));
        assert_eq!(found[0].quad[0], [6.0 - 20.0, 6.0 - 4.0]);
    }

    #[test]
    fn of_boxes_at_one_place_the_surest_stays_and_a_line_below_is_another() {
        let at = |down: f32, sure: f32| line(|cell| (cell[1], cell[6]) = (down, sure));
        let kept = distinct(vec![at(3.0, 0.5), at(2.0, 0.9), at(16.0, 0.4)]);
        assert_eq!(kept, [at(2.0, 0.9), at(16.0, 0.4)]);
        assert!((shared(&at(2.0, 0.9).quad, &at(7.0, 0.9).quad) - 1.0 / 3.0).abs() < 1e-5);
    }

    #[test]
    fn the_network_sees_a_long_side_of_640_whatever_the_photos() {
        assert_eq!(network_size(4000, 3000), (640, 480));
        assert_eq!(network_size(300, 400), (480, 640));
        assert_eq!(network_size(12_000, 100), (640, 32));
    }
}
