//! The photo with what was read drawn on it, for a person who checks the reader.

use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage, error::ImageError};

use crate::{
    decode::Photo,
    geometry::{Point, Quad},
    reading::{Reading, Role},
};

/// Digits and the point, five columns and seven rows: one byte per row, the column at the left in bit 4.
const GLYPHS: [(char, [u8; 7]); 11] = [
    ('0', [0x0E, 0x11, 0x13, 0x15, 0x19, 0x11, 0x0E]),
    ('1', [0x04, 0x0C, 0x04, 0x04, 0x04, 0x04, 0x0E]),
    ('2', [0x0E, 0x11, 0x01, 0x02, 0x04, 0x08, 0x1F]),
    ('3', [0x1F, 0x02, 0x04, 0x02, 0x01, 0x11, 0x0E]),
    ('4', [0x02, 0x06, 0x0A, 0x12, 0x1F, 0x02, 0x02]),
    ('5', [0x1F, 0x10, 0x1E, 0x01, 0x01, 0x11, 0x0E]),
    ('6', [0x06, 0x08, 0x10, 0x1E, 0x11, 0x11, 0x0E]),
    ('7', [0x1F, 0x01, 0x02, 0x04, 0x08, 0x08, 0x08]),
    ('8', [0x0E, 0x11, 0x11, 0x0E, 0x11, 0x11, 0x0E]),
    ('9', [0x0E, 0x11, 0x11, 0x0F, 0x01, 0x02, 0x0C]),
    ('.', [0x00, 0x00, 0x00, 0x00, 0x00, 0x0C, 0x0C]),
];
/// A character's width with the space behind it, and a line's height with the space below it; dots.
const PITCH: (u32, u32) = (6, 9);

/// The upright photo as PNG with every line's box (the reading green, other candidates yellow, units blue, the rest grey)
/// and the candidates with their confidence in the upper left corner, best first.
///
/// # Errors
/// [`ImageError`] where PNG cannot be written: never seen in memory.
pub fn annotate(photo: &Photo, reading: &Reading) -> Result<Vec<u8>, ImageError> {
    let mut picture = photo.pixels().clone();
    // One dot of the labels, and the width of a box's edge: legible when the whole photo fills a screen.
    let dot = (picture.width().max(picture.height()) / 480).max(1);
    for line in &reading.lines {
        frame(&mut picture, &line.quad, dot, colour(line.role));
    }
    for (row, candidate) in reading.candidates.iter().enumerate() {
        let role = if row == 0 { Role::Reading } else { Role::Candidate };
        let text = format!("{}  {}", candidate.value, candidate.confidence);
        let top = (row as u32 * PITCH.1 + 2) * dot;
        write(&mut picture, (2 * dot, top), dot, &text, colour(role));
    }
    let mut out = Cursor::new(Vec::new());
    picture.write_to(&mut out, ImageFormat::Png)?;
    Ok(out.into_inner())
}

fn colour(role: Role) -> Rgb<u8> {
    Rgb(match role {
        Role::Reading => [40, 230, 80],
        Role::Candidate => [250, 210, 40],
        Role::Unit => [80, 160, 255],
        Role::Other => [150, 150, 150],
    })
}

/// The quad's four sides.
fn frame(picture: &mut RgbImage, quad: &Quad, broad: u32, colour: Rgb<u8>) {
    for (from, to) in quad.iter().zip(quad.iter().cycle().skip(1)) {
        let steps = (crate::geometry::distance(*from, *to) as u32).clamp(1, 20_000);
        for step in 0..=steps {
            let share = step as f32 / steps as f32;
            let at: Point = [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share];
            fill(picture, at[0] as i64, at[1] as i64, broad, colour);
        }
    }
}

/// A text on black, each dot of it `dot` pixels broad.
fn write(picture: &mut RgbImage, (left, top): (u32, u32), dot: u32, text: &str, colour: Rgb<u8>) {
    for (index, character) in text.chars().enumerate() {
        let blank = (' ', [0; 7]);
        let (_, rows) = GLYPHS.into_iter().find(|(known, _)| *known == character).unwrap_or(blank);
        for y in 0..PITCH.1 {
            for x in 0..PITCH.0 {
                let row = y.checked_sub(1).and_then(|y| rows.get(y as usize)).copied().unwrap_or_default();
                let lit = x < 5 && row >> (4 - x) & 1 == 1;
                let at = (left + (index as u32 * PITCH.0 + x) * dot, top + y * dot);
                fill(picture, i64::from(at.0), i64::from(at.1), dot, if lit { colour } else { Rgb([0; 3]) });
            }
        }
    }
}

/// A square with its upper left corner at a point; what lies beyond the border is left out.
fn fill(picture: &mut RgbImage, left: i64, top: i64, side: u32, colour: Rgb<u8>) {
    for y in top..top + i64::from(side) {
        for x in left..left + i64::from(side) {
            if let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y))
                && let Some(pixel) = picture.get_pixel_mut_checked(x, y)
            {
                *pixel = colour;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_written_dot_by_dot_and_a_box_beyond_the_border_is_cut() {
        let mut picture = RgbImage::from_pixel(12, 12, Rgb([7; 3]));
        write(&mut picture, (0, 0), 1, "1", Rgb([255; 3]));
        assert_eq!(
            (picture[(2, 1)], picture[(1, 1)], picture[(8, 1)]),
            (Rgb([255; 3]), Rgb([0; 3]), Rgb([7; 3]))
        );
        frame(&mut picture, &[[-5.0, 10.0], [30.0, 10.0], [30.0, 40.0], [-5.0, 40.0]], 1, Rgb([1, 2, 3]));
        assert_eq!(
            (picture[(0, 10)], picture[(11, 10)], picture[(0, 11)]),
            (Rgb([1, 2, 3]), Rgb([1, 2, 3]), Rgb([7; 3]))
        );
    }
}
