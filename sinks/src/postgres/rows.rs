//! From an event to the rows it brings: pure, one function an event type, each with only the columns that are its own.
//!
//! Ranks order what arrives in any order: of two statuses the higher rank stands, of two of one rank the first.

use chrono::{DateTime, Utc};
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{
    Fault, FrameQuality, ImageSize, OdometerRead, ReadingResult, Stamp, Unit, UploadDecided, UploadGraded,
    UploadHeader, UploadReceived, Verdict,
};
use schemas::ids::{UploadId, natural};
use schemas::reason::Reason;
use schemas::sealed::{Sealed, UserKey};
use serde_json::{Value, json};
use uuid::Uuid;

use super::payouts::{self, TransactionRow};
use super::rewards::{self, RewardRow};
use super::sink::UploadEvent;

/// First value that `numeric(10,2)` cannot hold.
const MILEAGE_LIMIT: Decimal = Decimal::from_parts(100_000_000, 0, 0, false, 0);

/// A value that its column cannot hold.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("upload {upload}: {column} {why}")]
pub struct BadValue {
    /// The upload.
    pub upload: UploadId,
    /// `table.column`.
    pub column: &'static str,
    /// What is wrong, without the text itself.
    pub why: String,
}

/// What one event brings.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    pub upload: UploadRow,
    pub mileage: Option<MileageRow>,
    pub verification: Option<VerificationRow>,
    pub reward: Option<RewardRow>,
    pub transaction: Option<TransactionRow>,
}

/// `odometer_uploads`, and the account that its parent row needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UploadRow {
    pub id: Uuid,
    pub user_id: Uuid,
    /// For the parent row in `users`: the same in every event of the user, so any of them makes the same row.
    pub account_created_at: DateTime<Utc>,
    pub vehicle_id: Uuid,
    pub vehicle_kind: String,
    pub image_url: String,
    pub image_hash: String,
    pub original_filename: Option<String>,
    pub file_size: i32,
    pub mime_type: String,
    pub image_dimensions: Option<Value>,
    pub status: &'static str,
    /// 0 received, 1 in the works, 2 decided.
    pub rank: i16,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub processed_at: Option<DateTime<Utc>>,
}

/// `mileage_data`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MileageRow {
    pub id: Uuid,
    pub claimed: Option<Decimal>,
    pub ai: Option<Decimal>,
    pub accepted: Option<Decimal>,
    pub confidence: Option<Decimal>,
    pub unit: &'static str,
    pub previous: Option<Decimal>,
    pub distance: Option<Decimal>,
    pub status: &'static str,
    /// 0 pending, 1 with a person, 2 decided.
    pub rank: i16,
    pub rejection_reason: Option<String>,
}

/// `upload_verifications`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct VerificationRow {
    pub id: Uuid,
    /// Set exactly by the readings.
    pub reading: Option<ReadingColumns>,
    pub quality: Option<QualityColumns>,
    pub error_details: Option<String>,
    /// Absent exactly in a decision, which is no part of the verification's beginning.
    pub created_at: Option<DateTime<Utc>>,
}

/// What `uploads.readings` alone knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ReadingColumns {
    pub service: Option<String>,
    pub processing_time: Option<i32>,
    pub confidence: Option<Decimal>,
    pub detected_text: Option<String>,
    pub bounding_boxes: Option<Value>,
    pub several: bool,
    pub fallback: bool,
}

/// What `uploads.graded` measures on the frame and `uploads.readings` refines by the box.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct QualityColumns {
    pub score: Decimal,
    pub lighting: &'static str,
    pub blur: bool,
    pub glare: bool,
}

impl UploadEvent {
    /// The header and what was stamped, whichever the type.
    /// None for what is about no upload.
    pub(super) fn parts(&self) -> Option<(&UploadHeader, &Stamp)> {
        Some(match self {
            Self::Received(event) => (&event.header, &event.stamp),
            Self::Graded(event) => (&event.header, &event.stamp),
            Self::Read(event) => (&event.header, &event.stamp),
            Self::Decided(event) => (&event.header, &event.stamp),
            Self::Calculated(event) => (&event.header, &event.stamp),
            Self::Granted(event) => (&event.header, &event.stamp),
            Self::Paid(event) => (&event.header, &event.stamp),
            Self::Claimed(_) | Self::Chain(_) | Self::Deployed(_) => return None,
        })
    }

