//! The cheap check: what a file says it is, without decoding a pixel.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, error::ImageError};
use schemas::{
    events::{Fault, ImageSize},
    reason::Reason,
};

use crate::chunks;
use crate::format::Format;
#[cfg(feature = "heic")]
use crate::heif::{Heif, HeifError};
use crate::jpeg::{Cut, EOI, SOS, Segment, Segments};

/// The longest side that is decoded; pixels.
const LONGEST_SIDE: u32 = 12_000;
/// The most memory that a decoder may take; bytes. 40 million pixels of 4 bytes are 160 MB.
const MOST_MEMORY: u64 = 256 << 20;
/// The most pixels for one byte of JPEG. The emptiest baseline picture takes 12 bits for a block of 16x16 pixels (one
/// bit each for DC and EOB of four luma and two chroma blocks), 171 pixels a byte; more is a header that lies, and
/// decodes to a grey picture of that size.
const MOST_JPEG_PIXELS_PER_BYTE: u64 = 200;
/// The smallest long and short side of a picture that is no thumbnail; pixels. A display may fill it: whether the digits have
/// enough pixels is seen where they are.
const SMALLEST: (u32, u32) = (400, 300);

/// What a file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Length of the file; bytes.
    pub bytes: u64,
    /// Format, by the magic bytes.
    pub format: Format,
    /// Width as stored, before the EXIF turn; pixels.
    pub width: u32,
    /// Height as stored, before the EXIF turn; pixels.
    pub height: u32,
    /// EXIF orientation, 1-8; 1 (upright) where the file has none. Of a HEIC file, what its container says.
    pub orientation: u8,
    /// Whether the file has its end. A progressive JPEG may lack its last scans and still show everything.
    pub complete: bool,
}

impl FileInfo {
    /// Its size as stored.
    #[must_use]
    pub fn size(&self) -> ImageSize {
        size(self.width, self.height)
    }
}

/// Sides are at most 12,000 pixels, so the conversion never saturates.
pub(crate) fn size(width: u32, height: u32) -> ImageSize {
    let side = |pixels: u32| i32::try_from(pixels).unwrap_or(i32::MAX);
    ImageSize { width: side(width), height: side(height) }
}

/// Checks a file's header: format, end marker, dimensions. Decodes no pixels and takes memory for one copy of the file.
///
/// # Errors
/// `unsupported_format` (another format, a header that cannot be read, or more pixels than are decoded),
/// `truncated_image` (the end is missing) or `low_resolution`.
pub fn inspect(bytes: &[u8]) -> Result<FileInfo, Fault> {
    open(bytes).map(|(_, info)| info)
}

/// A file whose header is read, ready to be decoded.
pub(crate) enum Opened<'a> {
    /// By the crate `image`, under limits.
    Raster(Box<dyn ImageDecoder + 'a>),
    #[cfg(feature = "heic")]
    Heif(Heif<'a>),
}

impl Opened<'_> {
    /// The pixels as stored, before the turn.
    pub fn pixels(self) -> Result<DynamicImage, Fault> {
        match self {
            Self::Raster(decoder) => DynamicImage::from_decoder(decoder).map_err(|error| undecodable(&error)),
            #[cfg(feature = "heic")]
            Self::Heif(heif) => heif.decode().map(DynamicImage::from).map_err(|error| not_heic(&error)),
        }
    }
}

/// The file with its header read, and what the header says.
pub(crate) fn open(bytes: &[u8]) -> Result<(Opened<'_>, FileInfo), Fault> {
    let format = Format::sniff(bytes)
        .map_err(|what| fault(Reason::UnsupportedFormat, format!("The file is {what}.")))?;
    let Some(complete) = ends(format, bytes) else { return Err(truncated()) };
    let (opened, (width, height), orientation) = match format.decoder() {
        Some(decoder) => raster(bytes, decoder)?,
        None => heif(bytes)?,
    };
    check_size(format, width, height, bytes.len() as u64)?;
    Ok((opened, FileInfo { bytes: bytes.len() as u64, format, width, height, orientation, complete }))
}

