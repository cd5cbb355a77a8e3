//! The form's small fields, from text to what the event carries.

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use schemas::events::Unit;
use schemas::ids::{Micros, VehicleId};

use crate::http::problem::{ApiError, DEVICE_ID_INVALID, IDEMPOTENCY_KEY_INVALID, INVALID_FIELD};

/// A phone's clock may be this far ahead.
const CLOCK_SKEW: TimeDelta = TimeDelta::minutes(5);
/// Digits in front of the point: 0 to 9,999,999.99 fits `numeric(10,2)` and every odometer.
const WHOLE_DIGITS: usize = 7;
/// Digits behind the point.
const DECIMALS: usize = 2;
/// `odometer_uploads.original_filename` is varchar(255).
const FILE_NAME_CHARS: usize = 255;

pub(super) fn invalid(name: &'static str, detail: &str) -> ApiError {
    INVALID_FIELD.because(format!("the field {name} is not usable: {detail}")).field(name)
}

/// `claimed_mileage`: a decimal from 0 to 9999999.99.
pub(crate) fn mileage(text: &str) -> Result<Decimal, ApiError> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |segment: &str, most: usize| {
        (1..=most).contains(&segment.len()) && segment.bytes().all(|byte| byte.is_ascii_digit())
    };
    let wrong =
        || invalid("claimed_mileage", "a decimal from 0 to 9999999.99 with at most 2 decimals is wanted");
    if !digits(whole, WHOLE_DIGITS) || !digits(decimals, DECIMALS) {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

/// `unit`.
pub(crate) fn unit(text: &str) -> Result<Unit, ApiError> {
    match text {
        "km" => Ok(Unit::Km),
        "miles" => Ok(Unit::Miles),
        _ => Err(invalid("unit", "km or miles is wanted")),
    }
}

/// `vehicle_id`.
pub(crate) fn vehicle_id(text: &str) -> Result<VehicleId, ApiError> {
    // 36 characters: the hyphenated form alone; the uuid crate would take braces and URNs too.
    let id = (text.len() == 36).then(|| text.parse().ok()).flatten();
    id.ok_or_else(|| invalid("vehicle_id", "a UUID is wanted"))
}

/// `captured_at`.
pub(crate) fn captured_at(text: &str, now: Micros) -> Result<Micros, ApiError> {
    let at = DateTime::parse_from_rfc3339(text)
        .map_err(|_| invalid("captured_at", "an instant like 2026-01-31T12:00:00Z (RFC 3339) is wanted"))?
        .with_timezone(&Utc);
    if at > now.to_utc() + CLOCK_SKEW {
        return Err(invalid("captured_at", "it lies more than 5 minutes in the future"));
    }
    Ok(at.into())
}

/// A file's name as kept: its last path component, without control characters, trimmed, at most 255 characters; none
/// where nothing is left.
pub(crate) fn file_name(sent: &str) -> Option<String> {
    let base = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = base.chars().filter(|character| !character.is_control()).collect();
    let cut: String = clean.trim().chars().take(FILE_NAME_CHARS).collect();
    (!cut.is_empty()).then_some(cut)
}

/// `Idempotency-Key`: 1 to 255 visible ASCII characters.
pub(crate) fn idempotency_key(sent: &str) -> Result<String, ApiError> {
    visible(sent, 255).ok_or_else(|| IDEMPOTENCY_KEY_INVALID.error())
}

/// `X-Device-Id`: 1 to 128 visible ASCII characters.
pub(crate) fn device_id(sent: &str) -> Result<String, ApiError> {
    visible(sent, 128).ok_or_else(|| DEVICE_ID_INVALID.error())
}

fn visible(sent: &str, most: usize) -> Option<String> {
    let fits = (1..=most).contains(&sent.len()) && sent.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| sent.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mileage_is_a_plain_decimal_that_fits_the_column() {
        assert_eq!(mileage("9999999.99").unwrap(), Decimal::new(999_999_999, 2));
        assert_eq!(mileage("0").unwrap(), Decimal::ZERO);
        for bad in ["", "-1", "+1", "1e3", "1.234", "10000000", ".5", "1.", " 1", "1,5", "NaN", "٣"] {
            assert!(mileage(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_capture_may_be_five_minutes_ahead_and_no_more() {
        let now = Micros::from(DateTime::parse_from_rfc3339("2026-01-31T12:00:00Z").unwrap().to_utc());
        assert_eq!(captured_at("2026-01-31T13:00:00+01:00", now).unwrap(), now);
        assert!(captured_at("2026-01-31T12:05:00Z", now).is_ok());
        assert!(captured_at("2026-01-31T12:05:01Z", now).is_err());
        assert!(captured_at("yesterday", now).is_err());
    }

    #[test]
    fn a_file_name_loses_its_path_and_control_characters_and_is_cut() {
        assert_eq!(file_name("C:\\photos\\a\u{7}b.jpg").unwrap(), "ab.jpg");
        assert_eq!(file_name("../../etc/passwd").unwrap(), "passwd");
        assert_eq!(file_name("  \u{0} "), None);
        assert_eq!(file_name(&"ü".repeat(300)).unwrap().chars().count(), 255);
    }

    #[test]
    fn units_vehicles_and_keys_are_taken_by_their_exact_form() {
        assert!(unit("KM").is_err());
        assert!(vehicle_id("{67e55044-10b1-426f-9247-bb680e5fe0c8}").is_err());
        assert!(vehicle_id("67e55044-10b1-426f-9247-bb680e5fe0c8").is_ok());
        assert!(idempotency_key("a b").is_err() && idempotency_key("").is_err());
        assert!(idempotency_key("k-1").is_ok());
        assert!(device_id(&"x".repeat(128)).is_ok() && device_id(&"x".repeat(129)).is_err());
        assert!(device_id("").is_err() && device_id("a b").is_err() && device_id("ü").is_err());
    }
}
