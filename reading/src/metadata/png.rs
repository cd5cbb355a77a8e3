//! PNG: ancillary chunks (ISO/IEC 15948, clause 11).

use super::turn;
use crate::chunks;

const SIGNATURE: usize = 8;
/// Ancillary chunks that say how the pixels are to be shown.
const SHOWN: [&[u8]; 8] = [b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"pHYs"];

/// The chunks that a decoder needs, up to the end of the picture. None where the file is damaged.
pub(super) fn without(file: &[u8], orientation: u8) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(file.len());
    kept.extend(file.get(..SIGNATURE)?);
    let mut turn = turn(orientation);
    for chunk in chunks::png(file) {
        let chunk = chunk.ok()?;
        let kind = chunk.kind;
        // The turn has to stand before the pixels.
        if kind == b"IDAT"
            && let Some(tiff) = turn.take()
        {
            write(&mut kept, b"eXIf", &tiff);
        }
        // The fifth bit of its first letter says that a decoder may do without a chunk.
        if kind[0] & 0x20 == 0 || SHOWN.contains(&kind) {
            kept.extend(chunk.whole);
        }
        if kind == b"IEND" {
            return Some(kept);
        }
    }
    None
}

fn write(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8; 26]) {
    let mut crc = crc32fast::Hasher::new();
    crc.update(kind);
    crc.update(data);
    file.extend(26_u32.to_be_bytes());
    file.extend(kind);
    file.extend(data);
    file.extend(crc.finalize().to_be_bytes());
}