/// A file opened, its width and height as stored, and its EXIF orientation.
type Header<'a> = (Opened<'a>, (u32, u32), u8);

fn raster(bytes: &[u8], format: image::ImageFormat) -> Result<Header<'_>, Fault> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|error| undecodable(&error))?;
    let orientation = decoder.orientation().map_or(1, image::metadata::Orientation::to_exif);
    let size = decoder.dimensions();
    Ok((Opened::Raster(Box::new(decoder)), size, orientation))
}

#[cfg(feature = "heic")]
fn heif(bytes: &[u8]) -> Result<Header<'_>, Fault> {
    let heif = Heif::open(bytes).map_err(|error| not_heic(&error))?;
    let (size, orientation) = (heif.size(), heif.orientation());
    Ok((Opened::Heif(heif), size, orientation))
}

/// Never asked: such a file is not known as a format.
#[cfg(not(feature = "heic"))]
fn heif(_: &[u8]) -> Result<Header<'_>, Fault> {
    Err(fault(Reason::UnsupportedFormat, "This program was built without the decoder of HEIC.".to_owned()))
}

/// What the container's or its decoder's refusal means to the sender.
#[cfg(feature = "heic")]
fn not_heic(error: &HeifError) -> Fault {
    match error {
        HeifError::Cut => truncated(),
        HeifError::TooLarge(samples) => fault(
            Reason::UnsupportedFormat,
            format!("A picture in the file has {samples} samples, which exceeds the pixel cap."),
        ),
        error => fault(Reason::UnsupportedFormat, format!("The HEIF picture cannot be read: {error}.")),
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    limits
}

fn check_size(format: Format, width: u32, height: u32, bytes: u64) -> Result<(), Fault> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > format.most_pixels() || width.max(height) > LONGEST_SIDE {
        let most = format.most_pixels() / 1_000_000;
        return Err(fault(
            Reason::UnsupportedFormat,
            format!(
                "The picture has {width}x{height} pixels; the pixel cap is {most} million and {LONGEST_SIDE} a side."
            ),
        ));
    }
    if format == Format::Jpeg && pixels > bytes * MOST_JPEG_PIXELS_PER_BYTE {
        return Err(fault(
            Reason::UnsupportedFormat,
            format!("The header claims {width}x{height} pixels, which {bytes} bytes cannot hold."),
        ));
    }
    if width.max(height) < SMALLEST.0 || width.min(height) < SMALLEST.1 {
        return Err(fault(
            Reason::LowResolution,
            format!(
                "The picture has {width}x{height} pixels; at least {}x{} are needed.",
                SMALLEST.0, SMALLEST.1
            ),
        ));
    }
    Ok(())
}

/// What a decoder's refusal means to the sender.
pub(crate) fn undecodable(error: &ImageError) -> Fault {
    match error {
        ImageError::Limits(_) => fault(
            Reason::UnsupportedFormat,
            format!(
                "The picture exceeds the pixel cap ({LONGEST_SIDE} a side, {} MiB decoded).",
                MOST_MEMORY >> 20
            ),
        ),
        ImageError::IoError(_) => truncated(),
        _ => fault(Reason::UnsupportedFormat, "The picture's data is damaged.".to_owned()),
    }
}

pub(crate) fn truncated() -> Fault {
    fault(Reason::TruncatedImage, "The picture ends in the middle.".to_owned())
}

pub(crate) fn fault(reason: Reason, detail: String) -> Fault {
    Fault { reason, detail }
}

/// Whether the file has its end; none where so much is missing that it is not worth decoding: decoders fill it with grey and
/// report nothing.
fn ends(format: Format, bytes: &[u8]) -> Option<bool> {
    match format {
        Format::Jpeg => match jpeg_end(bytes) {
            JpegEnd::Whole => Some(true),
            JpegEnd::LastScansMissing => Some(false),
            JpegEnd::Cut => None,
        },
        Format::Png => png_ends(bytes).then_some(true),
        Format::Webp => webp_ends(bytes).then_some(true),
        // Its container names every byte that is needed, and is read in any case.
        Format::Heic => Some(true),
    }
}

