//! The chunks that PNG and WebP files are made of.

use crate::jpeg::Cut;

/// A chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    /// Its type, four letters.
    pub kind: &'a [u8],
    /// Its content.
    pub data: &'a [u8],
    /// As it stands in the file: length and type, content, and what a PNG has behind that.
    pub whole: &'a [u8],
}

/// The first chunk, and what is behind it; none where the file ends within it.
type First = for<'a> fn(&'a [u8]) -> Option<(Chunk<'a>, &'a [u8])>;

/// The chunks one after the other, up to the first that is cut.
pub(crate) struct Chunks<'a> {
    rest: &'a [u8],
    first: First,
}

/// The chunks of a PNG behind its signature, up to and with `IEND` (ISO/IEC 15948, clause 5.3).
pub(crate) fn png(file: &[u8]) -> Chunks<'_> {
    const SIGNATURE: usize = 8;
    /// Length, type and CRC.
    const FRAME: usize = 12;
    let first: First = |rest| {
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        let (whole, behind) = rest.split_at_checked(length.checked_add(FRAME)?)?;
        let chunk = Chunk { kind: &whole[4..8], data: &whole[8..8 + length], whole };
        Some((chunk, if chunk.kind == b"IEND" { &[] } else { behind }))
    };
    Chunks { rest: file.get(SIGNATURE..).unwrap_or_default(), first }
}

/// The chunks of a WebP, of which `chunks` is what follows its header of twelve bytes (RFC 9649, section 2.3).
pub(crate) fn webp(chunks: &[u8]) -> Chunks<'_> {
    const HEAD: usize = 8;
    let first: First = |rest| {
        let length = u32::from_le_bytes(*rest.get(4..)?.first_chunk()?) as usize;
        let whole = rest.get(..length.checked_add(HEAD)?)?;
        // One of an odd length is followed by a byte of padding, which the last one of a file may lack.
        let behind = rest.get(whole.len() + length % 2..).unwrap_or_default();
        Some((Chunk { kind: &whole[..4], data: &whole[HEAD..], whole }, behind))
    };
    Chunks { rest: chunks, first }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let first = (self.first)(self.rest);
        self.rest = first.map_or(&[], |(_, behind)| behind);
        Some(first.map(|(chunk, _)| chunk).ok_or(Cut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen<'a> = Result<(&'a [u8], &'a [u8]), Cut>;

    fn kinds(chunks: Chunks<'_>) -> Vec<Seen<'_>> {
        chunks.map(|chunk| chunk.map(|chunk| (chunk.kind, chunk.data))).collect()
    }

    #[test]
    fn chunks_come_in_order_up_to_the_end_or_a_cut() {
        let png_file = b"\x89PNG\r\n\x1a\n\0\0\0\x02tEXtabCRC.\0\0\0\0IENDCRC.behind";
        let whole: [(&[u8], &[u8]); 2] = [(b"tEXt", b"ab"), (b"IEND", b"")];
        assert_eq!(kinds(png(png_file)), whole.map(Ok));
        assert_eq!(kinds(png(&png_file[..24])), [Ok(whole[0]), Err(Cut)]);
        assert_eq!(kinds(png(b"\x89PNG")), []);
        let webp_chunks = b"EXIF\x01\0\0\0e\0XMP \x01\0\0\0x";
        let whole: [(&[u8], &[u8]); 2] = [(b"EXIF", b"e"), (b"XMP ", b"x")];
        assert_eq!(kinds(webp(webp_chunks)), whole.map(Ok));
        assert_eq!(kinds(webp(&webp_chunks[..17])), [Ok(whole[0]), Err(Cut)]);
    }
}
