//! An upload in doubt: it is kept for a person with the verdict that asks for one, and decided by them once.

use schemas::events::{Fault, Review};

use super::*;

fn unsure(n: u128, km: i64) -> OdometerRead {
    let mut event = upload(n, km);
    let reading = event.reading.as_mut().unwrap();
    reading.candidates[0].confidence = Decimal::new(41, 2);
    reading.best = reading.candidates.first().cloned();
    event
}

/// The record of an upload that a person has decided, as the gateway writes it.
fn decided_by(record: &OdometerRead, mileage: Option<i64>) -> OdometerRead {
    let mut record = record.clone();
    record.header.event_id = schemas::ids::derived(record.header.event_id, "review", 0);
    record.review = Some(Review {
        reviewer_id: UserId(Uuid::from_u128(500)),
        decided_at: NOW,
        mileage: mileage.map(Decimal::from),
        unit: None,
        reason: mileage.is_none().then_some(Reason::ReviewRejected),
        notes: None,
    });
    record
}

async fn kept(database: &Database) -> Vec<(Uuid, String, OdometerRead)> {
    let rows: Vec<(Uuid, String, sqlx::types::Json<OdometerRead>)> =
        sqlx::query_as("select upload_id, reason, record from reviews order by accepted_at")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    rows.into_iter().map(|(upload, reason, record)| (upload, reason, record.0)).collect()
}

#[tokio::test]
async fn what_is_in_doubt_is_kept_for_a_person_with_its_verdict_and_nothing_else_is() {
    let database = Database::new().await;
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    let uploads = [upload(0, 50_310), unsure(1, 50_400), unsure(1, 50_400), upload(2, 50_500)];
    let records = (0..).zip(&uploads).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    let verdicts: Vec<_> = decided(&outbound.sent()).iter().map(|event| event.verdict).collect();
    assert_eq!(verdicts, [Verdict::Verified, Verdict::Review, Verdict::Verified]);
    let kept = kept(&database).await;
    assert_eq!(kept.len(), 1);
    let (upload_id, reason, record) = &kept[0];
    assert_eq!((*upload_id, reason.as_str()), (unsure(1, 50_400).header.upload_id.0, "low_confidence"));
    let mut expected = unsure(1, 50_400);
    let reading = expected.reading.as_mut().unwrap();
    reading.detected_text = None;
    reading.attempts.clear();
    assert_eq!(record, &expected, "as it was read, without its words and attempts");
    database.drop().await;
}

#[tokio::test]
async fn a_persons_decision_is_taken_once_in_its_place_and_pays_what_was_driven() {
    let database = Database::new().await;
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    let (doubtful, turned_down) = (unsure(1, 50_400), unsure(2, 50_450));
    let approval = decided_by(&doubtful, Some(50_401));
    let records = [
        upload(0, 50_310),
        doubtful.clone(),
        turned_down.clone(),
        approval.clone(),
        approval.clone(),
        decided_by(&turned_down, None),
        // Another decision about the same upload is no second one.
        decided_by(&doubtful, Some(50_402)),
        upload(3, 50_500),
    ];
    let records: Vec<_> = (0..).zip(&records).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    let seen: Vec<_> = decided(&outbound.sent())
        .iter()
        .map(|event| (event.verdict, event.distance_km, event.review.is_some()))
        .collect();
    let expected = [
        (Verdict::Verified, Some(Decimal::ZERO), false),
        (Verdict::Review, None, false),
        (Verdict::Review, None, false),
        (Verdict::Verified, Some(91.into()), true),
        (Verdict::Rejected, None, true),
        (Verdict::Verified, Some(99.into()), false),
    ];
    assert_eq!(seen, expected);
    let events = decided(&outbound.sent());
    assert_ne!(events[1].header.event_id, events[3].header.event_id);
    assert_eq!(kept(&database).await.len(), 2, "a decision opens no review");
    database.drop().await;
}

#[tokio::test]
async fn an_upload_that_nobody_looks_at_in_time_is_turned_down_without_a_word_of_fraud() {
    let database = Database::new().await;
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    let doubtful = unsure(1, 50_400);
    let mut expired = decided_by(&doubtful, None);
    let review = expired.review.as_mut().unwrap();
    (review.reviewer_id, review.reason) = (Review::NOBODY, Some(Reason::ReviewTimeout));
    let records = [upload(0, 50_310), doubtful.clone(), expired, decided_by(&doubtful, Some(50_401))];
    let records: Vec<_> = (0..).zip(&records).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    let events = decided(&outbound.sent());
    let seen: Vec<_> = events.iter().map(|event| (event.verdict, event.reason)).collect();
    let expected = [
        (Verdict::Verified, None),
        (Verdict::Review, Some(Reason::LowConfidence)),
        (Verdict::Rejected, Some(Reason::ReviewTimeout)),
    ];
    assert_eq!(seen, expected, "and a person's decision after that is none");
    assert_eq!(events[2].detail.as_deref(), Some("nobody has looked at the photo in time"));
    database.drop().await;
}

async fn appealable(database: &Database) -> Vec<(Uuid, String, OdometerRead)> {
    let rows: Vec<(Uuid, String, sqlx::types::Json<OdometerRead>)> =
        sqlx::query_as("select upload_id, reason, record from rejections order by accepted_at")
            .fetch_all(&database.pool)
            .await
            .unwrap();
    rows.into_iter().map(|(upload, reason, record)| (upload, reason, record.0)).collect()
}

#[tokio::test]
async fn what_a_rule_turns_down_is_kept_for_an_appeal_by_which_a_person_overturns_it_in_its_place() {
    let database = Database::new().await;
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    // Misread: a lower number than the vehicle's last, and a photo that was measured as too dark.
    let (back, mut dark, mut locked) = (upload(1, 40_400), upload(2, 50_450), upload(3, 50_500));
    let fault = Fault { reason: Reason::TooDark, detail: "mean brightness 9 < 20".into() };
    (dark.fault, dark.reading) = (Some(fault), None);
    locked.stamp.account_active = false;
    let records = [upload(0, 50_310), back.clone(), dark.clone(), locked, upload(4, 50_600)];
    let records: Vec<_> = (0..).zip(&records).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    let kept = appealable(&database).await;
    let reasons: Vec<_> = kept.iter().map(|(upload, reason, _)| (*upload, reason.as_str())).collect();
    let expected = [(back.header.upload_id.0, "rollback"), (dark.header.upload_id.0, "too_dark")];
    assert_eq!(reasons, expected, "a locked account is no matter for a person who looks at photos");
    assert!(kept.iter().all(|(.., record)| record.fault.is_none()), "what the person looks past");

    // Both are overturned after a newer photo was verified: within their places, and paid for nothing that is paid already.
    let approvals = [decided_by(&kept[0].2, Some(50_400)), decided_by(&kept[1].2, Some(50_450))];
    let records: Vec<_> =
        (5..).zip(&approvals).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    let events = decided(&outbound.sent());
    let seen: Vec<_> =
        events.iter().map(|event| (event.verdict, event.distance_km, event.review.is_some())).collect();
    let expected = [
        (Verdict::Verified, Some(Decimal::ZERO), false),
        (Verdict::Rejected, None, false),
        (Verdict::Rejected, None, false),
        (Verdict::Rejected, None, false),
        (Verdict::Verified, Some(290.into()), false),
        (Verdict::Verified, Some(Decimal::ZERO), true),
        (Verdict::Verified, Some(Decimal::ZERO), true),
    ];
    assert_eq!(seen, expected);
    assert_eq!(events[6].final_mileage, Some(50_450.into()));
    database.drop().await;
}
