//! What the statements of [`service`](super::service) and [`rewards`](super::rewards) make of an upload's rows one after the other,
//! worked out in memory: where nothing of an upload is stored yet, one row of each table is written instead of one an event.
//!
//! It does again, in Rust, what those statements do in SQL: the tests of the rebuild hold its tables equal to those of the live sink.

use rust_decimal::Decimal;

use super::rows::{
    CalculatedColumns, MileageRow, ReadingColumns, RewardRow, Rows, UploadRow, VerificationRow,
};

/// What is stored of an upload after some of its events.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Folded {
    pub upload: UploadRow,
    pub mileage: Option<MileageRow>,
    pub verification: Option<VerificationRow>,
    pub reward: Option<RewardRow>,
}

impl Folded {
    /// The rows of one event, of which nothing was stored before.
    pub(super) fn first(rows: &Rows) -> Self {
        let Rows { upload, mileage, verification, reward, .. } = rows.clone();
        Self { upload, mileage, verification, reward }
    }

    /// After one event more of the same upload.
    pub(super) fn add(&mut self, rows: &Rows) {
        add_upload(&mut self.upload, &rows.upload);
        let written = rows.mileage.as_ref().is_none_or(|row| add_mileage(&mut self.mileage, row));
        let is_decision = rows.mileage.as_ref().is_some_and(|row| row.rank > 0);
        // A decision that was passed over has no say in the verification either.
        if let Some(row) = rows.verification.as_ref().filter(|_| written || !is_decision) {
            let is_pending = self.mileage.as_ref().is_some_and(|mileage| mileage.rank == 0);
            add_verification(&mut self.verification, row, is_pending);
        }
        if let Some(row) = &rows.reward {
            add_reward(&mut self.reward, row);
        }
    }

    /// Kilometres that count in the driver's total, once it is decided; none before.
    pub(super) fn decided_km(&self) -> Option<Decimal> {
        let mileage = self.mileage.as_ref().filter(|mileage| mileage.rank > 0)?;
        Some(mileage.distance.unwrap_or_default())
    }

    /// What the driver is owed, B3TR.
    pub(super) fn owed(&self) -> Option<Decimal> {
        self.reward
            .as_ref()?
            .granted
            .filter(|_| self.reward.as_ref().is_some_and(|reward| reward.status != "cancelled"))
    }
}

fn add_upload(stored: &mut UploadRow, row: &UploadRow) {
    fill(&mut stored.original_filename, row.original_filename.as_ref());
    fill(&mut stored.image_dimensions, row.image_dimensions.as_ref());
    fill(&mut stored.processed_at, row.processed_at.as_ref());
    if row.rank > stored.rank {
        (stored.status, stored.rank) = (row.status, row.rank);
    }
    stored.created_at = stored.created_at.min(row.created_at);
    stored.updated_at = stored.updated_at.max(row.updated_at);
}

/// Whether the row was written; false for one that is passed over.
fn add_mileage(stored: &mut Option<MileageRow>, row: &MileageRow) -> bool {
    let Some(before) = stored else {
        *stored = Some(row.clone());
        return true;
    };
    if before.rank != 0 && row.rank <= before.rank {
        return false;
    }
    let mut after = MileageRow { id: before.id, ..row.clone() };
    if row.rank <= before.rank {
        after.claimed = before.claimed.or(row.claimed);
        after.ai = before.ai.or(row.ai);
    }
    *before = after;
    true
}

fn add_verification(stored: &mut Option<VerificationRow>, row: &VerificationRow, is_pending: bool) {
    let Some(before) = stored else {
        *stored = Some(row.clone());
        return;
    };
    // The readings refine what was graded, once.
    let refines = row.reading.is_some() && before.reading.is_none();
    if refines && row.quality.is_some() {
        before.quality.clone_from(&row.quality);
    }
    fill(&mut before.quality, row.quality.as_ref());
    match (&mut before.reading, &row.reading) {
        (Some(before), Some(row)) => add_reading(before, row),
        (before, row) => fill(before, row.as_ref()),
    }
    if row.created_at.is_none() {
        before.error_details.clone_from(&row.error_details);
    } else if is_pending {
        fill(&mut before.error_details, row.error_details.as_ref());
    }
    before.created_at = before.created_at.into_iter().chain(row.created_at).min();
}

fn add_reading(stored: &mut ReadingColumns, row: &ReadingColumns) {
    fill(&mut stored.service, row.service.as_ref());
    fill(&mut stored.processing_time, row.processing_time.as_ref());
    fill(&mut stored.confidence, row.confidence.as_ref());
    fill(&mut stored.detected_text, row.detected_text.as_ref());
    fill(&mut stored.bounding_boxes, row.bounding_boxes.as_ref());
}

fn add_reward(stored: &mut Option<RewardRow>, row: &RewardRow) {
    let Some(before) = stored else {
        *stored = Some(row.clone());
        return;
    };
    match (&mut before.calculated, &row.calculated) {
        (Some(before), Some(row)) => add_calculated(before, row),
        (before, row) => fill(before, row.as_ref()),
    }
    if row.revision > before.revision {
        before.granted = row.granted.or(before.granted);
    }
    fill(&mut before.granted, row.granted.as_ref());
    fill(&mut before.grant_reason, row.grant_reason.as_ref());
    if row.revision > before.revision {
        before.status = row.status;
        before.payout_reason.clone_from(&row.payout_reason);
        before.distributed_at = row.distributed_at;
        before.revision = row.revision;
    }
    before.created_at = before.created_at.min(row.created_at);
    before.at = before.at.max(row.at);
}

fn add_calculated(stored: &mut CalculatedColumns, row: &CalculatedColumns) {
    let calculated_at = stored.calculated_at.into_iter().chain(row.calculated_at).min();
    if row.adjustment > stored.adjustment {
        *stored = row.clone();
    }
    stored.calculated_at = calculated_at;
}

/// Of two values the first stands.
fn fill<T: Clone>(stored: &mut Option<T>, value: Option<&T>) {
    if stored.is_none() {
        *stored = value.cloned();
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
