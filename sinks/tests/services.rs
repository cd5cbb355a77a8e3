//! `ai_performance_metrics` from the tries that readings list.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use runtime::{Sink as _, SinkError};
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{AttemptOutcome, ReadingAttempt, Review};
use schemas::ids::{Micros, UserId, natural};
use serde_json::{Value, json};
use sinks::analytics::{AnalyticsEvent, AnalyticsSink};
use sinks::postgres::UploadEvent;

use crate::analytics_oracle::windows;
use crate::analytics_stories::{HOUR, empty, shuffled, story};
use crate::stories::Story;
use crate::support::{Schema, envelopes};

/// A try that took so many milliseconds and cost so many millionths of a dollar.
pub fn attempt(service: &str, outcome: AttemptOutcome, ms: i32, micro_usd: i64) -> ReadingAttempt {
    ReadingAttempt {
        service: service.into(),
        reader_version: "a_det@01234567,a_rec@89abcdef".into(),
        outcome,
        http_status: (outcome == AttemptOutcome::HttpStatus).then_some(503),
        processing_time_ms: ms,
        cpu_ms: Some(ms / 2),
        rss_mb: Some(200),
        cost_usd: Decimal::new(micro_usd, 6),
        confidence: (!outcome.is_technical()).then(|| Decimal::new(9, 1)),
        several_readings: false,
    }
}

/// The tries of the n-th upload: mostly one, sometimes of two services, sometimes a failed one before.
pub fn tries(n: i64) -> Vec<ReadingAttempt> {
    let ms = i32::try_from(300 + n * 37 % 101).unwrap();
    let own = |outcome| attempt("Milestream Embedded", outcome, ms, 0);
    match n % 4 {
        0 => vec![
            own(AttemptOutcome::LowConfidence),
            attempt("Google Vision", AttemptOutcome::Success, ms * 3, 1_500),
        ],
        1 => vec![
            own(AttemptOutcome::NoReading),
            attempt("Google Vision", AttemptOutcome::HttpStatus, 5_000, 0),
            attempt("AWS Rekognition", AttemptOutcome::Success, ms * 2, 1_001),
        ],
        _ => vec![own(AttemptOutcome::Success)],
    }
}

/// The reading of an upload that took these tries.
pub fn read(story: &Story, attempts: Vec<ReadingAttempt>) -> AnalyticsEvent {
    let UploadEvent::Read(mut event) = story.read() else { panic!("a reading") };
    event.reading.as_mut().unwrap().attempts = attempts;
    AnalyticsEvent::Read(event)
}

/// What comes of a review: the upload's record again, without its tries, of which a service had read 50,310 km and a person has seen
/// `seen`.
pub fn reviewed(story: &Story, service: &str, seen: i64, decided_at: Micros) -> AnalyticsEvent {
    let AnalyticsEvent::Read(mut event) = read(story, Vec::new()) else { panic!("a reading") };
    event.header.event_id = schemas::ids::derived(event.header.event_id, "review", 0);
    event.header.occurred_at = decided_at;
    let reading = event.reading.as_mut().unwrap();
    reading.service = service.into();
    reading.reader_version = "a_det@01234567,a_rec@89abcdef".into();
    let best = reading.best.as_mut().unwrap();
    (best.value, best.unit) = (50_310.into(), None);
    event.review = Some(Review {
        reviewer_id: UserId(natural("a reviewer")),
        decided_at,
        mileage: Some(seen.into()),
        unit: None,
        reason: None,
        notes: None,
    });
    AnalyticsEvent::Read(event)
}

/// Service, metric, period and start; the end, value, samples, exact sum and `created_at`.
type Numbers =
    BTreeMap<(String, String, String, DateTime<Utc>), (DateTime<Utc>, Decimal, i32, Decimal, DateTime<Utc>)>;