    /// The rows; `key` opens the user's private texts, and without it they are null.
    /// None for what is about no upload.
    pub(super) fn rows(&self, key: Option<&UserKey>) -> Result<Option<Rows>, BadValue> {
        let rows = match self {
            Self::Received(event) => received(event, key),
            Self::Graded(event) => graded(event),
            Self::Read(event) => read(event, key),
            Self::Decided(event) => decided(event),
            Self::Calculated(event) => rewards::calculated(event),
            Self::Granted(event) => rewards::granted(event),
            Self::Paid(event) => payouts::updated(event),
            Self::Claimed(_) | Self::Chain(_) | Self::Deployed(_) => return Ok(None),
        };
        rows.map(Some)
    }
}

fn received(event: &UploadReceived, key: Option<&UserKey>) -> Result<Rows, BadValue> {
    let (header, stamp) = (&event.header, &event.stamp);
    let fit = Fit(header.upload_id);
    let sealed = stamp.original_filename.as_ref();
    let filename = fit.opened("odometer_uploads.original_filename", 255, key, sealed)?;
    let claimed = fit.mileage("mileage_data.user_claimed_mileage", stamp.claimed_mileage)?;
    let mut upload = upload(header, stamp, "uploaded", 0)?;
    upload.original_filename = filename;
    let mileage = MileageRow { claimed, ..pending(header, stamp) };
    Ok(Rows { upload, mileage: Some(mileage), verification: None, reward: None, transaction: None })
}

fn graded(event: &UploadGraded) -> Result<Rows, BadValue> {
    let (header, fit) = (&event.header, Fit(event.header.upload_id));
    let mut upload = upload(header, &event.stamp, "processing", 1)?;
    upload.image_dimensions = event.image.map(dimensions);
    let quality = event.quality.as_ref().map(|quality| fit.frame(quality)).transpose()?;
    let verification =
        VerificationRow { quality, created_at: Some(header.occurred_at.to_utc()), ..verification(header) };
    Ok(Rows { upload, mileage: None, verification: Some(verification), reward: None, transaction: None })
}

fn read(event: &OdometerRead, key: Option<&UserKey>) -> Result<Rows, BadValue> {
    let (header, stamp, fit) = (&event.header, &event.stamp, Fit(event.header.upload_id));
    let upload = upload(header, stamp, "processing", 1)?;
    let row_unit = unit_before_decision(stamp);
    let best = event.reading.as_ref().and_then(|reading| reading.best.as_ref());
    let ai = best.map(|best| fit.converted(best.value, best.unit, row_unit)).transpose()?;
    let ai = fit.mileage("mileage_data.ai_verified_mileage", ai)?;
    let quality = match (&event.reading, &event.quality) {
        (Some(reading), _) => Some(fit.boxed(reading)?),
        (None, Some(quality)) => Some(fit.frame(quality)?),
        (None, None) => None,
    };
    let reading = match &event.reading {
        Some(reading) => fit.reading(reading, key)?,
        // Not read: no service, no time, no boxes; nothing was seen twice and no second service was tried.
        None => ReadingColumns::default(),
    };
    let verification = VerificationRow {
        reading: Some(reading),
        quality,
        error_details: event.fault.as_ref().map(fault_text),
        created_at: Some(header.occurred_at.to_utc()),
        ..verification(header)
    };
    let mileage = MileageRow { ai, ..pending(header, stamp) };
    Ok(Rows {
        upload,
        mileage: Some(mileage),
        verification: Some(verification),
        reward: None,
        transaction: None,
    })
}

