//! PNG: ancillary chunks (ISO/IEC 15948, clause 11).

use super::turn;

const SIGNATURE: usize = 8;
/// Length, type and CRC of a chunk.
const FRAME: usize = 12;
/// Ancillary chunks that say how the pixels are to be shown.
const SHOWN: [&[u8]; 8] = [b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"sBIT", b"pHYs"];

/// The chunks that a decoder needs, up to the end of the picture. None where the file is damaged.
pub(super) fn without(file: &[u8], orientation: u8) -> Option<Vec<u8>> {
    let (signature, mut rest) = file.split_at_checked(SIGNATURE)?;
    let mut kept = Vec::with_capacity(file.len());
    kept.extend(signature);
    let mut turn = turn(orientation);
    loop {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let (chunk, behind) = rest.split_at_checked(length.checked_add(FRAME)?)?;
        rest = behind;
        let kind = &chunk[4..8];
        // The turn has to stand before the pixels.
        if kind == b"IDAT"
            && let Some(tiff) = turn.take()
        {
            write(&mut kept, b"eXIf", &tiff);
        }
        // The fifth bit of its first letter says that a decoder may do without a chunk.
        if kind[0] & 0x20 == 0 || SHOWN.contains(&kind) {
            kept.extend(chunk);
        }
        if kind == b"IEND" {
            return Some(kept);
        }
    }
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
