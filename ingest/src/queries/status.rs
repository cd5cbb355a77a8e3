//! What became of an upload: read from the materialized tables, and from the reservation until the sink has caught up.

use chrono::{DateTime, Utc};
use reading::Seen;
use rust_decimal::Decimal;
use schemas::ids::{UploadId, UserId};
use schemas::reason::Reason;
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgPool};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;

use super::appeal::{Appeal, AppealDocument, appeal_columns, appeal_joins};
use super::page::Place;
use super::payout::{Payout, PayoutDocument, instant, payout_columns, payout_joins};
use super::rewards::reward_status;
use crate::http::operation::{one_of, one_of_or_null};

/// Columns of a status. The tables are joined by their unique keys, one row per upload.
macro_rules! select_status {
    ($from:literal, $where:literal) => {
        concat!(
            "select u.id, u.at as accepted_at, o.vehicle_id, coalesce(o.updated_at, u.at) as updated_at,
                    coalesce(o.upload_status::text, 'uploaded') as upload_status,
                    m.verification_status::text as verification_status, m.rejection_reason, v.error_details,
                    v.id is not null as graded, v.processing_time is not null as was_read,
                    v.bounding_boxes -> 'seen' as seen,
                    coalesce(m.final_mileage, m.ai_verified_mileage) as reading, m.mileage_unit::text as unit,
                    m.mileage_confidence as confidence, m.distance_traveled as distance_km,
                    m.uncorrected_mileage, m.corrected_at,
                    r.id as reward_id, r.base_amount, r.bonus_amount, r.total_amount,
                    r.status::text as reward_status, ",
            payout_columns!(),
            ", ",
            appeal_columns!(),
            " from (",
            $from,
            ") u
               left join odometer_uploads o on o.id = u.id
               left join mileage_data m on m.upload_id = u.id
               left join upload_verifications v on v.upload_id = u.id
               left join rewards r on r.upload_id = u.id ",
            payout_joins!(),
            appeal_joins!(),
            $where
        )
    };
}

/// A reward as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RewardState {
    /// To be granted, claimed or paid.
    Open,
    /// Paid, with 12 confirmations.
    Paid,
    /// Nothing will be paid.
    Cancelled,
}

/// An upload's row.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Status {
    pub(crate) id: Uuid,
    pub(crate) accepted_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    vehicle_id: Option<Uuid>,
    upload_status: String,
    verification_status: Option<String>,
    rejection_reason: Option<String>,
    error_details: Option<String>,
    graded: bool,
    was_read: bool,
    /// What was seen of the photo that a driver can do better.
    seen: Option<Value>,
    reading: Option<Decimal>,
    unit: Option<String>,
    confidence: Option<Decimal>,
    distance_km: Option<Decimal>,
    uncorrected_mileage: Option<Decimal>,
    corrected_at: Option<DateTime<Utc>>,
    reward_id: Option<Uuid>,
    base_amount: Option<Decimal>,
    bonus_amount: Option<Decimal>,
    total_amount: Option<Decimal>,
    reward_status: Option<String>,
    #[sqlx(flatten)]
    payout: Payout,
    #[sqlx(flatten)]
    appeal: Appeal,
}

/// The status of a user's upload; none where it is not theirs, or not at all: a client cannot distinguish the two.
pub(crate) async fn one(
    pool: &PgPool,
    user: UserId,
    upload: UploadId,
) -> Result<Option<Status>, sqlx::Error> {
    sqlx::query_as(select_status!(
        "select upload_id as id, reserved_at as at from photo_hashes where upload_id = $2 and user_id = $1
         union select id, created_at from odometer_uploads
         where id = $2 and user_id = $1 and created_at is not null",
        "limit 1"
    ))
    .bind(user.0)
    .bind(upload.0)
    .fetch_optional(pool)
    .await
}

/// A user's uploads, newest first, after a place in that order. A failed upload whose photo was sent again has no
/// reservation any more, but its row in the tables.
pub(crate) async fn page(
    pool: &PgPool,
    user: UserId,
    (at, id): Place,
    limit: i64,
) -> Result<Vec<Status>, sqlx::Error> {
    sqlx::query_as(select_status!(
        "select * from (
           select upload_id as id, reserved_at as at from photo_hashes where user_id = $1
           union select id, created_at from odometer_uploads where user_id = $1 and created_at is not null
         ) every where (at, id) < ($2, $3) order by at desc, id desc limit $4",
        "order by u.at desc, u.id desc"
    ))
    .bind(user.0)
    .bind(at)
    .bind(id)
    .bind(limit)
    .fetch_all(pool)
    .await
}

