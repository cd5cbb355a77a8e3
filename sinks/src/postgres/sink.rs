//! Takes batches: one transaction each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;

use apache_avro::Schema;
use runtime::{Envelope, FromRecord, Sink, SinkError};
use schemas::codec::{self, CodecError};
use schemas::events::{
    BlockAdopted, BlockUndone, ChainStep, Event as _, ModelDeployed, OdometerRead, PayoutUpdated,
    RewardCalculated, RewardClaimed, RewardGranted, UploadDecided, UploadGraded, UploadReceived,
};
use schemas::topic::Topic;
use sqlx::{PgConnection, PgPool, query};
use uuid::Uuid;

use super::config::PostgresConfig;
use super::rows::{BadValue, Rows};
use super::service::{self, Delta, sink_error, waves};
use super::{chain_events, models, payouts, rewards};

/// The record types of `uploads.*`, `rewards.*`, `payouts.updated`, `chain.events` and `models.deployed`.
#[derive(Clone, Debug)]
pub enum UploadEvent {
    /// Accepted.
    Received(UploadReceived),
    /// Its quality was measured.
    Graded(UploadGraded),
    /// It was read, or could not be.
    Read(OdometerRead),
    /// It was decided.
    Decided(UploadDecided),
    /// What it earns was worked out.
    Calculated(RewardCalculated),
    /// What of that is owed.
    Granted(RewardGranted),
    /// A driver has asked for it: nothing that these tables tell.
    Claimed(RewardClaimed),
    /// How it is paid.
    Paid(Box<PayoutUpdated>),
    /// A block came or went.
    Chain(Box<ChainStep>),
    /// A model reads photos from now on.
    Deployed(Box<ModelDeployed>),
}

impl FromRecord for UploadEvent {
    fn from_record(name: &str, schema: &Schema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        match name {
            UploadReceived::NAME => Some(codec::decode(schema, id, datum).map(Self::Received)),
            UploadGraded::NAME => Some(codec::decode(schema, id, datum).map(Self::Graded)),
            OdometerRead::NAME => Some(codec::decode(schema, id, datum).map(Self::Read)),
            UploadDecided::NAME => Some(codec::decode(schema, id, datum).map(Self::Decided)),
            RewardCalculated::NAME => Some(codec::decode(schema, id, datum).map(Self::Calculated)),
            RewardGranted::NAME => Some(codec::decode(schema, id, datum).map(Self::Granted)),
            RewardClaimed::NAME => Some(codec::decode(schema, id, datum).map(Self::Claimed)),
            PayoutUpdated::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Paid(Box::new(event))))
            }
            BlockAdopted::NAME => Some(
                codec::decode(schema, id, datum).map(|step| Self::Chain(Box::new(ChainStep::Adopted(step)))),
            ),
            BlockUndone::NAME => Some(
                codec::decode(schema, id, datum).map(|step| Self::Chain(Box::new(ChainStep::Undone(step)))),
            ),
            ModelDeployed::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Deployed(Box::new(event))))
            }
            _ => None,
        }
    }
}

/// Materializes [`super::MATERIALIZED`] and the totals of `users`.
#[derive(Clone, Debug)]
pub struct PostgresSink {
    pool: PgPool,
    config: PostgresConfig,
}

impl PostgresSink {
    /// A sink on a schema that has its tables; [`PostgresConfig::build`] checks that.
    #[must_use]
    pub fn new(pool: PgPool, config: PostgresConfig) -> Self {
        Self { pool, config }
    }

    async fn apply(&self, batch: &[Envelope<UploadEvent>]) -> Result<(), SinkError> {
        let named = match batch {
            [] => return Ok(()),
            [one] => match one.payload.parts() {
                Some((header, _)) => format!("upload {}", header.upload_id),
                None => format!("offset {}", one.position.offset),
            },
            more => format!("one of {} records", more.len()),
        };
        let failed = |error| sink_error(error, &named);
        let mut tx = self.pool.begin().await.map_err(failed)?;
        query("select set_config('statement_timeout', $1, true)")
            .bind(self.config.statement_timeout.as_millis().max(1).to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        let rows = self.rows(&mut tx, batch).await.map_err(failed)?;
        let rows = rows.map_err(|bad| SinkError::BadRow(bad.to_string()))?;
        write(&mut tx, rows).await.map_err(failed)?;
        let steps: Vec<&ChainStep> = batch
            .iter()
            .filter_map(|event| match &event.payload {
                UploadEvent::Chain(step) => Some(step.as_ref()),
                _ => None,
            })
            .collect();
        chain_events::steps(&mut tx, &steps).await.map_err(failed)?;
        let deployed: Vec<&ModelDeployed> = batch
            .iter()
            .filter_map(|event| match &event.payload {
                UploadEvent::Deployed(event) => Some(event.as_ref()),
                _ => None,
            })
            .collect();
        models::deployed(&mut tx, &deployed).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn rows(
        &self,
        tx: &mut PgConnection,
        batch: &[Envelope<UploadEvent>],
    ) -> sqlx::Result<Result<Vec<Rows>, BadValue>> {
        let user = |event: &Envelope<UploadEvent>| event.payload.parts().map(|(header, _)| header.user_id.0);
        let users: Vec<Uuid> = batch.iter().filter_map(user).collect();
        // Graded and decided events hold no sealed text of their own columns.
        let sealed = |event: &Envelope<UploadEvent>| {
            matches!(event.payload, UploadEvent::Received(_) | UploadEvent::Read(_))
        };
        let keys = if batch.iter().any(sealed) { service::keys(tx, &users).await? } else { HashMap::new() };
        let rows = |event: &Envelope<UploadEvent>| {
            let key = user(event).and_then(|user| keys.get(&user));
            Ok(event.payload.rows(key)?.map(|rows| rows.recorded(event.timestamp_ms)))
        };
        Ok(batch.iter().filter_map(|event| rows(event).transpose()).collect())
    }
}

async fn write(tx: &mut PgConnection, rows: Vec<Rows>) -> sqlx::Result<()> {
    service::parents(tx, &rows).await?;
    let mut decided = BTreeSet::new();
    let mut totals: BTreeMap<Uuid, Delta> = BTreeMap::new();
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
    payouts::transactions(tx, transactions).await?;
    if !totals.is_empty() {
        service::totals(tx, &totals).await?;
    }
    if !decided.is_empty() {
        service::scores(tx, &decided.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

impl Sink for PostgresSink {
    const NAME: &'static str = "postgres";
    const TOPICS: &'static [Topic] = &[
        Topic::UploadsReceived,
        Topic::UploadsGraded,
        Topic::UploadsReadings,
        Topic::UploadsDecided,
        Topic::RewardsCalculated,
        Topic::RewardsGranted,
        Topic::PayoutsUpdated,
        Topic::ChainEvents,
        Topic::ModelsDeployed,
    ];
    type In = UploadEvent;

    fn write(&self, batch: &[Envelope<UploadEvent>]) -> impl Future<Output = Result<(), SinkError>> + Send {
        self.apply(batch)
    }
}
