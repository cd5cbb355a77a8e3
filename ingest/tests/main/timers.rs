//! What is due at a time: jobs under their leases, and reviews whose time has run out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use ingest::{Role, expire_reviews};
use runtime::clock::ManualClock;
use runtime::testing::MemorySchemas;
use runtime::timers::{Job, Ran, TimerMetrics, Timers};
use schemas::events::{OdometerRead, Review};
use schemas::ids::Micros;
use schemas::reason::Reason;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::reviews::{code, decide, doubt, person, published};
use crate::support::{Bench, database};

const HOUR: Duration = Duration::from_secs(3600);
const HOUR_US: i64 = 3_600_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// A process with an hourly job.
fn timers(pool: &PgPool, clock: &Arc<ManualClock>, job: Job) -> Timers {
    let metrics = TimerMetrics::new().unwrap();
    Timers { pool: pool.clone(), clock: clock.clone(), metrics, owner: "one".into(), jobs: vec![job] }
}

/// An hourly job that counts its runs.
fn counting(runs: &Arc<AtomicU64>) -> Job {
    let runs = runs.clone();
    Job::new("counting", HOUR, move |_| {
        let runs = runs.clone();
        async move { Ok(runs.fetch_add(1, Ordering::SeqCst)) }
    })
}

#[tokio::test]
async fn of_several_processes_one_runs_a_job_each_time_that_it_is_due() {
    let (pool, runs) = (database().await, Arc::new(AtomicU64::new(0)));
    let clock = Arc::new(ManualClock::at(Micros(5 * HOUR_US + 1)));
    let processes: Vec<_> = (0..4).map(|_| timers(&pool, &clock, counting(&runs))).collect();
    for (at, total) in [(5 * HOUR_US + 1, 1), (6 * HOUR_US - 1, 1), (6 * HOUR_US, 2), (8 * HOUR_US + 7, 3)] {
        clock.set(Micros(at));
        let ran = join_all(processes.iter().map(Timers::round)).await;
        assert!(ran.iter().all(Result::is_ok), "{ran:?}");
        assert_eq!(runs.load(Ordering::SeqCst), total, "at {at}");
    }
}

