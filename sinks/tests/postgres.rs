//! The `postgres` sink on PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use runtime::sinking::SinkWorker;
use runtime::testing::{MemoryOutbound, assignment, record, stage_context};
use runtime::{Sink as _, SinkError};
use schemas::events::{Stamp, UploadHeader, Verdict};
use schemas::ids::{Micros, UploadId, UserId};
use schemas::reason::Reason;
use schemas::sealed::UserKey;
use serde_json::{Value, json};
use sinks::postgres::{PostgresConfig, PostgresSink, PostgresStartError, UploadEvent};
use uuid::Uuid;

use crate::stories::Story;
use crate::support::{Schema, envelopes};

async fn write(sink: &PostgresSink, events: impl IntoIterator<Item = UploadEvent>) {
    sink.write(&envelopes(events)).await.unwrap();
}

async fn sink(schema: &Schema) -> PostgresSink {
    PostgresConfig::default().build(schema.pool.clone()).await.unwrap()
}

/// Three uploads of one driver in the order that they happen: verified, verified after a review, rejected for fraud.
fn three_uploads() -> Vec<UploadEvent> {
    let mut events = Story::new(1, 1).events(Verdict::Verified, None, false);
    events.extend(Story::new(1, 2).events(Verdict::Verified, None, true));
    events.extend(Story::new(1, 1).events(Verdict::Verified, None, false));
    events.extend(Story::new(1, 3).events(Verdict::Rejected, Some(Reason::Rollback), false));
    events
}

#[tokio::test]
async fn every_column_is_filled_as_the_lineage_says() {
    let schema = Schema::new().await;
    let (sink, mut story) = (sink(&schema).await, Story::new(1, 1));
    let key = UserKey::generate();
    sqlx::query("insert into users (id) values ($1)")
        .bind(story.header.user_id.0)
        .execute(&schema.pool)
        .await
        .unwrap();
    sqlx::query("insert into user_keys values ($1, $2)")
        .bind(story.header.user_id.0)
        .bind(key.expose())
        .execute(&schema.pool)
        .await
        .unwrap();
    story.stamp.original_filename = Some(key.seal(story.header.upload_id, "IMG_0042.jpg").unwrap());
    let UploadEvent::Read(mut read) = story.read() else { panic!("a reading") };
    let words = key.seal(story.header.upload_id, "ODO 010010").unwrap();
    read.reading.as_mut().unwrap().detected_text = Some(words);
    write(&sink, [story.received()]).await;
    write(&sink, [story.graded()]).await;
    write(&sink, [UploadEvent::Read(read)]).await;
    let mileage = &schema.rows("mileage_data").await[0];
    // 10,010.0 miles in the claim's km until the decision.
    assert_eq!(
        (&mileage["ai_verified_mileage"], &mileage["mileage_unit"]),
        (&json!(16_109.53), &json!("km"))
    );
    assert_eq!(
        (&mileage["verification_status"], &mileage["user_claimed_mileage"]),
        (&json!("pending"), &json!(10_010.00))
    );
    write(&sink, [story.decided(Verdict::Verified, None)]).await;

    let upload = json!({
        "id": story.header.upload_id, "user_id": story.header.user_id, "vehicle_id": story.header.vehicle_id,
        "vehicle_kind": "unknown", "image_url": story.header.image_url, "image_hash": story.header.image_hash, "file_size": 4321,
        "original_filename": "IMG_0042.jpg", "mime_type": "image/jpeg",
        "image_dimensions": { "width": 4000, "height": 3000 }, "upload_status": "verified", "status_rank": 2,
        "created_at": "2024-01-02T00:00:00+00:00", "updated_at": "2024-01-02T00:00:04+00:00",
        "processed_at": "2024-01-02T00:00:04+00:00",
    });
    assert_eq!(schema.rows("odometer_uploads").await, json!([upload]));
    let mileage = json!({
        "id": schemas::ids::natural(&format!("mileage_data/{}", story.header.upload_id)),
        "upload_id": story.header.upload_id, "user_claimed_mileage": 6213.71, "ai_verified_mileage": 10_010.00,
        "final_mileage": 10_010.00, "mileage_confidence": 0.97, "mileage_unit": "miles",
        "previous_mileage": 10_000.00, "distance_traveled": 16.09, "verification_status": "approved",
        "rejection_reason": null, "manual_review_notes": null, "reviewed_by": null, "reviewed_at": null,
        "uncorrected_mileage": null, "corrected_at": null,
        "status_rank": 2,
    });
    assert_eq!(schema.rows("mileage_data").await, json!([mileage]));
    let verification = json!({
        "id": schemas::ids::natural(&format!("upload_verifications/{}", story.header.upload_id)),
        "upload_id": story.header.upload_id, "ai_service_used": "Milestream Embedded", "processing_time": 321,
        "confidence_score": 0.97, "detected_text": "ODO 010010",
        "bounding_boxes": { "width": 4000, "height": 3000, "boxes": [] }, "image_quality_score": 0.77,
        "lighting_conditions": "fair", "blur_detected": false, "glare_detected": false,
        "multiple_readings_detected": false, "fallback_used": false, "error_details": null,
        "created_at": "2024-01-02T00:00:01+00:00",
    });
    assert_eq!(schema.rows("upload_verifications").await, json!([verification]));
    let user = &schema.rows("users").await[0];
    assert_eq!((&user["total_mileage"], &user["sustainability_score"]), (&json!(16.09), &Value::Null));
    schema.drop().await;
}

