//! What an upload earns, and what of it is granted: the types of `rewards.*`.
//!
//! Every amount is B3TR on the grid of 1e-8, so that in wei (1e-18) it is a whole multiple of 10^10.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::header::{Stamp, UploadHeader};
use crate::ids::{Micros, RewardId};
use crate::reason::Reason;

/// Which factor of a reward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartName {
    /// Distance times rate.
    Base,
    /// For the account's verification level.
    VerificationLevel,
    /// For weeks in a row with a verified photo.
    Streak,
    /// For the first photo of a week.
    FirstOfWeek,
    /// For an acceptance in the window of a campaign.
    Campaign,
    /// What the most that one upload may earn takes away.
    UploadCap,
    /// One that this release does not know.
    #[serde(other)]
    Other,
}

impl PartName {
    /// The label in `rewards.calculation_factors`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::VerificationLevel => "verification_level",
            Self::Streak => "streak",
            Self::FirstOfWeek => "first_of_week",
            Self::Campaign => "campaign",
            Self::UploadCap => "upload_cap",
            Self::Other => "other",
        }
    }
}

/// How a factor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// B3TR per kilometre.
    Base,
    /// Per cent of the base.
    Percent,
    /// The most that may be earned, B3TR.
    Cap,
    /// One that this release does not know.
    #[serde(other)]
    Other,
}

impl PartKind {
    /// The label in `rewards.calculation_factors`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Percent => "percent",
            Self::Cap => "cap",
            Self::Other => "other",
        }
    }
}

/// A named factor of a reward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewardPart {
    /// Which.
    pub name: PartName,
    /// How it works.
    pub kind: PartKind,
    /// The rate, the percentage, or the cap.
    pub factor: Decimal,
    /// B3TR on the grid of 1e-8; negative exactly for a cap.
    pub amount: Decimal,
    /// How the rules name it; null for base and cap.
    #[serde(default)]
    pub label: Option<String>,
}

/// A granted reward is worked out anew, because a replay was promoted. Lowered it is already where this is published; raised it is only
/// once the budgets have been charged for the difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adjustment {
    /// The reward's how many-eth adjustment, from 1: a later one stands above an earlier one.
    pub number: i32,
    /// The replay that is promoted.
    pub promotion: String,
    /// What the tariff gave until now, B3TR; 0 where no reward was worked out.
    pub calculated_before: Decimal,
    /// What is owed until now, B3TR.
    pub granted_before: Decimal,
    /// What is to be owed from now on, B3TR on the grid of 1e-8.
    pub granted: Decimal,
    /// Why less than the tariff gives.
    #[serde(default)]
    pub detail: Option<String>,
    /// When the replay was promoted.
    pub adjusted_at: Micros,
}

impl Adjustment {
    /// What is decided once: this adjustment of this reward.
    #[must_use]
    pub fn effect(&self, reward: RewardId) -> String {
        format!("adjust:{reward}:{}", self.number)
    }

    /// Whether more is to be owed.
    #[must_use]
    pub fn raises(&self) -> bool {
        self.granted > self.granted_before
    }
}

/// A reward was worked out: at most one an upload, before any budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewardCalculated {
    /// Header.
    pub header: UploadHeader,
    /// What was true at acceptance: vehicle kind, verification level, region, wallet, auto-claim.
    pub stamp: Stamp,
    /// [`RewardId::of`] the upload.
    pub reward_id: RewardId,
    /// Kilometres that are paid, cut to two decimals.
    pub distance_km: Decimal,
    /// B3TR per kilometre, at most four decimals.
    pub rate: Decimal,
    /// B3TR for the distance, after the cap; at least 0.
    pub base: Decimal,
    /// B3TR of all bonuses, after the cap; at least 0.
    pub bonus: Decimal,
    /// Every factor; the amounts add up to base and bonus, to the last decimal.
    pub parts: Vec<RewardPart>,
    /// The tariff in force at acceptance.
    pub tariff_version: String,
    /// Set where this works out anew what an earlier record has.
    #[serde(default)]
    pub adjustment: Option<Adjustment>,
}

impl RewardCalculated {
    /// Base and bonus together, B3TR.
    #[must_use]
    pub fn total(&self) -> Decimal {
        self.base + self.bonus
    }
}

/// A granted reward will not be paid: its budgets get back what it was charged. One a reward, and ordered with the charges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewardCancelled {
    /// Header: the grant's, with an id of its own.
    pub header: UploadHeader,
    /// The reward.
    pub reward_id: RewardId,
    /// What was granted, B3TR on the grid of 1e-8.
    pub granted: Decimal,
    /// Why, in the operator's words.
    pub reason: String,
}

/// Over which time a budget runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitType {
    /// A day, UTC.
    Daily,
    /// An ISO week, Monday to Sunday, UTC.
    Weekly,
    /// A calendar month, UTC.
    Monthly,
}

impl LimitType {
    /// Every type, in the order of the column's enum.
    pub const ALL: [Self; 3] = [Self::Daily, Self::Weekly, Self::Monthly];

    /// The label of the column's enum.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }
}

/// A budget after a reward was charged to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitCharge {
    /// Which budget.
    pub limit_type: LimitType,
    /// First instant of the period.
    pub period_start: Micros,
    /// First instant of the next one.
    pub period_end: Micros,
    /// The budget, B3TR.
    pub limit_amount: Decimal,
    /// What this reward was charged, B3TR: the grant.
    pub amount: Decimal,
    /// What the period has been charged so far, this reward included, B3TR.
    pub current_amount: Decimal,
}

/// A reward was charged to its budgets, whole, in part or not at all: one per upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewardGranted {
    /// Header.
    pub header: UploadHeader,
    /// What was true at acceptance: wallet, auto-claim.
    pub stamp: Stamp,
    /// The reward.
    pub reward_id: RewardId,
    /// What the tariff gives, B3TR.
    pub calculated: Decimal,
    /// What is owed, B3TR on the grid of 1e-8: at most `calculated`.
    pub granted: Decimal,
    /// Set exactly where less than `calculated` is granted.
    pub reason: Option<Reason>,
    /// A sentence with the budget that ran out; set exactly where `reason` is.
    pub detail: Option<String>,
    /// The smallest of the budgets that are left after this reward, B3TR.
    pub remaining: Decimal,
    /// One a budget, whether or not anything was charged.
    pub charges: Vec<LimitCharge>,
    /// The budgets' policy in force at acceptance.
    pub policy_version: String,
    /// Kilometres that are rewarded, cut to two decimals; none in grants from before it was noted.
    pub distance_km: Option<Decimal>,
    /// Set where this says anew what is owed.
    #[serde(default)]
    pub adjustment: Option<Adjustment>,
}
