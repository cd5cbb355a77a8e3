//! What the tests share: examples, synthetic photos, dependencies on memory, records.
#![allow(dead_code, reason = "each test file uses its own share")]

use std::collections::HashMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt as _};
use processors::odometer_reading::{Answer, AnswerKey, Answers, Pictures, ServiceRow};
use processors::pipeline::Dependencies;
use reading::Surroundings;
use runtime::{Envelope, ManualClock, Position, StageError};
use rust_decimal::Decimal;
use schemas::events::{Event, LookAlike, PixelHolder, UploadHeader};
use schemas::ids::{Micros, UserId};
use schemas::sealed::UserKey;
use schemas::topic::Topic;
use serde_json::Value;

/// Where the clock stands.
pub const NOW: Micros = Micros(1_772_438_405_000_000);

/// A file of `schemas/examples`.
pub struct Example {
    pub topic: Topic,
    pub name: String,
    pub json: Value,
}

impl Example {
    pub fn event<E: Event>(&self) -> E {
        assert_eq!(self.json["record"], E::NAME, "{}", self.name);
        serde_json::from_value(self.json["event"].clone())
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub fn is_malformed(&self) -> bool {
        self.name.starts_with("malformed-")
    }
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The examples of a topic, by name.
pub fn examples(topic: Topic) -> Vec<Example> {
    let folder = workspace().join("schemas/examples").join(topic.name());
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| Example {
            topic,
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            json: serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
        })
        .collect()
}

/// A synthetic photo by its name in an example.
pub fn photo(name: &str) -> Vec<u8> {
    match name {
        "odometer" => png(&odometer("50310")),
        "tiles" => png(&RgbImage::from_fn(640, 480, |x, y| {
            if (x / 40 + y / 40) % 2 == 0 { Rgb([60; 3]) } else { Rgb([150; 3]) }
        })),
        "black" => png(&RgbImage::from_pixel(640, 480, Rgb([1; 3]))),
        "cut" => {
            let whole = photo("odometer");
            whole[..whole.len() / 2].to_vec()
        }
        other => panic!("no photo {other}"),
    }
}

fn png(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(picture.clone()).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A seven-segment display with these digits, lit on a dark dashboard.
pub fn odometer(digits: &str) -> RgbImage {
    // Segments a-g of each digit, as on any display: top, upper right, lower right, bottom, lower left, upper left, middle.
    const LIT: [u8; 10] = [
        0b011_1111, 0b000_0110, 0b101_1011, 0b100_1111, 0b110_0110, 0b110_1101, 0b111_1101, 0b000_0111,
        0b111_1111, 0b110_1111,
    ];
    const SEGMENTS: [(u32, u32, u32, u32); 7] = [
        (8, 0, 34, 8),
        (42, 4, 8, 40),
        (42, 48, 8, 40),
        (8, 84, 34, 8),
        (0, 48, 8, 40),
        (0, 4, 8, 40),
        (8, 42, 34, 8),
    ];
    let mut picture = RgbImage::from_fn(640, 480, |x, y| {
        // A little structure, so that the frame is neither black nor blurred.
        let grain = u8::try_from((x * 7 + y * 13) % 23).unwrap();
        Rgb([30 + grain; 3])
    });
    for (n, digit) in (0_u32..).zip(digits.bytes()) {
        for (segment, (left, top, width, height)) in SEGMENTS.iter().enumerate() {
            if LIT[usize::from(digit - b'0')] >> segment & 1 == 1 {
                for y in *top..top + height {
                    for x in *left..left + width {
                        picture.put_pixel(120 + n * 80 + x, 190 + y, Rgb([235, 240, 235]));
                    }
                }
            }
        }
    }
    picture
}

/// Dependencies on memory: an object store, a clock that stands still, and a database that nobody asks.
pub fn dependencies() -> (Dependencies, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    let pool = sqlx::PgPool::connect_lazy("postgres://nobody@127.0.0.1:1/none").unwrap();
    (Dependencies::new(pool, store.clone(), Arc::new(ManualClock::at(NOW))), store)
}

pub async fn put(store: &dyn ObjectStore, header: &UploadHeader, bytes: Vec<u8>) {
    store.put(&header.object_key.as_str().into(), bytes.into()).await.unwrap();
}

/// A record at an offset.
pub fn record<E: Event>(event: E, offset: i64) -> Envelope<E> {
    Envelope {
        payload: event,
        position: Position { topic: E::TOPIC.name().into(), partition: 2, offset },
        timestamp_ms: NOW.0 / 1_000 - 20,
        redrive: 0,
        traceparent: None,
    }
}

/// Answers in a map, how often one was kept, and the services that a test configures.
#[derive(Clone, Default)]
pub struct MemoryAnswers {
    kept: Arc<Mutex<HashMap<[String; 3], Answer>>>,
    pub services: Arc<Mutex<Vec<ServiceRow>>>,
    /// File and upload that were first, by the pixels' hash.
    pixels: Arc<Mutex<HashMap<String, (String, PixelHolder)>>>,
}

impl MemoryAnswers {
    pub fn with(services: Vec<ServiceRow>) -> Self {
        Self { services: Arc::new(Mutex::new(services)), ..Self::default() }
    }

    pub fn count(&self) -> usize {
        self.kept.lock().unwrap().len()
    }
}

impl Pictures for MemoryAnswers {
    async fn hold_pixels(
        &self,
        pixel_hash: &str,
        own: &UploadHeader,
    ) -> Result<Option<PixelHolder>, StageError> {
        let picture = PixelHolder {
            upload_id: own.upload_id,
            user_id: own.user_id,
            vehicle_id: own.vehicle_id,
            accepted_at: own.accepted_at,
        };
        let mut pixels = self.pixels.lock().unwrap();
        let (file, first) = pixels.entry(pixel_hash.to_owned()).or_insert((own.image_hash.clone(), picture));
        Ok((*file != own.image_hash).then_some(*first))
    }

    /// What looks alike is tested on Postgres.
    async fn look_alike(
        &self,
        _: &UploadHeader,
        _: Decimal,
        _: Surroundings,
    ) -> Result<Option<LookAlike>, StageError> {
        Ok(None)
    }
}

impl Answers for MemoryAnswers {
    async fn find(&self, key: AnswerKey<'_>) -> Result<Option<Answer>, StageError> {
        Ok(self.kept.lock().unwrap().get(&owned(key)).cloned())
    }

    async fn keep(&self, key: AnswerKey<'_>, answer: Answer) -> Result<Answer, StageError> {
        Ok(self.kept.lock().unwrap().entry(owned(key)).or_insert(answer).clone())
    }

    async fn user_key(&self, user: UserId) -> Result<Option<UserKey>, StageError> {
        // A key of its own for each user, the same in every test.
        let mut key = [7; 32];
        key[..16].copy_from_slice(user.0.as_bytes());
        Ok(Some(UserKey::from_bytes(&key).unwrap()))
    }

    async fn services(&self) -> Result<Vec<ServiceRow>, StageError> {
        Ok(self.services.lock().unwrap().clone())
    }
}

fn owned(key: AnswerKey<'_>) -> [String; 3] {
    [key.image_hash, key.reader_version, key.cascade].map(str::to_owned)
}
