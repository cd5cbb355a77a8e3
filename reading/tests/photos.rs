//! The sample photos: what the demo expects of them is what the reader reads.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use std::{collections::BTreeMap, fs, path::Path};

use reading::{AUTO_ACCEPT, Reader, decode, grade, inspect};
use schemas::{events::Fault, reason::Reason};
use serde_json::Value;

/// One of each kind of odometer, format and orientation, and of what surrounds one: a cabin, night; the demo posts them all.
const EACH_KIND: [&str; 11] = [
    "drum-1.jpg",
    "drum-4.png",
    "seven-segment-2.jpg",
    "screen-3.jpg",
    "screen-4.webp",
    "screen-rotated.jpg",
    "cabin-drum.jpg",
    "cabin-segments.jpg",
    "small-screen.jpg",
    "night-drum.jpg",
    "night-screen.jpg",
];

fn photo(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos").join(name)).unwrap()
}

/// What is expected of each file at its first post, and the unit posted with it.
fn expected() -> BTreeMap<String, (Value, Value)> {
    let scenario: Value = serde_json::from_slice(&photo("expected.json")).unwrap();
    let posts = scenario["photos"].as_array().unwrap().iter().rev();
    posts
        .map(|p| (p["file"].as_str().unwrap().to_owned(), (p["expect"].clone(), p["unit"].clone())))
        .collect()
}

#[test]
fn a_photo_of_each_kind_is_read_right_and_surely() {
    let (reader, expected) = (Reader::embedded().unwrap(), expected());
    for name in EACH_KIND {
        let (expect, unit) = &expected[name];
        let photo = decode(&photo(name)).unwrap();
        let graded = grade(&photo);
        assert_eq!(graded.fault, None, "{name}");
        let reading = reader.read(&photo, &graded.quality);
        let best = reading.best.unwrap();
        assert_eq!(best.value.to_string(), expect["reading"].as_str().unwrap(), "{name}");
        assert!(best.confidence >= AUTO_ACCEPT && !reading.several, "{name}: {best:?}");
        if let Some(seen) = best.unit {
            assert_eq!(seen.label(), unit.as_str().unwrap(), "{name}");
        }
    }
}

/// What `tools/photogen/heic.py` and `tools/photogen/phones.py` made of drawn photos, as iPhones and other phones write them.
#[test]
fn a_phones_file_is_read_as_the_drawing_that_it_was_made_of() {
    let reader = Reader::embedded().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/phone");
    let phones: Vec<Value> =
        serde_json::from_slice(&fs::read(folder.join("expected.json")).unwrap()).unwrap();
    for phone in phones {
        let (name, mileage) = (phone["file"].as_str().unwrap(), phone["mileage"].as_str().unwrap());
        let photo = decode(&fs::read(folder.join(name)).unwrap()).unwrap();
        let graded = grade(&photo);
        assert_eq!((graded.fault, photo.info().complete), (None, true), "{name}");
        let best = reader.read(&photo, &graded.quality).best.unwrap();
        assert_eq!(best.value.to_string(), mileage, "{name}");
        assert!(best.confidence >= AUTO_ACCEPT, "{name}: {best:?}");
    }
}

#[test]
fn a_dashboard_without_an_odometer_gives_no_reading() {
    let photo = decode(&photo("no-odometer.jpg")).unwrap();
    let graded = grade(&photo);
    assert_eq!(graded.fault, None);
    let reading = Reader::embedded().unwrap().read(&photo, &graded.quality);
    assert_eq!((reading.best, reading.candidates.len()), (None, 0));
}

#[test]
fn hopeless_photos_are_recognised_before_they_are_read() {
    let reason = |fault: Option<Fault>| fault.map(|fault| fault.reason);
    let graded = |name: &str| reason(grade(&decode(&photo(name)).unwrap()).fault);
    assert_eq!(graded("blurred.jpg"), Some(Reason::Blurred));
    assert_eq!(graded("dark.jpg"), Some(Reason::TooDark));
    assert_eq!(reason(inspect(&photo("not-a-photo.jpg")).err()), Some(Reason::UnsupportedFormat));
}

#[test]
fn the_reader_names_its_networks_by_name_and_hash() {
    let version = Reader::embedded().unwrap().version().to_owned();
    let sums =
        String::from_utf8(fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SHA256SUMS")).unwrap());
    for network in version.split(',') {
        let (name, hash) = network.split_once('@').unwrap();
        assert!(
            hash.len() == 8
                && sums.clone().unwrap().lines().any(|line| line.starts_with(hash) && line.contains(name))
        );
    }
}