/// How a JPEG ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JpegEnd {
    /// With its end marker.
    Whole,
    /// Behind a whole scan of a progressive picture that shows all its detail but the last bits: an upload that an application
    /// cut off where the picture already looked finished.
    LastScansMissing,
    /// In the middle.
    Cut,
}

/// Walks the segments to EOI. Searching the last bytes would not do: cameras append their own data, and the
/// thumbnail inside a cut file has an EOI of its own.
fn jpeg_end(bytes: &[u8]) -> JpegEnd {
    const PROGRESSIVE: u8 = 0xC2;
    let (mut progressive, mut detailed) = (false, false);
    for segment in Segments::of(bytes) {
        match segment {
            Err(Cut) => return JpegEnd::Cut,
            Ok(Segment { code: EOI, .. }) => return JpegEnd::Whole,
            Ok(Segment { code: SOS, body, .. }) => detailed |= is_luma_detail(body),
            Ok(Segment { code, .. }) => progressive |= code == PROGRESSIVE,
        }
    }
    if progressive && detailed { JpegEnd::LastScansMissing } else { JpegEnd::Cut }
}

/// Whether a scan (T.81 B.2.3: length, one component, its id and tables, first and last coefficient, bits) holds the finest
/// detail of the first component alone, which is luma.
fn is_luma_detail(scan: &[u8]) -> bool {
    matches!(scan, [_, _, 1, 0 | 1, _, _, 63, _])
}

/// Walks the chunks to IEND.
fn png_ends(bytes: &[u8]) -> bool {
    chunks::png(bytes).map_while(Result::ok).any(|chunk| chunk.kind == b"IEND")
}

/// The RIFF header's length, which leaves out its own eight bytes, lies within the file.
fn webp_ends(bytes: &[u8]) -> bool {
    matches!(bytes.get(4..8), Some([a, b, c, d]) if u32::from_le_bytes([*a, *b, *c, *d]) as usize + 8 <= bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment with its length.
    fn segment(code: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len() + 2).unwrap();
        [&[0xFF, code, 0, length], content].concat()
    }

    /// A JPEG's segments: a frame of a kind, and the first scan of all components.
    fn begun(frame: u8) -> Vec<u8> {
        let scan = segment(0xDA, &[3, 1, 0, 2, 0x11, 3, 0x11, 0, 0, 0x01]);
        [vec![0xFF, 0xD8], segment(frame, &[8, 0, 9, 0, 9, 3]), scan, vec![1, 2, 3]].concat()
    }

    const DETAIL: [u8; 6] = [1, 1, 0, 1, 63, 0x02];

    #[test]
    fn a_progressive_jpeg_that_ends_behind_a_whole_scan_of_lumas_detail_lacks_only_its_last_scans() {
        let tables = segment(0xC4, &[0; 20]);
        let between =
            |frame: u8| [begun(frame), segment(0xDA, &DETAIL), vec![7, 8, 9], tables.clone()].concat();
        assert_eq!(jpeg_end(&between(0xC2)), JpegEnd::LastScansMissing);
        assert_eq!(jpeg_end(&[between(0xC2), vec![0xFF, 0xD9]].concat()), JpegEnd::Whole);
        assert_eq!(jpeg_end(&between(0xC0)), JpegEnd::Cut);
    }

    #[test]
    fn one_that_ends_within_a_scan_or_before_lumas_detail_is_cut() {
        let tables = segment(0xC4, &[0; 20]);
        assert_eq!(jpeg_end(&[begun(0xC2), tables].concat()), JpegEnd::Cut);
        assert_eq!(jpeg_end(&[begun(0xC2), segment(0xDA, &DETAIL), vec![7, 8, 9]].concat()), JpegEnd::Cut);
    }
}