impl Status {
    /// Whether a decision has been taken, or a person is wanted.
    pub(crate) fn verdict(&self) -> Option<&'static str> {
        match (self.upload_status.as_str(), self.verification_status.as_deref()) {
            ("verified", _) => Some("verified"),
            ("rejected", _) => Some("rejected"),
            ("failed", _) => Some("failed"),
            (_, Some("manual_review")) => Some("review"),
            _ => None,
        }
    }

    /// Where the upload stands: the stage that has it now, `decided`, or how far the reward has come.
    pub(crate) fn stage(&self) -> &'static str {
        match (self.verdict(), self.reward_status.as_deref()) {
            (None, _) if !self.graded => "quality_check",
            (None, _) if !self.was_read => "odometer_reading",
            (None, _) => "fraud_check",
            (Some("review"), _) => "review",
            (Some(_), Some("distributed")) => "paid",
            (Some(_), Some(_)) if self.payout.blockchain_tx_hash.is_some() => "payout",
            (Some(_), Some(_)) => "reward",
            (Some(_), None) => "decided",
        }
    }

    /// The reason behind a verdict, from `code: sentence`.
    fn reason(&self) -> Option<Reason> {
        let text = match self.verdict()? {
            "review" => self.error_details.as_deref(),
            _ => self.rejection_reason.as_deref(),
        };
        let code = text?.split(':').next().unwrap_or_default();
        Reason::ALL.iter().copied().find(|reason| reason.label() == code)
    }

    /// What an operator says to the driver whose upload they have ended. Other sentences name what was compared, and stay with us.
    fn explanation(&self) -> Option<&str> {
        let text = self.rejection_reason.as_deref().filter(|_| self.reason() == Some(Reason::Abandoned))?;
        text.split_once(": ").map(|(_, sentence)| sentence)
    }

    /// What to do about a reason: where the photo was not read for certain, by what was seen on it as well.
    fn advice(&self, reason: Reason) -> String {
        let unread = [
            Reason::NoOdometer,
            Reason::LowConfidence,
            Reason::SeveralReadings,
            Reason::AnotherPhoto,
            Reason::ReviewTimeout,
        ];
        let seen = self.seen.as_ref().filter(|_| unread.contains(&reason)).and_then(Seen::from_json);
        match seen {
            Some(seen) => format!("{} {}", reason.advice(), seen.advice()),
            None => reason.advice().to_owned(),
        }
    }

    /// How the reward stands, if there is one.
    pub(crate) fn reward(&self) -> Option<RewardState> {
        self.reward_status.as_deref().map(|status| match status {
            "distributed" => RewardState::Paid,
            "cancelled" => RewardState::Cancelled,
            _ => RewardState::Open,
        })
    }

    /// Whether a reward is to be expected: a verified distance.
    pub(crate) fn earns(&self) -> bool {
        self.distance_km.is_some_and(|km| km > Decimal::ZERO)
    }

    /// Whether the reward is granted, and is paid once it is claimed.
    pub(crate) fn awaits_claim(&self) -> bool {
        self.payout.awaits_claim
    }

    /// Confirmations of the newest transaction; none before there is one.
    pub(crate) fn confirmations(&self) -> Option<u32> {
        self.payout.confirmations()
    }

    /// Whether a person is still to look at what a rule has turned down.
    pub(crate) fn appeal_waits(&self) -> bool {
        self.appeal.waits()
    }

    /// Whether a person has decided an appeal.
    pub(crate) fn appeal_is_decided(&self) -> bool {
        self.appeal.is_decided()
    }

    fn correction(&self) -> Option<CorrectionDocument> {
        let (reading_before, at) = self.uncorrected_mileage.zip(self.corrected_at)?;
        Some(CorrectionDocument { reading_before, corrected_at: instant(at) })
    }

    /// The document that clients rely on.
    pub(crate) fn document(&self) -> Upload {
        let reason = self.reason();
        let reward = self.reward_id.map(|id| Reward {
            id,
            base: self.base_amount,
            bonus: self.bonus_amount,
            total: self.total_amount,
            status: self.reward_status.clone(),
            claimed_at: self.payout.claimed_at.map(instant),
            awaits_claim: self.payout.awaits_claim,
        });
        Upload {
            upload_id: self.id,
            vehicle_id: self.vehicle_id,
            status: self.upload_status.clone(),
            stage: self.stage(),
            verdict: self.verdict(),
            reason: reason.map(Reason::label),
            advice: reason.map(|reason| self.advice(reason)),
            explanation: self.explanation().map(str::to_owned),
            reading: self.reading,
            unit: self.unit.clone(),
            confidence: self.confidence,
            distance_km: self.distance_km,
            correction: self.correction(),
            reward,
            payout: self.payout.document(),
            appeal: self.appeal.document(self.verdict() == Some("rejected")),
            accepted_at: instant(self.accepted_at),
            updated_at: instant(self.updated_at),
        }
    }
}