fn decided(event: &UploadDecided) -> Result<Rows, BadValue> {
    let (header, fit) = (&event.header, Fit(event.header.upload_id));
    let (upload_status, status, rank) = match event.verdict {
        Verdict::Verified => ("verified", "approved", 2),
        Verdict::Rejected => ("rejected", "rejected", 2),
        Verdict::Failed => ("failed", "rejected", 2),
        Verdict::Review => ("processing", "manual_review", 1),
    };
    let mut upload = upload(header, &event.stamp, upload_status, rank)?;
    upload.processed_at = (rank == 2).then(|| header.occurred_at.to_utc());
    let verified = event.verdict == Verdict::Verified;
    let reason = reason_text(event)?;
    let mileage = MileageRow {
        id: natural(&format!("mileage_data/{}", header.upload_id)),
        claimed: fit.mileage("mileage_data.user_claimed_mileage", event.claimed_mileage)?,
        ai: fit.mileage("mileage_data.ai_verified_mileage", event.ai_mileage)?,
        accepted: fit.mileage("mileage_data.final_mileage", event.final_mileage.filter(|_| verified))?,
        confidence: event
            .confidence
            .map(|confidence| fit.share("mileage_data.mileage_confidence", confidence))
            .transpose()?,
        unit: event.unit.label(),
        previous: fit.mileage("mileage_data.previous_mileage", event.previous_mileage)?,
        distance: fit.mileage("mileage_data.distance_traveled", event.distance_km.filter(|_| verified))?,
        status,
        rank,
        rejection_reason: reason.clone().filter(|_| status == "rejected"),
    };
    if verified && (mileage.accepted.is_none() || mileage.distance.is_none()) {
        return fit.refuse("mileage_data.final_mileage", "or its distance is missing in a verified decision");
    }
    let verification = VerificationRow { error_details: reason, ..verification(header) };
    Ok(Rows {
        upload,
        mileage: Some(mileage),
        verification: Some(verification),
        reward: None,
        transaction: None,
    })
}

/// The columns that every event carries, so that the row can be made by whichever comes first.
pub(super) fn upload(
    header: &UploadHeader,
    stamp: &Stamp,
    status: &'static str,
    rank: i16,
) -> Result<UploadRow, BadValue> {
    let fit = Fit(header.upload_id);
    let Ok(file_size) = i32::try_from(header.file_size) else {
        return fit.refuse("odometer_uploads.file_size", "does not fit 32 bits");
    };
    Ok(UploadRow {
        id: header.upload_id.0,
        user_id: header.user_id.0,
        account_created_at: stamp.account_created_at.to_utc(),
        vehicle_id: header.vehicle_id.0,
        vehicle_kind: stamp.vehicle_kind.clone(),
        image_url: fit.text("odometer_uploads.image_url", 500, &header.image_url)?,
        image_hash: fit.text("odometer_uploads.image_hash", 64, &header.image_hash)?,
        original_filename: None,
        file_size,
        mime_type: fit.text("odometer_uploads.mime_type", 100, &header.mime_type)?,
        image_dimensions: None,
        status,
        rank,
        created_at: header.accepted_at.to_utc(),
        updated_at: header.occurred_at.to_utc(),
        processed_at: None,
    })
}

fn pending(header: &UploadHeader, stamp: &Stamp) -> MileageRow {
    MileageRow {
        id: natural(&format!("mileage_data/{}", header.upload_id)),
        claimed: None,
        ai: None,
        accepted: None,
        confidence: None,
        unit: unit_before_decision(stamp).label(),
        previous: None,
        distance: None,
        status: "pending",
        rank: 0,
        rejection_reason: None,
    }
}

fn verification(header: &UploadHeader) -> VerificationRow {
    let id = natural(&format!("upload_verifications/{}", header.upload_id));
    VerificationRow { id, ..VerificationRow::default() }
}

/// The claim's unit, or km: what holds until the decision names the photo's or the vehicle's.
fn unit_before_decision(stamp: &Stamp) -> Unit {
    stamp.claimed_unit.unwrap_or(Unit::Km)
}

fn dimensions(image: ImageSize) -> Value {
    json!({ "width": image.width, "height": image.height })
}

fn fault_text(fault: &Fault) -> String {
    format!("{}: {}", fault.reason.label(), fault.detail)
}

/// `code: sentence`; none exactly where verified. What failed is our fault under one code, whatever the cause.
fn reason_text(event: &UploadDecided) -> Result<Option<String>, BadValue> {
    let reason = match (event.verdict, event.reason) {
        (Verdict::Verified, _) => return Ok(None),
        (Verdict::Failed, _) => Reason::ProcessingFailed,
        (_, Some(reason)) => reason,
        (_, None) => {
            return Fit(event.header.upload_id)
                .refuse("mileage_data.rejection_reason", "is missing in a decision that is not verified");
        }
    };
    let sentence = event.detail.as_deref().unwrap_or(reason.advice());
    Ok(Some(format!("{}: {sentence}", reason.label())))
}

/// Holds values against their columns, in the name of an upload.
pub(super) struct Fit(pub UploadId);

