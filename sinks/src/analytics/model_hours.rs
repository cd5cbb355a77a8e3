//! `model_performance_logs`: one document a model version and hour of acceptance, once the hour is closed.
//!
//! An hour is closed when every partition of `uploads.readings` has reported an acceptance an hour after its end; a partition that
//! is six hours behind the newest counts as idle. Nothing but records moves this clock: the last hours before a pause close with
//! the next upload. The tries of an open hour are kept, so that its quantile is exact; closing it puts its documents into the
//! outbox and deletes them, in one transaction. What comes later for a closed hour is counted in `ai_performance_metrics` alone:
//! a document is not written again. What a person has seen on a photo is a label of the models that had read it, in the hour of the
//! review. A rebuild does not take part in this: the documents of closed hours are written.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::Envelope;
use runtime::outbox::OutboxRows;
use schemas::events::{ActivityLogged, OdometerRead, ReadingAttempt};
use schemas::ids::{EventId, natural};
use schemas::logs::{LogDocument as _, ModelPerformanceLog};
use serde_json::json;
use sqlx::{FromRow, PgConnection, query, query_as, query_scalar};
use uuid::Uuid;

use super::event::AnalyticsEvent;
use super::labels::{Label, label};
use super::services;
use super::windows::{Period, Window};

/// How long after its end an hour waits for what is late.
const LATENESS: TimeDelta = TimeDelta::hours(1);

/// Keeps a batch's tries and closes the hours that are over; `activity_schema` is the registry's id of [`ActivityLogged`]. Batches
/// with readings wait for each other here, so that no try slips into an hour that another closes.
pub(super) async fn fold(
    tx: &mut PgConnection,
    batch: &[Envelope<AnalyticsEvent>],
    activity_schema: u32,
) -> sqlx::Result<()> {
    let mut newest: BTreeMap<i32, DateTime<Utc>> = BTreeMap::new();
    let (mut all, mut labels) = (Vec::new(), Vec::new());
    for record in batch {
        let AnalyticsEvent::Read(event) = &record.payload else { continue };
        let at = event.header.accepted_at.to_utc();
        newest.entry(record.position.partition).and_modify(|kept| *kept = at.max(*kept)).or_insert(at);
        all.extend(tries(event));
        labels.extend(labelled(event));
    }
    if newest.is_empty() {
        return Ok(());
    }
    let closed: DateTime<Utc> =
        query_scalar("select upto from model_hours_closed for update").fetch_one(&mut *tx).await?;
    all.retain(|kept| kept.hour >= closed);
    labels.retain(|kept| kept.hour >= closed);
    keep(tx, &all).await?;
    keep_labels(tx, &labels).await?;
    match over(tx, &newest).await? {
        Some(over) if over > closed => close(tx, over, activity_schema).await,
        _ => Ok(()),
    }
}

/// A try, as one of the reader's models took part in it.
struct Try<'a> {
    event_id: Uuid,
    attempt: i32,
    model: &'a str,
    version: &'a str,
    hour: DateTime<Utc>,
    reported: &'a ReadingAttempt,
}

/// None at the far ends of the calendar.
fn hour_of(at: DateTime<Utc>) -> Option<DateTime<Utc>> {
    Window::of(Period::Hour, at).map(|window| window.start)
}

/// A model that is named without a version has one without a name.
fn tries(event: &OdometerRead) -> Vec<Try<'_>> {
    let (event_id, hour) = (event.header.event_id.0, hour_of(event.header.accepted_at.to_utc()));
    let attempts = event.reading.iter().flat_map(|reading| &reading.attempts);
    let mut all = Vec::new();
    for (attempt, reported) in (0..).zip(attempts) {
        for named in reported.reader_version.split(',') {
            let (model, version) = named.split_once('@').unwrap_or((named, ""));
            all.extend(hour.map(|hour| Try { event_id, attempt, model, version, hour, reported }));
        }
    }
    all
}

/// What a review says of one of the reader's models.
struct Labelled<'a> {
    event_id: Uuid,
    model: &'a str,
    version: &'a str,
    hour: DateTime<Utc>,
    label: Label,
}

