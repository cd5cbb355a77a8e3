//! How reading services perform: `ai_performance_metrics`, from the tries that readings list and from what people have seen on their
//! photos, at the acceptance of their upload. That an upload was verified by a rule is no label: it follows from the reading itself.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use schemas::events::{OdometerRead, ReadingAttempt};
use schemas::ids::natural;
use sqlx::{PgConnection, query};

use super::count::BadCount;
use super::exact::Exact;
use super::labels::label;
use super::sums::{OutOfCalendar, Sum};
use super::windows::{Period, Window};
use crate::database::Table;

/// How long hours are kept; days, weeks and months are kept for good.
const HOURS_KEPT: TimeDelta = TimeDelta::days(90);

/// What is measured of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Performance {
    /// Mean milliseconds of a try that was answered.
    Speed,
    /// Mean USD of a try.
    Cost,
    /// Share of tries in which the service did its work.
    Availability,
    /// Share of reviewed readings that were right.
    Accuracy,
}

impl Performance {
    /// `metric_type`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Speed => "speed",
            Self::Cost => "cost",
            Self::Availability => "availability",
            Self::Accuracy => "accuracy",
        }
    }

    /// `metric_unit`.
    #[must_use]
    pub fn unit(self) -> &'static str {
        match self {
            Self::Speed => "ms",
            Self::Cost => "usd_per_request",
            Self::Availability | Self::Accuracy => "ratio",
        }
    }
}

/// What a try or a review adds to one number of its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCount {
    /// The service.
    pub service: String,
    /// What is measured.
    pub metric: Performance,
    /// At which instant.
    pub at: DateTime<Utc>,
    /// How much, of one sample.
    pub value: Exact,
}

/// What a reading reports of services.
///
/// # Errors
/// [`BadCount`] for a time or a price that is negative or too large.
pub fn performance(event: &OdometerRead) -> Result<Vec<ServiceCount>, BadCount> {
    let attempts = event.reading.iter().flat_map(|reading| &reading.attempts);
    let counts: Result<Vec<_>, _> = attempts.map(|attempt| counts(event, attempt)).collect();
    let mut counts = counts?.concat();
    counts.extend(accuracy(event));
    Ok(counts)
}

/// One sample where a person has seen what a service had read.
fn accuracy(event: &OdometerRead) -> Option<ServiceCount> {
    let (label, reading) = (label(event).filter(|label| label.was_read)?, event.reading.as_ref()?);
    Some(ServiceCount {
        service: reading.service.clone(),
        metric: Performance::Accuracy,
        at: event.header.accepted_at.to_utc(),
        value: if label.was_right { Exact::ONE } else { Exact::ZERO },
    })
}

fn counts(event: &OdometerRead, attempt: &ReadingAttempt) -> Result<Vec<ServiceCount>, BadCount> {
    let exact = |what, value: Decimal| {
        let bad = |why| BadCount { entity: format!("upload {}", event.header.upload_id), what, why };
        match Exact::of(value) {
            Some(value) if value >= Exact::ZERO => Ok(value),
            Some(_) => Err(bad("is negative")),
            None => Err(bad("is not below 10^11")),
        }
    };
    let count = |metric, value| ServiceCount {
        service: attempt.service.clone(),
        metric,
        at: event.header.accepted_at.to_utc(),
        value,
    };
    let answered = !attempt.outcome.is_technical();
    let available = if answered { Exact::ONE } else { Exact::ZERO };
    let mut counts = vec![
        count(Performance::Cost, exact("cost", attempt.cost_usd)?),
        count(Performance::Availability, available),
    ];
    // How long a service took to fail says nothing of its speed: most of it is our own timeout.
    if answered {
        counts.push(count(Performance::Speed, exact("speed", attempt.processing_time_ms.into())?));
    }
    Ok(counts)
}

/// Which number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: String,
    metric: Performance,
    window: Window,
}

/// Sums by number.
#[derive(Debug, Default)]
pub(super) struct ServiceSums(BTreeMap<Key, Sum>);

impl ServiceSums {
    /// Adds a count to the hour, day, week and month that hold it.
    pub fn add(&mut self, count: &ServiceCount, first_event_at: DateTime<Utc>) -> Result<(), OutOfCalendar> {
        for period in Period::ALL.into_iter().filter(|period| *period != Period::Year) {
            let window = Window::of(period, count.at).ok_or(OutOfCalendar)?;
            let key = Key { service: count.service.clone(), metric: count.metric, window };
            let sum = self.0.entry(key).or_default();
            sum.value = sum.value.plus(count.value);
            sum.samples += 1;
            sum.first_event_at = sum.first_event_at.into_iter().chain([first_event_at]).min();
        }
        Ok(())
    }
}

// Units of 10^-18 come as text: exact, and multiplied back exactly.
const ADD: &str = "
insert into ai_performance_metrics as a (id, service_name, metric_type, metric_value, metric_unit, sample_size, time_period,
    period_start, period_end, created_at, exact_value)
select id, service, metric::ai_performance_metrics_metric_type, trunc(value / samples, 4), unit, samples::integer,
    period::ai_performance_metrics_time_period, starts, ends, at, value
from (
    select id, service, metric, unit, period, starts, ends, at, samples, units::numeric * 0.000000000000000001 as value
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[],
        $8::timestamptz[], $9::text[], $10::bigint[])
        as u (id, service, metric, unit, period, starts, ends, at, units, samples)
) r
order by id
on conflict (id) do update set
    exact_value = a.exact_value + excluded.exact_value,
    sample_size = a.sample_size + excluded.sample_size,
    metric_value = trunc((a.exact_value + excluded.exact_value) / (a.sample_size + excluded.sample_size), 4),
    created_at = least(a.created_at, excluded.created_at)";

/// Adds to the numbers, in the order of their ids. Why the id is asked for a conflict, `service.rs` says.
pub(super) async fn add(tx: &mut PgConnection, ServiceSums(sums): &ServiceSums) -> sqlx::Result<()> {
    if sums.is_empty() {
        return Ok(());
    }
    let keys = || sums.keys();
    query(ADD)
        .bind(keys().map(id_of).collect::<Vec<_>>())
        .bind(keys().map(|key| key.service.clone()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.metric.label()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.metric.unit()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.window.period.label()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.window.start).collect::<Vec<_>>())
        .bind(keys().map(|key| key.window.end).collect::<Vec<_>>())
        .bind(sums.values().map(|sum| sum.first_event_at).collect::<Vec<_>>())
        .bind(sums.values().map(|sum| sum.value.units().to_string()).collect::<Vec<_>>())
        .bind(sums.values().map(|sum| sum.samples).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// How services perform.
pub(super) const TABLE: Table = Table { name: "ai_performance_metrics", key: "id" };

/// Removes hours that are no longer kept at an instant. A late upload may begin one anew; the next call removes that too.
pub(super) async fn forget_hours(tx: &mut PgConnection, now: DateTime<Utc>) -> sqlx::Result<()> {
    query("delete from ai_performance_metrics where time_period = 'hour' and period_start < $1")
        .bind(now - HOURS_KEPT)
        .execute(tx)
        .await?;
    Ok(())
}

/// `id`: UUIDv5 of the unique key.
fn id_of(key: &Key) -> uuid::Uuid {
    let (period, start) = (key.window.period.label(), key.window.start.to_rfc3339());
    natural(&format!("ai_performance_metrics/{}/{}/{period}/{start}", key.service, key.metric.label()))
}
