//! What the metadata of a photo say that checks need: when it was taken, and which program changed the picture. Nothing else is looked at;
//! no text of the file leaves this module, as it may hold anything.

mod blocks;
mod editors;
mod tiff;
mod xmp;

use schemas::events::CameraFacts;
use schemas::ids::Micros;

use self::blocks::{Block, blocks};
use crate::inspect::FileInfo;

/// When the camera says that a photo was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Taken {
    at: Micros,
    /// Whether the camera wrote its time zone; else `at` is its local time read as UTC.
    zone_known: bool,
}

/// What one block of metadata says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Says {
    taken: Option<Taken>,
    editor: Option<&'static str>,
}

/// What the metadata of a photo say; none where they say nothing of these. `info` is what [`inspect`](crate::inspect) says of the file. Of
/// several times the one with its zone counts, then the first.
#[must_use]
pub fn camera(file: &[u8], info: &FileInfo) -> Option<CameraFacts> {
    let mut facts = CameraFacts::default();
    for block in blocks(file, info.format) {
        let says = match block {
            Block::Exif(tiff) => tiff::says(tiff),
            Block::Xmp(text) => xmp::says(text),
            Block::Software(name) => Says { taken: None, editor: editors::editor(name) },
        };
        if let Some(taken) = says.taken
            && (facts.taken_at.is_none() || (taken.zone_known && !facts.zone_known))
        {
            (facts.taken_at, facts.zone_known) = (Some(taken.at), taken.zone_known);
        }
        facts.edited_by = facts.edited_by.or_else(|| says.editor.map(str::to_owned));
    }
    (facts != CameraFacts::default()).then_some(facts)
}

#[cfg(test)]
mod tests;
