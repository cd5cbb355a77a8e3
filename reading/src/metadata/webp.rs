//! WebP: chunks of the extended format (RFC 9649, section 2.7).

use super::turn;
use crate::chunks;

/// `RIFF`, a length, `WEBP`.
const HEAD: usize = 12;
/// Chunks that a decoder needs.
const NEEDED: [&[u8]; 7] = [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"];
/// Flags of `VP8X`: that there are EXIF data, and XMP data.
const EXIF: u8 = 0x08;
const XMP: u8 = 0x04;

/// The chunks that a decoder needs. None where the file is damaged.
pub(super) fn without(file: &[u8], orientation: u8) -> Option<Vec<u8>> {
    let length = u32::from_le_bytes(*file.get(4..)?.first_chunk()?) as usize;
    let body = file.get(HEAD..length.checked_add(8)?)?;
    let turn = turn(orientation);
    let mut kept = Vec::with_capacity(file.len());
    kept.extend(&file[..HEAD]);
    for chunk in chunks::webp(body) {
        let chunk = chunk.ok()?;
        if NEEDED.contains(&chunk.kind) {
            let content = kept.len() + chunk.whole.len() - chunk.data.len();
            write(&mut kept, chunk.whole);
            if chunk.kind == b"VP8X"
                && let Some(flags) = kept.get_mut(content)
            {
                *flags = (*flags & !(EXIF | XMP)) | if turn.is_some() { EXIF } else { 0 };
            }
        }
    }
    if let Some(tiff) = turn {
        write(&mut kept, &[b"EXIF\x1A\0\0\0".as_slice(), &tiff].concat());
    }
    let length = u32::try_from(kept.len() - 8).ok()?;
    kept[4..8].copy_from_slice(&length.to_le_bytes());
    Some(kept)
}

fn write(file: &mut Vec<u8>, chunk: &[u8]) {
    file.extend(chunk);
    if chunk.len() % 2 == 1 {
        file.push(0);
    }
}
