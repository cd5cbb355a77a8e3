//! `/v1/reviews`: what waits for a person, who works on it, and what people decide. `fraud_check` opens a review with the verdict that
//! asks for one; the decision goes out as the upload's record, which comes a second time and takes its place behind the driver's
//! others.

mod appeal;
mod claim;
mod decide;
mod desk;
mod expire;
mod look_alike;
mod opinions;
mod queue;

use std::str::FromStr;

use rust_decimal::Decimal;
use schemas::events::{OdometerRead, Review, Unit};
use schemas::ids::UploadId;
use schemas::reason::Reason;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

pub(crate) use self::appeal::{APPEAL_REFUSALS, appeal};
pub(crate) use self::claim::claim;
pub(crate) use self::decide::post;
pub(crate) use self::desk::Desk;
pub(crate) use self::expire::expire_of;
pub use self::expire::{ExpireError, expire};
pub(crate) use self::look_alike::look_alike;
pub(crate) use self::queue::{list, photo, show};
use crate::http::operation::{one_of, one_of_or_null};
use crate::http::problem::{
    ANOTHER_PERSON, ApiError, INVALID_DECISION, NO_LOOK_ALIKE, OPERATOR_NEEDED, OWN_UPLOAD,
    PHOTO_STORE_UNAVAILABLE, Problem, REVIEW_DECIDED, REVIEW_EXPIRED, REVIEW_HELD,
};

/// What the decision's route itself refuses.
pub(crate) const REFUSALS: &[Problem] = &[
    INVALID_DECISION,
    OWN_UPLOAD,
    REVIEW_DECIDED,
    REVIEW_EXPIRED,
    REVIEW_HELD,
    ANOTHER_PERSON,
    OPERATOR_NEEDED,
];
/// What the claim's route itself refuses.
pub(crate) const CLAIM_REFUSALS: &[Problem] =
    &[OWN_UPLOAD, REVIEW_DECIDED, REVIEW_EXPIRED, REVIEW_HELD, ANOTHER_PERSON, OPERATOR_NEEDED];
/// What the photo's route itself refuses.
pub(crate) const PHOTO_REFUSALS: &[Problem] = &[PHOTO_STORE_UNAVAILABLE];
/// What the route of the photo that looks like it itself refuses.
pub(crate) const LOOK_ALIKE_REFUSALS: &[Problem] = &[NO_LOOK_ALIKE, PHOTO_STORE_UNAVAILABLE];

/// Readings end below this: seven digits are the most that odometers have.
const MILEAGE_END: Decimal = Decimal::from_parts(10_000_000, 0, 0, false, 0);
/// Decimals of a reading: no odometer shows more.
const MOST_DECIMALS: u32 = 1;
/// Bytes of notes: a page.
const NOTES_MAX: usize = 2_000;
/// Why a person may turn a photo down.
pub(crate) const REASONS: [Reason; 9] = [
    Reason::ReviewRejected,
    Reason::NoOdometer,
    Reason::SeveralReadings,
    Reason::Blurred,
    Reason::DuplicatePhoto,
    Reason::Rollback,
    Reason::ClaimMismatch,
    Reason::EditedPhoto,
    Reason::PhotoOfScreen,
];

/// What a person decides.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(tag = "decision", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Decision {
    /// The photo shows this mileage
    Approve {
        /// What the odometer shows, a decimal with at most one decimal place, below 10,000,000
        mileage: String,
        /// The unit that the photo shows; null where it shows none
        #[schema(schema_with = unit_or_null)]
        unit: Option<String>,
        /// Kept with the decision, sealed with the driver's key; at most 2,000 bytes
        #[serde(default, skip_serializing)]
        notes: Option<String>,
    },
    /// The photo is turned down
    Reject {
        /// What the driver is told; review_rejected where none is given
        #[serde(default)]
        #[schema(schema_with = rejection)]
        reason: Option<String>,
        /// Kept with the decision, sealed with the driver's key; at most 2,000 bytes
        #[serde(default, skip_serializing)]
        notes: Option<String>,
    },
    /// The mileage cannot be read for certain: the driver is asked for another photo
    AnotherPhoto {
        /// Kept with the decision, sealed with the driver's key; at most 2,000 bytes
        #[serde(default, skip_serializing)]
        notes: Option<String>,
    },
}

fn unit_or_null() -> Schema {
    one_of_or_null(&[Unit::Km.label(), Unit::Miles.label()])
}

fn rejection() -> Schema {
    one_of(&REASONS.map(Reason::label))
}

/// A decision whose values are possible.
struct Checked {
    mileage: Option<Decimal>,
    unit: Option<Unit>,
    reason: Option<Reason>,
    notes: Option<String>,
}

