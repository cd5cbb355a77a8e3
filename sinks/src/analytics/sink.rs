//! Takes batches: one transaction each.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;

use apache_avro::Schema;
use chrono::NaiveDate;
use runtime::{Envelope, FromRecord, Sink, SinkError};
use schemas::codec::{self, CodecError};
use schemas::events::{
    Event, OdometerRead, PayoutUpdated, RewardCalculated, RewardClaimed, RewardGranted, UploadDecided,
    UploadReceived,
};
use schemas::topic::Topic;
use sqlx::{PgPool, query};
use uuid::Uuid;

use super::config::AnalyticsConfig;
use super::counts::{Count, Told, told};
use super::entities::Entity;
use super::exact::Exact;
use super::model_hours;
use super::service::{self, sink_error};
use super::services::{self, ServiceSums};
use super::sums::{OutOfCalendar, Sums};

/// The record types of the topics that are added up.
#[derive(Clone, Debug)]
pub enum AnalyticsEvent {
    /// An upload was accepted.
    Received(Box<UploadReceived>),
    /// It was read, or could not be.
    Read(Box<OdometerRead>),
    /// It was decided.
    Decided(Box<UploadDecided>),
    /// What it earns was worked out.
    Calculated(Box<RewardCalculated>),
    /// What of that is owed.
    Granted(Box<RewardGranted>),
    /// A driver has asked for it: known, and not counted.
    Claimed(RewardClaimed),
    /// How it is paid.
    Paid(Box<PayoutUpdated>),
}

impl FromRecord for AnalyticsEvent {
    fn from_record(name: &str, schema: &Schema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        fn boxed<E: Event>(schema: &Schema, id: u32, datum: &[u8]) -> Result<Box<E>, CodecError> {
            codec::decode(schema, id, datum).map(Box::new)
        }
        match name {
            UploadReceived::NAME => Some(boxed(schema, id, datum).map(Self::Received)),
            OdometerRead::NAME => Some(boxed(schema, id, datum).map(Self::Read)),
            UploadDecided::NAME => Some(boxed(schema, id, datum).map(Self::Decided)),
            RewardCalculated::NAME => Some(boxed(schema, id, datum).map(Self::Calculated)),
            RewardGranted::NAME => Some(boxed(schema, id, datum).map(Self::Granted)),
            RewardClaimed::NAME => Some(codec::decode(schema, id, datum).map(Self::Claimed)),
            PayoutUpdated::NAME => Some(boxed(schema, id, datum).map(Self::Paid)),
            _ => None,
        }
    }
}

/// Adds events up.
#[derive(Clone, Debug)]
pub struct AnalyticsSink {
    pool: PgPool,
    config: AnalyticsConfig,
    /// The registry's id of the documents' record; none where none are written.
    activity_schema: Option<u32>,
}

impl AnalyticsSink {
    /// A sink with default settings on a schema that has its tables; [`AnalyticsConfig::build`] checks that.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self::with_config(pool, AnalyticsConfig::default())
    }

    /// A sink on a schema that has its tables.
    pub(super) fn with_config(pool: PgPool, config: AnalyticsConfig) -> Self {
        Self { pool, config, activity_schema: None }
    }

    /// The same, writing the hourly documents of models too; `activity_schema` is the registry's id of
    /// [`ActivityLogged`](schemas::events::ActivityLogged).
    #[must_use]
    pub fn logging(self, activity_schema: u32) -> Self {
        Self { activity_schema: Some(activity_schema), ..self }
    }

    async fn apply(&self, batch: &[Envelope<AnalyticsEvent>]) -> Result<(), SinkError> {
        let named = match batch {
            [] => return Ok(()),
            [one] => format!("offset {}", one.position.offset),
            more => format!("one of {} records", more.len()),
        };
        let told: Result<Vec<Told>, _> = batch.iter().map(|record| told(&record.payload)).collect();
        let told = told.map_err(|bad| SinkError::BadRow(bad.to_string()))?;
        let failed = |error| sink_error(error, &named);
        let mut tx = self.pool.begin().await.map_err(failed)?;
        query("select set_config('statement_timeout', $1, true)")
            .bind(self.config.statement_timeout.as_millis().max(1).to_string())
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        let bad = |_: OutOfCalendar| SinkError::BadRow(format!("{named}: an instant that no calendar has"));
        let (mut sums, mut services) = (Sums::default(), ServiceSums::default());
        let fresh = service::unseen(&mut tx, &keys(&told)).await.map_err(failed)?;
        first_told(&told, fresh, &mut sums, &mut services).map_err(bad)?;
        let changed = service::changes(&mut tx, &newest(&told)).await.map_err(failed)?;
        for count in &changed {
            sums.add(count, None).map_err(bad)?;
        }
        touch(&told, &mut sums).map_err(bad)?;
        service::add(&mut tx, &sums.0).await.map_err(failed)?;
        services::add(&mut tx, &services).await.map_err(failed)?;
        if let Some(schema) = self.activity_schema {
            model_hours::fold(&mut tx, batch, schema).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }
}

/// What is told once, with the day of the earliest event that tells it.
fn keys(told: &[Told]) -> BTreeMap<Uuid, NaiveDate> {
    let mut keys = BTreeMap::new();
    for told in told {
        if let Some(once) = &told.once {
            let day = told.occurred_at.date_naive();
            keys.entry(once.id()).and_modify(|kept: &mut NaiveDate| *kept = day.min(*kept)).or_insert(day);
        }
    }
    keys
}

/// Adds what is told for the first time; of the same twice in one batch the first.
fn first_told(
    told: &[Told],
    mut fresh: HashSet<Uuid>,
    sums: &mut Sums,
    services: &mut ServiceSums,
) -> Result<(), OutOfCalendar> {
    for told in told {
        let Some(once) = told.once.as_ref().filter(|once| fresh.remove(&once.id())) else { continue };
        for count in &once.counts {
            sums.add(count, Some(told.occurred_at))?;
        }
        for count in &once.services {
            services.add(count, told.occurred_at)?;
        }
    }
    Ok(())
}

/// Entities by key, each at its highest revision in the batch.
fn newest(told: &[Told]) -> BTreeMap<String, Entity> {
    let mut newest: BTreeMap<String, Entity> = BTreeMap::new();
    for entity in told.iter().flat_map(|told| &told.entities) {
        let kept = newest.entry(entity.key()).or_insert_with(|| entity.clone());
        if entity.revision > kept.revision {
            *kept = entity.clone();
        }
    }
    newest
}

/// Adds nothing to every number that an entity was ever told to count in, whether or not that state still stands: so
/// `created_at` is the earliest such event's in any order, and a number of which all was taken back stays, as 0.
fn touch(told: &[Told], sums: &mut Sums) -> Result<(), OutOfCalendar> {
    for told in told {
        for entity in &told.entities {
            for count in entity.counted.iter().flat_map(|counted| counted.counts(entity.kind)) {
                sums.add(&Count { value: Exact::ZERO, samples: 0, ..count }, Some(told.occurred_at))?;
            }
        }
    }
    Ok(())
}

impl Sink for AnalyticsSink {
    const NAME: &'static str = "analytics";
    const TOPICS: &'static [Topic] = &[
        Topic::UploadsReceived,
        Topic::UploadsReadings,
        Topic::UploadsDecided,
        Topic::RewardsCalculated,
        Topic::RewardsGranted,
        Topic::PayoutsUpdated,
    ];
    type In = AnalyticsEvent;

    fn write(
        &self,
        batch: &[Envelope<AnalyticsEvent>],
    ) -> impl Future<Output = Result<(), SinkError>> + Send {
        self.apply(batch)
    }
}
