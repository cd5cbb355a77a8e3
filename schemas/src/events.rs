//! The typed events, in the past tense. Each has its Avro schema in `avro/`; the field order and names are equal.
//!
//! Decimals are strings in Avro: exact at any scale, without the padding traps of Avro's decimal type. Instants are
//! `timestamp-micros`. Every upload event carries the header and what was stamped at acceptance, so that no stage
//! has to look up what may have changed since.

use std::sync::LazyLock;

use apache_avro::Schema;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

pub use crate::attempts::{AttemptOutcome, ReadingAttempt};
use crate::ids::{EventId, Micros, UploadId, UserId, VehicleId};
pub use crate::payouts::{
    AttemptState, BlockAdopted, BlockPlace, BlockUndone, ChainLog, ChainStep, ChainTransaction, PayoutState,
    PayoutTransaction, PayoutUpdated, RewardClaimed,
};
use crate::reason::Reason;
pub use crate::rewards::{
    LimitCharge, LimitType, PartKind, PartName, RewardCalculated, RewardGranted, RewardPart,
};
use crate::sealed::Sealed;
use crate::topic::Topic;

/// A record type of a topic.
pub trait Event: Serialize + DeserializeOwned + Clone + Send + Sync + std::fmt::Debug + 'static {
    /// The Avro record's full name; the registry subject is `<topic>-<full name>`.
    const NAME: &'static str;
    /// The topic that it stands on.
    const TOPIC: Topic;
    /// The schema that this release writes.
    fn schema() -> &'static Schema;
    /// The schema's text, as registered.
    fn schema_text() -> &'static str;
    /// The event's id: the same for every redelivery.
    fn event_id(&self) -> EventId;
    /// The record key.
    fn key(&self) -> String;
    /// When the producer made it.
    fn occurred_at(&self) -> Micros;
}

macro_rules! event {
    ($type:ident, $name:literal, $topic:expr, $file:literal, |$this:ident| $id:expr, $key:expr, $at:expr) => {
        impl Event for $type {
            const NAME: &'static str = $name;
            const TOPIC: Topic = $topic;
            #[allow(clippy::expect_used, reason = "built in; a unit test parses every schema")]
            fn schema() -> &'static Schema {
                static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
                    Schema::parse_str($type::schema_text()).expect("the built-in schema parses")
                });
                &SCHEMA
            }
            fn schema_text() -> &'static str {
                include_str!(concat!("../avro/", $file))
            }
            fn event_id(&self) -> EventId {
                let $this = self;
                $id
            }
            fn key(&self) -> String {
                let $this = self;
                $key
            }
            fn occurred_at(&self) -> Micros {
                let $this = self;
                $at
            }
        }
    };
    ($type:ident, $name:literal, $topic:expr, $file:literal) => {
        event!(
            $type,
            $name,
            $topic,
            $file,
            |e| e.header.event_id,
            e.header.user_id.to_string(),
            e.header.occurred_at
        );
    };
}

