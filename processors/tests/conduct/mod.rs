//! What is kept of drivers over batches, beside each other, and folded back from what was published.

use processors::fraud_check::input::FraudInput;
use runtime::fence::Guards;
use runtime::refold::{Recorded, Refolds as _};
use runtime::testing::{assignment, record};
use runtime::{Envelope, Position};
use schemas::events::{OdometerRead, Verdict};
use schemas::ids::UserId;
use schemas::reason::Reason;
use serde_json::Value;
use uuid::Uuid;

use crate::support::NOW;
use crate::{Database, TOPIC, decided, upload};

/// The n-th photo of a driver with a vehicle of their own, accepted so many minutes after the first.
fn photo(driver: u128, n: u128, minutes: i64, km: i64) -> OdometerRead {
    let mut event = upload(100 * driver + n, km);
    event.header.user_id = UserId(Uuid::from_u128(driver));
    event.header.vehicle_id.0 = Uuid::from_u128(1_000 + driver);
    event.header.accepted_at.0 = upload(0, 0).header.accepted_at.0 + minutes * 60_000_000;
    event.stamp.captured_at = None;
    event
}

/// Of two drivers in turns: one sends a photo a minute, the other three of a mileage that was passed and then a good one.
fn days() -> Vec<OdometerRead> {
    let many = (0..18).map(|n| photo(1, n, i64::try_from(n).unwrap(), 50_310));
    let back = [50_310, 49_000, 49_000, 49_000, 50_320].into_iter().zip(0..);
    let back = back.map(|(km, n)| photo(2, n, 60 * i64::try_from(n).unwrap(), km));
    let (mut many, mut back, mut days) = (many, back, Vec::new());
    loop {
        let before = days.len();
        days.extend(many.next());
        days.extend(back.next());
        if days.len() == before {
            return days;
        }
    }
}

async fn conducts(database: &Database) -> Value {
    sqlx::query_scalar("select jsonb_agg(to_jsonb(c) order by user_id) from driver_conduct c")
        .fetch_one(&database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn conduct_is_counted_over_batches_and_is_the_same_in_any_order_of_drivers_and_folded_back() {
    let (database, other) = (Database::new().await, Database::new().await);
    let days = days();
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    for (batch, events) in (0..).zip(days.chunks(4)) {
        let records = (4 * batch..).zip(events).map(|(offset, event)| record(event, offset).unwrap());
        worker.run(&mut assignment(TOPIC, records.collect())).await.unwrap();
    }
    let decisions = decided(&outbound.sent());
    let last = |driver: u128| {
        let own = decisions.iter().filter(|event| event.header.user_id.0.as_u128() == driver);
        own.map(|event| (event.verdict, event.reason)).collect::<Vec<_>>()
    };
    let velocity = (Verdict::Review, Some(Reason::Velocity));
    assert_eq!(last(1)[15..], [(Verdict::Verified, None), velocity, velocity]);
    let rollback = (Verdict::Rejected, Some(Reason::Rollback));
    assert_eq!(last(2)[1..4], [rollback; 3]);
    assert_eq!(last(2)[4], (Verdict::Review, Some(Reason::EarlierRejections)), "the account's standing");
    let kept = conducts(&database).await;
    assert_eq!(kept[0]["uploads"].as_array().unwrap().len(), 18);
    assert_eq!(
        (kept[1]["frauds"].as_array().unwrap().len(), &kept[0]["frauds"]),
        (3, &serde_json::json!([]))
    );

    // One driver after the other, in one batch.
    let (worker, again) = other.worker("one", Guards::On, NOW);
    let mut sorted = days.clone();
    sorted.sort_by_key(|event| event.header.user_id);
    let records = (0..).zip(&sorted).map(|(offset, event)| record(event, offset).unwrap()).collect();
    worker.run(&mut assignment(TOPIC, records)).await.unwrap();
    assert_eq!(again.sent().len(), outbound.sent().len());
    assert_eq!(conducts(&other).await, kept);
    other.drop().await;

    // And from what was published, after the rows are lost.
    sqlx::raw_sql("truncate driver_conduct, vehicle_readings, driver_weeks, reviews, rejections")
        .execute(&database.pool)
        .await
        .unwrap();
    let recorded: Vec<_> = (0..)
        .zip(days.iter().zip(decisions))
        .map(|(offset, (event, decided))| {
            let payload = FraudInput::Read(Box::new(event.clone()));
            let position = Position { topic: TOPIC.into(), partition: 0, offset };
            let record = Envelope { payload, position, timestamp_ms: 0, redrive: 0, traceparent: None };
            Recorded { record, output: Some(decided) }
        })
        .collect();
    let dependencies = database.dependencies(NOW).0;
    let mut tx = database.pool.begin().await.unwrap();
    dependencies.fraud_check().refold(&mut tx, &recorded).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(conducts(&database).await, kept);
    database.drop().await;
}