/// Every number in the table.
pub async fn performance(schema: &Schema) -> Numbers {
    type Row = (String, String, String, DateTime<Utc>, DateTime<Utc>, Decimal, i32, Decimal, DateTime<Utc>);
    let rows: Vec<Row> = sqlx::query_as(
        "select service_name, metric_type::text, time_period::text, period_start, period_end, metric_value, sample_size,
            exact_value, created_at from ai_performance_metrics",
    )
    .fetch_all(&schema.pool)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(service, metric, period, start, end, value, samples, exact, at)| {
            ((service, metric, period, start), (end, value.normalize(), samples, exact.normalize(), at))
        })
        .collect()
}

/// The same, straight from the events, in whatever order they come.
pub fn fold(events: &[AnalyticsEvent]) -> Numbers {
    let mut numbers = Numbers::new();
    let mut seen = BTreeSet::new();
    for event in events {
        let AnalyticsEvent::Read(event) = event else { continue };
        if !seen.insert(event.header.event_id.0) {
            continue;
        }
        let published_at = event.header.occurred_at.to_utc();
        for attempt in event.reading.iter().flat_map(|reading| &reading.attempts) {
            let failed = attempt.error_code().is_some();
            let mut add = |metric: &str, value: Decimal| {
                let windows = windows(event.header.accepted_at.to_utc());
                for (period, start, end) in windows.into_iter().filter(|window| window.0 != "year") {
                    let key = (attempt.service.clone(), metric.into(), period.into(), start);
                    let number =
                        numbers.entry(key).or_insert((end, Decimal::ZERO, 0, Decimal::ZERO, published_at));
                    number.3 = (number.3 + value).normalize();
                    number.2 += 1;
                    let mean = number.3 / Decimal::from(number.2);
                    number.1 = mean.round_dp_with_strategy(4, RoundingStrategy::ToZero).normalize();
                    number.4 = number.4.min(published_at);
                }
            };
            add("cost", attempt.cost_usd);
            add("availability", Decimal::from(u8::from(!failed)));
            if !failed {
                add("speed", attempt.processing_time_ms.into());
            }
        }
    }
    numbers
}

async fn write(schema: &Schema, events: impl IntoIterator<Item = AnalyticsEvent>) {
    AnalyticsSink::new(schema.pool.clone()).write(&envelopes(events)).await.unwrap();
}

/// An upload so many hours after the start of Tuesday, 2024-01-02.
fn upload(n: u8, hours: i64) -> Story {
    story(u128::from(n), i64::from(n), (hours - 24 * (i64::from(n) - 1)) * HOUR, ("petrol", "basic", "DE"))
}

#[tokio::test]
async fn speed_is_of_answers_cost_and_availability_are_of_every_try() {
    let schema = Schema::new().await;
    let google = |outcome, ms, cost| attempt("Google Vision", outcome, ms, cost);
    let events = [
        read(&upload(1, 0), vec![google(AttemptOutcome::Success, 400, 1_500)]),
        read(&upload(2, 0), vec![google(AttemptOutcome::Timeout, 10_000, 0)]),
        read(&upload(3, 0), vec![google(AttemptOutcome::NoReading, 601, 1_500)]),
    ];
    write(&schema, events).await;
    let day: Vec<(String, String, i32, String)> = sqlx::query_as(
        "select metric_type::text, metric_value::text, sample_size, metric_unit from ai_performance_metrics
         where time_period = 'day' order by metric_type::text",
    )
    .fetch_all(&schema.pool)
    .await
    .unwrap();
    let row = |metric: &str, value: &str, samples, unit: &str| {
        (metric.to_owned(), value.to_owned(), samples, unit.to_owned())
    };
    let expected = [
        row("availability", "0.6666", 3, "ratio"),
        row("cost", "0.0010", 3, "usd_per_request"),
        row("speed", "500.5000", 2, "ms"),
    ];
    assert_eq!(day, expected);
    schema.drop().await;
}

