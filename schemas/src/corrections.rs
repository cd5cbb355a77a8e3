//! What becomes of a verified reading that was wrong: it is lowered, in its place among the driver's readings.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::ids::{EventId, Micros, UploadId, derived};
use crate::uploads::UploadDecided;

/// By how much a verified reading was lowered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correction {
    /// The upload's how many-eth correction, from 1 to [`Correction::MOST`]: a later one stands above an earlier one.
    pub number: i32,
    /// The verified reading until now, in the decision's unit.
    pub mileage_before: Decimal,
    /// The reading that counts from now on, in the decision's unit: from 0 to below the one before.
    pub mileage: Decimal,
    /// When it was corrected.
    pub corrected_at: Micros,
}

impl Correction {
    /// Corrections of one upload at most: who needs more does not know the reading.
    pub const MOST: i32 = 9;

    /// What is decided once: this correction of this upload.
    #[must_use]
    pub fn effect(upload: UploadId, number: i32) -> String {
        format!("correction:{upload}:{number}")
    }
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