#[tokio::test]
async fn what_a_person_has_decided_is_filled_with_who_when_and_what_was_noted_whichever_topic_comes_first() {
    let schema = Schema::new().await;
    let (sink, story) = (sink(&schema).await, Story::new(1, 1));
    let key = UserKey::generate();
    sqlx::query("with u as (insert into users (id) values ($1) returning id) insert into user_keys select id, $2 from u")
        .bind(story.header.user_id.0)
        .bind(key.expose())
        .execute(&schema.pool)
        .await
        .unwrap();
    let reviewer = uuid::Uuid::from_u128(77);
    let review = schemas::events::Review {
        reviewer_id: UserId(reviewer),
        decided_at: Micros(1_704_240_000_000_000),
        mileage: Some(rust_decimal::Decimal::from(10_010)),
        unit: None,
        reason: None,
        notes: Some(key.seal(story.header.upload_id, "the last wheel stands between two numbers").unwrap()),
    };
    let UploadEvent::Decided(mut decided) = story.decided(Verdict::Verified, None) else {
        panic!("a decision")
    };
    decided.review = Some(review.clone());
    let UploadEvent::Read(mut again) = story.read() else { panic!("a reading") };
    again.review = Some(review);
    write(&sink, [UploadEvent::Decided(decided)]).await;
    let in_doubt = story.decided(Verdict::Review, Some(Reason::LowConfidence));
    write(&sink, [UploadEvent::Read(again), story.read(), in_doubt, story.received(), story.graded()]).await;
    let mileage = &schema.rows("mileage_data").await[0];
    assert_eq!(mileage["verification_status"], "approved");
    assert_eq!(mileage["reviewed_by"], json!(reviewer));
    assert_eq!(mileage["reviewed_at"], "2024-01-03T00:00:00+00:00");
    assert_eq!(mileage["manual_review_notes"], "the last wheel stands between two numbers");
    // What was read stands as it was read the first time.
    assert_eq!(schema.rows("upload_verifications").await[0]["processing_time"], 321);
    schema.drop().await;
}

