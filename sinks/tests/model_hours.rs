//! The hourly documents of models: when an hour is closed, and what its documents say.

use std::collections::BTreeSet;

use runtime::{Envelope, Sink as _};
use schemas::codec;
use schemas::events::{ActivityLogged, AttemptOutcome, Event as _, ReadingAttempt};
use schemas::ids::{Micros, natural};
use serde_json::{Value, json};
use sinks::analytics::{AnalyticsEvent, AnalyticsSink};

use crate::analytics_stories::{HOUR, story};
use crate::services::{attempt, performance, read, reviewed};
use crate::support::{Schema, envelopes};

const SCHEMA: u32 = 5;
const OWN: &str = "Milestream Embedded";

/// The n-th upload, accepted so many quarters of an hour after the start of Tuesday, 2024-01-02, and read with these tries.
fn upload(n: i64, quarters: i64, tried: Vec<ReadingAttempt>) -> AnalyticsEvent {
    let after = quarters * HOUR / 4 - (n - 1) * 24 * HOUR;
    read(&story(u128::try_from(n).unwrap(), n, after, ("petrol", "basic", "DE")), tried)
}

fn on(partition: i32, events: Vec<AnalyticsEvent>) -> Vec<Envelope<AnalyticsEvent>> {
    let mut records = envelopes(events);
    records.iter_mut().for_each(|record| record.position.partition = partition);
    records
}

async fn write(schema: &Schema, partition: i32, events: Vec<AnalyticsEvent>) {
    let sink = AnalyticsSink::new(schema.pool.clone()).logging(SCHEMA);
    sink.write(&on(partition, events)).await.unwrap();
}

/// The records in the outbox, in order.
async fn logged(schema: &Schema) -> Vec<ActivityLogged> {
    let rows: Vec<(String, Vec<u8>, Vec<u8>)> =
        sqlx::query_as("select topic, key, payload from outbox order by id")
            .fetch_all(&schema.pool)
            .await
            .unwrap();
    rows.into_iter()
        .map(|(topic, key, payload)| {
            let (id, datum) = codec::unframe(&payload).unwrap();
            let record: ActivityLogged = codec::decode(ActivityLogged::schema(), id, datum).unwrap();
            assert_eq!((topic.as_str(), id, key), ("activity.logs", SCHEMA, record.key().into_bytes()));
            record
        })
        .collect()
}

/// Model, hour and sample size of every document.
async fn documents(schema: &Schema) -> Vec<String> {
    let line = |record: ActivityLogged| {
        let document: Value = serde_json::from_str(&record.document).unwrap();
        let (model, version) = (&document["model_name"], &document["model_version"]);
        let end = record.occurred_at.to_utc().format("%d %H:%M");
        format!("{} {} {end} {}", model.as_str().unwrap(), version.as_str().unwrap(), document["sample_size"])
    };
    logged(schema).await.into_iter().map(line).collect()
}

fn success(ms: i32) -> Vec<ReadingAttempt> {
    vec![attempt(OWN, AttemptOutcome::Success, ms, 0)]
}

#[tokio::test]
async fn an_hour_is_closed_once_every_partition_is_an_hour_past_it_and_is_not_written_again() {
    let schema = Schema::new().await;
    write(&schema, 0, vec![upload(1, 0, success(100)), upload(2, 3, success(300))]).await;
    write(&schema, 1, vec![upload(3, 1, success(200))]).await;
    // 02:00 on one partition alone; on the other an instant before.
    write(&schema, 0, vec![upload(4, 8, success(1))]).await;
    write(&schema, 1, vec![upload(5, 7, success(1))]).await;
    assert!(documents(&schema).await.is_empty());
    write(&schema, 1, vec![upload(6, 8, success(1)), upload(3, 1, success(200))]).await;
    let closed = ["a_det 01234567 02 01:00 3", "a_rec 89abcdef 02 01:00 3"];
    assert_eq!(documents(&schema).await, closed);
    // Too late for the document, and a repeat: only the numbers of the service grow, by the one.
    let size = async |schema: &Schema| -> i32 {
        let numbers = performance(schema).await.into_iter();
        numbers.filter(|(key, _)| key.1 == "speed" && key.2 == "day").map(|(_, number)| number.2).sum()
    };
    let before = size(&schema).await;
    write(&schema, 1, vec![upload(7, 2, success(900)), upload(1, 0, success(100))]).await;
    assert_eq!(
        (documents(&schema).await, size(&schema).await),
        (closed.map(str::to_owned).to_vec(), before + 1)
    );
    let kept: Vec<String> = sqlx::query_scalar(
        "select distinct to_char(hour at time zone 'UTC', 'DD HH24:MI') from model_tries order by 1",
    )
    .fetch_all(&schema.pool)
    .await
    .unwrap();
    assert_eq!(kept, ["02 01:00", "02 02:00"], "the tries of a closed hour are gone, nothing late is kept");
    schema.drop().await;
}

