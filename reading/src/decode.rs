//! Decoding under limits, and the EXIF turn.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{RgbImage, codecs::jpeg::JpegEncoder, metadata::Orientation};
use schemas::{
    events::{Fault, ImageSize},
    reason::Reason,
};
use sha2::{Digest as _, Sha256};

use crate::{
    inspect::{FileInfo, fault, open, size},
    plane::shrunk,
};

/// Quality of what is sent outside, 1-100: above it files grow and digits do not become clearer.
const JPEG_QUALITY: u8 = 90;

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

    /// SHA-256 of width, height and the pixels, upright; 64 lower-case hex digits. What a file holds besides its picture (a comment,
    /// metadata, bytes behind its end) has no say in it, and another way to store the same pixels is the same photo.
    #[must_use]
    pub fn pixel_hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(self.pixels.width().to_be_bytes());
        hasher.update(self.pixels.height().to_be_bytes());
        hasher.update(self.pixels.as_raw());
        hex::encode(hasher.finalize())
    }

    /// The photo as a service outside is sent it: a place or a name in the file's EXIF stays here. Smaller than the photo
    /// where its long side has more than `long_side` pixels.
    ///
    /// # Errors
    /// `processing_failed` where the encoder refuses the picture.
    pub fn to_jpeg(&self, long_side: u32) -> Result<Jpeg, Fault> {
        let small = shrunk(&self.pixels, long_side);
        let picture = small.as_ref().unwrap_or(&self.pixels);
        let mut bytes = Vec::new();
        let encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        match picture.write_with_encoder(encoder) {
            Ok(()) => Ok(Jpeg { bytes, size: size(picture.width(), picture.height()) }),
            Err(error) => Err(fault(Reason::ProcessingFailed, error.to_string())),
        }
    }

    pub(crate) fn pixels(&self) -> &RgbImage {
        &self.pixels
    }
}

/// A photo upright as a JPEG without metadata.
#[derive(Clone, Debug)]
pub struct Jpeg {
    /// The file.
    pub bytes: Vec<u8>,
    /// Its width and height; pixels.
    pub size: ImageSize,
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
    let (opened, info) = open(bytes)?;
    let mut picture = opened.pixels()?;
    picture.apply_orientation(Orientation::from_exif(info.orientation).unwrap_or(Orientation::NoTransforms));
    Ok(Photo { info, pixels: picture.into_rgb8() })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, Rgb};

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let picture = RgbImage::from_fn(width, height, |x, y| Rgb([(x % 251) as u8, (y % 241) as u8, 90]));
        DynamicImage::from(picture).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn the_pixels_alone_are_hashed_and_one_that_differs_makes_another_hash() {
        let hash = |bytes: &[u8]| decode(bytes).unwrap().pixel_hash();
        let (bytes, more) = (png(640, 480), [&png(640, 480)[..], b"trailing"].concat());
        assert_ne!(bytes, more);
        assert_eq!(hash(&bytes), hash(&more));
        let mut picture = decode(&bytes).unwrap().pixels;
        let mut lossless = Cursor::new(Vec::new());
        DynamicImage::from(picture.clone()).write_to(&mut lossless, ImageFormat::WebP).unwrap();
        assert_eq!(hash(&bytes), hash(&lossless.into_inner()));
        picture.get_pixel_mut(639, 479).0[2] ^= 1;
        let mut changed = Cursor::new(Vec::new());
        DynamicImage::from(picture).write_to(&mut changed, ImageFormat::Png).unwrap();
        assert_ne!(hash(&bytes), hash(&changed.into_inner()));
        // As many pixels, in another shape.
        assert_ne!(hash(&png(640, 480)), hash(&png(480, 640)));
    }

    #[test]
    fn what_is_sent_outside_is_a_jpeg_of_bounded_size_that_keeps_the_photos_shape() {
        let photo = decode(&png(1_200, 800)).unwrap();
        let sent = photo.to_jpeg(900).unwrap();
        assert_eq!(sent.size, size(900, 600));
        assert_eq!(decode(&sent.bytes).unwrap().size(), sent.size);
        assert_eq!(photo.to_jpeg(1_200).unwrap().size, size(1_200, 800));
    }
}