#[tokio::test]
async fn what_a_person_says_after_an_appeal_stands_over_the_rules_verdict_and_its_kilometres_count() {
    for person_first in [false, true] {
        let schema = Schema::new().await;
        let (sink, story) = (sink(&schema).await, Story::new(1, 1));
        let UploadEvent::Decided(mut person) = story.decided(Verdict::Verified, None) else {
            panic!("a decision")
        };
        person.review = Some(schemas::events::Review {
            reviewer_id: UserId(uuid::Uuid::from_u128(77)),
            decided_at: Micros(1_704_240_000_000_000),
            mileage: Some(rust_decimal::Decimal::from(10_010)),
            unit: None,
            reason: None,
            notes: None,
        });
        let mut verdicts =
            [story.decided(Verdict::Rejected, Some(Reason::Rollback)), UploadEvent::Decided(person)];
        if person_first {
            verdicts.reverse();
        }
        for verdict in verdicts {
            write(&sink, [verdict]).await;
        }
        let (mileage, upload) =
            (&schema.rows("mileage_data").await[0], &schema.rows("odometer_uploads").await[0]);
        assert_eq!(
            (&mileage["verification_status"], &mileage["rejection_reason"]),
            (&json!("approved"), &Value::Null)
        );
        assert_eq!(upload["upload_status"], "verified");
        assert_eq!(schema.rows("users").await[0]["total_mileage"], json!(16.09), "counted once");
        schema.drop().await;
    }
}

#[tokio::test]
async fn the_newest_correction_stands_over_the_verdict_in_any_order_and_the_kilometres_are_taken_back() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [0, 2, 1]] {
        let schema = Schema::new().await;
        let (sink, story) = (sink(&schema).await, Story::new(1, 1));
        let events = [story.decided(Verdict::Verified, None), story.corrected(1), story.corrected(2)];
        for at in order {
            write(&sink, [events[at].clone(), events[at].clone()]).await;
        }
        let (mileage, upload) =
            (&schema.rows("mileage_data").await[0], &schema.rows("odometer_uploads").await[0]);
        assert_eq!(
            (&mileage["final_mileage"], &mileage["uncorrected_mileage"]),
            (&json!(10_000.0), &json!(10_010.0))
        );
        assert_eq!(
            (&mileage["verification_status"], &upload["upload_status"]),
            (&json!("approved"), &json!("verified"))
        );
        assert!(mileage["corrected_at"].is_string());
        assert_eq!(schema.rows("users").await[0]["total_mileage"], json!(0.0), "{order:?}");
        schema.drop().await;
    }
}

#[tokio::test]
async fn every_column_of_a_reward_is_filled_as_the_lineage_says_whichever_topic_comes_first() {
    let schema = Schema::new().await;
    let (sink, story) = (sink(&schema).await, Story::new(1, 1));
    let cut = story.granted(Some(rust_decimal::Decimal::new(1, 1)));
    write(&sink, [cut]).await;
    let stub = &schema.rows("rewards").await[0];
    assert_eq!((&stub["base_amount"], &stub["total_amount"]), (&Value::Null, &json!(0.1)));
    assert_eq!((&stub["calculated_at"], &stub["calculation_factors"]), (&Value::Null, &Value::Null));
    assert_eq!(schema.rows("users").await[0]["total_rewards"], json!(0.1));
    write(&sink, [story.calculated()]).await;
    let reward = json!({
        "id": schemas::ids::RewardId::of(story.header.upload_id), "user_id": story.header.user_id,
        "upload_id": story.header.upload_id, "base_amount": 0.16090000, "bonus_amount": 0.00804500,
        "total_amount": 0.10000000, "reward_rate": 0.0100, "distance_traveled": 16.09,
        "calculation_factors": {
            "tariff_version": "1", "vehicle_kind": "unknown", "rate": "0.01", "distance_km": "16.09",
            "parts": [
                { "name": "base", "kind": "base", "factor": "0.01", "amount": "0.1609" },
                { "name": "verification_level", "kind": "percent", "factor": "5", "amount": "0.008045" },
            ],
        },
        "status": "calculated", "calculated_at": "2024-01-01T00:00:00+00:00", "distributed_at": null,
        "created_at": "2024-01-02T00:00:05+00:00", "updated_at": "2024-01-02T00:00:06+00:00",
        "granted_amount": 0.10000000, "status_reason": "over_limit: a sentence", "revision": 1,
        "grant_reason": "over_limit: a sentence", "adjustment": 0,
    });
    assert_eq!(schema.rows("rewards").await, json!([reward]));
    // The upload that it hangs on waits for its own events.
    let upload = &schema.rows("odometer_uploads").await[0];
    assert_eq!((&upload["upload_status"], &upload["processed_at"]), (&json!("verified"), &Value::Null));
    assert_eq!(upload["updated_at"], "2024-01-02T00:00:00+00:00");
    schema.drop().await;
}

