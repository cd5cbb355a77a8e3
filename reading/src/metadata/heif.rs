//! HEIF: items of metadata, and boxes beside the pictures. Their bytes become zeros where they lie, since every other item is found by
//! its place in the file.

use crate::heif::metadata;

/// The same file with zeros in place of metadata. None where the file is damaged.
pub(super) fn without(file: &[u8]) -> Option<Vec<u8>> {
    let mut kept = file.to_vec();
    for place in metadata(file).ok()? {
        kept.get_mut(place)?.fill(0);
    }
    Some(kept)
}
