use std::io::Cursor;

use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder};
use proptest::prelude::*;
use schemas::ids::Micros;

use super::*;
use crate::format::Format;
use crate::inspect::inspect;
use crate::metadata::without_metadata;

const HEIC: &[u8] = include_bytes!("../../tests/phone/one.heic");
/// 2026-03-01T11:30:15Z.
const TAKEN: Micros = Micros(1_772_364_615_000_000);
const TIME: &str = "2026:03:01 12:30:15";
const XMP: &[u8] = br#"<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description xmp:CreatorTool="17.4.1"
 exif:DateTimeOriginal="2026-03-01T12:30:15+01:00"><xmpMM:History><rdf:Seq><rdf:li stEvt:softwareAgent='Adobe Photoshop 25.4 (Windows)'/>
</rdf:Seq></xmpMM:History></rdf:Description></x:xmpmeta>"#;

/// EXIF data with texts in the first directory, and in that of the camera.
fn exif(little: bool, first: &[(u16, &str)], camera: &[(u16, &str)]) -> Vec<u8> {
    let two = |value: u16| if little { value.to_le_bytes() } else { value.to_be_bytes() };
    let four = |value: usize| {
        let value = u32::try_from(value).unwrap();
        if little { value.to_le_bytes() } else { value.to_be_bytes() }
    };
    // The first directory has one entry more, of the camera's place.
    let second = 8 + 2 + 12 * (first.len() + 1) + 4;
    let mut texts_at = second + 2 + 12 * camera.len() + 4;
    let (mut file, mut texts) = (Vec::new(), Vec::new());
    file.extend(if little { b"II*\0" } else { b"MM\0*" });
    file.extend(four(8));
    for (entries, pointer) in [(first, true), (camera, false)] {
        file.extend(two(u16::try_from(entries.len()).unwrap() + u16::from(pointer)));
        for (tag, text) in entries {
            let text = [text.as_bytes(), b"\0"].concat();
            file.extend([&two(*tag)[..], &two(2), &four(text.len())].concat());
            if text.len() > 4 {
                file.extend(four(texts_at));
                texts_at += text.len();
                texts.extend(text);
            } else {
                let mut value = [0; 4];
                value[..text.len()].copy_from_slice(&text);
                file.extend(value);
            }
        }
        if pointer {
            file.extend([&two(0x8769)[..], &two(4), &four(1), &four(second)].concat());
        }
        file.extend([0; 4]);
    }
    [file, texts].concat()
}

fn original(little: bool) -> Vec<u8> {
    exif(little, &[(0x0110, "A phone"), (0x0131, "S918BXXU3CXD1")], &[(0x9003, TIME), (0x9011, "+01:00")])
}

fn encoded<'a, E: ImageEncoder>(
    file: &'a mut Vec<u8>,
    exif: Vec<u8>,
    make: impl FnOnce(Cursor<&'a mut Vec<u8>>) -> E,
) {
    let pixels: Vec<u8> = (0..640_usize * 480 * 3).map(|at| (at % 251) as u8).collect();
    let mut encoder = make(Cursor::new(file));
    encoder.set_exif_metadata(exif).unwrap();
    encoder.write_image(&pixels, 640, 480, ExtendedColorType::Rgb8).unwrap();
}

fn jpeg(exif: Vec<u8>) -> Vec<u8> {
    let mut file = Vec::new();
    encoded(&mut file, exif, |out| JpegEncoder::new_with_quality(out, 90));
    file
}

/// A JPEG with XMP data behind its beginning.
fn with_xmp(file: &[u8], xmp: &[u8]) -> Vec<u8> {
    let name = b"http://ns.adobe.com/xap/1.0/\0";
    let length = u16::try_from(2 + name.len() + xmp.len()).unwrap().to_be_bytes();
    [&file[..2], &[0xFF, 0xE1], &length, name, xmp, &file[2..]].concat()
}

/// A PNG with a chunk behind its header.
fn png(exif: Vec<u8>, kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    encoded(&mut file, exif, PngEncoder::new);
    let chunk = [&u32::try_from(content.len()).unwrap().to_be_bytes()[..], kind, content].concat();
    let crc = crc32fast::hash(&chunk[4..]).to_be_bytes();
    [&file[..33], &chunk, &crc, &file[33..]].concat()
}

fn webp(exif: Vec<u8>) -> Vec<u8> {
    let mut file = Vec::new();
    encoded(&mut file, exif, WebPEncoder::new_lossless);
    file.extend([&b"XMP "[..], &u32::try_from(XMP.len()).unwrap().to_le_bytes(), XMP].concat());
    file.resize(file.len() + XMP.len() % 2, 0);
    let length = u32::try_from(file.len() - 8).unwrap().to_le_bytes();
    file[4..8].copy_from_slice(&length);
    file
}

