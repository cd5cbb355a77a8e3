//! Turns and mirrorings of a picture, and the EXIF orientation that says the same.

/// Quarter turns clockwise, and then a mirroring of left and right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    quarters: u8,
    mirrored: bool,
}

impl Turn {
    /// `irot` (ISO/IEC 23008-12 clause 6.5.10): quarter turns anticlockwise in the two lowest bits.
    pub fn anticlockwise(angle: u8) -> Self {
        Self { quarters: (4 - (angle & 3)) & 3, mirrored: false }
    }

    /// `imir` (clause 6.5.12): the lowest bit is 0 where top and bottom change places, and 1 where left and right do.
    pub fn mirrored(axis: u8) -> Self {
        // Top and bottom change places by half a turn and a change of left and right.
        Self { quarters: if axis & 1 == 0 { 2 } else { 0 }, mirrored: true }
    }

    /// This one, and another after it. A turn after a mirroring is the opposite turn before it.
    pub fn then(self, next: Self) -> Self {
        let quarters = if self.mirrored { 4 - next.quarters } else { next.quarters };
        Self { quarters: (self.quarters + quarters) & 3, mirrored: self.mirrored != next.mirrored }
    }

    /// The EXIF orientation, 1-8, that makes a picture upright in the same way.
    pub fn exif(self) -> u8 {
        match (self.quarters, self.mirrored) {
            (0, false) => 1,
            (0, true) => 2,
            (2, false) => 3,
            (2, true) => 4,
            (1, true) => 5,
            (1, false) => 6,
            (_, true) => 7,
            (_, false) => 8,
        }
    }
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, Luma, imageops, metadata::Orientation};

    use super::*;

    fn turned(picture: &GrayImage, turn: Turn) -> GrayImage {
        let mut picture = image::DynamicImage::from(picture.clone());
        picture.apply_orientation(Orientation::from_exif(turn.exif()).unwrap());
        picture.into_luma8()
    }

    #[test]
    fn turns_and_mirrorings_one_after_another_are_the_orientation_that_does_the_same_at_once() {
        let picture = GrayImage::from_fn(3, 2, |x, y| Luma([(x + 3 * y) as u8]));
        type Step = (Turn, fn(&GrayImage) -> GrayImage);
        let steps: [Step; 5] = [
            (Turn::anticlockwise(1), imageops::rotate270),
            (Turn::anticlockwise(2), imageops::rotate180),
            (Turn::anticlockwise(3), imageops::rotate90),
            (Turn::mirrored(0), imageops::flip_vertical),
            (Turn::mirrored(1), imageops::flip_horizontal),
        ];
        for (first, do_first) in steps {
            assert_eq!(turned(&picture, first), do_first(&picture));
            for (second, do_second) in steps {
                assert_eq!(turned(&picture, first.then(second)), do_second(&do_first(&picture)));
            }
        }
    }
}
