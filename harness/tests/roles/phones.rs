//! What phones send, from the gateway to the reading: each format has a file, posted under the name and the media type that a phone gives
//! it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harness::client::Photo;
use harness::deployment::RoleSpec;
use harness::scenario::Scenario;
use rust_decimal::Decimal;
use schemas::events::OdometerRead;
use schemas::reason::Reason;
use serde::Deserialize;
use uuid::Uuid;

use crate::world::World;

/// The sample photos of the formats that cameras and scanners write as they are: file, media type, and what the gateway finds it to be.
const SAMPLES: [(&str, &str, &str); 5] = [
    ("drum-5.jpg", "image/jpeg", "image/jpeg"),
    ("screen-rotated.jpg", "image/jpeg", "image/jpeg"),
    ("drum-4.png", "image/png", "image/png"),
    ("screen-4.webp", "image/webp", "image/webp"),
    // A phone that saves HEIC under another ending, and an application that goes by the ending.
    ("phone.heic", "image/jpeg", "image/heic"),
];

/// A photo that was posted.
struct Sent {
    file: String,
    /// What its first bytes say.
    format: String,
    mileage: String,
}

/// A line of the phones' `expected.json`.
#[derive(Deserialize)]
struct Phone {
    file: String,
    sent_as: String,
    mileage: String,
}

fn folder(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(of)
}

/// Posts a file as an application on a phone does.
fn post(world: &World, folder: &Path, file: &str, media_type: &str) -> Uuid {
    world.post(&Photo {
        file_name: file.to_owned(),
        media_type: Some(media_type.to_owned()),
        bytes: std::fs::read(folder.join(file)).unwrap(),
        ..Photo::default()
    })
}

/// Posts the files that the project's tools made as phones do.
fn post_phones(world: &World) -> BTreeMap<Uuid, Sent> {
    let folder = folder("reading/tests/phone");
    let phones = std::fs::read(folder.join("expected.json")).unwrap();
    let phones: Vec<Phone> = serde_json::from_slice(&phones).unwrap();
    let sent = phones.into_iter().map(|Phone { file, sent_as, mileage }| {
        let format = if file.ends_with(".heic") { "image/heic" } else { "image/jpeg" }.to_owned();
        (post(world, &folder, &file, &sent_as), Sent { file, format, mileage })
    });
    sent.collect()
}

fn post_samples(world: &World) -> BTreeMap<Uuid, Sent> {
    let folder = folder("examples/photos");
    let scenario = Scenario::read(&folder).unwrap();
    let sent = SAMPLES.into_iter().map(|(file, sent_as, format)| {
        let sample = scenario.photos.iter().find(|sample| sample.file == file).unwrap();
        let mileage = sample.expect.reading.clone().unwrap();
        let sent = Sent { file: file.to_owned(), format: format.to_owned(), mileage };
        (post(world, &folder, file, sent_as), sent)
    });
    sent.collect()
}

#[test]
fn each_format_that_phones_send_is_read_exactly_whatever_it_is_called() {
    let roles = ["quality_check", "odometer_reading"].map(|stage| RoleSpec::stage(stage, "a"));
    let mut world = World::start("phones", &[[RoleSpec::ingest()].as_slice(), &roles].concat(), None);
    let mut sent = post_phones(&world);
    sent.append(&mut post_samples(&world));
    let read = world.until("every reading", |world| {
        let read = world.records::<OdometerRead>();
        (read.len() >= sent.len()).then_some(read)
    });
    for event in read {
        let Sent { file, format, mileage } = sent.remove(&event.header.upload_id.0).unwrap();
        assert_eq!((event.header.mime_type, event.fault), (format, None), "{file}");
        let best = event.reading.and_then(|reading| reading.best);
        assert_eq!(best.map(|best| best.value), Some(mileage.parse::<Decimal>().unwrap()), "{file}");
    }
    assert!(sent.is_empty());
    // AVIF is said to be none of them, and nothing of it is kept.
    let avif = Photo {
        file_name: "photo.avif".into(),
        media_type: Some("image/avif".into()),
        bytes: b"\0\0\0\x18ftypavif\0\0\0\0mif1avif".to_vec(),
        ..Photo::default()
    };
    assert_eq!(world.refused(&avif), (415, Reason::UnsupportedFormat.label().to_owned()));
    world.finish();
}
