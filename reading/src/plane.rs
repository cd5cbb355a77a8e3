//! Planes of numbers, and the few operations on them that several measurements share.

use fast_image_resize::{
    FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer, images::Image, images::ImageRef,
};
use image::RgbImage;

/// A plane of values, row by row.
#[derive(Clone, Debug)]
pub(crate) struct Plane<T> {
    pub width: usize,
    pub height: usize,
    pub values: Vec<T>,
}

impl<T: Copy> Plane<T> {
    pub fn new(width: usize, height: usize, values: Vec<T>) -> Self {
        debug_assert_eq!(values.len(), width * height);
        Self { width, height, values }
    }
}

/// Luma by ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B, rounded.
pub(crate) fn luma_of([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 299 + u32::from(green) * 587 + u32::from(blue) * 114 + 500) / 1000) as u8
}

/// The luma plane of a picture.
pub(crate) fn luma(picture: &RgbImage) -> Plane<u8> {
    let values = picture.pixels().map(|pixel| luma_of(pixel.0)).collect();
    Plane::new(picture.width() as usize, picture.height() as usize, values)
}

/// The picture at another size, each pixel the mean of the area that it covers (a triangle filter as wide as the step).
/// None where either size is empty.
pub(crate) fn resize(picture: &RgbImage, width: u32, height: u32) -> Option<RgbImage> {
    // Four bytes a pixel: the only kind that the resizer is built for.
    let padded: Vec<u8> =
        picture.pixels().flat_map(|pixel| [pixel[0], pixel[1], pixel[2], u8::MAX]).collect();
    let source = ImageRef::new(picture.width(), picture.height(), &padded, PixelType::U8x4).ok()?;
    let mut target = Image::new(width, height, PixelType::U8x4);
    let algorithm = ResizeAlg::Convolution(FilterType::Bilinear);
    let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
    Resizer::new().resize(&source, &mut target, &options).ok()?;
    let values = target.buffer().chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
    RgbImage::from_raw(width, height, values)
}

/// The picture with its long side of `long_side` pixels; none where it is no longer than that.
pub(crate) fn shrunk(picture: &RgbImage, long_side: u32) -> Option<RgbImage> {
    let long = picture.width().max(picture.height());
    if long <= long_side {
        return None;
    }
    let side = |pixels: u32| {
        ((u64::from(pixels) * u64::from(long_side) + u64::from(long) / 2) / u64::from(long)) as u32
    };
    resize(picture, side(picture.width()).max(1), side(picture.height()).max(1))
}

/// The picture with its luma's 1st to 99.5th percentile stretched over the whole range; none where that changes little.
pub(crate) fn stretched(picture: &RgbImage) -> Option<RgbImage> {
    let values = luma(picture).values;
    let (low, high) = (percentile(&values, 0.01), percentile(&values, 0.995));
    if high - low > 180.0 {
        return None;
    }
    let gain = 255.0 / (high - low).max(8.0);
    let levels: [u8; 256] =
        std::array::from_fn(|level| ((level as f64 - low) * gain).round().clamp(0.0, 255.0) as u8);
    let mut picture = picture.clone();
    picture.iter_mut().for_each(|value| *value = levels[usize::from(*value)]);
    Some(picture)
}

/// The value below or at which `share` of the values lie (nearest rank); 0 where there are none.
pub(crate) fn percentile(values: &[u8], share: f64) -> f64 {
    let mut counts = [0usize; 256];
    for value in values {
        counts[usize::from(*value)] += 1;
    }
    let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
    let mut below = 0;
    let level = counts.iter().position(|count| {
        below += count;
        below >= rank
    });
    level.unwrap_or(0) as f64
}

/// The mean; 0 where there are no values.
pub(crate) fn mean(values: &[u8]) -> f64 {
    let sum: u64 = values.iter().map(|value| u64::from(*value)).sum();
    sum as f64 / values.len().max(1) as f64
}

/// The squared length of the Sobel gradient at every inner pixel, in luma per pixel: the 3x3 kernels are divided by 8, so
/// a slope of one level a pixel has length 1.
pub(crate) fn squared_gradients(plane: &Plane<u8>) -> Vec<f32> {
    let mut out = Vec::with_capacity(plane.values.len());
    let rows: Vec<&[u8]> = plane.values.chunks_exact(plane.width.max(1)).collect();
    for triple in rows.windows(3) {
        let [above, here, below] = triple else { continue };
        for x in 1..plane.width.saturating_sub(1) {
            let at = |row: &[u8], x: usize| i32::from(row[x]);
            let right = at(above, x + 1) + 2 * at(here, x + 1) + at(below, x + 1);
            let left = at(above, x - 1) + 2 * at(here, x - 1) + at(below, x - 1);
            let under = at(below, x - 1) + 2 * at(below, x) + at(below, x + 1);
            let over = at(above, x - 1) + 2 * at(above, x) + at(above, x + 1);
            let (dx, dy) = (right - left, under - over);
            out.push((dx * dx + dy * dy) as f32 / 64.0);
        }
    }
    out
}

/// The 4-connected components of the pixels for which `inside` holds, each as its pixels' indices, in scan order.
pub(crate) fn components<T: Copy>(plane: &Plane<T>, inside: impl Fn(T) -> bool) -> Vec<Vec<usize>> {
    let mut open: Vec<bool> = plane.values.iter().map(|value| inside(*value)).collect();
    let mut found = Vec::new();
    let mut queue = Vec::new();
    for start in 0..open.len() {
        if !open[start] {
            continue;
        }
        open[start] = false;
        queue.push(start);
        let mut component = Vec::new();
        while let Some(index) = queue.pop() {
            component.push(index);
            let (x, y) = (index % plane.width, index / plane.width);
            let mut visit = |next: usize| {
                if open[next] {
                    open[next] = false;
                    queue.push(next);
                }
            };
            if x > 0 {
                visit(index - 1);
            }
            if x + 1 < plane.width {
                visit(index + 1);
            }
            if y > 0 {
                visit(index - plane.width);
            }
            if y + 1 < plane.height {
                visit(index + plane.width);
            }
        }
        found.push(component);
    }
    found
}
