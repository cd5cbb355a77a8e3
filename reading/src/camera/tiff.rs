//! EXIF data (CIPA DC-008, 4.6): a TIFF file whose first directory names a second one, with what the camera says.

use super::editors::editor;
use super::{Says, Taken};
use chrono::{NaiveDateTime, Offset as _};
use schemas::ids::Micros;

const SOFTWARE: u16 = 0x0131;
const PROCESSING_SOFTWARE: u16 = 0x000B;
const EXIF: u16 = 0x8769;
const DATE_TIME_ORIGINAL: u16 = 0x9003;
const OFFSET_TIME_ORIGINAL: u16 = 0x9011;
/// The type of text: bytes, of which the last is zero.
const ASCII: u16 = 2;
/// Bytes of a directory's entry: tag, type, count, and the value or its place.
const ENTRY: usize = 12;

/// What EXIF data say; nothing where they are damaged.
pub(super) fn says(tiff: &[u8]) -> Says {
    read(tiff).unwrap_or_default()
}

fn read(tiff: &[u8]) -> Option<Says> {
    let file = Tiff::of(tiff)?;
    let first = file.directory(file.u32(4)?);
    let software = [SOFTWARE, PROCESSING_SOFTWARE].into_iter();
    let editor = software.filter_map(|tag| file.text(first, tag)).find_map(editor);
    let taken = file.entry(first, EXIF).and_then(|entry| {
        let camera = file.directory(file.u32(entry + 8)?);
        let zone = file.text(camera, OFFSET_TIME_ORIGINAL);
        taken(file.text(camera, DATE_TIME_ORIGINAL)?, zone)
    });
    Some(Says { taken, editor })
}

/// A time like `2026:03:01 12:00:00`, with its difference from UTC like `+01:00` where the camera wrote one.
fn taken(time: &[u8], zone: Option<&[u8]>) -> Option<Taken> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let local = NaiveDateTime::parse_from_str(text(time)?.trim(), "%Y:%m:%d %H:%M:%S").ok()?;
    let zone = zone.and_then(text).and_then(|zone| match zone.trim() {
        "Z" => Some(chrono::Utc.fix()),
        zone => zone.parse::<chrono::FixedOffset>().ok(),
    });
    let at = Micros(local.and_utc().timestamp_micros());
    let zoned = zone.map(|zone| at.0 - i64::from(zone.local_minus_utc()) * 1_000_000);
    Some(Taken { at: zoned.map_or(at, Micros), zone_known: zoned.is_some() })
}

/// A TIFF file (TIFF 6.0, section 2).
struct Tiff<'a> {
    bytes: &'a [u8],
    little_endian: bool,
}

impl<'a> Tiff<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let little_endian = match bytes.first_chunk()? {
            b"II*\0" => true,
            b"MM\0*" => false,
            _ => return None,
        };
        Some(Self { bytes, little_endian })
    }

    fn u16(&self, at: usize) -> Option<u16> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.little_endian { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    }

    fn u32(&self, at: usize) -> Option<u32> {
        let bytes = *self.bytes.get(at..)?.first_chunk()?;
        Some(if self.little_endian { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    /// The place of a directory.
    fn directory(&self, at: u32) -> usize {
        // No file has so many bytes where the conversion fails, so that nothing is found there.
        usize::try_from(at).unwrap_or(usize::MAX)
    }

    /// The place of a directory's entry.
    fn entry(&self, directory: usize, tag: u16) -> Option<usize> {
        let entries = usize::from(self.u16(directory)?);
        let mut places = (0..entries).map(|n| directory + 2 + n * ENTRY);
        places.find(|at| self.u16(*at) == Some(tag))
    }

    /// The text of an entry, up to its zero. One of at most four bytes stands in the place of its place.
    fn text(&self, directory: usize, tag: u16) -> Option<&'a [u8]> {
        let entry = self.entry(directory, tag)?;
        let (kind, length) = (self.u16(entry + 2)?, usize::try_from(self.u32(entry + 4)?).ok()?);
        let at = if length > 4 { self.directory(self.u32(entry + 8)?) } else { entry + 8 };
        let text = self.bytes.get(at..at.checked_add(length)?).filter(|_| kind == ASCII)?;
        text.split(|byte| *byte == 0).next()
    }
}
