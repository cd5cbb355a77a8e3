//! A photo without what its camera wrote beside the picture: where and when it was taken, by which phone, by whom, the maker's notes,
//! previews, and whatever follows the picture, such as a motion photo's film. The picture's own bytes are copied as they are, so it
//! decodes to the same pixels and the same way up.

#[cfg(feature = "heic")]
mod heif;
mod jpeg;
mod png;
mod webp;

use std::borrow::Cow;

use crate::format::Format;
use crate::inspect::FileInfo;

/// The photo without metadata: without everything that no decoder needs for its pixels, colours and turn. `info` is what
/// [`inspect`](crate::inspect) says of it; one that is damaged is given back as it is.
#[must_use]
pub fn without_metadata<'a>(file: &'a [u8], info: &FileInfo) -> Cow<'a, [u8]> {
    let kept = match info.format {
        Format::Jpeg => jpeg::without(file, info.orientation),
        Format::Png => png::without(file, info.orientation),
        Format::Webp => webp::without(file, info.orientation),
        Format::Heic => heic(file),
    };
    kept.map_or(Cow::Borrowed(file), Cow::Owned)
}

#[cfg(feature = "heic")]
fn heic(file: &[u8]) -> Option<Vec<u8>> {
    heif::without(file)
}

/// Never asked: such a file is not known as a format.
#[cfg(not(feature = "heic"))]
fn heic(_: &[u8]) -> Option<Vec<u8>> {
    None
}

/// EXIF data that say how a photo is turned and nothing else; none for a photo that stands upright.
///
/// A TIFF file (TIFF 6.0, section 2) of one directory with one entry: tag 0x0112 (orientation), type 3 (16 bits), one value.
fn turn(orientation: u8) -> Option<[u8; 26]> {
    let mut tiff = *b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\0\0\0\0\0\0\0\0";
    tiff[18] = orientation;
    (orientation > 1).then_some(tiff)
}

#[cfg(test)]
mod tests;
