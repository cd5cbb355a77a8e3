//! What every event of an upload carries: its header, and what was true when the photo was accepted, so that no stage has to
//! look up what may have changed since.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{EventId, Micros, UploadId, UserId, VehicleId};
use crate::sealed::Sealed;

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
    /// By the magic bytes: `image/jpeg`, `image/png`, `image/webp` or `image/heic`.
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

/// What the file's metadata say of a photo, as the gateway read them before it took them out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameraFacts {
    /// When the camera says the photo was taken; null where the file does not say.
    pub taken_at: Option<Micros>,
    /// Whether the camera wrote its time zone. Where it did not, `taken_at` is its local time read as UTC.
    #[serde(default)]
    pub zone_known: bool,
    /// The program that changed the picture, by its name in the gateway's list of editors; null where none of them wrote the file.
    pub edited_by: Option<String>,
}

/// How many accounts send photos from where this one came from, this account counted. It says neither who nor where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginFacts {
    /// Accounts that sent from the same device in 30 days; null where the client names no device.
    pub accounts_of_device: Option<i32>,
    /// Accounts younger than 7 days that sent from the same address in 24 hours; null where this account is older.
    pub young_accounts_of_address: Option<i32>,
}

/// What a driver wants to earn at most, B3TR. It lowers budgets and never raises one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonalLimits {
    /// In a day.
    pub daily: Option<Decimal>,
    /// In a week.
    pub weekly: Option<Decimal>,
    /// In a month.
    pub monthly: Option<Decimal>,
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
    /// What the file's metadata say; null where they say nothing of these.
    pub camera: Option<CameraFacts>,
    /// How many accounts share the device and the address; null where nothing of it is known.
    pub origin: Option<OriginFacts>,
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
    /// B3TR that rewards come to together before they are claimed by themselves; null where each is.
    pub min_claim: Option<Decimal>,
    /// What the driver wants to earn at most; null where there is no limit.
    pub personal_limits: Option<PersonalLimits>,
}
