//! What waits for a person, and what may yet: the upload as it was read, stored in the transaction of the decision that asks for one, or
//! that turns it down in a way that its driver may appeal against.

use runtime::StageError;
use schemas::events::{OdometerRead, Review, Verdict};
use schemas::ids::{Micros, UploadId};
use schemas::reason::Reason;
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{PgConnection, query};

/// What each check counts for fraud where it speaks against an upload: a picture that is there twice more than a number that is hard
/// to read.
const RISKS: [(&str, i16); 19] = [
    ("same_pixels", 4),
    ("rollback", 3),
    ("edited_by", 3),
    ("screen_grid", 3),
    ("distance_for_time", 3),
    ("km_a_day", 2),
    ("camera_difference_seconds", 2),
    ("uploads_of_user", 2),
    ("standing", 2),
    ("accounts_of_device", 2),
    ("young_accounts_of_address", 1),
    ("neighbours", 2),
    ("unit", 2),
    ("claim_difference", 2),
    ("claimed_unit", 1),
    ("capture_age_seconds", 1),
    ("camera_age_seconds", 1),
    ("several_readings", 1),
    ("confidence", 1),
];
/// What a point of risk is worth in waiting, microseconds: six hours, so that what is merely hard to read is not overtaken for ever.
const POINT_US: i64 = 6 * 60 * 60 * 1_000_000;

/// What a person who looks at the photo may overturn: a rule has measured or read it, and may have done so wrongly. Not whose photo it was
/// first, not a locked account, and not what a person has decided.
const APPEALABLE: [Reason; 9] = [
    Reason::TooDark,
    Reason::OverExposed,
    Reason::Blurred,
    Reason::Glare,
    Reason::LowResolution,
    Reason::NoOdometer,
    Reason::Rollback,
    Reason::ImpossibleSpeed,
    Reason::EditedPhoto,
];

/// How much speaks for fraud.
fn risk(signals: &Value) -> i16 {
    let against = |check: &str| signals["checks"][check]["against"] == Value::Bool(true);
    RISKS.iter().filter(|(check, _)| against(check)).map(|(_, counts)| counts).sum()
}

/// The reviews that a batch opens, and what it turns down.
#[derive(Debug, Default)]
pub(super) struct Opened {
    reviews: Vec<Row>,
    rejections: Vec<Row>,
    settled: Vec<(UploadId, Review)>,
}

/// What a decision says of an upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub verdict: Verdict,
    pub reason: Option<Reason>,
    pub detail: Option<&'a str>,
    pub signals: &'a Value,
}

#[derive(Debug)]
struct Row {
    record: OdometerRead,
    reason: &'static str,
    detail: String,
    signals: Value,
    at: Micros,
}

impl Row {
    fn risk(&self) -> i16 {
        risk(&self.signals)
    }

    /// Its place in the queue.
    fn ranked_at(&self) -> Micros {
        Micros(self.record.header.accepted_at.0.saturating_sub(i64::from(self.risk()) * POINT_US))
    }
}

impl Opened {
    /// Opens one where the upload is in doubt, and keeps what may be appealed.
    pub fn add(&mut self, event: &OdometerRead, told: Told<'_>, at: Micros) {
        let appealable =
            event.review.is_none() && told.reason.is_some_and(|reason| APPEALABLE.contains(&reason));
        let rows = match told.verdict {
            Verdict::Review => &mut self.reviews,
            Verdict::Rejected if appealable => &mut self.rejections,
            Verdict::Rejected | Verdict::Verified | Verdict::Failed => return,
        };
        let mut record = event.clone();
        // It is what the person is asked to look past; what has a fault beside a person's decision was given up since.
        record.fault = None;
        if let Some(reading) = record.reading.as_mut() {
            // What a person decides by are the photo and its numbers: words stay where they are erased with their user, and every try
            // of a service is counted already.
            reading.detected_text = None;
            reading.attempts.clear();
        }
        rows.push(Row {
            record,
            reason: told.reason.map_or("", Reason::label),
            detail: told.detail.unwrap_or_default().to_owned(),
            signals: told.signals.clone(),
            at,
        });
    }

