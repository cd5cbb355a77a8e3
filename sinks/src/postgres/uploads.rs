//! Writes what hangs on an upload: its own rows, its reward, the payment of that, and its driver's totals and score.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use runtime::Envelope;
use schemas::sealed::UserKey;
use sqlx::PgConnection;
use uuid::Uuid;

use super::event::UploadEvent;
use super::fit::BadValue;
use super::rows::Rows;
use super::service::{self, Delta, waves};
use super::writer::{WriteError, Writer};
use super::{erased, payouts, rewards, upload_rows};
use crate::database::Table;

/// Writes uploads, rewards and payments.
pub(super) struct Uploads;

impl Writer for Uploads {
    fn tables(&self) -> &'static [Table] {
        &[
            service::UPLOADS_TABLE,
            service::MILEAGES_TABLE,
            service::VERIFICATIONS_TABLE,
            rewards::TABLE,
            payouts::REWARD_TRANSACTIONS_TABLE,
            payouts::TRANSACTIONS_TABLE,
        ]
    }

    fn reset(&self) -> Option<&'static str> {
        Some(service::RESET_TOTALS)
    }

    fn write<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        batch: &'a [Envelope<UploadEvent>],
    ) -> BoxFuture<'a, Result<(), WriteError>> {
        async {
            let rows = rows(tx, batch).await?;
            Ok(write(tx, rows).await?)
        }
        .boxed()
    }
}

/// The rows of events, in order; without those of what is about no upload.
pub(super) async fn rows(
    tx: &mut PgConnection,
    batch: &[Envelope<UploadEvent>],
) -> Result<Vec<Rows>, WriteError> {
    let user = |event: &Envelope<UploadEvent>| event.payload.parts().map(|(header, _)| header.user_id.0);
    let users: Vec<Uuid> = batch.iter().filter_map(user).collect();
    // Only these hold sealed texts of their own columns.
    let sealed = |event: &Envelope<UploadEvent>| match &event.payload {
        UploadEvent::Received(_) | UploadEvent::Read(_) => true,
        UploadEvent::Decided(event) => event.review.is_some(),
        _ => false,
    };
    let keys = if batch.iter().any(sealed) { service::keys(tx, &users).await? } else { HashMap::new() };
    let rows = |event: &Envelope<UploadEvent>| {
        let key = user(event).and_then(|user| keys.get(&user));
        Ok(rows_of(&event.payload, key)?.map(|rows| rows.recorded(event.timestamp_ms)))
    };
    batch.iter().filter_map(|event| rows(event).transpose()).collect()
}

/// An event's rows; `key` opens the user's private texts, and without it they are null. None for what is about no upload.
pub(super) fn rows_of(event: &UploadEvent, key: Option<&UserKey>) -> Result<Option<Rows>, BadValue> {
    let rows = match event {
        UploadEvent::Received(event) => upload_rows::received(event, key),
        UploadEvent::Graded(event) => upload_rows::graded(event),
        UploadEvent::Read(event) => upload_rows::read(event, key),
        UploadEvent::Decided(event) => upload_rows::decided(event, key),
        UploadEvent::Calculated(event) => rewards::calculated(event),
        UploadEvent::Granted(event) => rewards::granted(event),
        UploadEvent::Paid(event) => payouts::updated(event),
        UploadEvent::Corrected(_)
        | UploadEvent::Abandoned(_)
        | UploadEvent::Claimed(_)
        | UploadEvent::Cancelled(_)
        | UploadEvent::Chain(_)
        | UploadEvent::Deployed(_)
        | UploadEvent::Erased(_)
        | UploadEvent::Standing => return Ok(None),
    };
    rows.map(Some)
}

/// Writes rows, in order.
pub(super) async fn write(tx: &mut PgConnection, rows: Vec<Rows>) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    service::parents(tx, rows.iter().map(|rows| &rows.upload)).await?;
    let mut decided = BTreeSet::new();
    let mut totals: BTreeMap<Uuid, Delta> = BTreeMap::new();
    let users: Vec<Uuid> = rows.iter().map(|rows| rows.upload.user_id).collect();
    let transactions: Vec<_> = rows.iter().filter_map(|rows| rows.transaction.clone()).collect();
    for wave in waves(rows) {
        service::uploads(tx, &wave.iter().map(|rows| &rows.upload).collect::<Vec<_>>()).await?;
        let mileages: Vec<_> =
            wave.iter().filter_map(|rows| Some((rows.upload.id, rows.mileage.as_ref()?))).collect();
        let written = service::mileages(tx, &mileages).await?;
        let is_decision = |rows: &Rows| rows.mileage.as_ref().is_some_and(|mileage| mileage.rank > 0);
        // A decision that was passed over (repeated, or outranked) has no say in the error either.
        let verifications: Vec<_> = wave
            .iter()
            .filter(|rows| !is_decision(rows) || written.contains_key(&rows.upload.id))
            .filter_map(|rows| Some((rows.upload.id, rows.verification.as_ref()?)))
            .collect();
        service::verifications(tx, &verifications).await?;
        for rows in wave.iter().filter(|rows| is_decision(rows)) {
            if let Some(delta) = written.get(&rows.upload.id) {
                totals.entry(rows.upload.user_id).or_default().km += delta;
                decided.insert(rows.upload.user_id);
            }
        }
        let earned: Vec<_> =
            wave.iter().filter_map(|rows| Some((rows.upload.id, rows.reward.as_ref()?))).collect();
        for (user, owed) in rewards::rewards(tx, &earned).await? {
            totals.entry(user).or_default().b3tr += owed;
        }
    }
    erased::keep_away(tx, &users).await?;
    payouts::transactions(tx, transactions).await?;
    if !totals.is_empty() {
        service::totals(tx, &totals).await?;
    }
    if !decided.is_empty() {
        service::scores(tx, &decided.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}
