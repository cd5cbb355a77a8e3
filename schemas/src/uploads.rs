//! From the photo to the decision: the types of `uploads.*`.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::attempts::ReadingAttempt;
use crate::corrections::Correction;
use crate::header::{Stamp, Unit, UploadHeader};
use crate::ids::{EventId, Micros, UploadId, UserId, VehicleId, derived};
use crate::reason::Reason;
use crate::sealed::Sealed;

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
    /// Share of the frame that the grid of a screen's pixels covers, 0-1; null where it was not looked for.
    #[serde(default)]
    pub grid: Option<f64>,
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
    /// SHA-256 of the upright pixels, 64 lower-case hex digits; null where the photo is not worth reading.
    #[serde(default)]
    pub pixel_hash: Option<String>,
}

/// The first upload whose photo has the same pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PixelHolder {
    /// The upload.
    pub upload_id: UploadId,
    /// Its user.
    pub user_id: UserId,
    /// Its vehicle.
    pub vehicle_id: VehicleId,
    /// When it was accepted: photos of different users are not read in the order of acceptance.
    pub accepted_at: Micros,
}

/// A photo of another vehicle that shows the same number in surroundings that look the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookAlike {
    /// The photo's upload.
    pub upload_id: UploadId,
    /// Its user.
    pub user_id: UserId,
    /// Its vehicle.
    pub vehicle_id: VehicleId,
    /// How alike the two are, 0-1.
    pub likeness: Decimal,
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
    /// As graded.
    #[serde(default)]
    pub pixel_hash: Option<String>,
    /// Who sent these pixels first, in another file; null where this upload or its file did, or its photo is not worth reading.
    #[serde(default)]
    pub pixel_holder: Option<PixelHolder>,
    /// What a person has decided: set where the upload comes a second time.
    #[serde(default)]
    pub review: Option<Review>,
    /// A photo of another vehicle that may be the same one, cropped or made anew; null where none is known.
    #[serde(default)]
    pub look_alike: Option<LookAlike>,
}

/// What a person has decided about an upload that was in doubt, or that nobody has in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// The person; [`Review::NOBODY`] where the time ran out.
    pub reviewer_id: UserId,
    /// When.
    pub decided_at: Micros,
    /// The reading that the person saw on the photo; null where the photo is turned down.
    pub mileage: Option<Decimal>,
    /// The unit that the photo shows; null where it shows none, and where it is turned down.
    pub unit: Option<Unit>,
    /// Why the photo is turned down; set exactly then.
    pub reason: Option<Reason>,
    /// What the person noted, sealed with the driver's key.
    pub notes: Option<Sealed>,
}

impl Review {
    /// Stands for the person where nobody has decided in time: the nil UUID.
    pub const NOBODY: UserId = UserId(uuid::Uuid::nil());

    /// The person who has decided; none where the time ran out.
    #[must_use]
    pub fn person(&self) -> Option<UserId> {
        (self.reviewer_id != Self::NOBODY).then_some(self.reviewer_id)
    }
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
    /// Unit of every mileage in this event: the photo's, else the one that the vehicle's photos have shown, else km.
    pub unit: Unit,
    /// The claim in `unit`.
    pub claimed_mileage: Option<Decimal>,
    /// The best reading without prior, in `unit`.
    pub ai_mileage: Option<Decimal>,
    /// The accepted mileage; set exactly where verified.
    pub final_mileage: Option<Decimal>,
    /// Confidence of the chosen candidate, two decimals.
    pub confidence: Option<Decimal>,
    /// The verified mileage before it in the order of acceptance, in `unit`; null where there is none.
    pub previous_mileage: Option<Decimal>,
    /// Kilometres driven since, unrounded; zero for a baseline and for what comes late; set exactly where verified.
    pub distance_km: Option<Decimal>,
    /// Whether this is the vehicle's first verified reading.
    pub baseline: bool,
    /// Every signal with its weight: a JSON object, evidence for replays and for a person.
    pub signals: String,
    /// What a person has decided, where this is the outcome of a review.
    #[serde(default)]
    pub review: Option<Review>,
    /// What bonuses are for; set where verified, null where a release before has decided it, and in a correction.
    #[serde(default)]
    pub driver: Option<DriverFacts>,
    /// Set where this decision lowers the reading of one before: nothing is earned by it.
    #[serde(default)]
    pub correction: Option<Correction>,
}

/// What a driver's verified uploads say at one of them, in the order of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverFacts {
    /// ISO weeks in a row with a verified photo, up to this one's; 0 where it lies too far back to tell.
    pub streak_weeks: i32,
    /// Whether it is the first of its ISO week with a distance.
    pub first_of_week: bool,
}

/// A verified reading was wrong: it is lower. Comes after the upload's record on its topic, and is decided in its place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReadingCorrected {
    /// This event's id.
    pub event_id: EventId,
    /// The decision that is corrected, as it was published.
    pub decided: UploadDecided,
    /// By how much.
    pub correction: Correction,
}

impl ReadingCorrected {
    /// A correction of a decision. Its id follows from the decision's, so that the same correction asked for twice is one.
    #[must_use]
    pub fn of(decided: UploadDecided, correction: Correction) -> Self {
        let ordinal = correction.number.unsigned_abs();
        let event_id = derived(decided.header.event_id, "correction", ordinal);
        Self { event_id, decided, correction }
    }
}
