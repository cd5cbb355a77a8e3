//! What waits for a person: the upload as it was read, stored in the transaction of the decision that asks for one.

use runtime::StageError;
use schemas::events::{OdometerRead, Verdict};
use schemas::ids::Micros;
use sqlx::types::Json;
use sqlx::{PgConnection, query};

use super::judge::Judgement;

/// The reviews that a batch opens.
#[derive(Debug, Default)]
pub(super) struct Opened(Vec<Row>);

#[derive(Debug)]
struct Row {
    record: OdometerRead,
    judgement: Judgement,
    at: Micros,
}

impl Opened {
    /// Opens one where the upload is in doubt.
    pub fn add(&mut self, event: &OdometerRead, judgement: &Judgement, at: Micros) {
        if judgement.verdict != Verdict::Review {
            return;
        }
        let mut record = event.clone();
        if let Some(reading) = record.reading.as_mut() {
            // What a person decides by are the photo and its numbers: words stay where they are erased with their user, and every try
            // of a service is counted already.
            reading.detected_text = None;
            reading.attempts.clear();
        }
        self.0.push(Row { record, judgement: judgement.clone(), at });
    }

    /// Stores them.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn store(self, tx: &mut PgConnection) -> Result<(), StageError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let rows = &self.0;
        query(
            "insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record)
             select * from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::text[], $6::text[], $7::jsonb[],
                $8::jsonb[])
             on conflict (upload_id) do nothing",
        )
        .bind(rows.iter().map(|row| row.record.header.upload_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.header.user_id.0).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.record.header.accepted_at.to_utc()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.at.to_utc()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.judgement.reason.map_or("", |reason| reason.label())).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.judgement.detail.clone().unwrap_or_default()).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| Json(&row.judgement.signals)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| Json(&row.record)).collect::<Vec<_>>())
        .execute(tx)
        .await?;
        Ok(())
    }
}
