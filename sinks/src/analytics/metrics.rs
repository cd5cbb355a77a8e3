//! What is counted, and by which cuts.
//!
//! A cut's labels are a closed set of at most 64, else `other`, so that a stray value makes no row of its own. Regions are the one
//! exception: ISO 3166 has 249 countries; whatever has not the shape of one is `other`. How many users a region must have before it
//! is shown is for the reader to judge.

use schemas::events::Stamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::postgres::GRAMS_PER_KM;

/// A metric of `metric_catalogue`, where its type and unit are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Metric {
    /// Uploads that were accepted.
    UploadsAccepted,
    /// Uploads that were decided for good.
    UploadsDecided,
    /// Those that were verified.
    UploadsVerified,
    /// B3TR by the tariff.
    RewardsCalculated,
    /// B3TR that are owed.
    RewardsGranted,
    /// B3TR that budgets took away.
    RewardsCut,
    /// B3TR in confirmed transactions.
    RewardsPaid,
    /// VTHO that transactions cost, whether they paid or failed.
    PayoutFee,
    /// VTHO that a paid reward cost: all fees over all rewards paid.
    FeePerReward,
    /// Kilometres of verified uploads.
    Distance,
    /// Kilograms of CO2e that they emitted.
    Co2Emitted,
    /// Kilograms of CO2e less than the average petrol car.
    Co2Avoided,
    /// Share of uploads whose first verdict was to ask a person.
    ManualReview,
    /// Share of uploads whose first verdict was to believe them.
    AutoAccept,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Self; 14] = [
        Self::UploadsAccepted,
        Self::UploadsDecided,
        Self::UploadsVerified,
        Self::RewardsCalculated,
        Self::RewardsGranted,
        Self::RewardsCut,
        Self::RewardsPaid,
        Self::PayoutFee,
        Self::FeePerReward,
        Self::Distance,
        Self::Co2Emitted,
        Self::Co2Avoided,
        Self::ManualReview,
        Self::AutoAccept,
    ];

    /// `metric_name`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UploadsAccepted => "uploads_accepted",
            Self::UploadsDecided => "uploads_decided",
            Self::UploadsVerified => "uploads_verified",
            Self::RewardsCalculated => "rewards_calculated",
            Self::RewardsGranted => "rewards_granted",
            Self::RewardsCut => "rewards_cut",
            Self::RewardsPaid => "rewards_paid",
            Self::PayoutFee => "payout_fee",
            Self::FeePerReward => "fee_per_reward",
            Self::Distance => "distance",
            Self::Co2Emitted => "co2_emitted",
            Self::Co2Avoided => "co2_avoided",
            Self::ManualReview => "manual_review",
            Self::AutoAccept => "auto_accept",
        }
    }
}

/// The part of the whole that a number is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dimension {
    /// The whole.
    Total,
    /// One cut: its name and its label.
    Cut(&'static str, String),
    /// One user; never by the hour.
    User(Uuid),
}

impl Dimension {
    /// `dimension`: `{}` or one cut.
    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Self::Total | Self::User(_) => json!({}),
            Self::Cut(name, label) => json!({ *name: label }),
        }
    }

    /// `dimension_hash`: the first 16 bytes of SHA-256 of the JSON without blanks; one key needs no sorting.
    #[must_use]
    pub fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.json().to_string())[..16].to_vec()
    }

    /// `user_id`.
    #[must_use]
    pub fn user(&self) -> Option<Uuid> {
        match self {
            Self::User(user) => Some(*user),
            Self::Total | Self::Cut(..) => None,
        }
    }

    pub(super) fn vehicle(stamp: &Stamp) -> Self {
        let known = GRAMS_PER_KM.iter().any(|(kind, _)| *kind == stamp.vehicle_kind);
        Self::closed("vehicle_kind", &stamp.vehicle_kind, known)
    }

    pub(super) fn level(stamp: &Stamp) -> Self {
        let known = matches!(stamp.verification_level.as_str(), "basic" | "verified" | "premium");
        Self::closed("user_type", &stamp.verification_level, known)
    }

    pub(super) fn region(stamp: &Stamp) -> Self {
        let shaped = stamp.region.len() == 2 && stamp.region.bytes().all(|byte| byte.is_ascii_uppercase());
        Self::closed("region", &stamp.region, shaped)
    }

    fn closed(name: &'static str, label: &str, known: bool) -> Self {
        Self::Cut(name, if known { label } else { "other" }.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dimension_is_hashed_as_json_without_blanks() {
        // printf '{}' | sha256sum; printf '{"region":"ZZ"}' | sha256sum
        let hex = |dimension: Dimension| hex::encode(dimension.hash());
        assert_eq!(hex(Dimension::Total), "44136fa355b3678a1146ad16f7e8649e");
        assert_eq!(hex(Dimension::User(Uuid::nil())), "44136fa355b3678a1146ad16f7e8649e");
        assert_eq!(hex(Dimension::Cut("region", "ZZ".into())), "58ecba9750eec614095374e2b7af60d5");
    }

    #[test]
    fn no_two_metrics_have_one_name_and_a_name_fits_its_column() {
        let names: std::collections::BTreeSet<_> = Metric::ALL.map(Metric::name).into_iter().collect();
        assert_eq!(names.len(), Metric::ALL.len());
        assert!(names.iter().all(|name| name.len() <= 40));
    }
}
