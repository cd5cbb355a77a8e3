use std::io::Cursor;

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};
use proptest::prelude::*;

use super::*;
use crate::decode::decode;
use crate::inspect::inspect;

/// As the gateway does it: what the check refuses is not kept.
fn without_metadata(file: &[u8]) -> Cow<'_, [u8]> {
    inspect(file).map_or(Cow::Borrowed(file), |info| super::without_metadata(file, &info))
}

/// Stands in everything that has to go.
const MARK: &[u8] = b"48.8584 N 2.2945 E";
const TURNED: u8 = 6;
const HEIC: &[u8] = include_bytes!("../../tests/phone/one.heic");

/// EXIF data of two entries: the turn, and a description behind them.
fn exif(orientation: u8) -> Vec<u8> {
    let length = u32::try_from(MARK.len()).unwrap().to_le_bytes();
    let entries = [
        &b"II*\0\x08\0\0\0\x02\0"[..],
        b"\x0E\x01\x02\0",
        &length,
        &38_u32.to_le_bytes(),
        b"\x12\x01\x03\0\x01\0\0\0",
        &[orientation, 0, 0, 0],
        &[0; 4],
        MARK,
    ];
    entries.concat()
}

fn encoded<'a, E: ImageEncoder>(file: &'a mut Vec<u8>, make: impl FnOnce(Cursor<&'a mut Vec<u8>>) -> E) {
    let mut pixels = Vec::new();
    for at in 0..640_usize * 480 {
        pixels.extend([(at % 251) as u8, (at / 640 % 241) as u8, (at % 97) as u8]);
    }
    let mut encoder = make(Cursor::new(file));
    encoder.set_exif_metadata(exif(TURNED)).unwrap();
    encoder.write_image(&pixels, 640, 480, ExtendedColorType::Rgb8).unwrap();
}

/// A file with a part put in at a place.
fn with(file: &[u8], at: usize, part: &[u8]) -> Vec<u8> {
    [&file[..at], part, &file[at..]].concat()
}

fn jpeg() -> Vec<u8> {
    let mut file = Vec::new();
    encoded(&mut file, |out| JpegEncoder::new_with_quality(out, 90));
    let xmp = [b"\xFF\xE1\0\x31http://ns.adobe.com/xap/1.0/\0", MARK].concat();
    let comment = [b"\xFF\xFE\0\x14", MARK].concat();
    // A motion photo's film follows the picture.
    [with(&with(&file, 2, &xmp), 2, &comment), MARK.to_vec()].concat()
}

fn png() -> Vec<u8> {
    let mut file = Vec::new();
    encoded(&mut file, PngEncoder::new);
    let chunk = [&18_u32.to_be_bytes()[..], b"tEXt", MARK].concat();
    let crc = crc32fast::hash(&chunk[4..]).to_be_bytes();
    // Behind the signature and the header.
    with(&file, 33, &[&chunk[..], &crc].concat())
}

fn webp() -> Vec<u8> {
    let mut file = Vec::new();
    encoded(&mut file, WebPEncoder::new_lossless);
    file.extend([&b"XMP \x12\0\0\0"[..], MARK].concat());
    let length = u32::try_from(file.len() - 8).unwrap().to_le_bytes();
    file[4..8].copy_from_slice(&length);
    file
}

fn heic() -> Vec<u8> {
    let place = HEIC.len() - 16;
    let mut file = HEIC.to_vec();
    file[place..].copy_from_slice(&MARK[..16]);
    let film = [&26_u32.to_be_bytes()[..], b"mpvd", MARK].concat();
    [file, film].concat()
}

fn holds(file: &[u8], mark: &[u8]) -> bool {
    file.windows(mark.len()).any(|part| part == mark)
}

#[test]
fn what_a_camera_wrote_beside_the_picture_goes_and_the_picture_stays_as_it_is() {
    for (name, file) in [("jpeg", jpeg()), ("png", png()), ("webp", webp()), ("heic", heic())] {
        let mark = &MARK[..16];
        assert!(holds(&file, mark), "{name}");
        let kept = without_metadata(&file);
        assert!(!holds(&kept, mark), "{name}");
        let (before, after) = (decode(&file).unwrap(), decode(&kept).unwrap());
        assert_eq!(before.pixels(), after.pixels(), "{name}");
        assert_eq!(before.info().orientation, after.info().orientation, "{name}");
        assert_eq!(without_metadata(&kept), kept, "{name}: a second time changes nothing");
    }
    assert_eq!(inspect(&without_metadata(&jpeg())).unwrap().orientation, TURNED);
}

#[test]
fn a_file_that_is_no_photo_stays_as_it_is() {
    for file in [&b"hello"[..], b"", b"\xFF\xD8\xFF\xE0", b"RIFF\0\0\0\0WEBPVP8 "] {
        assert_eq!(without_metadata(file), file);
        // Nor where it was taken for one.
        for format in [Format::Jpeg, Format::Png, Format::Webp] {
            let info = FileInfo { format, ..inspect(&jpeg()).unwrap() };
            assert_eq!(super::without_metadata(file, &info), file);
        }
    }
}

#[test]
fn the_photos_of_the_examples_show_the_same_without_their_metadata() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/photos");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = std::fs::read(entry.unwrap().path()).unwrap();
        let Ok(before) = decode(&file) else { continue };
        assert_eq!(before.pixels(), decode(&without_metadata(&file)).unwrap().pixels());
        seen += 1;
    }
    assert!(seen > 10, "{seen} photos");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_file_is_shortened_or_left_alone_and_never_a_panic(
        which in 0..4_usize,
        damage in prop::collection::vec((0..2_000_usize, any::<u8>()), 0..24),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut file = [jpeg, png, webp, heic][which]();
        for (at, byte) in damage {
            file[at] = byte;
        }
        file.truncate(file.len() - cut.index(file.len()) / 8);
        let kept = without_metadata(&file);
        prop_assert!(kept.len() <= file.len() + 64);
    }
}