#[tokio::test]
async fn a_partition_that_is_six_hours_behind_holds_no_hour_open() {
    let schema = Schema::new().await;
    write(&schema, 3, vec![upload(1, 0, success(100))]).await;
    write(&schema, 0, vec![upload(2, 1, success(100)), upload(3, 23, success(100))]).await;
    assert!(documents(&schema).await.is_empty());
    write(&schema, 0, vec![upload(4, 24, success(100))]).await;
    let closed = ["a_det 01234567 02 01:00 2", "a_rec 89abcdef 02 01:00 2"];
    assert_eq!(documents(&schema).await, closed);
    schema.drop().await;
}

#[tokio::test]
async fn hours_of_services_go_after_90_days_and_their_days_weeks_and_months_stay() {
    let schema = Schema::new().await;
    let quarters = |days: i64| days * 24 * 4;
    write(&schema, 0, vec![upload(1, 0, success(100)), upload(2, 4, success(100))]).await;
    // At 02:00 of the 91st day 01:00 is closed: 00:00 began 90 days and an hour before, 01:00 exactly 90 days.
    write(&schema, 0, vec![upload(3, quarters(90) + 8, success(100))]).await;
    let starts = async |period: &str| -> Vec<String> {
        let numbers = performance(&schema).await;
        let ours = numbers.keys().filter(|key| key.1 == "speed" && key.2 == period);
        ours.map(|key| key.3.format("%m-%d %H:%M").to_string()).collect()
    };
    assert_eq!(starts("hour").await, ["01-02 01:00", "04-01 02:00"]);
    assert_eq!(starts("day").await, ["01-02 00:00", "04-01 00:00"]);
    assert_eq!(starts("week").await, ["01-01 00:00", "04-01 00:00"]);
    assert_eq!(starts("month").await, ["01-01 00:00", "04-01 00:00"]);
    schema.drop().await;
}

