//! Takes batches: one transaction each.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;

use chrono::NaiveDate;
use runtime::failpoint::{self, Step};
use runtime::planner::look_up_by_key;
use runtime::retry::database_responds;
use runtime::{Envelope, Sink, SinkError};
use schemas::topic::Topic;
use sqlx::{PgPool, query_scalar};
use uuid::Uuid;

use super::config::{AnalyticsConfig, AnalyticsStartError};
use super::count::Count;
use super::counts::{EventCounts, counts_of};
use super::entities::Entity;
use super::event::AnalyticsEvent;
use super::exact::Exact;
use super::metrics::Metric;
use super::services::{self, ServiceSums};
use super::sums::{OutOfCalendar, Sums};
use super::{CATALOGUE, model_hours, service, tables};
use crate::database::{exists, sink_error};

/// Adds events up.
#[derive(Clone, Debug)]
pub struct AnalyticsSink {
    pool: PgPool,
    config: AnalyticsConfig,
    /// The registry's id of the documents' record; none where none are written.
    activity_schema: Option<u32>,
}

impl AnalyticsConfig {
    /// The sink, once its tables and metrics are there.
    ///
    /// # Errors
    /// [`AnalyticsStartError`].
    pub async fn build(self, pool: PgPool) -> Result<AnalyticsSink, AnalyticsStartError> {
        if let Some(table) = tables().missing(&pool).await? {
            return Err(AnalyticsStartError::Missing(table));
        }
        if !exists(&pool, CATALOGUE).await? {
            return Err(AnalyticsStartError::Missing(CATALOGUE));
        }
        let missing: Option<String> = query_scalar(
            "select name from unnest($1::text[]) name
             where not exists (select from metric_catalogue where metric_name = name) limit 1",
        )
        .bind(Metric::ALL.map(Metric::name).to_vec())
        .fetch_optional(&pool)
        .await?;
        match missing {
            Some(name) => Err(AnalyticsStartError::UnknownMetric(name)),
            None => Ok(AnalyticsSink::with_config(pool, self)),
        }
    }
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
        let counted: Result<Vec<EventCounts>, _> =
            batch.iter().map(|record| counts_of(&record.payload)).collect();
        let counted = counted.map_err(|bad| SinkError::BadRow(bad.to_string()))?;
        let failed = |error| sink_error(error, &named, "analytics_data");
        let mut tx = self.pool.begin().await.map_err(failed)?;
        look_up_by_key(&mut tx, Some(self.config.statement_timeout)).await.map_err(failed)?;
        let bad = |_: OutOfCalendar| SinkError::BadRow(format!("{named}: an instant that no calendar has"));
        let (mut sums, mut services) = (Sums::default(), ServiceSums::default());
        let fresh = service::unseen(&mut tx, &keys(&counted)).await.map_err(failed)?;
        count_first(&counted, fresh, &mut sums, &mut services).map_err(bad)?;
        let changed = service::changes(&mut tx, &newest(&counted)).await.map_err(failed)?;
        for count in &changed {
            sums.add(count, None).map_err(bad)?;
        }
        touch(&counted, &mut sums).map_err(bad)?;
        service::add(&mut tx, &sums.0).await.map_err(failed)?;
        service::forget(&mut tx, &sums.0).await.map_err(failed)?;
        services::add(&mut tx, &services).await.map_err(failed)?;
        if let Some(schema) = self.activity_schema {
            model_hours::fold(&mut tx, batch, schema).await.map_err(failed)?;
        }
        failpoint::at(Step::SinkStored);
        tx.commit().await.map_err(failed)
    }
}

/// What is counted once, with the day of the earliest event that says it.
fn keys(counted: &[EventCounts]) -> BTreeMap<Uuid, NaiveDate> {
    let mut keys = BTreeMap::new();
    for counted in counted {
        if let Some(once) = &counted.once {
            let day = counted.occurred_at.date_naive();
            keys.entry(once.id()).and_modify(|kept: &mut NaiveDate| *kept = day.min(*kept)).or_insert(day);
        }
    }
    keys
}

/// Adds what is said for the first time; of the same twice in one batch the first.
fn count_first(
    counted: &[EventCounts],
    mut fresh: HashSet<Uuid>,
    sums: &mut Sums,
    services: &mut ServiceSums,
) -> Result<(), OutOfCalendar> {
    for counted in counted {
        let Some(once) = counted.once.as_ref().filter(|once| fresh.remove(&once.id())) else { continue };
        for count in &once.counts {
            sums.add(count, Some(counted.occurred_at))?;
        }
        for count in &once.services {
            services.add(count, counted.occurred_at)?;
        }
    }
    Ok(())
}

/// Entities by key, each at its highest revision in the batch.
fn newest(counted: &[EventCounts]) -> BTreeMap<String, Entity> {
    let mut newest: BTreeMap<String, Entity> = BTreeMap::new();
    for entity in counted.iter().flat_map(|counted| &counted.entities) {
        let kept = newest.entry(entity.key()).or_insert_with(|| entity.clone());
        if entity.revision > kept.revision {
            *kept = entity.clone();
        }
    }
    newest
}

/// Adds nothing to every number that an entity was ever to count in, whether or not that state still stands: so
/// `created_at` is the earliest such event's in any order, and a number of which all was taken back stays, as 0.
fn touch(counted: &[EventCounts], sums: &mut Sums) -> Result<(), OutOfCalendar> {
    for counted in counted {
        for entity in &counted.entities {
            for count in entity.counted.iter().flat_map(|counted| counted.counts(entity.kind)) {
                sums.add(&Count { value: Exact::ZERO, samples: 0, ..count }, Some(counted.occurred_at))?;
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

    async fn dependencies_respond(&self) -> bool {
        database_responds(&self.pool).await
    }
}