impl Fit {
    pub(super) fn refuse<T>(&self, column: &'static str, why: &str) -> Result<T, BadValue> {
        Err(BadValue { upload: self.0, column, why: why.to_owned() })
    }

    /// Two decimals toward zero, at least 0, within `numeric(10,2)`.
    pub(super) fn mileage(
        &self,
        column: &'static str,
        value: Option<Decimal>,
    ) -> Result<Option<Decimal>, BadValue> {
        match value {
            Some(value) if value < Decimal::ZERO => self.refuse(column, "is negative"),
            Some(value) if value >= MILEAGE_LIMIT => self.refuse(column, "is not below 100,000,000"),
            value => Ok(value.map(trunc2)),
        }
    }

    /// Two decimals toward zero, 0 to 1.
    fn share(&self, column: &'static str, value: Decimal) -> Result<Decimal, BadValue> {
        if value < Decimal::ZERO || value > Decimal::ONE {
            return self.refuse(column, "is not within 0 and 1");
        }
        Ok(trunc2(value))
    }

    fn text(&self, column: &'static str, most: usize, text: &str) -> Result<String, BadValue> {
        if text.chars().count() > most {
            return self.refuse(column, &format!("is longer than {most} characters"));
        }
        if text.contains('\0') {
            return self.refuse(column, "holds a zero character");
        }
        Ok(text.to_owned())
    }

    /// A sealed text in clear; null without a key. One that does not open (the account was erased and has a new key)
    /// is as lost as one without a key: null, and logged.
    fn opened(
        &self,
        column: &'static str,
        most: usize,
        key: Option<&UserKey>,
        sealed: Option<&Sealed>,
    ) -> Result<Option<String>, BadValue> {
        let (Some(key), Some(sealed)) = (key, sealed) else { return Ok(None) };
        match key.open(self.0, sealed) {
            Ok(text) => self.text(column, most, &text).map(Some),
            Err(error) => {
                tracing::warn!(upload_id = %self.0, column, error = %error, "sealed text is left out");
                Ok(None)
            }
        }
    }

    /// A mileage in another unit; as it is where no unit was seen.
    fn converted(&self, value: Decimal, from: Option<Unit>, to: Unit) -> Result<Decimal, BadValue> {
        let from = from.unwrap_or(to);
        if from == to {
            return Ok(value);
        }
        let km = value.checked_mul(from.in_km());
        match km.and_then(|km| km.checked_div(to.in_km())) {
            Some(value) => Ok(value),
            None => self.refuse("mileage_data.ai_verified_mileage", "is too large to convert"),
        }
    }

    fn frame(&self, quality: &FrameQuality) -> Result<QualityColumns, BadValue> {
        Ok(QualityColumns {
            score: self.share("upload_verifications.image_quality_score", quality.score)?,
            lighting: quality.lighting.label(),
            blur: quality.blur,
            glare: quality.glare,
        })
    }

    fn boxed(&self, reading: &ReadingResult) -> Result<QualityColumns, BadValue> {
        Ok(QualityColumns {
            score: self.share("upload_verifications.image_quality_score", reading.quality_score)?,
            lighting: reading.lighting.label(),
            blur: reading.blur,
            glare: reading.glare,
        })
    }

    fn reading(&self, reading: &ReadingResult, key: Option<&UserKey>) -> Result<ReadingColumns, BadValue> {
        let service = self.text("upload_verifications.ai_service_used", 100, &reading.service)?;
        let Ok(boxes) = serde_json::from_str(&reading.bounding_boxes) else {
            return self.refuse("upload_verifications.bounding_boxes", "is not JSON");
        };
        let best = reading.best.as_ref();
        Ok(ReadingColumns {
            service: best.map(|_| service),
            processing_time: Some(reading.processing_time_ms),
            confidence: best
                .map(|best| self.share("upload_verifications.confidence_score", best.confidence))
                .transpose()?,
            // 4 KiB in clear are at most 4,096 characters.
            detected_text: self.opened(
                "upload_verifications.detected_text",
                4096,
                key,
                reading.detected_text.as_ref(),
            )?,
            bounding_boxes: Some(boxes),
            several: reading.several_readings,
            fallback: reading.fallback_used,
        })
    }
}

/// Two decimals toward zero.
fn trunc2(value: Decimal) -> Decimal {
    value.round_dp_with_strategy(2, RoundingStrategy::ToZero)
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