#[tokio::test]
async fn a_document_reports_speed_of_answers_use_of_the_machine_and_shares_of_errors() {
    let schema = Schema::new().await;
    let mut several = attempt(OWN, AttemptOutcome::LowConfidence, 300, 0);
    several.several_readings = true;
    several.reader_version = "one@01234567".into();
    let one = |outcome, ms| ReadingAttempt {
        reader_version: "one@01234567".into(),
        ..attempt(OWN, outcome, ms, 0)
    };
    let elsewhere = ReadingAttempt {
        reader_version: "vision".into(),
        cpu_ms: None,
        rss_mb: None,
        ..attempt("Elsewhere", AttemptOutcome::Timeout, 10_000, 0)
    };
    let events = vec![
        upload(1, 0, vec![one(AttemptOutcome::Success, 100)]),
        upload(2, 1, vec![several, elsewhere]),
        upload(3, 2, vec![one(AttemptOutcome::NoReading, 200)]),
        upload(4, 3, vec![one(AttemptOutcome::Internal, 5_000)]),
        upload(5, 8, Vec::new()),
    ];
    write(&schema, 0, events).await;
    let records = logged(&schema).await;
    let [own, other] = records.as_slice() else { panic!("{records:?}") };
    let name = "model_performance_logs/one/01234567/2024-01-02T00:00:00+00:00";
    assert_eq!((own.event_id.0, own.ordinal), (natural(name), 0));
    assert_eq!(own.collection, "model_performance_logs");
    assert_eq!(own.occurred_at.to_utc().to_rfc3339(), "2024-01-02T01:00:00+00:00");
    let expected = json!({
        "model_name": "one", "model_version": "01234567", "sample_size": 4,
        "accuracy_metrics": {"labelled": 0, "precision": null, "recall": null, "f1": null},
        "speed_metrics": {"mean_ms": 200.0, "p95_ms": 300, "images_per_s": 5.0},
        // Half of each wall time, the failed one's too: it was spent.
        "resource_usage": {"cpu_ms_per_image": 700.0, "rss_mb_max": 200, "gpu": 0},
        "error_rates": {
            "no_reading": 0.25, "timeout": 0.0, "low_confidence": 0.25, "several_readings": 0.25, "wrong_value": null,
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&own.document).unwrap(), expected);
    let expected = json!({
        "model_name": "vision", "model_version": "", "sample_size": 1,
        "accuracy_metrics": {"labelled": 0, "precision": null, "recall": null, "f1": null},
        "speed_metrics": {"mean_ms": null, "p95_ms": null, "images_per_s": null},
        "resource_usage": {"cpu_ms_per_image": null, "rss_mb_max": null, "gpu": 0},
        "error_rates": {
            "no_reading": 0.0, "timeout": 1.0, "low_confidence": 0.0, "several_readings": 0.0, "wrong_value": null,
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&other.document).unwrap(), expected);
    schema.drop().await;
}

#[tokio::test]
async fn what_people_have_seen_is_in_the_document_of_the_hour_in_which_they_have_looked() {
    let schema = Schema::new().await;
    let at = |quarters: i64| {
        let AnalyticsEvent::Read(event) = upload(1, quarters, Vec::new()) else { panic!("a reading") };
        event.header.accepted_at
    };
    let seen = |n: i64, km: i64, decided_at: Micros| {
        let of = story(u128::try_from(n).unwrap(), n, -(n - 1) * 24 * HOUR, ("petrol", "basic", "DE"));
        reviewed(&of, OWN, km, decided_at)
    };
    let events = vec![
        upload(1, 0, success(100)),
        upload(2, 1, success(100)),
        // Three were looked at in the second hour, in which nothing was tried, and one of them twice by a redelivery.
        seen(1, 50_310, at(5)),
        seen(2, 50_370, at(5)),
        seen(3, 50_310, at(6)),
        seen(3, 50_310, at(6)),
        upload(4, 16, success(100)),
    ];
    write(&schema, 0, events).await;
    let found: Vec<Value> =
        logged(&schema).await.iter().map(|record| serde_json::from_str(&record.document).unwrap()).collect();
    let of = |hour: usize| found[2 * hour].clone();
    assert_eq!(found.len(), 4, "two models in two hours: {found:?}");
    let none = json!({"labelled": 0, "precision": null, "recall": null, "f1": null});
    assert_eq!((&of(0)["sample_size"], &of(0)["accuracy_metrics"]), (&json!(2), &none));
    let share = 2.0 / 3.0;
    let labelled = json!({"labelled": 3, "precision": share, "recall": share, "f1": share});
    assert_eq!((&of(1)["sample_size"], &of(1)["accuracy_metrics"]), (&json!(0), &labelled));
    assert_eq!(of(1)["error_rates"]["wrong_value"], json!(1.0 / 3.0));
    assert_eq!(of(1)["error_rates"]["timeout"], Value::Null, "nothing was tried");
    let left: i64 =
        sqlx::query_scalar("select count(*) from model_labels").fetch_one(&schema.pool).await.unwrap();
    assert_eq!(left, 0, "the labels of a closed hour are gone");
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sinks_and_every_record_twice_write_each_document_once_with_every_try() {
    let schema = Schema::new().await;
    let events: Vec<_> = (1..=40).map(|n| upload(n, n, success(100))).collect();
    let writer = async |partition: i32| {
        for (n, event) in (0..).zip(&events) {
            if n % 2 == partition {
                write(&schema, partition, vec![event.clone(), event.clone()]).await;
                write(&schema, partition, vec![event.clone()]).await;
            }
        }
    };
    tokio::join!(writer(0), writer(1));
    // Where one writer was ahead of the other, what was late for an hour is in no document; no try is in two.
    let lines = documents(&schema).await;
    let (documents, sizes): (BTreeSet<&str>, Vec<&str>) =
        lines.iter().map(|line| line.rsplit_once(' ').unwrap()).unzip();
    assert_eq!(documents.len(), lines.len());
    let sizes: Vec<i64> = sizes.into_iter().map(|size| size.parse().unwrap()).collect();
    // Two models; the eight hours that both are past, or nine where one was alone.
    assert!([16, 18].contains(&sizes.len()) && sizes.iter().all(|size| (1..=4).contains(size)), "{lines:?}");
    schema.drop().await;
}

#[tokio::test]
async fn a_sink_that_does_not_log_keeps_nothing_for_it() {
    let schema = Schema::new().await;
    let sink = AnalyticsSink::new(schema.pool.clone());
    sink.write(&on(0, vec![upload(1, 0, success(100)), upload(2, 40, success(100))])).await.unwrap();
    let kept: i64 =
        sqlx::query_scalar("select count(*) from model_tries").fetch_one(&schema.pool).await.unwrap();
    assert_eq!((kept, logged(&schema).await.len()), (0, 0));
    schema.drop().await;
}
