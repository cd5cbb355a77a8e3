//! Where the metadata lie in a file of each format.

use crate::chunks;
use crate::format::Format;
use crate::jpeg::{SOS, Segments};

/// The most bytes of a block that are looked at. One segment of a JPEG holds 64 KiB, and cameras write less.
const MOST_BYTES: usize = 256 << 10;
/// The most blocks: a phone's file has three.
const MOST_BLOCKS: usize = 64;

/// A block of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block<'a> {
    /// EXIF data: a TIFF file.
    Exif(&'a [u8]),
    /// XMP data: XML.
    Xmp(&'a [u8]),
    /// The name of the program that wrote the file.
    Software(&'a [u8]),
}

/// The blocks of a file, up to where it is damaged.
pub(super) fn blocks(file: &[u8], format: Format) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    // Every format's walk ends by itself where the file is damaged: what was found before stands.
    match format {
        Format::Jpeg => jpeg(file, &mut found),
        Format::Png => png(file, &mut found),
        Format::Webp => webp(file, &mut found),
        Format::Heic => heic(file, &mut found),
    }
    found
}

fn add<'a>(found: &mut Vec<Block<'a>>, block: Block<'a>) {
    let (Block::Exif(bytes) | Block::Xmp(bytes) | Block::Software(bytes)) = block;
    if bytes.len() <= MOST_BYTES && found.len() < MOST_BLOCKS {
        found.push(block);
    }
}

/// Application segments before the first scan (CIPA DC-008, 4.7.2; XMP part 3, 1.1.3).
fn jpeg<'a>(file: &'a [u8], found: &mut Vec<Block<'a>>) {
    const APP1: u8 = 0xE1;
    for segment in Segments::of(file).map_while(Result::ok).take_while(|segment| segment.code != SOS) {
        // Behind the length.
        let content = segment.body.get(2..).filter(|_| segment.code == APP1).unwrap_or_default();
        if let Some(tiff) = content.strip_prefix(b"Exif\0\0") {
            add(found, Block::Exif(tiff));
        } else if let Some(xml) = content.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            add(found, Block::Xmp(xml));
        }
    }
}

/// Chunks (ISO/IEC 15948, clause 11.3): compressed text is not looked at.
fn png<'a>(file: &'a [u8], found: &mut Vec<Block<'a>>) {
    for chunk in chunks::png(file).map_while(Result::ok) {
        let block = match chunk.kind {
            b"eXIf" => Some(Block::Exif(chunk.data)),
            b"tEXt" => chunk.data.strip_prefix(b"Software\0").map(Block::Software),
            // Keyword, two bytes that say that it is not compressed, language and translated keyword, both empty.
            b"iTXt" => chunk.data.strip_prefix(b"XML:com.adobe.xmp\0\0\0\0\0").map(Block::Xmp),
            _ => None,
        };
        block.into_iter().for_each(|block| add(found, block));
    }
}

/// Chunks (RFC 9649, 2.7.1.5): some programs begin EXIF data as a JPEG's segment does.
fn webp<'a>(file: &'a [u8], found: &mut Vec<Block<'a>>) {
    for chunk in chunks::webp(file.get(12..).unwrap_or_default()).map_while(Result::ok) {
        match chunk.kind {
            b"EXIF" => add(found, Block::Exif(chunk.data.strip_prefix(b"Exif\0\0").unwrap_or(chunk.data))),
            b"XMP " => add(found, Block::Xmp(chunk.data)),
            _ => {}
        }
    }
}

/// Items that no picture is made of (ISO/IEC 23008-12, annex A): EXIF data begin with the number of bytes before the TIFF file.
#[cfg(feature = "heic")]
fn heic<'a>(file: &'a [u8], found: &mut Vec<Block<'a>>) {
    for place in crate::heif::metadata(file).unwrap_or_default() {
        let item = file.get(place).unwrap_or_default();
        let tiff = item.split_first_chunk::<4>().and_then(|(before, behind)| {
            let behind = behind.get(u32::from_be_bytes(*before) as usize..)?;
            (behind.starts_with(b"II*\0") || behind.starts_with(b"MM\0*")).then_some(behind)
        });
        add(found, tiff.map_or(Block::Xmp(item), Block::Exif));
    }
}

/// Never asked: such a file is not known as a format.
#[cfg(not(feature = "heic"))]
fn heic(_: &[u8], _: &mut Vec<Block<'_>>) {}
