//! Whether values fit their columns: refused here, before the server would refuse a whole batch.

use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::Unit;
use schemas::ids::UploadId;
use schemas::sealed::{Sealed, UserKey};

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
    pub(super) fn share(&self, column: &'static str, value: Decimal) -> Result<Decimal, BadValue> {
        if value < Decimal::ZERO || value > Decimal::ONE {
            return self.refuse(column, "is not within 0 and 1");
        }
        Ok(trunc2(value))
    }

    pub(super) fn text(&self, column: &'static str, most: usize, text: &str) -> Result<String, BadValue> {
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
    pub(super) fn opened(
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
    pub(super) fn converted(
        &self,
        value: Decimal,
        from: Option<Unit>,
        to: Unit,
    ) -> Result<Decimal, BadValue> {
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

    /// At least 0, below `limit`, and of no more decimals than the column has: Postgres would round them away.
    pub(super) fn within(
        &self,
        column: &'static str,
        value: Decimal,
        scale: u32,
        limit: Decimal,
    ) -> Result<Decimal, BadValue> {
        let value = value.normalize();
        match value {
            value if value < Decimal::ZERO => self.refuse(column, "is negative"),
            value if value >= limit => self.refuse(column, &format!("is not below {limit}")),
            value if value.scale() > scale => self.refuse(column, &format!("has more than {scale} decimals")),
            value => Ok(value),
        }
    }

    pub(super) fn int(&self, column: &'static str, value: Option<i64>) -> Result<Option<i32>, BadValue> {
        match value.map(i32::try_from) {
            Some(Err(_)) => self.refuse(column, "does not fit 32 bits"),
            Some(Ok(value)) if value < 0 => self.refuse(column, "is negative"),
            value => Ok(value.and_then(Result::ok)),
        }
    }

    /// A whole number of wei; at most 2^96 - 1, which is 7.9e10 coins.
    pub(super) fn wei(&self, column: &'static str, text: Option<&str>) -> Result<Option<Decimal>, BadValue> {
        let Some(text) = text else { return Ok(None) };
        match text.parse() {
            Ok(wei) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(wei)),
            _ => self.refuse(column, "is no number of wei"),
        }
    }
}

/// Two decimals toward zero.
pub(super) fn trunc2(value: Decimal) -> Decimal {
    value.round_dp_with_strategy(2, RoundingStrategy::ToZero)
}