/// The labels of every model that took part in what was read, in the hour in which a person has decided.
fn labelled(event: &OdometerRead) -> Vec<Labelled<'_>> {
    let decided = event.review.as_ref().and_then(|review| hour_of(review.decided_at.to_utc()));
    let (Some(hour), Some(label), Some(reading)) = (decided, label(event), event.reading.as_ref()) else {
        return Vec::new();
    };
    let named = reading.reader_version.split(',');
    let models = named.map(|named| named.split_once('@').unwrap_or((named, "")));
    models
        .map(|(model, version)| Labelled { event_id: event.header.event_id.0, model, version, hour, label })
        .collect()
}

async fn keep_labels(tx: &mut PgConnection, labels: &[Labelled<'_>]) -> sqlx::Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    query(
        "insert into model_labels (event_id, model_name, model_version, hour, was_read, was_right)
         select * from unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::bool[], $6::bool[])
         on conflict do nothing",
    )
    .bind(labels.iter().map(|kept| kept.event_id).collect::<Vec<_>>())
    .bind(labels.iter().map(|kept| kept.model).collect::<Vec<_>>())
    .bind(labels.iter().map(|kept| kept.version).collect::<Vec<_>>())
    .bind(labels.iter().map(|kept| kept.hour).collect::<Vec<_>>())
    .bind(labels.iter().map(|kept| kept.label.was_read).collect::<Vec<_>>())
    .bind(labels.iter().map(|kept| kept.label.was_right).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

const KEEP: &str = "
insert into model_tries (event_id, attempt, model_name, model_version, hour, outcome, several_readings, processing_time_ms, cpu_ms,
    rss_mb)
select * from unnest($1::uuid[], $2::int[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::bool[], $8::int[], $9::int[],
    $10::int[])
on conflict do nothing";

async fn keep(tx: &mut PgConnection, tries: &[Try<'_>]) -> sqlx::Result<()> {
    let reported = || tries.iter().map(|kept| kept.reported);
    query(KEEP)
        .bind(tries.iter().map(|kept| kept.event_id).collect::<Vec<_>>())
        .bind(tries.iter().map(|kept| kept.attempt).collect::<Vec<_>>())
        .bind(tries.iter().map(|kept| kept.model).collect::<Vec<_>>())
        .bind(tries.iter().map(|kept| kept.version).collect::<Vec<_>>())
        .bind(tries.iter().map(|kept| kept.hour).collect::<Vec<_>>())
        .bind(reported().map(|reported| reported.outcome.label()).collect::<Vec<_>>())
        .bind(reported().map(|reported| reported.several_readings).collect::<Vec<_>>())
        .bind(reported().map(|reported| reported.processing_time_ms).collect::<Vec<_>>())
        .bind(reported().map(|reported| reported.cpu_ms).collect::<Vec<_>>())
        .bind(reported().map(|reported| reported.rss_mb).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// Notes what the partitions have reported, and returns the first hour that is not over.
async fn over(
    tx: &mut PgConnection,
    newest: &BTreeMap<i32, DateTime<Utc>>,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    query(
        "insert into model_hours_seen as s (partition, newest)
         select partition, newest from unnest($1::int[], $2::timestamptz[]) as r (partition, newest)
         on conflict (partition) do update set newest = greatest(s.newest, excluded.newest)",
    )
    .bind(newest.keys().copied().collect::<Vec<_>>())
    .bind(newest.values().copied().collect::<Vec<_>>())
    .execute(&mut *tx)
    .await?;
    let reported: DateTime<Utc> = query_scalar(
        "select min(newest) from model_hours_seen
         where newest > (select max(newest) from model_hours_seen) - interval '6 hours'",
    )
    .fetch_one(tx)
    .await?;
    Ok(reported.checked_sub_signed(LATENESS).and_then(hour_of))
}

/// A model version in an hour. Its speed is that of answers: how long a failure took says nothing of the model.
#[derive(FromRow)]
struct Hour {
    model_name: String,
    model_version: String,
    hour: DateTime<Utc>,
    tries: i64,
    mean_ms: Option<f64>,
    p95_ms: Option<i32>,
    cpu_ms: Option<f64>,
    rss_mb: Option<i32>,
    no_reading: Option<f64>,
    timeout: Option<f64>,
    low_confidence: Option<f64>,
    several_readings: Option<f64>,
    labelled: i64,
    were_read: i64,
    were_right: i64,
}

const HOURS: &str = "
with tried as (
select model_name, model_version, hour, count(*) as tries,
    (avg(processing_time_ms) filter (where answered))::float8 as mean_ms,
    percentile_disc(0.95) within group (order by processing_time_ms) filter (where answered) as p95_ms,
    avg(cpu_ms)::float8 as cpu_ms, max(rss_mb) as rss_mb,
    avg((outcome = 'no_reading')::int)::float8 as no_reading, avg((outcome = 'timeout')::int)::float8 as timeout,
    avg((outcome = 'low_confidence')::int)::float8 as low_confidence,
    avg(several_readings::int)::float8 as several_readings
from (select *, outcome in ('success', 'no_reading', 'low_confidence') as answered from model_tries where hour < $1) as t
group by model_name, model_version, hour
), labels as (
    select model_name, model_version, hour, count(*) as labelled, count(*) filter (where was_read) as were_read,
        count(*) filter (where was_right) as were_right
    from model_labels where hour < $1
    group by model_name, model_version, hour
)
select model_name, model_version, hour, coalesce(tries, 0) as tries, mean_ms, p95_ms, cpu_ms, rss_mb, no_reading, timeout,
    low_confidence, several_readings, coalesce(labelled, 0) as labelled, coalesce(were_read, 0) as were_read,
    coalesce(were_right, 0) as were_right
from tried full join labels using (model_name, model_version, hour)
order by hour, model_name, model_version";

/// A share; none of nothing.
#[allow(clippy::cast_precision_loss, reason = "counts of an hour are far below 2^52")]
fn share(part: i64, of: i64) -> Option<f64> {
    (of > 0).then(|| part as f64 / of as f64)
}

impl Hour {
    /// Labels are reviews: what is measured against none is null.
    fn document(&self) -> ModelPerformanceLog {
        let precision = share(self.were_right, self.were_read);
        let recall = share(self.were_right, self.labelled);
        let f1 = precision.zip(recall).filter(|(p, r)| p + r > 0.0).map(|(p, r)| 2.0 * p * r / (p + r));
        let per_second = self.mean_ms.filter(|mean| *mean > 0.0).map(|mean| 1_000.0 / mean);
        ModelPerformanceLog {
            model_name: self.model_name.clone(),
            model_version: self.model_version.clone(),
            accuracy_metrics: json!({"labelled": self.labelled, "precision": precision, "recall": recall, "f1": f1}),
            speed_metrics: json!({"mean_ms": self.mean_ms, "p95_ms": self.p95_ms, "images_per_s": per_second}),
            resource_usage: json!({"cpu_ms_per_image": self.cpu_ms, "rss_mb_max": self.rss_mb, "gpu": 0}),
            error_rates: json!({
                "no_reading": self.no_reading, "timeout": self.timeout, "low_confidence": self.low_confidence,
                "several_readings": self.several_readings,
                "wrong_value": share(self.were_read - self.were_right, self.labelled),
            }),
            sample_size: self.tries,
        }
    }

    fn event_id(&self) -> EventId {
        let hour = self.hour.to_rfc3339();
        EventId(natural(&format!("model_performance_logs/{}/{}/{hour}", self.model_name, self.model_version)))
    }

    fn logged(&self) -> Result<ActivityLogged, serde_json::Error> {
        let end = self.hour + TimeDelta::hours(1);
        self.document().activity(self.event_id(), 0, end.into())
    }
}

async fn close(tx: &mut PgConnection, over: DateTime<Utc>, activity_schema: u32) -> sqlx::Result<()> {
    let hours: Vec<Hour> = query_as(HOURS).bind(over).fetch_all(&mut *tx).await?;
    let mut rows = OutboxRows::default();
    for hour in &hours {
        // Plain JSON in a plain record: a failure is a bug, and a document holds no number up.
        let pushed = hour.logged().map_err(|error| error.to_string()).and_then(|record| {
            rows.push(activity_schema, &record, hour.event_id().0).map_err(|error| error.to_string())
        });
        if let Err(error) = pushed {
            tracing::error!(error, model = hour.model_name, "the document of an hour is left out");
        }
    }
    rows.insert(tx).await?;
    query("delete from model_tries where hour < $1").bind(over).execute(&mut *tx).await?;
    query("delete from model_labels where hour < $1").bind(over).execute(&mut *tx).await?;
    services::forget_hours(tx, over).await?;
    query("update model_hours_closed set upto = $1").bind(over).execute(tx).await?;
    Ok(())
}
