//! Finds lines of text: PP-OCRv5's mobile detector, and what turns its map into boxes (the DB method, Liao et al. 2020,
//! arXiv:1911.08947).

use image::RgbImage;

use crate::{
    geometry::{Point, Quad, axes, grow, height, scale, smallest_rectangle, spanned, width},
    network::{Network, NetworkError, Thread, input_size},
    plane::{Plane, components, resize},
};

/// The long side that the network sees; pixels. At 960 nothing is won.
pub(crate) const FINE: u32 = 736;
/// The long side for a second look: for less than half the time, four to five points of accuracy lower, but wheels that stand
/// far apart become one line.
pub(crate) const COARSE: u32 = 480;
/// Probability from which a pixel belongs to text.
const TEXT: f32 = 0.3;
/// Mean probability from which a component is text.
const SURE: f32 = 0.5;
/// How far a shrunk box is grown back: by area times this over perimeter (the DB method's unclip).
const UNCLIP: f32 = 1.6;
/// Components with fewer pixels of the map, or thinner ones, are noise.
const LEAST_PIXELS: usize = 12;
const LEAST_SIDE: f32 = 3.0;
/// The most boxes that are kept; the largest probability first. A dashboard has 10 to 40.
const MOST_BOXES: usize = 96;
/// Mean and standard deviation of ImageNet's channels: what the network was trained with, blue first.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];

/// The boxes of lines of text; pixels of the picture.
pub(crate) fn detect(
    network: &Network,
    picture: &RgbImage,
    long_side: u32,
    thread: &Thread,
) -> Result<Vec<Quad>, NetworkError> {
    let (width, height) = picture.dimensions();
    let (columns, rows) = network_size(width, height, long_side);
    let Some(small) = resize(picture, columns, rows) else {
        return Ok(Vec::new());
    };
    let output = network.run(planes(&small), rows as usize, columns as usize, thread)?;
    let map = Plane::new(output.columns, output.rows, output.values);
    let (x, y) = (width as f32 / map.width as f32, height as f32 / map.height as f32);
    Ok(boxes(&map).into_iter().map(|quad| scale(&quad, x, y)).collect())
}

/// The size that the network sees; a small photo is not enlarged.
fn network_size(width: u32, height: u32, long_side: u32) -> (u32, u32) {
    input_size(width, height, (long_side as f32 / width.max(height) as f32).min(1.0))
}

fn planes(picture: &RgbImage) -> Vec<f32> {
    let mut planes = Vec::with_capacity(picture.as_raw().len());
    for (channel, (mean, deviation)) in MEAN.into_iter().zip(DEVIATION).enumerate() {
        let values = picture.as_raw().iter().skip(2 - channel).step_by(3);
        planes.extend(values.map(|value| (f32::from(*value) / 255.0 - mean) / deviation));
    }
    planes
}

/// A component of the map that is text.
struct Blob {
    sure: f32,
    outline: Vec<Point>,
    quad: Quad,
}

/// From the probability map to boxes, in pixels of the map; the surest first.
fn boxes(map: &Plane<f32>) -> Vec<Quad> {
    let mut blobs: Vec<Blob> = components(map, |probability| probability > TEXT)
        .into_iter()
        .filter(|component| component.len() >= LEAST_PIXELS)
        .filter_map(|component| {
            let sure = component.iter().map(|index| map.values[*index]).sum::<f32>() / component.len() as f32;
            let outline = outline(map, &component);
            let quad = smallest_rectangle(&outline)?;
            (sure >= SURE && width(&quad).min(height(&quad)) >= LEAST_SIDE).then_some(Blob {
                sure,
                outline,
                quad,
            })
        })
        .collect();
    blobs.sort_by(|a, b| b.sure.total_cmp(&a.sure));
    blobs.truncate(MOST_BOXES);
    let along = direction(&blobs);
    blobs.into_iter().map(|blob| unclip(&blob.levelled(along))).collect()
}

/// The direction that the picture's text runs in: the median of the boxes that are long enough to show one; level where
/// there are none.
fn direction(blobs: &[Blob]) -> Point {
    let long = blobs.iter().filter(|blob| is_long(&blob.quad));
    let mut slopes: Vec<f32> = long.map(|blob| axes(&blob.quad).0).map(|[x, y]| y.atan2(x)).collect();
    slopes.sort_by(f32::total_cmp);
    let angle = slopes.get(slopes.len() / 2).copied().unwrap_or_default();
    [angle.cos(), angle.sin()]
}

fn is_long(quad: &Quad) -> bool {
    width(quad) >= 1.8 * height(quad)
}

impl Blob {
    /// A lone digit is about as wide as high, and its smallest rectangle leans at random: it takes the picture's direction.
    fn levelled(&self, along: Point) -> Quad {
        if is_long(&self.quad) { self.quad } else { spanned(&self.outline, along) }
    }
}

fn unclip(quad: &Quad) -> Quad {
    let (long, short) = (width(quad), height(quad));
    let reach = long * short * UNCLIP / (2.0 * (long + short));
    grow(quad, reach, reach, reach)
}

/// The first and last pixel of a component in each row, as corners of pixels: all that its hull can touch.
fn outline(map: &Plane<f32>, component: &[usize]) -> Vec<Point> {
    let mut ends = vec![(usize::MAX, 0); map.height];
    for index in component {
        let (x, row) = (index % map.width, &mut ends[index / map.width]);
        *row = (row.0.min(x), row.1.max(x + 1));
    }
    let rows = ends.into_iter().enumerate().filter(|(_, (first, _))| *first != usize::MAX);
    rows.flat_map(|(y, (first, last))| {
        let (left, right, top, bottom) = (first as f32, last as f32, y as f32, (y + 1) as f32);
        [[left, top], [right, top], [left, bottom], [right, bottom]]
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_in_the_map_becomes_one_box_grown_by_the_unclip_rule() {
        let values = (0..40 * 100).map(|i| {
            let (x, y) = (i % 100, i / 100);
            if (20..80).contains(&x) && (10..30).contains(&y) { 0.9 } else { 0.0 }
        });
        let found = boxes(&Plane::new(100, 40, values.collect()));
        // 60 x 20: grown by 1200 * 1.6 / 160 = 12 on every side.
        assert_eq!(found, [[[8.0, -2.0], [92.0, -2.0], [92.0, 42.0], [8.0, 42.0]]]);
    }

    #[test]
    fn faint_and_tiny_components_are_no_text() {
        let faint = vec![0.4; 100];
        assert!(boxes(&Plane::new(10, 10, faint)).is_empty());
        let mut tiny = vec![0.0; 100];
        tiny[..9].fill(0.9);
        assert!(boxes(&Plane::new(10, 10, tiny)).is_empty());
    }

    #[test]
    fn the_network_sees_multiples_of_32_and_never_an_enlarged_picture() {
        assert_eq!(network_size(4000, 3000, FINE), (736, 544));
        assert_eq!(network_size(640, 480, FINE), (640, 480));
        assert_eq!(network_size(12_000, 100, COARSE), (480, 32));
    }
}
