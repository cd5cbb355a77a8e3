//! By how much a verified reading that was wrong is lowered.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::ids::{Micros, UploadId};

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