/// What became of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Upload {
    upload_id: Uuid,
    /// Null until the tables have it
    vehicle_id: Option<Uuid>,
    #[schema(schema_with = status)]
    status: String,
    #[schema(schema_with = stage)]
    stage: &'static str,
    #[schema(schema_with = verdict)]
    verdict: Option<&'static str>,
    #[schema(schema_with = reason)]
    reason: Option<&'static str>,
    /// What to do about the reason
    advice: Option<String>,
    /// What an operator says about it; null unless one has ended the upload
    explanation: Option<String>,
    reading: Option<Decimal>,
    #[schema(schema_with = unit)]
    unit: Option<String>,
    confidence: Option<Decimal>,
    distance_km: Option<Decimal>,
    /// Null unless the reading was lowered after it was verified
    correction: Option<CorrectionDocument>,
    reward: Option<Reward>,
    payout: Option<PayoutDocument>,
    /// Null where there is nothing to appeal against
    appeal: Option<AppealDocument>,
    #[schema(format = DateTime)]
    accepted_at: String,
    #[schema(format = DateTime)]
    updated_at: String,
}

/// A verified reading that was wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CorrectionDocument {
    /// What was verified first, in the unit of the reading
    reading_before: Decimal,
    #[schema(format = DateTime)]
    corrected_at: String,
}

/// The reward of an upload.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reward {
    id: Uuid,
    base: Option<Decimal>,
    bonus: Option<Decimal>,
    /// What is owed, B3TR
    total: Option<Decimal>,
    #[schema(schema_with = reward_status)]
    status: Option<String>,
    /// By you, or by itself where you prefer that
    #[schema(format = DateTime)]
    claimed_at: Option<String>,
    /// Whether it is granted, and is paid once you claim it
    awaits_claim: bool,
}

fn status() -> Schema {
    one_of(&["uploaded", "processing", "verified", "rejected", "failed"])
}

fn stage() -> Schema {
    one_of(&[
        "quality_check",
        "odometer_reading",
        "fraud_check",
        "review",
        "decided",
        "reward",
        "payout",
        "paid",
    ])
}

fn verdict() -> Schema {
    one_of_or_null(&["verified", "rejected", "failed", "review"])
}

fn reason() -> Schema {
    let labels: Vec<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    one_of_or_null(&labels)
}

