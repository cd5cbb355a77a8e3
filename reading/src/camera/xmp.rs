//! XMP data (ISO 16684-1): XML whose few properties are found by their names, as attributes or as elements. Its prefixes could be others by
//! the standard; every program writes these.

use chrono::{DateTime, NaiveDateTime};
use memchr::memmem;
use schemas::ids::Micros;

use super::editors::editor;
use super::{Says, Taken};

/// Programs that made or changed the picture: the history of an editor names each.
const PROGRAMS: [&[u8]; 3] = [b"xmp:CreatorTool", b"stEvt:softwareAgent", b"tiff:Software"];
const TAKEN: &[u8] = b"exif:DateTimeOriginal";
/// Of IPTC's sources of a picture, those that a generative model has made or changed.
const GENERATED: &[u8] = b"rainedAlgorithmicMedia";
/// The most values of one property that are looked at: the history of a picture that was saved every minute for a day has 1,440.
const MOST_VALUES: usize = 2_048;

/// What XMP data say.
pub(super) fn says(xml: &[u8]) -> Says {
    let generated = memmem::find(xml, GENERATED).map(|_| "a generative model");
    let editor = PROGRAMS.into_iter().find_map(|name| values(xml, name).find_map(editor)).or(generated);
    Says { taken: values(xml, TAKEN).find_map(taken), editor }
}

/// The values of a property.
fn values<'a>(xml: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    memmem::find_iter(xml, name).take(MOST_VALUES).filter_map(move |at| {
        let (begin, rest) = xml.get(at + name.len()..)?.split_first()?;
        match begin {
            b'>' => rest.split(|byte| *byte == b'<').next(),
            b'=' => rest.split_first().and_then(|(quote, rest)| rest.split(|byte| byte == quote).next()),
            _ => None,
        }
    })
}

/// A time of ISO 8601 to the second, with a time zone or without.
fn taken(text: &[u8]) -> Option<Taken> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let zoned = DateTime::parse_from_rfc3339(text).ok().map(|at| (at.timestamp_micros(), true));
    let local = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok();
    let (at, zone_known) = zoned.or_else(|| local().map(|at| (at.and_utc().timestamp_micros(), false)))?;
    Some(Taken { at: Micros(at), zone_known })
}
