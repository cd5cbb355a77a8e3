//! Hostile and damaged files: each gets its fault, none a panic.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use rand::{Rng, SeedableRng, rngs::StdRng};
use reading::{Format, decode, inspect};
use schemas::reason::Reason;

fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x % 251) as u8, (y % 241) as u8, ((x * y) % 239) as u8]))
}

fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    DynamicImage::from(picture(width, height)).write_to(&mut out, format).unwrap();
    out.into_inner()
}

/// Both doors give the same fault.
fn refused(bytes: &[u8]) -> (Reason, String) {
    let fault = inspect(bytes).unwrap_err();
    assert_eq!(decode(bytes).err(), Some(fault.clone()));
    (fault.reason, fault.detail)
}

const FORMATS: [(ImageFormat, Format); 3] =
    [(ImageFormat::Jpeg, Format::Jpeg), (ImageFormat::Png, Format::Png), (ImageFormat::WebP, Format::Webp)];

/// Photos as phones write them: one picture, one of 10 bits, and turned tiles. The encoder is no Rust program.
const PHONES: [&[u8]; 3] = [
    include_bytes!("phone/one.heic"),
    include_bytes!("phone/ten-bit.heic"),
    include_bytes!("phone/tiles.heic"),
];

#[test]
fn a_whole_file_of_each_format_is_inspected_and_decoded() {
    for (written, known) in FORMATS {
        let bytes = encoded(800, 600, written);
        let info = inspect(&bytes).unwrap();
        assert_eq!((info.format, info.width, info.height, info.orientation), (known, 800, 600, 1));
        assert_eq!(info.bytes, bytes.len() as u64);
        let photo = decode(&bytes).unwrap();
        assert_eq!((photo.info(), photo.size().width, photo.size().height), (info, 800, 600));
    }
}

#[test]
fn a_file_cut_anywhere_in_its_data_is_truncated() {
    for (written, _) in FORMATS {
        let bytes = encoded(800, 600, written);
        for percent in [10, 50, 90, 99] {
            let cut = &bytes[..bytes.len() * percent / 100];
            assert_eq!(refused(cut).0, Reason::TruncatedImage, "{written:?} at {percent} %");
        }
    }
}

#[test]
fn a_phones_file_cut_anywhere_is_truncated_and_bytes_behind_its_end_are_no_harm() {
    for whole in PHONES {
        for percent in [1, 10, 50, 90, 99] {
            assert_eq!(refused(&whole[..whole.len() * percent / 100]).0, Reason::TruncatedImage);
        }
        assert!(decode(&[whole, &[0; 64]].concat()).is_ok());
    }
}

#[test]
fn a_phones_turn_is_its_containers() {
    let turned = inspect(PHONES[2]).unwrap();
    assert_eq!(
        (turned.format, turned.orientation, turned.width, turned.height),
        (Format::Heic, 6, 960, 1280)
    );
    let size = decode(PHONES[2]).unwrap().size();
    assert_eq!((size.width, size.height), (1280, 960));
    assert_eq!(inspect(PHONES[0]).unwrap().orientation, 1);
}

#[test]
fn tiles_that_all_name_the_whole_file_are_refused_before_they_are_copied() {
    let mut bytes = PHONES[2].to_vec();
    let all = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    let places = bytes.windows(4).position(|kind| kind == b"iloc").unwrap() + 12;
    // An entry of a tile: item, method, data reference and number of extents of 2 bytes each, then place and length.
    for entry in bytes[places..].chunks_exact_mut(16).take(6) {
        assert_eq!(entry[2..8], [0, 0, 0, 0, 0, 1]);
        entry[8..12].fill(0);
        entry[12..].copy_from_slice(&all);
    }
    let (reason, detail) = refused(&bytes);
    assert_eq!(reason, Reason::UnsupportedFormat);
    assert!(detail.contains("name the same bytes"), "{detail}");
}

#[test]
fn a_cut_jpeg_is_not_saved_by_the_end_marker_of_the_thumbnail_in_it() {
    let whole = encoded(800, 600, ImageFormat::Jpeg);
    let thumbnail = encoded(32, 24, ImageFormat::Jpeg);
    let length = u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes();
    let mut bytes = [&whole[..2], &[0xFF, 0xE1], &length, &thumbnail, &whole[2..]].concat();
    assert!(inspect(&bytes).is_ok());
    bytes.truncate(bytes.len() / 2);
    assert_eq!(refused(&bytes).0, Reason::TruncatedImage);
}