/// The camera's data in place of what one of a phone has beside its picture, or behind it where there is too little room.
fn heic(exif: &[u8]) -> Vec<u8> {
    let item = [&[0; 4], exif].concat();
    let mut file = HEIC.to_vec();
    let room = crate::heif::metadata(HEIC).unwrap().into_iter().find(|room| room.len() >= item.len());
    match room {
        Some(room) => file[room.start..room.start + item.len()].copy_from_slice(&item),
        // As a box beside the pictures, whose content is looked at in the same way.
        None => {
            file.extend([&u32::try_from(8 + item.len()).unwrap().to_be_bytes()[..], b"Exif", &item].concat())
        }
    }
    file
}

fn of(file: &[u8]) -> Option<CameraFacts> {
    camera(file, &inspect(file).unwrap())
}

fn says(taken_at: Option<Micros>, zone_known: bool, editor: Option<&str>) -> Option<CameraFacts> {
    Some(CameraFacts { taken_at, zone_known, edited_by: editor.map(str::to_owned) })
}

#[test]
fn the_time_of_a_photo_is_read_from_every_format_and_a_phones_release_is_no_editor() {
    for little in [true, false] {
        let exif = original(little);
        let files = [
            ("jpeg", jpeg(exif.clone())),
            ("png", png(exif.clone(), b"tEXt", b"Comment\0none")),
            ("heic", heic(&exif)),
        ];
        for (name, file) in files {
            assert_eq!(of(&file), says(Some(TAKEN), true, None), "{name}");
            assert_eq!(of(&without_metadata(&file, &inspect(&file).unwrap())), None, "{name}");
        }
    }
}

#[test]
fn an_editor_is_found_in_exif_in_the_history_of_xmp_and_in_a_text_of_png() {
    let shop = says(Some(TAKEN), true, Some("Adobe Photoshop"));
    assert_eq!(of(&webp(original(true))), shop);
    assert_eq!(of(&with_xmp(&jpeg(Vec::new()), XMP)), shop);
    let text = [b"XML:com.adobe.xmp\0\0\0\0\0", XMP].concat();
    assert_eq!(of(&png(Vec::new(), b"iTXt", &text)), shop);
    let gimp = says(None, false, Some("GIMP"));
    assert_eq!(of(&jpeg(exif(true, &[(0x0131, "GIMP 2.10.36")], &[]))), gimp);
    assert_eq!(of(&png(Vec::new(), b"tEXt", b"Software\0GIMP 2.10.36")), gimp);
    let element = b"<tiff:Software>GIMP 2.10.36</tiff:Software>";
    assert_eq!(of(&with_xmp(&jpeg(Vec::new()), element)), gimp);
    let model = br#"<a Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"/>"#;
    assert_eq!(of(&with_xmp(&jpeg(Vec::new()), model)), says(None, false, Some("a generative model")));
}

#[test]
fn a_time_without_its_zone_is_local_and_one_with_it_goes_before() {
    let local = exif(true, &[], &[(0x9003, TIME)]);
    let as_utc = Micros(TAKEN.0 + 3_600_000_000);
    assert_eq!(of(&jpeg(local.clone())), says(Some(as_utc), false, None));
    let zoned = br#"<a exif:DateTimeOriginal="2026-03-01T12:30:15+01:00"/>"#;
    assert_eq!(of(&with_xmp(&jpeg(local), zoned)), says(Some(TAKEN), true, None));
    let z = exif(false, &[], &[(0x9003, "2026:03:01 11:30:15"), (0x9011, "Z")]);
    assert_eq!(of(&jpeg(z)), says(Some(TAKEN), true, None));
}

#[test]
fn what_says_nothing_of_use_says_nothing() {
    assert_eq!(of(&jpeg(Vec::new())), None);
    for time in
        ["    :  :     :  :  ", "0000:00:00 00:00:00", "2026:13:01 12:00:00", "", "yesterday", "\u{1F697}"]
    {
        assert_eq!(of(&jpeg(exif(true, &[], &[(0x9003, time)]))), None, "{time}");
    }
    for damaged in [&b"II*\0"[..], b"II*\0\xFF\xFF\xFF\xFF", b"MM\0*\0\0\0\x08\xFF\xFF", b"hello"] {
        assert_eq!(of(&jpeg(damaged.to_vec())), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damaged_metadata_never_panic(
        which in 0..4_usize,
        damage in prop::collection::vec((0..2_000_usize, any::<u8>()), 0..48),
        cut in any::<prop::sample::Index>(),
    ) {
        let formats = [Format::Jpeg, Format::Png, Format::Webp, Format::Heic];
        let mut file = match which {
            0 => with_xmp(&jpeg(original(true)), XMP),
            1 => png(original(false), b"tEXt", b"Software\0GIMP"),
            2 => webp(original(true)),
            _ => heic(&original(true)),
        };
        let info = FileInfo { format: formats[which], ..inspect(&file).unwrap() };
        for (at, byte) in damage {
            file[at] = byte;
        }
        file.truncate(file.len() - cut.index(file.len()) / 8);
        let _ = camera(&file, &info);
    }
}