impl Decision {
    fn checked(&self) -> Result<Checked, ApiError> {
        let (Self::Approve { notes, .. } | Self::Reject { notes, .. } | Self::AnotherPhoto { notes }) = self;
        if notes.as_ref().is_some_and(|notes| notes.len() > NOTES_MAX) {
            return Err(unusable("notes", format!("notes have at most {NOTES_MAX} bytes")));
        }
        let notes = notes.clone().filter(|notes| !notes.trim().is_empty());
        match self {
            Self::Approve { mileage, unit, .. } => Ok(Checked {
                mileage: Some(read_mileage(mileage)?),
                unit: unit.as_deref().map(read_unit).transpose()?,
                reason: None,
                notes,
            }),
            Self::Reject { reason, .. } => {
                let reason = reason.as_deref().map_or(Ok(Reason::ReviewRejected), read_reason)?;
                Ok(Checked { mileage: None, unit: None, reason: Some(reason), notes })
            }
            Self::AnotherPhoto { .. } => {
                Ok(Checked { mileage: None, unit: None, reason: Some(Reason::AnotherPhoto), notes })
            }
        }
    }
}

fn unusable(field: &'static str, detail: String) -> ApiError {
    INVALID_DECISION.because(detail).field(field)
}

fn read_mileage(text: &str) -> Result<Decimal, ApiError> {
    let possible = |value: &Decimal| *value < MILEAGE_END && value.scale() <= MOST_DECIMALS;
    // Digits and a point: no sign and no exponent.
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    Decimal::from_str(text).ok().filter(|value| plain && possible(value)).ok_or_else(|| {
        unusable(
            "mileage",
            "a mileage is a number from 0 to below 10,000,000 with at most one decimal place".into(),
        )
    })
}

fn read_unit(text: &str) -> Result<Unit, ApiError> {
    let found = [Unit::Km, Unit::Miles].into_iter().find(|unit| unit.label() == text);
    found.ok_or_else(|| unusable("unit", "a unit is km or miles, or null where the photo shows none".into()))
}

fn read_reason(text: &str) -> Result<Reason, ApiError> {
    REASONS.into_iter().find(|reason| reason.label() == text).ok_or_else(|| {
        unusable("reason", format!("a reason is one of {}", REASONS.map(Reason::label).join(", ")))
    })
}

/// The record of an upload whose review has ended: it comes a second time, under an id of its own.
fn decided(record: OdometerRead, review: Review) -> OdometerRead {
    let mut header = record.header;
    header.event_id = schemas::ids::derived(header.event_id, "review", 0);
    header.occurred_at = review.decided_at;
    OdometerRead { header, review: Some(review), ..record }
}

/// Where the photo of a review is.
fn photo_path(upload: UploadId) -> String {
    format!("/v1/reviews/{upload}/photo")
}

/// Where the photo of another vehicle is that it looks like.
fn look_alike_path(upload: UploadId) -> String {
    format!("/v1/reviews/{upload}/look-alike")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(decision: serde_json::Value) -> Result<Checked, String> {
        let decision: Decision = serde_json::from_value(decision).map_err(|error| error.to_string())?;
        decision.checked().map_err(|error| error.to_string())
    }

    #[test]
    fn an_approval_has_a_possible_mileage_and_a_unit_or_none() {
        let approve = |mileage: &str, unit: serde_json::Value| {
            checked(json!({ "decision": "approve", "mileage": mileage, "unit": unit }))
        };
        let checked = approve("123456.7", json!("miles")).unwrap();
        assert_eq!((checked.mileage, checked.unit), (Some(Decimal::new(1_234_567, 1)), Some(Unit::Miles)));
        assert_eq!(approve("0", json!(null)).unwrap().unit, None);
        for bad in ["", "-1", "1e5", "10000000", "12.34", "NaN", "12 3"] {
            assert!(approve(bad, json!(null)).is_err(), "{bad}");
        }
        assert!(approve("1", json!("yards")).is_err());
    }

    #[test]
    fn a_rejection_has_a_reason_that_a_driver_understands() {
        let reason = |reason: serde_json::Value| checked(json!({ "decision": "reject", "reason": reason }));
        assert_eq!(reason(json!("edited_photo")).unwrap().reason, Some(Reason::EditedPhoto));
        assert_eq!(checked(json!({ "decision": "reject" })).unwrap().reason, Some(Reason::ReviewRejected));
        let another = checked(json!({ "decision": "another_photo", "notes": "too far away" })).unwrap();
        assert_eq!((another.mileage, another.reason), (None, Some(Reason::AnotherPhoto)));
        assert!(reason(json!("over_limit")).is_err());
        assert!(checked(json!({ "decision": "reject", "notes": "n".repeat(2_001) })).is_err());
        for unknown in [json!({ "decision": "perhaps" }), json!({ "decision": "reject", "mileage": "1" })] {
            assert!(checked(unknown).is_err());
        }
    }
}
