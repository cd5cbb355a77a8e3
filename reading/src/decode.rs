//! Decoding under limits, and the EXIF turn.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{DynamicImage, RgbImage, metadata::Orientation};
use schemas::{
    events::{Fault, ImageSize},
    reason::Reason,
};

use crate::inspect::{FileInfo, fault, open, undecodable};

/// A decoded photo, upright.
pub struct Photo {
    info: FileInfo,
    pixels: RgbImage,
}

impl Photo {
    /// The file as it came, before the EXIF turn.
    #[must_use]
    pub fn info(&self) -> FileInfo {
        self.info
    }

    /// Width and height upright; pixels.
    #[must_use]
    pub fn size(&self) -> ImageSize {
        size(self.pixels.width(), self.pixels.height())
    }

    pub(crate) fn pixels(&self) -> &RgbImage {
        &self.pixels
    }
}

/// Sides are at most 12,000 pixels, so the conversion never saturates.
pub(crate) fn size(width: u32, height: u32) -> ImageSize {
    let side = |pixels: u32| i32::try_from(pixels).unwrap_or(i32::MAX);
    ImageSize { width: side(width), height: side(height) }
}

/// Decodes a photo and turns it upright by its EXIF orientation.
///
/// # Errors
/// Those of [`inspect`](crate::inspect), and `unsupported_format` or `truncated_image` where the pixels' data is damaged
/// or missing.
pub fn decode(bytes: &[u8]) -> Result<Photo, Fault> {
    // The decoders are memory-safe, but a hostile file may find an index out of bounds in them: one photo must not end
    // the process that reads all others.
    catch_unwind(AssertUnwindSafe(|| decode_upright(bytes))).unwrap_or_else(|_| {
        Err(fault(Reason::UnsupportedFormat, "The picture's data is damaged.".to_owned()))
    })
}

fn decode_upright(bytes: &[u8]) -> Result<Photo, Fault> {
    let (decoder, info) = open(bytes)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(|error| undecodable(&error))?;
    picture.apply_orientation(Orientation::from_exif(info.orientation).unwrap_or(Orientation::NoTransforms));
    Ok(Photo { info, pixels: picture.into_rgb8() })
}