#[tokio::test]
async fn a_run_that_fails_stays_due_and_is_counted_and_is_not_tried_again_at_once() {
    let (pool, clock) = (database().await, Arc::new(ManualClock::at(Micros(HOUR_US))));
    let failing =
        timers(&pool, &clock, Job::new("failing", HOUR, |_| async { Err::<u64, _>("no such host".into()) }));
    assert_eq!(failing.round().await.unwrap(), ["failing"]);
    clock.set(Micros(HOUR_US + 90_000_000));
    assert_eq!(failing.round().await.unwrap(), Vec::<&str>::new(), "the lease of the failed run");
    sqlx::query("update timers set leased_until = now()").execute(&pool).await.unwrap();
    assert_eq!(failing.round().await.unwrap(), ["failing"]);
    let text = failing.metrics.exporter.render();
    for line in [
        r#"milestream_timer_runs_total{outcome="failed",timer="failing"} 2"#,
        r#"milestream_timer_overdue_seconds{timer="failing"} 90"#,
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[tokio::test]
async fn a_run_of_which_some_things_fail_says_how_many_and_is_tried_again_until_none_does() {
    let (pool, clock) = (database().await, Arc::new(ManualClock::at(Micros(HOUR_US))));
    let failing = Arc::new(AtomicU64::new(3));
    let fails = failing.clone();
    let job = Job::new("mixed", HOUR, move |_| {
        let failed = fails.load(Ordering::SeqCst);
        async move { Ok(Ran { done: 2, failed }) }
    });
    let timers = timers(&pool, &clock, job);
    let shown = |lines: [&str; 3]| {
        let text = timers.metrics.exporter.render();
        assert!(lines.iter().all(|line| text.contains(line)), "{lines:?} in {text}");
    };
    assert_eq!(timers.round().await.unwrap(), ["mixed"]);
    shown([
        r#"milestream_timer_runs_total{outcome="partly",timer="mixed"} 1"#,
        r#"milestream_timer_failing{timer="mixed"} 3"#,
        r#"milestream_timer_actions_total{timer="mixed"} 2"#,
    ]);
    assert_eq!(timers.round().await.unwrap(), Vec::<&str>::new(), "not at once");
    failing.store(0, Ordering::SeqCst);
    sqlx::query("update timers set leased_until = now()").execute(&pool).await.unwrap();
    assert_eq!(timers.round().await.unwrap(), ["mixed"], "it is due until nothing fails");
    assert_eq!(timers.round().await.unwrap(), Vec::<&str>::new());
    shown([
        r#"milestream_timer_runs_total{outcome="done",timer="mixed"} 1"#,
        r#"milestream_timer_failing{timer="mixed"} 0"#,
        r#"milestream_timer_overdue_seconds{timer="mixed"} 0"#,
    ]);
}

#[tokio::test]
async fn a_run_that_does_not_end_is_overdue() {
    let (pool, clock) = (database().await, Arc::new(ManualClock::at(Micros(HOUR_US))));
    let begun = Arc::new(AtomicU64::new(0));
    let begins = begun.clone();
    let job = Job::new("standing", HOUR, move |_| {
        begins.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<Result<u64, _>>()
    });
    let standing = timers(&pool, &clock, job);
    let overdue = async {
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        clock.set(Micros(HOUR_US + 5_000_000_000));
        while !standing.metrics.exporter.render().contains(r#"overdue_seconds{timer="standing"} 5000"#) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        ran = standing.round() => panic!("{ran:?}"),
        told = tokio::time::timeout(Duration::from_secs(60), overdue) => told.unwrap(),
    }
}

#[tokio::test]
async fn a_run_ends_at_what_fails_where_the_database_is_away_and_goes_on_where_it_is_there() {
    let pool = database().await;
    let (mut ran, failed) = (Ran::default(), || Err(std::io::Error::other("no such record")));
    ran.count(&pool, "one", failed()).await.unwrap();
    ran.count(&pool, "another", Ok::<_, std::io::Error>(1)).await.unwrap();
    assert_eq!(ran, Ran { done: 1, failed: 1 });
    pool.close().await;
    let ended = ran.count(&pool, "a third", failed()).await.unwrap_err();
    assert_eq!((ended.to_string(), ran.failed), ("no such record".to_owned(), 1));
}

#[tokio::test]
async fn a_run_whose_lease_another_process_has_taken_moves_nothing() {
    let (pool, clock) = (database().await, Arc::new(ManualClock::at(Micros(HOUR_US))));
    let taken = pool.clone();
    let overtaken = timers(
        &pool,
        &clock,
        Job::new("slow", HOUR, move |_| {
            let pool = taken.clone();
            async move {
                sqlx::query("update timers set epoch = epoch + 1, leased_until = now() + interval '1 hour'")
                    .execute(&pool)
                    .await?;
                Ok(1_u64)
            }
        }),
    );
    assert_eq!(overtaken.round().await.unwrap(), ["slow"]);
    let (due, held): (bool, bool) =
        sqlx::query_as("select due_at <= '1970-01-01 01:00Z', leased_until > now() from timers")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(due && held, "the other one's run goes on");
}

/// Ends what has waited for 14 days.
async fn expire(bench: &Bench, now: Micros) -> u64 {
    let schema_id = MemorySchemas::id_of::<OdometerRead>();
    let ran = expire_reviews(&bench.pool, schema_id, now, Duration::from_secs(14 * 86_400)).await.unwrap();
    assert_eq!(ran.failed, 0);
    ran.done
}

#[tokio::test]
async fn a_review_that_nobody_decides_in_time_ends_once_and_the_driver_is_asked_for_a_new_photo() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    let (_, token) = person(&bench, Role::Reviewer).await;
    let (late, young, done) =
        (doubt(&bench, driver, 0).await, doubt(&bench, driver, 1).await, doubt(&bench, driver, 2).await);
    let opened = Micros(1_800_000_000_000_000);
    for (record, days) in [(&late, 0), (&young, 1), (&done, 0)] {
        sqlx::query("update reviews set opened_at = $2 where upload_id = $1")
            .bind(record.header.upload_id.0)
            .bind(Micros(opened.0 + days * DAY_US).to_utc())
            .execute(&bench.pool)
            .await
            .unwrap();
    }
    let reject = json!({ "decision": "reject" });
    assert_eq!(decide(&bench, done.header.upload_id, &token, &reject).await.status, 202);
    assert_eq!(expire(&bench, Micros(opened.0 + 14 * DAY_US - 1)).await, 0);
    let now = Micros(opened.0 + 14 * DAY_US);
    let ended = join_all((0..3).map(|_| expire(&bench, now))).await;
    assert_eq!(ended.iter().sum::<u64>(), 1, "{ended:?}");
    let events = published(&bench).await;
    assert_eq!(events.len(), 2);
    let (event, review) = (&events[1], events[1].review.as_ref().unwrap());
    assert_eq!(event.header.upload_id, late.header.upload_id);
    assert_ne!(event.header.event_id, late.header.event_id);
    assert_eq!((review.reviewer_id, review.person()), (Review::NOBODY, None));
    assert_eq!((review.mileage, review.reason), (None, Some(Reason::ReviewTimeout)));
    assert!(Reason::ReviewTimeout.advice().contains("send a new one"));

    // Whoever comes now comes too late, and the young one waits.
    let refused = decide(&bench, late.header.upload_id, &token, &reject).await;
    assert_eq!(code(&refused), (410, "review_expired".into()));
    let shown = bench.get(&format!("/v1/reviews/{}", late.header.upload_id), &token).await.json();
    assert_eq!((&shown["decision"]["decision"], &shown["reviewer_id"]), (&json!("expire"), &Value::Null));
    let queue = bench.get("/v1/reviews", &token).await.json();
    assert_eq!(queue["items"][0]["upload_id"], json!(young.header.upload_id));
    assert_eq!(queue["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn more_than_a_transaction_holds_is_ended_in_one_run() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    for day in 0..5 {
        doubt(&bench, driver, day).await;
    }
    sqlx::query(
        "insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record)
         select gen_random_uuid(), user_id, accepted_at, opened_at, reason, detail, signals,
            jsonb_set(record, '{header,event_id}', to_jsonb(gen_random_uuid()::text))
         from reviews, generate_series(1, 50)",
    )
    .execute(&bench.pool)
    .await
    .unwrap();
    assert_eq!(expire(&bench, Micros(i64::MAX / 2)).await, 255);
    assert_eq!(published(&bench).await.len(), 255);
}

#[tokio::test]
async fn reviews_that_cannot_be_ended_keep_no_other_waiting_however_many_they_are() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    let last = doubt(&bench, driver, 0).await.header.upload_id.0;
    let broken = sqlx::query(
        "insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record)
         select gen_random_uuid(), user_id, accepted_at, opened_at - interval '1 day', reason, detail, signals, record - 'header'
         from reviews, generate_series(1, 120)",
    );
    assert_eq!(broken.execute(&bench.pool).await.unwrap().rows_affected(), 120);
    let schema_id = MemorySchemas::id_of::<OdometerRead>();
    for done in [1, 0] {
        let ran = expire_reviews(&bench.pool, schema_id, Micros(i64::MAX / 2), HOUR).await.unwrap();
        assert_eq!(ran, Ran { done, failed: 120 });
    }
    let ended: Vec<uuid::Uuid> =
        sqlx::query_scalar("select upload_id from reviews where decided_at is not null")
            .fetch_all(&bench.pool)
            .await
            .unwrap();
    assert_eq!(ended, [last]);
}
