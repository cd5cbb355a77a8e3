//! What one event brings to each table: only the columns that are its own.
//!
//! Ranks order what arrives in any order: of two statuses the higher rank stands, of two of one rank the first.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::PayoutTransaction;
use serde_json::Value;
use uuid::Uuid;

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
    /// 0 received, 1 in the works, 2 decided, and from there as the mileage's.
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
    /// 0 pending, 1 with a person, 2 decided, 3 decided by a person, 3 + n corrected for the n-th time.
    pub rank: i16,
    pub rejection_reason: Option<String>,
    /// Set exactly where a person has decided.
    pub review: Option<ReviewColumns>,
    /// Set exactly where the reading was lowered since.
    pub correction: Option<CorrectionColumns>,
}

/// What a correction has replaced.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CorrectionColumns {
    /// The mileage until then.
    pub before: Option<Decimal>,
    pub at: DateTime<Utc>,
}

/// What a person has said of a mileage.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReviewColumns {
    pub reviewer: Uuid,
    pub at: DateTime<Utc>,
    /// None also where the user is erased.
    pub notes: Option<String>,
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

/// `rewards`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RewardRow {
    pub id: Uuid,
    pub user_id: Uuid,
    /// Set exactly by `rewards.calculated`.
    pub calculated: Option<CalculatedColumns>,
    /// Set by `rewards.granted` and by payouts, B3TR: what is owed at this revision.
    pub granted: Option<Decimal>,
    pub status: &'static str,
    /// Why the amount is not what was calculated; set by `rewards.granted` alone, and told as long as the reward stands.
    pub grant_reason: Option<String>,
    /// Why the payout stands where it stands; of the newest state alone.
    pub payout_reason: Option<String>,
    /// When it was paid, as the newest state has it.
    pub distributed_at: Option<DateTime<Utc>>,
    /// 0 calculated, 1 granted; payouts go on from 2.
    pub revision: i64,
    /// The earliest event's time; of one event the same as `at`.
    pub created_at: DateTime<Utc>,
    /// The newest event's time.
    pub at: DateTime<Utc>,
}

/// What `rewards.calculated` alone knows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CalculatedColumns {
    /// The adjustment that worked it out, 0 where none did: the newest stands.
    pub adjustment: i32,
    pub base: Decimal,
    pub bonus: Decimal,
    pub rate: Decimal,
    pub distance: Decimal,
    pub factors: Value,
    /// Kafka's record timestamp, which [`Rows::recorded`] fills in; of a record that stands twice the earlier.
    pub calculated_at: Option<DateTime<Utc>>,
}

impl RewardRow {
    /// What the driver is told: the payout's reason, whose code is the one that counts now, and with it the grant's.
    pub(super) fn told(&self) -> Option<String> {
        match (&self.payout_reason, &self.grant_reason) {
            (Some(payout), Some(grant)) => Some(format!("{payout}; {grant}")),
            (payout, grant) => payout.as_ref().or(grant.as_ref()).cloned(),
        }
    }
}

impl Rows {
    /// What brings the upload's row alone.
    pub(super) fn of(upload: UploadRow) -> Self {
        Self { upload, mileage: None, verification: None, reward: None, transaction: None }
    }

    /// The rows of a record with this timestamp, milliseconds.
    pub(super) fn recorded(mut self, timestamp_ms: i64) -> Self {
        if let Some(columns) = self.reward.as_mut().and_then(|reward| reward.calculated.as_mut()) {
            columns.calculated_at = DateTime::from_timestamp_millis(timestamp_ms);
        }
        self
    }
}

/// A transaction of a reward: what its two tables hold.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TransactionRow {
    pub reward_id: Uuid,
    pub user_id: Uuid,
    pub wallet_id: Option<Uuid>,
    pub amount: Decimal,
    pub strikes: i32,
    pub max_retries: i32,
    pub status: &'static str,
    pub network: &'static str,
    pub gas_used: Option<i32>,
    pub reward_gas: Option<i32>,
    pub gas_price: Option<Decimal>,
    pub gas_price_wei: Option<Decimal>,
    pub fee: Option<Decimal>,
    pub fee_wei: Option<Decimal>,
    pub reward_fee: Option<Decimal>,
    pub batch_amount: Decimal,
    pub block_number: Option<i32>,
    pub attempt: PayoutTransaction,
}
