//! What comes again long after it was decided, on a real Postgres: it is not looked for at first, and is dropped all the same.

use runtime::fence::Guards;
use runtime::testing::{assignment, record};
use schemas::ids::EventId;
use uuid::Uuid;

use crate::limits::reward;
use crate::support::NOW;
use crate::{Database, TOPIC, decided, upload};

/// A whole batch, so that what follows is decided in later ones.
const BATCH: u32 = 200;

#[tokio::test]
async fn an_event_and_an_upload_that_come_again_in_a_later_batch_are_dropped_and_their_neighbours_decided() {
    let database = Database::new().await;
    let of = |n: u32, vehicle: u32| {
        let mut upload = upload(n.into(), 50_000 + i64::from(n));
        upload.header.vehicle_id.0 = Uuid::from_u128(vehicle.into());
        upload
    };
    let mut uploads: Vec<_> = (0..BATCH).map(|n| of(n, n % 20)).collect();
    let mut same_upload = of(7, 7);
    same_upload.header.event_id = EventId(Uuid::from_u128(99_999));
    uploads.extend([of(BATCH, 0), of(3, 3), same_upload, of(BATCH + 1, 1)]);
    let records = (0..).zip(&uploads).map(|(offset, event)| record(event, offset).unwrap()).collect();
    let (worker, outbound) = database.worker("one", Guards::On, NOW);
    let mut lane = assignment(TOPIC, records);
    worker.run(&mut lane).await.unwrap();
    assert_eq!(lane.lane.frontier(), i64::from(BATCH) + 4);
    assert_eq!(decided(&outbound.sent()).len(), BATCH as usize + 2);
    let state = database.state().await;
    let reasons: Vec<_> = (201..=202).map(|row| state["decisions"][row]["reason"].clone()).collect();
    assert_eq!(reasons, ["duplicate_event", "duplicate_event"]);
    database.drop().await;
}

#[tokio::test]
async fn a_reward_that_comes_again_in_a_later_batch_is_charged_no_second_time() {
    let database = Database::with_drivers().await;
    let mut rewards: Vec<_> =
        (0..BATCH).map(|n| reward(n.into(), u128::from(1 + n % 2), n.into(), 1)).collect();
    rewards.extend([reward(5, 2, 5, 1), reward(BATCH.into(), 1, 900, 1)]);
    let records = (0..).zip(&rewards).map(|(offset, event)| record(event, offset).unwrap()).collect();
    let (worker, outbound) = database.limit_check("one", Guards::On, NOW);
    worker.run(&mut assignment("rewards.calculated", records)).await.unwrap();
    assert_eq!(outbound.sent().len(), BATCH as usize + 1);
    assert_eq!(database.unbalanced().await, 0);
    assert_eq!(database.limits().await["decisions"][200]["reason"], "duplicate_event");
    database.drop().await;
}