fn unit() -> Schema {
    one_of_or_null(&["km", "miles"])
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn received() -> Status {
        Status {
            id: Uuid::from_u128(1),
            accepted_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            vehicle_id: None,
            upload_status: "uploaded".into(),
            verification_status: None,
            rejection_reason: None,
            error_details: None,
            graded: false,
            was_read: false,
            seen: None,
            reading: None,
            unit: None,
            confidence: None,
            uncorrected_mileage: None,
            corrected_at: None,
            distance_km: None,
            reward_id: None,
            base_amount: None,
            bonus_amount: None,
            total_amount: None,
            reward_status: None,
            payout: Payout::default(),
            appeal: Appeal::default(),
        }
    }

    /// One that a rule has turned down and the driver has appealed, and that a person has looked at or not.
    pub(crate) fn appealed(is_decided: bool) -> Status {
        let at = Some(DateTime::UNIX_EPOCH);
        let appeal_decided_at = at.filter(|_| is_decided);
        let appeal = Appeal { appealed_at: at, appeal_decided_at, ..Appeal::default() };
        Status { upload_status: "rejected".into(), appeal, ..graded() }
    }

    pub(crate) fn graded() -> Status {
        Status { upload_status: "processing".into(), graded: true, ..received() }
    }

    pub(crate) fn verified() -> Status {
        Status {
            upload_status: "verified".into(),
            verification_status: Some("approved".into()),
            was_read: true,
            reading: Some(Decimal::new(1_234_500, 2)),
            unit: Some("km".into()),
            distance_km: Some(Decimal::new(1250, 2)),
            ..graded()
        }
    }

    pub(crate) fn paid(confirmations: i32) -> Status {
        Status {
            reward_id: Some(Uuid::from_u128(2)),
            total_amount: Some(Decimal::new(5, 1)),
            reward_status: Some(if confirmations < 12 { "pending" } else { "distributed" }.into()),
            payout: Payout {
                blockchain_tx_hash: Some("0x01".into()),
                confirmation_count: Some(confirmations),
                payout_amount: Some(Decimal::new(5, 1)),
                claimed_at: Some(DateTime::UNIX_EPOCH),
                ..Payout::default()
            },
            ..verified()
        }
    }

    pub(crate) fn granted(awaits_claim: bool) -> Status {
        let payout = Payout { awaits_claim, ..Payout::default() };
        Status {
            reward_id: Some(Uuid::from_u128(2)),
            reward_status: Some("pending".into()),
            payout,
            ..verified()
        }
    }

    pub(crate) fn cancelled() -> Status {
        let reward_status = Some("cancelled".into());
        Status { reward_id: Some(Uuid::from_u128(2)), reward_status, ..verified() }
    }

    #[test]
    fn the_stage_follows_the_tables() {
        assert_eq!(received().stage(), "quality_check");
        assert_eq!(graded().stage(), "odometer_reading");
        assert_eq!(Status { was_read: true, ..graded() }.stage(), "fraud_check");
        let review = Status { verification_status: Some("manual_review".into()), ..graded() };
        assert_eq!((review.stage(), review.verdict()), ("review", Some("review")));
        assert_eq!(verified().stage(), "decided");
        assert_eq!((paid(0).stage(), paid(12).stage()), ("payout", "paid"));
    }

    #[test]
    fn the_document_has_every_member_and_decimals_are_strings() {
        let document = json!(verified().document());
        let mut members: Vec<&str> = document.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(
            members,
            [
                "accepted_at",
                "advice",
                "appeal",
                "confidence",
                "correction",
                "distance_km",
                "explanation",
                "payout",
                "reading",
                "reason",
                "reward",
                "stage",
                "status",
                "unit",
                "updated_at",
                "upload_id",
                "vehicle_id",
                "verdict"
            ]
        );
        assert_eq!(document["reading"], "12345.00");
        assert_eq!(document["reward"], Value::Null);
        let paid = json!(paid(3).document());
        assert_eq!(
            (&paid["payout"]["confirmations"], &paid["payout"]["amount"], &paid["payout"]["confirmed_at"]),
            (&json!(3), &json!("0.5"), &Value::Null)
        );
        assert_eq!(paid["reward"]["claimed_at"], "1970-01-01T00:00:00.000000Z");
    }

    #[test]
    fn a_rejection_gives_its_code_and_its_advice() {
        let rejected = Status {
            upload_status: "rejected".into(),
            rejection_reason: Some("rollback: 10 is below 20".into()),
            ..graded()
        };
        let document = json!(rejected.document());
        assert_eq!(document["reason"], "rollback");
        assert_eq!(document["advice"], Reason::Rollback.advice());
        assert_eq!(document["explanation"], Value::Null, "what was compared stays with us");
    }

    #[test]
    fn the_driver_of_an_upload_that_an_operator_has_ended_reads_why() {
        let ended = Status {
            upload_status: "failed".into(),
            verification_status: Some("rejected".into()),
            rejection_reason: Some("abandoned: an operator has ended it: lost".into()),
            ..graded()
        };
        let document = json!(ended.document());
        assert_eq!((&document["verdict"], &document["reason"]), (&json!("failed"), &json!("abandoned")));
        assert_eq!(document["advice"], Reason::Abandoned.advice());
        assert_eq!(document["explanation"], "an operator has ended it: lost");
    }

    #[test]
    fn a_photo_that_was_not_read_for_certain_gives_advice_by_what_was_seen_on_it() {
        let status = |reason: Reason, seen: Value| Status {
            verification_status: Some("manual_review".into()),
            error_details: Some(format!("{}: said", reason.label())),
            seen: Some(seen),
            ..graded()
        };
        let advice =
            |reason, seen| json!(status(reason, seen).document())["advice"].as_str().unwrap().to_owned();
        let closer = "Move closer: the number takes 3 % of the photo's width.";
        let doubtful = Reason::LowConfidence;
        assert_eq!(advice(doubtful, json!({ "small": 3 })), format!("{} {closer}", doubtful.advice()));
        // What the photo shows has no say in other reasons, and what a later release sees is not known here.
        assert_eq!(advice(Reason::ClaimMismatch, json!({ "small": 3 })), Reason::ClaimMismatch.advice());
        assert_eq!(advice(doubtful, json!("mirrored")), doubtful.advice());
    }
}