    /// Ends a review as its record says: where the row that the gateway has ended was lost since.
    pub fn settle(&mut self, upload: UploadId, review: &Review) {
        self.settled.push((upload, review.clone()));
    }

    /// Stores them.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn store(self, tx: &mut PgConnection) -> Result<(), StageError> {
        insert(tx, REVIEWS, &self.reviews).await?;
        insert(tx, REJECTIONS, &self.rejections).await?;
        for (upload, review) in &self.settled {
            // An appeal had moved the row from the one table to the other.
            query(APPEALED).bind(upload.0).execute(&mut *tx).await?;
            query(SETTLE)
                .bind(upload.0)
                .bind(review.person().map(|person| person.0))
                .bind(review.decided_at.to_utc())
                .bind(decision(review))
                .execute(&mut *tx)
                .await?;
        }
        Ok(())
    }
}

const APPEALED: &str =
    "with moved as (delete from rejections where upload_id = $1 returning *)
     insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record, risk, ranked_at, appealed_at)
     select upload_id, user_id, accepted_at, rejected_at, reason, detail, signals, record, risk, ranked_at, rejected_at from moved
     on conflict (upload_id) do nothing";
const SETTLE: &str = "update reviews set reviewer_id = $2, decided_at = $3, decision = $4, claimed_by = null, claimed_until = null
     where upload_id = $1 and decided_at is null";

/// What a person has decided, as the gateway keeps it.
fn decision(review: &Review) -> Value {
    match (review.mileage, review.reason) {
        (Some(mileage), _) => json!({
            "decision": "approve", "mileage": mileage.to_string(), "unit": review.unit.map(schemas::events::Unit::label),
        }),
        (None, Some(Reason::ReviewTimeout)) => json!({ "decision": "expire" }),
        (None, Some(Reason::AnotherPhoto)) => json!({ "decision": "another_photo" }),
        (None, reason) => json!({ "decision": "reject", "reason": reason.map(Reason::label) }),
    }
}

const REVIEWS: &str =
    "insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record, risk, ranked_at)
     select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::text[], $7::jsonb[],
        $8::jsonb[], $9::smallint[], $10::timestamptz[])
     on conflict (upload_id) do nothing";
const REJECTIONS: &str =
    "insert into rejections (upload_id, user_id, accepted_at, rejected_at, reason, detail, signals, record, risk, ranked_at)
     select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::text[], $7::jsonb[],
        $8::jsonb[], $9::smallint[], $10::timestamptz[])
     on conflict (upload_id) do nothing";

async fn insert(tx: &mut PgConnection, statement: &'static str, rows: &[Row]) -> Result<(), StageError> {
    if rows.is_empty() {
        return Ok(());
    }
    query(statement)
        .bind(rows.iter().map(|row| row.record.header.upload_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.header.user_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.header.accepted_at.to_utc()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.at.to_utc()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.reason).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.detail.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| Json(&row.signals)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| Json(&row.record)).collect::<Vec<_>>())
        .bind(rows.iter().map(Row::risk).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.ranked_at().to_utc()).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_fraud_counts_more_than_what_is_hard_to_read_and_what_speaks_for_it_nothing() {
        let checks = |checks: Value| risk(&json!({ "checks": checks }));
        let (against, passed) = (json!({ "against": true }), json!({ "against": false }));
        assert_eq!(
            checks(json!({ "confidence": against, "rollback": passed, "account_active": against })),
            1
        );
        assert_eq!(checks(json!({ "same_pixels": against, "confidence": against })), 5);
        assert_eq!(risk(&json!({})), 0);
        assert_eq!(RISKS.iter().map(|(_, counts)| counts).sum::<i16>(), 38);
    }
}
