//! A vehicle that changes hands is met in two partitions.

use runtime::deciding::DecidingWorker;
use runtime::fence::Guards;
use runtime::source::Assignment;
use runtime::testing::{assignment, record};
use rust_decimal::Decimal;
use schemas::events::{OdometerRead, Verdict};
use schemas::ids::UserId;
use uuid::Uuid;

use crate::support::NOW;
use crate::{Database, FraudCheck, TOPIC, decided, upload};

fn of(owner: u128, n: u128, km: i64) -> OdometerRead {
    let mut event = upload(n, km);
    event.header.user_id = UserId(Uuid::from_u128(owner));
    event
}

/// Records of one of the partitions.
fn lane((partition, from): (i32, i64), uploads: &[OdometerRead]) -> Assignment {
    let records = (from..).zip(uploads).map(|(offset, event)| {
        let mut record = record(event, offset).unwrap();
        record.position.partition = partition;
        record
    });
    Assignment { partition, ..assignment(TOPIC, records.collect()) }
}

/// Decides records of a partition, of which the first stands at an offset.
async fn run(worker: &DecidingWorker<FraudCheck>, at: (i32, i64), uploads: &[OdometerRead]) {
    worker.run(&mut lane(at, uploads)).await.unwrap();
}

#[tokio::test]
async fn a_vehicle_is_one_row_over_its_owners_and_the_next_one_begins_where_the_last_one_ended() {
    let database = Database::new().await;
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    run(&worker, (0, 0), &[of(1, 0, 50_310), of(1, 1, 50_400)]).await;
    run(&worker, (1, 0), &[of(2, 3, 50_390), of(2, 4, 50_450), of(2, 5, 50_500)]).await;
    // What is left of the first owner's is decided late.
    run(&worker, (0, 2), &[of(1, 2, 50_430)]).await;
    let found: Vec<_> = decided(&outbound.sent())
        .iter()
        .map(|event| (event.verdict, event.distance_km, event.baseline))
        .collect();
    let expected = [
        (Verdict::Verified, Some(Decimal::ZERO), true),
        (Verdict::Verified, Some(90.into()), false),
        (Verdict::Rejected, None, false),
        (Verdict::Verified, Some(Decimal::ZERO), true),
        (Verdict::Verified, Some(50.into()), false),
        (Verdict::Verified, Some(Decimal::ZERO), false),
    ];
    assert_eq!(found, expected);
    let state = database.state().await;
    let [vehicle] = &state["vehicles"].as_array().unwrap()[..] else { panic!("one row: {state}") };
    assert_eq!(vehicle["user_id"], Uuid::from_u128(2).to_string());
    assert_eq!((&vehicle["last_km"], &vehicle["highest_km"]), (&50_500.0.into(), &50_500.0.into()));
    database.drop().await;
}

#[tokio::test]
async fn owners_whose_partitions_are_decided_at_once_are_not_paid_for_the_same_way() {
    let database = Database::new().await;
    let (one, first) = database.worker("one", Guards::On, NOW);
    let (two, second) = database.worker("two", Guards::On, NOW);
    run(&one, (0, 0), &[of(1, 0, 50_310)]).await;
    let theirs: Vec<_> = (1..40).map(|n| of(1, n, 50_310 + 5 * i64::try_from(n).unwrap())).collect();
    let ours: Vec<_> = (1..40).map(|n| of(2, 100 + n, 50_310 + 7 * i64::try_from(n).unwrap())).collect();
    tokio::join!(run(&one, (0, 1), &theirs), run(&two, (1, 0), &ours));
    let paid: Decimal = [first, second]
        .iter()
        .flat_map(|outbound| decided(&outbound.sent()))
        .filter_map(|event| event.distance_km)
        .sum();
    let state = database.state().await;
    let highest: Decimal = state["vehicles"][0]["highest_km"].to_string().parse().unwrap();
    assert!(paid <= highest - Decimal::from(50_310), "{paid} km of {highest}");
    assert_eq!(state["vehicles"].as_array().unwrap().len(), 1);
    database.drop().await;
}