#[tokio::test]
async fn a_grant_of_nothing_cancels_the_reward_and_adds_nothing_to_the_total() {
    let schema = Schema::new().await;
    let (sink, story) = (sink(&schema).await, Story::new(1, 1));
    write(&sink, [story.calculated()]).await;
    assert_eq!(schema.rows("users").await[0]["total_rewards"], json!(0.0));
    write(&sink, [story.granted(Some(rust_decimal::Decimal::ZERO))]).await;
    let reward = &schema.rows("rewards").await[0];
    assert_eq!((&reward["status"], &reward["total_amount"]), (&json!("cancelled"), &json!(0.0)));
    assert_eq!(schema.rows("users").await[0]["total_rewards"], json!(0.0));
    schema.drop().await;
}

#[tokio::test]
async fn a_missing_account_is_made_by_its_id_with_the_time_that_every_event_carries() {
    let schema = Schema::new().await;
    write(&sink(&schema).await, [Story::new(1, 1).graded()]).await;
    let user = &schema.rows("users").await[0];
    assert_eq!(user["created_at"], "2023-12-31T00:00:00+00:00");
    assert_eq!(user["updated_at"], user["created_at"]);
    schema.drop().await;
}

#[test]
fn any_order_and_repetition_of_the_events_gives_the_same_rows() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let schema = runtime.block_on(Schema::new());
    let verdicts = prop_oneof![
        Just((Verdict::Verified, None)),
        Just((Verdict::Rejected, Some(Reason::Rollback))),
        Just((Verdict::Failed, Some(Reason::ProcessingFailed))),
    ];
    let cases = (verdicts, any::<bool>(), any::<bool>(), 1_usize..6);
    let orders = cases.prop_flat_map(|((verdict, reason), reviewed, dark, batch)| {
        let mut events = Story { dark, ..Story::new(1, 2) }.events(verdict, reason, reviewed);
        events.extend(Story::new(1, 1).events(Verdict::Verified, None, false));
        let repeated = proptest::sample::subsequence(events.clone(), 0..=events.len());
        let shuffled = repeated.prop_flat_map({
            let events = events.clone();
            move |repeated| Just([events.clone(), repeated].concat()).prop_shuffle()
        });
        (Just(events), shuffled, Just(batch))
    });
    let config = ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
        .run(&orders, |(events, shuffled, batch)| {
            let (expected, found) = runtime.block_on(async {
                let sink = sink(&schema).await;
                schema.empty().await;
                write(&sink, events).await;
                let expected = schema.dump().await;
                schema.empty().await;
                for batch in shuffled.chunks(batch) {
                    write(&sink, batch.to_vec()).await;
                }
                (expected, schema.dump().await)
            });
            prop_assert_eq!(expected, found);
            Ok(())
        })
        .unwrap();
    runtime.block_on(schema.drop());
}

#[tokio::test]
async fn writing_everything_twice_changes_nothing() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    write(&sink, three_uploads()).await;
    let once = schema.dump().await;
    // 16.09 + 16.09 km; two weeks of readings are one ISO week: 30/13 + 25 * 2/2, the rejection is after the window.
    assert_eq!(once["users"][0]["total_mileage"], json!(32.18));
    assert_eq!(once["users"][0]["sustainability_score"], 27);
    // The first reward is cancelled, the second cut to the grid's least.
    assert_eq!(once["users"][0]["total_rewards"], json!(0.00000001));
    write(&sink, three_uploads()).await;
    assert_eq!(schema.dump().await, once);
    schema.drop().await;
}

