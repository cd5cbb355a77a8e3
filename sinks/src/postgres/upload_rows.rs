//! From an event of an upload to the rows it brings: pure, one function per event type.

use schemas::events::{
    Correction, Fault, FrameQuality, ImageSize, OdometerRead, ReadingResult, Review, Stamp, Unit,
    UploadDecided, UploadGraded, UploadHeader, UploadReceived, Verdict,
};
use schemas::ids::{UserId, natural};
use schemas::reason::Reason;
use schemas::sealed::UserKey;
use serde_json::{Value, json};

use super::fit::{BadValue, Fit};
use super::rows::{
    CorrectionColumns, MileageRow, QualityColumns, ReadingColumns, ReviewColumns, Rows, UploadRow,
    VerificationRow,
};

/// The rows of `uploads.received`.
pub(super) fn received(event: &UploadReceived, key: Option<&UserKey>) -> Result<Rows, BadValue> {
    let (header, stamp) = (&event.header, &event.stamp);
    let fit = Fit(header.upload_id);
    let sealed = stamp.original_filename.as_ref();
    let filename = fit.opened("odometer_uploads.original_filename", 255, key, sealed)?;
    let claimed = fit.mileage("mileage_data.user_claimed_mileage", stamp.claimed_mileage)?;
    let mut upload = upload(header, stamp, "uploaded", 0)?;
    upload.original_filename = filename;
    let mileage = MileageRow { claimed, ..pending(header, stamp) };
    Ok(Rows { mileage: Some(mileage), ..Rows::of(upload) })
}

/// The rows of `uploads.graded`.
pub(super) fn graded(event: &UploadGraded) -> Result<Rows, BadValue> {
    let (header, fit) = (&event.header, Fit(event.header.upload_id));
    let mut upload = upload(header, &event.stamp, "processing", 1)?;
    upload.image_dimensions = event.image.map(dimensions);
    let quality = event.quality.as_ref().map(|quality| fit.frame(quality)).transpose()?;
    let verification =
        VerificationRow { quality, created_at: Some(header.occurred_at.to_utc()), ..verification(header) };
    Ok(Rows { verification: Some(verification), ..Rows::of(upload) })
}

/// The rows of `uploads.readings`.
pub(super) fn read(event: &OdometerRead, key: Option<&UserKey>) -> Result<Rows, BadValue> {
    let (header, stamp, fit) = (&event.header, &event.stamp, Fit(event.header.upload_id));
    let upload = upload(header, stamp, "processing", 1)?;
    if event.review.is_some() {
        // It was read the first time; what the person has decided is in the decision.
        return Ok(Rows::of(upload));
    }
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
    Ok(Rows { mileage: Some(mileage), verification: Some(verification), ..Rows::of(upload) })
}

/// The rows of `uploads.decided`.
pub(super) fn decided(event: &UploadDecided, key: Option<&UserKey>) -> Result<Rows, BadValue> {
    let (header, fit) = (&event.header, Fit(event.header.upload_id));
    let (upload_status, status, rank) = match event.verdict {
        Verdict::Verified => ("verified", "approved", 2),
        Verdict::Rejected => ("rejected", "rejected", 2),
        Verdict::Failed => ("failed", "rejected", 2),
        Verdict::Review => ("processing", "manual_review", 1),
    };
    // A person's word stands over that of a rule, which they were asked about after it had turned the upload down.
    let rank = match &event.correction {
        // A correction stands over what it corrects, and the newest of several over all.
        Some(correction) => 3 + i16::try_from(correction.number).unwrap_or(i16::MAX - 3),
        None if event.review.is_some() => 3,
        None => rank,
    };
    let mut upload = upload(header, &event.stamp, upload_status, rank)?;
    upload.processed_at = (rank >= 2).then(|| header.occurred_at.to_utc());
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
        review: event
            .review
            .as_ref()
            .and_then(|review| Some(fit.review(review.person()?, review, key)))
            .transpose()?,
        correction: event.correction.as_ref().map(|correction| fit.correction(correction)).transpose()?,
    };
    if verified && (mileage.accepted.is_none() || mileage.distance.is_none()) {
        return fit.refuse("mileage_data.final_mileage", "or its distance is missing in a verified decision");
    }
    let verification = VerificationRow { error_details: reason, ..verification(header) };
    Ok(Rows { mileage: Some(mileage), verification: Some(verification), ..Rows::of(upload) })
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
        review: None,
        correction: None,
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

/// `code: sentence`; none exactly where verified. What failed is our fault under one code, whatever the cause, unless an operator
/// has ended it.
fn reason_text(event: &UploadDecided) -> Result<Option<String>, BadValue> {
    let reason = match (event.verdict, event.reason) {
        (Verdict::Verified, _) => return Ok(None),
        (Verdict::Failed, Some(Reason::Abandoned)) => Reason::Abandoned,
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

impl Fit {
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

    fn correction(&self, correction: &Correction) -> Result<CorrectionColumns, BadValue> {
        let before = self.mileage("mileage_data.uncorrected_mileage", Some(correction.mileage_before))?;
        Ok(CorrectionColumns { before, at: correction.corrected_at.to_utc() })
    }

    fn review(
        &self,
        person: UserId,
        review: &Review,
        key: Option<&UserKey>,
    ) -> Result<ReviewColumns, BadValue> {
        Ok(ReviewColumns {
            reviewer: person.0,
            at: review.decided_at.to_utc(),
            notes: self.opened("mileage_data.manual_review_notes", 4096, key, review.notes.as_ref())?,
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

#[cfg(test)]
#[path = "upload_rows_tests.rs"]
mod tests;