event!(UploadReceived, "milestream.UploadReceived", Topic::UploadsReceived, "UploadReceived.avsc");
event!(UploadGraded, "milestream.UploadGraded", Topic::UploadsGraded, "UploadGraded.avsc");
event!(OdometerRead, "milestream.OdometerRead", Topic::UploadsReadings, "OdometerRead.avsc");
event!(UploadDecided, "milestream.UploadDecided", Topic::UploadsDecided, "UploadDecided.avsc");
event!(RewardCalculated, "milestream.RewardCalculated", Topic::RewardsCalculated, "RewardCalculated.avsc");
event!(RewardGranted, "milestream.RewardGranted", Topic::RewardsGranted, "RewardGranted.avsc");
event!(
    RewardClaimed,
    "milestream.RewardClaimed",
    Topic::RewardsGranted,
    "RewardClaimed.avsc",
    |e| e.event_id,
    e.user_id.to_string(),
    e.occurred_at
);
event!(
    PayoutUpdated,
    "milestream.PayoutUpdated",
    Topic::PayoutsUpdated,
    "PayoutUpdated.avsc",
    |e| e.header.event_id,
    e.reward_id.to_string(),
    e.header.occurred_at
);
event!(
    BlockAdopted,
    "milestream.BlockAdopted",
    Topic::ChainEvents,
    "BlockAdopted.avsc",
    |e| e.event_id,
    e.genesis_id.clone(),
    e.occurred_at
);
event!(
    BlockUndone,
    "milestream.BlockUndone",
    Topic::ChainEvents,
    "BlockUndone.avsc",
    |e| e.event_id,
    e.genesis_id.clone(),
    e.occurred_at
);
event!(
    ActivityLogged,
    "milestream.ActivityLogged",
    Topic::ActivityLogs,
    "ActivityLogged.avsc",
    |e| e.event_id,
    e.event_id.to_string(),
    e.occurred_at
);
event!(
    AccountChanged,
    "milestream.AccountChanged",
    Topic::AccountsChanged,
    "AccountChanged.avsc",
    |e| e.event_id,
    e.user_id.to_string(),
    e.occurred_at
);

/// A unit of distance on a dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Kilometres.
    Km,
    /// International miles of exactly 1.609344 km.
    Miles,
}

impl Unit {
    /// The label of the column's enum.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Km => "km",
            Self::Miles => "miles",
        }
    }

    /// Kilometres in one of this unit: 1 or 1.609344 (the international mile of 1959, exact).
    #[must_use]
    pub fn in_km(self) -> Decimal {
        match self {
            Self::Km => Decimal::ONE,
            Self::Miles => Decimal::from_parts(1_609_344, 0, 0, false, 6),
        }
    }
}

/// Where an upload stands in `uploads.received`: the cut that a replay is taken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// What every upload event carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadHeader {
    /// This event's id.
    pub event_id: EventId,
    /// The upload.
    pub upload_id: UploadId,
    /// Who sent it.
    pub user_id: UserId,
    /// The vehicle that it is for.
    pub vehicle_id: VehicleId,
    /// When this event was made, by its producer's clock; never an input of a decision.
    pub occurred_at: Micros,
    /// When the gateway accepted the upload.
    pub accepted_at: Micros,
    /// SHA-256 of the photo as received, 64 lower-case hex digits.
    pub image_hash: String,
    /// The photo's key in the photo store: `photos/{user_id}/{sha256}`.
    pub object_key: String,
    /// The store's URL and the key, unsigned, at most 500 characters.
    pub image_url: String,
    /// Bytes as received.
    pub file_size: i64,
    /// By the magic bytes: `image/jpeg`, `image/png` or `image/webp`.
    pub mime_type: String,
    /// The release of the stage that made this event.
    pub stage_version: String,
    /// The rules in force at acceptance.
    pub rules_version: String,
    /// Where the upload stands in `uploads.received`; null only in the received event itself.
    pub root: Option<Root>,
}

impl UploadHeader {
    /// The header of the event that a stage makes of this one.
    #[must_use]
    pub fn next(&self, stage: &str, stage_version: &str, now: Micros, root: Root) -> Self {
        Self {
            event_id: crate::ids::derived(self.event_id, stage, 0),
            occurred_at: now,
            stage_version: stage_version.to_owned(),
            root: Some(self.root.unwrap_or(root)),
            ..self.clone()
        }
    }
}

/// The first holder of a photo's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstHolder {
    /// The upload that was published first with this hash.
    pub upload_id: UploadId,
    /// Its user.
    pub user_id: UserId,
}