#[tokio::test]
async fn a_service_is_as_accurate_as_the_people_who_look_at_its_photos_say_once_each_on_the_day_of_acceptance()
 {
    let schema = Schema::new().await;
    let later = Micros(upload(1, 0).header.accepted_at.0 + 9 * 24 * 3_600_000_000);
    let (google, own) = ("Google Vision", "Milestream Embedded");
    let events = [
        read(&upload(1, 0), vec![attempt(google, AttemptOutcome::Success, 400, 1_500)]),
        reviewed(&upload(1, 0), google, 50_310, later),
        reviewed(&upload(2, 1), google, 50_370, later),
        reviewed(&upload(3, 2), google, 50_310, later),
        reviewed(&upload(4, 30), own, 50_310, later),
    ];
    write(&schema, events.clone()).await;
    write(&schema, events).await;
    let days: Vec<(String, String, i32, String, String)> = sqlx::query_as(
        "select service_name, metric_value::text, sample_size, metric_unit, to_char(period_start at time zone 'UTC', 'MM-DD')
         from ai_performance_metrics where time_period = 'day' and metric_type = 'accuracy' order by service_name",
    )
    .fetch_all(&schema.pool)
    .await
    .unwrap();
    let row = |service: &str, value: &str, samples, day: &str| {
        (service.to_owned(), value.to_owned(), samples, "ratio".to_owned(), day.to_owned())
    };
    assert_eq!(days, [row(google, "0.6666", 3, "01-02"), row(own, "1.0000", 1, "01-03")]);
    schema.drop().await;
}

#[tokio::test]
async fn a_row_carries_its_bounds_and_derived_id() {
    let schema = Schema::new().await;
    let tried = vec![attempt("Milestream Embedded", AttemptOutcome::Success, 640, 0)];
    write(&schema, [read(&upload(1, 5), tried)]).await;
    let row: Value = sqlx::query_scalar(
        "select to_jsonb(a) from ai_performance_metrics a where time_period = 'week' and metric_type = 'speed'",
    )
    .fetch_one(&schema.pool)
    .await
    .unwrap();
    let name = "ai_performance_metrics/Milestream Embedded/speed/week/2024-01-01T00:00:00+00:00";
    let expected = json!({
        "id": natural(name), "service_name": "Milestream Embedded", "metric_type": "speed", "metric_value": 640.0,
        "metric_unit": "ms", "sample_size": 1, "time_period": "week", "period_start": "2024-01-01T00:00:00+00:00",
        "period_end": "2024-01-08T00:00:00+00:00", "created_at": "2024-01-02T05:00:02+00:00", "exact_value": 640.0,
    });
    assert_eq!(row, expected);
    schema.drop().await;
}

#[tokio::test]
async fn a_reading_without_tries_leaves_no_trace_and_a_negative_price_is_refused() {
    let schema = Schema::new().await;
    write(&schema, [read(&upload(1, 0), Vec::new())]).await;
    let seen: i64 =
        sqlx::query_scalar("select count(*) from analytics_seen").fetch_one(&schema.pool).await.unwrap();
    assert_eq!(seen, 0);
    let sink = AnalyticsSink::new(schema.pool.clone());
    for bad in [
        attempt("Google Vision", AttemptOutcome::Success, 400, -1),
        attempt("Google Vision", AttemptOutcome::Success, -1, 1),
        attempt(&"long".repeat(26), AttemptOutcome::Success, 400, 1),
    ] {
        let refused = sink.write(&envelopes([read(&upload(1, 0), vec![bad])])).await;
        assert!(matches!(refused, Err(SinkError::BadRow(_))), "{refused:?}");
    }
    assert!(performance(&schema).await.is_empty());
    schema.drop().await;
}

#[test]
fn any_order_repetition_and_split_gives_the_means_over_the_events() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let schema = runtime.block_on(Schema::new());
    let config = ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() };
    let worlds = prop::collection::vec((0..5 * 24_i64, 0_i64..40), 1..8).prop_map(|uploads| {
        let event = |(n, (hours, tried)): (u8, (i64, i64))| read(&upload(n, hours), tries(tried));
        (1..).zip(uploads).map(event).collect::<Vec<_>>()
    });
    TestRunner::new(config)
        .run(&worlds.prop_flat_map(shuffled), |(events, batches)| {
            let found = runtime.block_on(async {
                empty(&schema.pool).await;
                for batch in batches {
                    write(&schema, batch).await;
                }
                performance(&schema).await
            });
            prop_assert_eq!(found, fold(&events));
            Ok(())
        })
        .unwrap();
    runtime.block_on(schema.drop());
}
