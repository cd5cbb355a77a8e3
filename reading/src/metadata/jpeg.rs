//! JPEG: application segments and comments.

use super::turn;
use crate::jpeg::{EOI, Segment, Segments};

/// JFIF: density, and how colours are stored.
const APP0: u8 = 0xE0;
/// EXIF and XMP.
const APP1: u8 = 0xE1;
/// Colour profiles, among others.
const APP2: u8 = 0xE2;
/// Adobe's: how colours are stored.
const APP14: u8 = 0xEE;
const COMMENT: u8 = 0xFE;

/// The picture's own segments, up to its end. None where the file is damaged.
pub(super) fn without(file: &[u8], orientation: u8) -> Option<Vec<u8>> {
    let begin = [0xFF, 0xD8];
    file.strip_prefix(&begin)?;
    let mut kept = Vec::with_capacity(file.len());
    kept.extend(begin);
    let mut turn = turn(orientation).map(exif);
    for segment in Segments::of(file) {
        let segment = segment.ok()?;
        // JFIF wants its own segment to be the first.
        if segment.code != APP0 {
            kept.extend(turn.take().into_iter().flatten());
        }
        if is_needed(&segment) {
            segment.write(&mut kept);
        }
        if segment.code == EOI {
            break;
        }
    }
    Some(kept)
}

fn is_needed(segment: &Segment<'_>) -> bool {
    // Behind the length.
    let content = segment.body.get(2..).unwrap_or_default();
    match segment.code {
        APP0 => content.starts_with(b"JFIF\0"),
        APP2 => content.starts_with(b"ICC_PROFILE\0"),
        APP14 => content.starts_with(b"Adobe"),
        APP1..=0xEF | COMMENT => false,
        _ => true,
    }
}

/// A segment of EXIF data.
fn exif(tiff: [u8; 26]) -> Vec<u8> {
    // Two bytes of length, six that name it, and the data.
    [&[0xFF, APP1, 0, 34][..], b"Exif\0\0", &tiff].concat()
}