/// What was true at acceptance and later decisions need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The mileage that the driver typed, in `claimed_unit`.
    pub claimed_mileage: Option<Decimal>,
    /// The unit that the driver chose.
    pub claimed_unit: Option<Unit>,
    /// When the driver says the photo was taken.
    pub captured_at: Option<Micros>,
    /// The file's name, sealed with the user's key.
    pub original_filename: Option<Sealed>,
    /// Whether the account was in good standing.
    pub account_active: bool,
    /// When the account was made.
    pub account_created_at: Micros,
    /// `basic`, `verified` or `premium`.
    pub verification_level: String,
    /// The wallet to be paid; null until one is linked.
    pub wallet_id: Option<Uuid>,
    /// `petrol`, `diesel`, `hybrid`, `plug_in`, `lpg`, `electric` or `unknown`.
    pub vehicle_kind: String,
    /// ISO 3166 country, or `ZZ`.
    pub region: String,
    /// Whether a granted reward is claimed by itself.
    pub auto_claim: bool,
    /// False sends every verdict to a person.
    pub auto_accept: bool,
    /// The revision of `system_config` that was read.
    pub config_revision: i64,
    /// Who published this photo first; null where this upload is the first.
    pub first_holder: Option<FirstHolder>,
}

/// Width and height in pixels, upright.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSize {
    /// Pixels.
    pub width: i32,
    /// Pixels.
    pub height: i32,
}

/// How the light is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lighting {
    /// Nothing to complain of.
    Good,
    /// Within a factor of two of poor.
    Fair,
    /// Hard to read by.
    Poor,
}

impl Lighting {
    /// The label of the column's enum.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Fair => "fair",
            Self::Poor => "poor",
        }
    }
}

/// Quality of the whole frame, measured on luma at 1,024 px long side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrameQuality {
    /// Mean luma, 0-255.
    pub mean: f64,
    /// 5th percentile of luma.
    pub p5: f64,
    /// 99th percentile of luma.
    pub p99: f64,
    /// Mean Tenengrad.
    pub tenengrad: f64,
    /// Share of the largest near-white blob, 0-1.
    pub blob: f64,
    /// 0.00-1.00, two decimals.
    pub score: Decimal,
    /// Lighting.
    pub lighting: Lighting,
    /// Whether blur was detected.
    pub blur: bool,
    /// Whether glare was detected.
    pub glare: bool,
}

/// Why an upload cannot be read, found before any decision: data, decided by `fraud_check` alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The reason.
    pub reason: Reason,
    /// A sentence with the measured value, without personal data.
    pub detail: String,
}

/// A value that was really read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The mileage in `unit`, or in the vehicle's unit where none was seen.
    pub value: Decimal,
    /// The unit seen beside it.
    pub unit: Option<Unit>,
    /// Calibrated agreement, 0-0.99, without any knowledge of earlier readings.
    pub confidence: Decimal,
}

/// What the reading stage found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadingResult {
    /// The service whose answer this is, as in `ai_service_configs.service_name`.
    pub service: String,
    /// Its models and versions, `name@version` joined by commas.
    pub reader_version: String,
    /// Milliseconds of the whole stage, all attempts.
    pub processing_time_ms: i32,
    /// The best candidate.
    pub best: Option<Candidate>,
    /// All candidates, best first, at most 16.
    pub candidates: Vec<Candidate>,
    /// Whether two or more odometer values lie within 0.15 of confidence.
    pub several_readings: bool,
    /// Whether the first service failed and another was tried.
    pub fallback_used: bool,
    /// Detected words, sealed with the user's key, at most 4 KiB in clear.
    pub detected_text: Option<Sealed>,
    /// JSON of `upload_verifications.bounding_boxes`.
    pub bounding_boxes: String,
    /// Frame and box quality together, 0.00-1.00.
    pub quality_score: Decimal,
    /// Lighting with the box metrics.
    pub lighting: Lighting,
    /// Blur with the box metrics.
    pub blur: bool,
    /// Glare with the box metrics.
    pub glare: bool,
    /// Every try of a service for this upload, in order; none where the answer was read for another upload of the photo.
    #[serde(default)]
    pub attempts: Vec<ReadingAttempt>,
}

/// A photo was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadReceived {
    /// Header.
    pub header: UploadHeader,
    /// What was true at acceptance.
    pub stamp: Stamp,
}