#[test]
fn bytes_behind_the_end_are_no_harm() {
    for (written, _) in FORMATS {
        let mut bytes = encoded(800, 600, written);
        bytes.extend_from_slice(&[0; 64]);
        assert!(decode(&bytes).is_ok(), "{written:?}");
    }
}

#[test]
fn other_files_are_unsupported_by_name_whatever_they_are_called() {
    let mut gif = b"GIF89a".to_vec();
    gif.resize(4096, 7);
    assert_eq!(refused(&gif), (Reason::UnsupportedFormat, "The file is a GIF picture.".into()));
    assert_eq!(refused(b"just text, no picture").0, Reason::UnsupportedFormat);
    assert_eq!(refused(b""), (Reason::UnsupportedFormat, "The file is an empty file.".into()));
    assert_eq!(
        refused(b"\0\0\0\x18ftypavif\0\0\0\0"),
        (Reason::UnsupportedFormat, "The file is an AVIF picture.".into())
    );
}

#[test]
fn a_picture_of_one_pixel_is_of_low_resolution_and_so_is_a_strip() {
    for (written, _) in FORMATS {
        assert_eq!(refused(&encoded(1, 1, written)).0, Reason::LowResolution, "{written:?}");
    }
    assert_eq!(refused(&encoded(399, 300, ImageFormat::Png)).0, Reason::LowResolution);
    assert_eq!(refused(&encoded(5000, 1, ImageFormat::Png)).0, Reason::LowResolution);
    assert!(inspect(&encoded(300, 400, ImageFormat::Png)).is_ok());
}

/// A PNG of one row's header, claiming other dimensions.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = encoded(8, 8, ImageFormat::Png);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum: u32, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg()))
    })
}

#[test]
fn a_bomb_is_refused_by_the_pixel_cap_before_a_pixel_is_decoded() {
    for (width, height) in [(30_000, 30_000), (11_000, 11_000), (5_001, 5_000), (12_001, 500)] {
        let (reason, detail) = refused(&png_claiming(width, height));
        assert_eq!(reason, Reason::UnsupportedFormat);
        assert!(detail.contains("pixel cap"), "{detail}");
    }
    assert!(inspect(&png_claiming(5_000, 5_000)).is_ok());
}

#[test]
fn a_png_that_holds_less_than_its_header_claims_is_refused() {
    let bytes = png_claiming(5_000, 5_000);
    assert!(matches!(
        decode(&bytes).err().map(|fault| fault.reason),
        Some(Reason::TruncatedImage | Reason::UnsupportedFormat)
    ));
}

#[test]
fn a_jpeg_header_that_claims_more_than_its_bytes_can_hold_is_refused() {
    let mut bytes = encoded(800, 600, ImageFormat::Jpeg);
    let frame = bytes.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&4_000_u16.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&9_999_u16.to_be_bytes());
    bytes.truncate(bytes.len() / 2);
    bytes.extend([0xFF, 0xD9]);
    let (reason, detail) = refused(&bytes);
    assert_eq!(reason, Reason::UnsupportedFormat);
    assert!(detail.contains("9999x4000"), "{detail}");
}

#[test]
fn an_exif_turn_makes_the_photo_upright() {
    let bytes = include_bytes!("../../examples/photos/screen-rotated.jpg");
    let info = inspect(bytes).unwrap();
    assert_eq!((info.orientation, info.width, info.height), (6, 960, 1280));
    let size = decode(bytes).unwrap().size();
    assert_eq!((size.width, size.height), (1280, 960));
}

#[test]
fn no_mutated_file_makes_the_decoder_panic() {
    let mut rng = StdRng::seed_from_u64(20_261_125);
    let written = FORMATS.map(|(written, _)| encoded(640, 480, written));
    let phones = PHONES.map(<[u8]>::to_vec);
    for (format, whole) in written.into_iter().chain(phones).enumerate() {
        for round in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..rng.random_range(1..=24) {
                // Headers hold the decisions: half of the changes go to the first 600 bytes.
                let end = if rng.random() { bytes.len().min(600) } else { bytes.len() };
                let at = rng.random_range(0..end);
                bytes[at] = rng.random();
            }
            if round % 5 == 0 {
                bytes.truncate(rng.random_range(0..bytes.len()));
            }
            // Either a photo or a fault; a panic in a decoder would show as a message and is turned into a fault.
            let outcome = std::panic::catch_unwind(|| decode(&bytes).map(|photo| photo.size()));
            assert!(outcome.is_ok(), "format {format} round {round}");
        }
    }
}