#[tokio::test]
async fn a_reject_for_fraud_inside_the_window_and_the_vehicles_kind_move_the_score() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let mut electric = Story::new(1, 1);
    electric.stamp.vehicle_kind = "electric".into();
    write(&sink, electric.events(Verdict::Verified, None, false)).await;
    let mut later = Story::new(1, 3);
    later.stamp.vehicle_kind = "electric".into();
    write(&sink, later.events(Verdict::Verified, None, false)).await;
    let score = || async { schema.rows("users").await[0]["sustainability_score"].clone() };
    // 45 (1 - 26.86 / 161.52) + 30 / 13 + 25 = 64.8
    assert_eq!(score().await, 64);
    write(&sink, Story::new(1, 2).events(Verdict::Rejected, Some(Reason::DuplicatePhoto), false)).await;
    // 25 * 2 / 3 instead of 25: 56.5
    assert_eq!(score().await, 56);
    schema.drop().await;
}

#[tokio::test]
async fn six_topics_written_at_once_leave_the_rows_of_one_after_the_other() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let stories: Vec<Story> = (0..60).map(|n| Story::new(1 + n % 5, i64::try_from(n).unwrap())).collect();
    let decision = |story: &Story| match story.day % 3 {
        0 => story.decided(Verdict::Rejected, Some(Reason::Rollback)),
        _ => story.decided(Verdict::Verified, None),
    };
    let verified = |story: &&Story| story.day % 3 != 0;
    let topics: Vec<Vec<UploadEvent>> = vec![
        stories.iter().map(Story::received).collect(),
        stories.iter().map(Story::graded).collect(),
        stories.iter().map(Story::read).collect(),
        stories.iter().map(decision).collect(),
        stories.iter().filter(verified).map(Story::calculated).collect(),
        stories.iter().filter(verified).map(|story| story.granted(None)).collect(),
        // The decisions and grants again by owners that are about to lose their partitions, from the other end.
        stories.iter().rev().map(decision).collect(),
        stories.iter().rev().filter(verified).map(|story| story.granted(None)).collect(),
    ];
    write(&sink, topics.concat()).await;
    let expected = schema.dump().await;
    for _ in 0..5 {
        schema.empty().await;
        let writers = topics.iter().map(|events| async {
            for batch in events.chunks(7) {
                let batch = envelopes(batch.to_vec());
                loop {
                    match sink.write(&batch).await {
                        Ok(()) => break,
                        Err(SinkError::Retry(error)) => eprintln!("again: {error:?}"),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        futures::future::join_all(writers).await;
        assert_eq!(schema.dump().await, expected);
    }
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_batches_of_one_user_at_once_the_second_scores_what_the_first_wrote() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let before = [1, 3].map(|day| Story::new(1, day).decided(Verdict::Verified, None));
    let fraud = Story::new(1, 2).decided(Verdict::Rejected, Some(Reason::Rollback));
    let verified = Story::new(1, 30).decided(Verdict::Verified, None);
    write(&sink, before.clone().into_iter().chain([fraud.clone(), verified.clone()])).await;
    let expected = schema.dump().await;
    // Which of the two comes first is the server's choice: a few rounds see both.
    for _ in 0..6 {
        schema.empty().await;
        write(&sink, before.clone()).await;
        let mut holder = schema.pool.begin().await.unwrap();
        // Not `for update`: that would already stop the foreign key, long before the totals.
        sqlx::query("select 1 from users for no key update").execute(&mut *holder).await.unwrap();
        let mut tasks = Vec::new();
        for (waiting, event) in (1..).zip([verified.clone(), fraud.clone()]) {
            let sink = sink.clone();
            tasks.push(tokio::spawn(async move { write(&sink, [event]).await }));
            schema.waiting(waiting).await;
        }
        holder.rollback().await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(schema.dump().await, expected);
    }
    schema.drop().await;
}

#[tokio::test]
async fn a_batch_with_a_row_that_does_not_fit_is_unrolled_and_only_that_record_is_dead_lettered() {
    let schema = Schema::new().await;
    let mut bad = Story::new(1, 2);
    bad.stamp.claimed_mileage = Some(100_000_000.into());
    let events = [Story::new(1, 1), bad, Story::new(1, 3)].map(|story| story.received());
    let refused = sink(&schema).await.write(&envelopes(events.clone())).await.unwrap_err().to_string();
    assert!(refused.contains("mileage_data.user_claimed_mileage is not below 100,000,000"), "{refused}");
    assert_eq!(schema.rows("odometer_uploads").await, json!([]), "whole or not at all");

    let records = (0..).zip(events).map(|(offset, event)| {
        let UploadEvent::Received(event) = event else { panic!("an accepted upload") };
        record(&event, offset).unwrap()
    });
    let outbound = Arc::new(MemoryOutbound::default());
    let worker = SinkWorker {
        sink: Arc::new(sink(&schema).await),
        context: stage_context("postgres", outbound.clone()).unwrap(),
    };
    worker.run(&mut assignment("uploads.received", records.collect())).await.unwrap();
    assert_eq!(schema.rows("odometer_uploads").await.as_array().unwrap().len(), 2);
    let sent = outbound.sent();
    assert_eq!(sent.len(), 1);
    let headers: Vec<String> =
        sent[0].headers.iter().filter_map(|(_, value)| String::from_utf8(value.clone()?).ok()).collect();
    assert!(headers.iter().any(|value| value == "bad_row"), "{headers:?}");
    assert!(headers.iter().any(|value| value.contains("mileage_data.user_claimed_mileage")), "{headers:?}");
    schema.drop().await;
}

#[tokio::test]
async fn what_the_database_alone_can_refuse_names_upload_and_constraint_and_a_retryable_error_is_retried() {
    let schema = Schema::new().await;
    let sink = sink(&schema).await;
    let story = Story::new(1, 1);
    let header = UploadHeader { image_hash: "no hash".into(), ..story.header.clone() };
    let event = Story { header, ..story.clone() }.received();
    let Err(SinkError::BadRow(detail)) = sink.write(&envelopes([event])).await else { panic!("a bad row") };
    assert!(detail.contains("odometer_uploads_image_hash_check"), "{detail}");
    assert!(detail.contains(&story.header.upload_id.to_string()), "{detail}");

    sqlx::query("alter table mileage_data rename to away").execute(&schema.pool).await.unwrap();
    let missing = sink.write(&envelopes([story.received()])).await;
    assert!(matches!(missing, Err(SinkError::Retry(_))), "{missing:?}");
    let start = PostgresConfig::default().build(schema.pool.clone()).await;
    assert!(matches!(start, Err(PostgresStartError::Missing("mileage_data"))), "{start:?}");
    schema.drop().await;
}

#[tokio::test]
async fn a_lock_that_is_held_longer_than_the_statement_timeout_is_a_retryable_error_and_not_a_bad_row() {
    let schema = Schema::new().await;
    let story = Story::new(1, 1);
    let config = PostgresConfig { statement_timeout: Duration::from_millis(50) };
    let sink = config.build(schema.pool.clone()).await.unwrap();
    write(&sink, [story.received()]).await;
    let mut holder = schema.pool.begin().await.unwrap();
    sqlx::query("select 1 from odometer_uploads for update").execute(&mut *holder).await.unwrap();
    let waited = sink.write(&envelopes([story.graded()])).await;
    assert!(matches!(waited, Err(SinkError::Retry(_))), "{waited:?}");
    holder.rollback().await.unwrap();
    write(&sink, [story.graded()]).await;
    schema.drop().await;
}

#[tokio::test]
async fn a_sealed_name_of_an_erased_user_is_null_and_the_row_stands() {
    let schema = Schema::new().await;
    let story = Story::new(1, 1);
    let sealed = UserKey::generate().seal(UploadId(Uuid::nil()), "IMG.jpg").unwrap();
    let stamp = Stamp { original_filename: Some(sealed), ..story.stamp.clone() };
    write(&sink(&schema).await, [Story { stamp, ..story }.received()]).await;
    assert_eq!(schema.rows("odometer_uploads").await[0]["original_filename"], Value::Null);
    schema.drop().await;
}
