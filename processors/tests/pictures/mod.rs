//! Copies of a photo, on a real Postgres: the same pixels in another file, and a photo that was cropped or made anew.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use image::{DynamicImage, ImageFormat};
use object_store::memory::InMemory;
use processors::fraud_check::judge::judge;
use processors::fraud_check::rules::Rules;
use processors::odometer_reading::{OdometerReading, Pictures as _, PostgresAnswers};
use processors::quality_check::QualityCheck;
use reading::Surroundings;
use runtime::{Processor as _, Verdict as Outcome};
use rust_decimal::Decimal;
use schemas::events::{OdometerRead, UploadReceived, Verdict};
use schemas::ids::{EventId, UploadId, UserId, VehicleId};
use schemas::reason::Reason;
use schemas::topic::Topic;
use uuid::Uuid;

use crate::support::{NOW, examples, put, record};
use crate::{Database, emitted};

/// The two stages that photos go through, and where photos are kept.
struct Stages {
    quality: QualityCheck,
    reading: OdometerReading<PostgresAnswers>,
    store: Arc<InMemory>,
}

impl Stages {
    async fn new(database: &Database) -> Self {
        let (dependencies, store) = database.dependencies(NOW);
        let (quality, reading) =
            (dependencies.quality_check(), dependencies.odometer_reading().await.unwrap());
        Self { quality, reading, store }
    }

    async fn read(&self, upload: &UploadReceived) -> OdometerRead {
        let Outcome::EmitWith(graded, _) = self.quality.process(&record(upload.clone(), 0)).await.unwrap()
        else {
            panic!("a graded photo")
        };
        emitted(self.reading.process(&record(graded, 0)).await.unwrap())
    }

    async fn sent(&self, upload: &UploadReceived, bytes: Vec<u8>) -> OdometerRead {
        put(self.store.as_ref(), &upload.header, bytes).await;
        self.read(upload).await
    }
}

/// An upload of a user with a vehicle and a file of its own.
fn upload(n: u128) -> UploadReceived {
    let example = examples(Topic::UploadsReceived).into_iter().find(|e| e.name == "normal-claim").unwrap();
    let mut upload: UploadReceived = example.event();
    (upload.stamp.claimed_mileage, upload.stamp.claimed_unit) = (None, None);
    if n > 0 {
        upload.header.event_id = EventId(Uuid::from_u128(n));
        upload.header.upload_id = UploadId(Uuid::from_u128(n + 1));
        upload.header.user_id = UserId(Uuid::from_u128(n + 2));
        upload.header.vehicle_id = VehicleId(Uuid::from_u128(n + 3));
        upload.header.object_key = format!("photos/{n}/other");
        upload.header.image_hash = format!("{n:064x}");
    }
    upload
}

/// A whole dashboard.
fn dashboard() -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/photos");
    fs::read(folder.join("screen-2.jpg")).unwrap()
}

/// The photo without its edges, smaller, and compressed anew.
fn cropped() -> Vec<u8> {
    let picture = image::load_from_memory(&dashboard()).unwrap();
    let (wide, tall) = (picture.width(), picture.height());
    let inner = picture.crop_imm(wide / 16, tall / 20, wide - wide / 8, tall - tall / 10);
    let smaller = inner.resize(inner.width() * 9 / 10, inner.height() * 9 / 10, image::imageops::Triangle);
    let mut jpeg = Cursor::new(Vec::new());
    DynamicImage::from(smaller.to_rgb8()).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
    jpeg.into_inner()
}

#[tokio::test]
async fn one_byte_more_makes_no_other_photo_the_first_upload_of_the_pixels_is_stamped_and_decides() {
    let database = Database::new().await;
    let stages = Stages::new(&database).await;
    let (first, mut other) = (upload(0), upload(70));
    other.header.vehicle_id = first.header.vehicle_id;
    let mine = stages.sent(&first, dashboard()).await;
    let copy = stages.sent(&other, [dashboard(), vec![0]].concat()).await;
    assert_eq!(mine.pixel_holder, None);
    assert_eq!(mine.pixel_hash, copy.pixel_hash);
    assert_ne!(mine.header.image_hash, copy.header.image_hash);
    let holder = copy.pixel_holder.unwrap();
    assert_eq!((holder.upload_id, holder.user_id), (first.header.upload_id, first.header.user_id));
    assert_eq!(holder.accepted_at, first.header.accepted_at);
    // Of the same file acceptance knows who was first: a copy that is read before its original does not stand in its way.
    let mut same_file = other.clone();
    same_file.header.upload_id = UploadId(Uuid::from_u128(79));
    same_file.header.image_hash.clone_from(&first.header.image_hash);
    same_file.header.object_key.clone_from(&first.header.object_key);
    assert_eq!(stages.read(&same_file).await.pixel_holder, None);
    // A redelivery of either finds the same.
    let again = (stages.read(&first).await.pixel_holder, stages.read(&other).await.pixel_holder);
    assert_eq!(again, (None, Some(holder)));
    let judgement = judge(&copy, None, &Rules::current());
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Rejected, Some(Reason::DuplicatePhoto)));
    database.drop().await;
}

