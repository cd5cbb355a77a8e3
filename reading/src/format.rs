//! The picture formats that are read, known by their first bytes and never by a file's name.

/// A picture format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG (ITU-T T.81).
    Jpeg,
    /// PNG (ISO/IEC 15948).
    Png,
    /// WebP (RFC 9649).
    Webp,
    /// HEIF with pictures in HEVC (ISO/IEC 23008-12): what an iPhone writes by default.
    Heic,
}

impl Format {
    /// The media type.
    #[must_use]
    pub fn mime(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
            Self::Heic => "image/heic",
        }
    }

    /// The short name.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Webp => "webp",
            Self::Heic => "heic",
        }
    }

    /// The most pixels that are decoded. Decoding takes 3-4 bytes a pixel: 40 million are 160 MB. PNG and WebP hold
    /// empty areas in next to no bytes, so a small file can claim all of it; cameras do not write them that large. Of
    /// HEIC 25 million are what the largest phones write by default, and take 1.5 s.
    pub(crate) fn most_pixels(self) -> u64 {
        match self {
            Self::Jpeg => 40_000_000,
            Self::Png | Self::Webp | Self::Heic => 25_000_000,
        }
    }

    /// The format's name for the decoders of the crate `image`; none where another decodes it.
    pub(crate) fn decoder(self) -> Option<image::ImageFormat> {
        match self {
            Self::Jpeg => Some(image::ImageFormat::Jpeg),
            Self::Png => Some(image::ImageFormat::Png),
            Self::Webp => Some(image::ImageFormat::WebP),
            Self::Heic => None,
        }
    }

    /// The format by the magic bytes, of which the first twelve say it.
    ///
    /// # Errors
    /// The name of what it is instead.
    pub fn sniff(bytes: &[u8]) -> Result<Self, &'static str> {
        let brand = |from: usize| bytes.get(from..from + 4).unwrap_or_default();
        match bytes {
            [] => Err("an empty file"),
            [0xFF, 0xD8, 0xFF, ..] => Ok(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => Ok(Self::Png),
            [b'R', b'I', b'F', b'F', ..] if brand(8) == b"WEBP" => Ok(Self::Webp),
            [b'G', b'I', b'F', b'8', ..] => Err("a GIF picture"),
            [b'B', b'M', ..] => Err("a BMP picture"),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => Err("a TIFF picture"),
            [b'%', b'P', b'D', b'F', ..] => Err("a PDF document"),
            _ if brand(4) == b"ftyp" => match brand(8) {
                b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"hevx" | b"mif1" | b"msf1" => {
                    if cfg!(feature = "heic") { Ok(Self::Heic) } else { Err("a HEIC picture") }
                }
                b"avif" | b"avis" => Err("an AVIF picture"),
                _ => Err("a video"),
            },
            _ => Err("not a picture"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_known_by_its_first_bytes_and_others_are_named() {
        assert_eq!(Format::sniff(b"\xFF\xD8\xFF\xE0"), Ok(Format::Jpeg));
        assert_eq!(Format::sniff(b"\x89PNG\r\n\x1a\n"), Ok(Format::Png));
        assert_eq!(Format::sniff(b"RIFF\0\0\0\0WEBPVP8 "), Ok(Format::Webp));
        assert_eq!(Format::sniff(b"RIFF\0\0\0\0WAVEfmt "), Err("not a picture"));
        assert_eq!(Format::sniff(b"GIF89a"), Err("a GIF picture"));
        assert_eq!(Format::sniff(b"\0\0\0\x18ftypheic"), Ok(Format::Heic));
        assert_eq!(Format::sniff(b"\0\0\0\x18ftypmif1"), Ok(Format::Heic));
        assert_eq!(Format::sniff(b"\0\0\0\x18ftypavif"), Err("an AVIF picture"));
        assert_eq!(Format::sniff(b"\0\0\0\x18ftypqt  "), Err("a video"));
        assert_eq!(Format::sniff(b""), Err("an empty file"));
        assert_eq!(Format::sniff(b"hello"), Err("not a picture"));
    }
}