/// A photo's quality was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadGraded {
    /// Header.
    pub header: UploadHeader,
    /// What was true at acceptance.
    pub stamp: Stamp,
    /// Null where undecodable.
    pub image: Option<ImageSize>,
    /// Null where undecodable.
    pub quality: Option<FrameQuality>,
    /// Set where the photo is not worth reading.
    pub fault: Option<Fault>,
}

/// A photo was read, or could not be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OdometerRead {
    /// Header.
    pub header: UploadHeader,
    /// What was true at acceptance.
    pub stamp: Stamp,
    /// As graded.
    pub image: Option<ImageSize>,
    /// As graded.
    pub quality: Option<FrameQuality>,
    /// As graded, or found by reading.
    pub fault: Option<Fault>,
    /// Null where the photo was not read.
    pub reading: Option<ReadingResult>,
}

/// The decision about an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Believed: it moves the vehicle's last verified reading.
    Verified,
    /// Turned down for a reason that a driver can act on.
    Rejected,
    /// Our fault.
    Failed,
    /// Waits for a person; interim.
    Review,
}

impl Verdict {
    /// The stable label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Rejected => "rejected",
            Self::Failed => "failed",
            Self::Review => "review",
        }
    }
}

/// An upload was decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UploadDecided {
    /// Header.
    pub header: UploadHeader,
    /// What was true at acceptance.
    pub stamp: Stamp,
    /// The verdict.
    pub verdict: Verdict,
    /// Null exactly where verified.
    pub reason: Option<Reason>,
    /// A sentence with the values compared, without personal data.
    pub detail: Option<String>,
    /// Unit of every mileage in this event: the photo's, the vehicle's, the claim's or km, first known.
    pub unit: Unit,
    /// The claim in `unit`.
    pub claimed_mileage: Option<Decimal>,
    /// The best reading without prior, in `unit`.
    pub ai_mileage: Option<Decimal>,
    /// The accepted mileage; set exactly where verified.
    pub final_mileage: Option<Decimal>,
    /// Confidence of the chosen candidate, two decimals.
    pub confidence: Option<Decimal>,
    /// The vehicle's last verified mileage in `unit`; null for a baseline.
    pub previous_mileage: Option<Decimal>,
    /// Kilometres driven since, unrounded; zero for a baseline; set exactly where verified.
    pub distance_km: Option<Decimal>,
    /// Whether this is the vehicle's first verified reading.
    pub baseline: bool,
    /// Every signal with its weight: a JSON object, evidence for replays and for a person.
    pub signals: String,
}

/// A document for a log collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityLogged {
    /// The event that it is about: with `collection` and `ordinal` it makes the document's id.
    pub event_id: EventId,
    /// The collection.
    pub collection: String,
    /// The n-th document of this event in this collection, from 0.
    pub ordinal: i32,
    /// When it happened; the document's `timestamp`.
    pub occurred_at: Micros,
    /// The document's fields as JSON.
    pub document: String,
}

/// An account changed: ids and flags only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountChanged {
    /// This event's id.
    pub event_id: EventId,
    /// The account.
    pub user_id: UserId,
    /// When.
    pub occurred_at: Micros,
    /// Good standing.
    pub is_active: bool,
    /// `basic`, `verified` or `premium`.
    pub verification_level: String,
}

/// Name, topic and schema text of every record type: what `milestream topics apply` registers.
#[must_use]
pub fn registry_subjects() -> Vec<(Topic, &'static str, &'static str)> {
    fn row<E: Event>() -> (Topic, &'static str, &'static str) {
        (E::TOPIC, E::NAME, E::schema_text())
    }
    vec![
        row::<UploadReceived>(),
        row::<UploadGraded>(),
        row::<OdometerRead>(),
        row::<UploadDecided>(),
        row::<ActivityLogged>(),
        row::<AccountChanged>(),
        row::<RewardCalculated>(),
        row::<RewardGranted>(),
        row::<RewardClaimed>(),
        row::<PayoutUpdated>(),
        row::<BlockAdopted>(),
        row::<BlockUndone>(),
    ]
}