#[tokio::test]
async fn a_cropped_copy_of_another_accounts_photo_goes_to_a_person() {
    let database = Database::new().await;
    let stages = Stages::new(&database).await;
    let (first, other) = (upload(0), upload(80));
    let original = stages.sent(&first, dashboard()).await;
    let copy = stages.sent(&other, cropped()).await;
    assert_eq!(original.look_alike, None);
    assert_ne!(original.pixel_hash, copy.pixel_hash);
    let found = copy.look_alike.unwrap();
    assert_eq!((found.upload_id, found.user_id), (first.header.upload_id, first.header.user_id));
    assert_eq!(found.vehicle_id, first.header.vehicle_id);
    assert!(found.likeness >= Decimal::new(8, 1), "{}", found.likeness);
    // A redelivery of either finds the same.
    assert_eq!(stages.read(&first).await.look_alike, None);
    assert_eq!(stages.read(&other).await.look_alike, Some(found));
    let judgement = judge(&copy, None, &Rules::current());
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Review, Some(Reason::DuplicatePhoto)));
    database.drop().await;
}

#[tokio::test]
async fn a_photo_of_the_same_vehicle_or_the_same_file_looks_like_no_copy() {
    let database = Database::new().await;
    let stages = Stages::new(&database).await;
    let (first, mut again, mut same_file) = (upload(0), upload(90), upload(100));
    (again.header.user_id, again.header.vehicle_id) = (first.header.user_id, first.header.vehicle_id);
    same_file.header.image_hash.clone_from(&first.header.image_hash);
    stages.sent(&first, dashboard()).await;
    assert_eq!(stages.sent(&again, cropped()).await.look_alike, None);
    // Of one file acceptance knows who was first: a copy that is read before its original does not stand in its way. What looks like it
    // is the vehicle's other photo.
    let copy = stages.sent(&same_file, dashboard()).await;
    assert_eq!(copy.look_alike.map(|found| found.upload_id), Some(again.header.upload_id));
    database.drop().await;
}

#[tokio::test]
async fn a_deployment_that_compares_nothing_keeps_nothing() {
    let database = Database::new().await;
    let (dependencies, store) = database.dependencies(NOW);
    let quality = dependencies.quality_check();
    let reading = dependencies.comparing_photos(false).odometer_reading().await.unwrap();
    let stages = Stages { quality, reading, store };
    stages.sent(&upload(0), dashboard()).await;
    assert_eq!(stages.sent(&upload(110), cropped()).await.look_alike, None);
    let kept: i64 = sqlx::query_scalar("select count(*) from picture_surroundings")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(kept, 0);
    database.drop().await;
}

/// 200,000 photos: 400 of each of 500 numbers, and as many of numbers that nobody else has.
const FILLED: &str = "
insert into picture_surroundings (upload_id, user_id, vehicle_id, accepted_at, image_hash, mileage, surroundings)
select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() - n * interval '1 second', sha256(n::text::bytea),
    case when n % 2 = 0 then n % 1000 else 1000000 + n end, decode(repeat('5a', 352), 'hex')
from generate_series(1, 200000) n;
analyze picture_surroundings;
";

#[tokio::test]
async fn photos_with_the_same_number_are_found_by_their_index() {
    let database = Database::new().await;
    sqlx::raw_sql(FILLED).execute(&database.pool).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "explain select upload_id, user_id, vehicle_id, surroundings from picture_surroundings
         where mileage = 10 and vehicle_id <> gen_random_uuid() and image_hash <> decode(repeat('00', 32), 'hex')
         order by accepted_at desc limit 32",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(
        plan.contains("picture_surroundings_mileage_accepted_at_idx") && !plan.contains("Seq Scan"),
        "{plan}"
    );
    let answers = PostgresAnswers::new(database.pool.clone());
    let flat = Surroundings::from_bytes(&[0x77; Surroundings::BYTES]).unwrap();
    assert_eq!(answers.look_alike(&upload(0).header, Decimal::TEN, flat).await.unwrap(), None);
    database.drop().await;
}
