//! Uploads of drivers who have uploaded before, at the same time: they are looked up, reserved and marked together.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use schemas::ids::{UploadId, UserId};

use crate::support::{Bench, Form, jpeg};
use crate::uploads::four_photos_under_one_key;

/// The first photo of the drivers below; no test posts it again.
const FIRST: u32 = 100;

/// Tokens of drivers whose vehicle and key exist.
async fn known(bench: &Bench, count: u32) -> Vec<(UserId, String)> {
    let mut drivers = Vec::new();
    for n in 0..count {
        let (user, token) = bench.driver().await;
        assert_eq!(bench.post(&token, &Form::photo(&jpeg(FIRST + n))).await.status, 202);
        drivers.push((user, token));
    }
    drivers
}

#[tokio::test]
async fn each_of_many_uploads_at_once_has_its_own_event_photo_and_mark() {
    let bench = Bench::start().await;
    let drivers = known(&bench, 8).await;
    let photos: Vec<Vec<u8>> = (1..=8).map(jpeg).collect();
    let posts = drivers.iter().zip(&photos).map(|((_, token), photo)| async {
        bench.post(token, &Form::photo(photo).field("claimed_mileage", &format!("{}", photo.len()))).await
    });
    let responses = join_all(posts).await;
    assert!(responses.iter().all(|response| response.status == 202), "{responses:?}");
    let events = bench.kafka.events();
    for (((user, _), photo), response) in drivers.iter().zip(&photos).zip(&responses) {
        let id = response.json()["upload_id"].as_str().unwrap().to_owned();
        let event = events.iter().find(|event| event.header.upload_id.to_string() == id).unwrap();
        assert_eq!((event.header.user_id, event.stamp.first_holder), (*user, None));
        assert_eq!(event.stamp.claimed_mileage.unwrap(), photo.len().into());
        assert_eq!(&std::fs::read(bench.folder.path().join(&event.header.object_key)).unwrap(), photo);
    }
    let marked = async {
        let open = "select count(*) from photo_hashes where published_at is null";
        while sqlx::query_scalar::<_, i64>(open).fetch_one(&bench.pool).await.unwrap() > 0 {}
    };
    tokio::time::timeout(Duration::from_secs(60), marked).await.unwrap();
}

#[tokio::test]
async fn of_known_drivers_who_post_one_photo_at_once_exactly_one_is_its_first_holder() {
    let bench = Bench::start().await;
    let drivers = known(&bench, 8).await;
    let form = Form::photo(&jpeg(1));
    let responses = join_all(drivers.iter().map(|(_, token)| bench.post(token, &form))).await;
    assert!(responses.iter().all(|response| response.status == 202), "{responses:?}");
    let ours = bench.kafka.events().split_off(drivers.len());
    let firsts: Vec<_> = ours.iter().filter(|event| event.stamp.first_holder.is_none()).collect();
    assert_eq!((ours.len(), firsts.len()), (8, 1), "exactly one is first");
    let holders: BTreeSet<(UploadId, UserId)> = ours
        .iter()
        .filter_map(|event| event.stamp.first_holder)
        .map(|holder| (holder.upload_id, holder.user_id))
        .collect();
    assert_eq!(holders, BTreeSet::from([(firsts[0].header.upload_id, firsts[0].header.user_id)]));
}

#[tokio::test]
async fn a_known_driver_who_posts_one_photo_many_times_at_once_has_one_upload() {
    // A request that waits longer than this for another's publication publishes the same bytes itself.
    let bench = Bench::start_with(|config| config.timeouts.publish = Duration::from_secs(60)).await;
    let (_, token) = known(&bench, 1).await.remove(0);
    let form = Form::photo(&jpeg(1));
    let responses = join_all((0..8).map(|_| bench.post(&token, &form))).await;
    let documents: BTreeSet<&str> = responses.iter().map(|response| response.body.as_str()).collect();
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(responses.iter().filter(|response| response.status == 202).count(), 1);
    assert_eq!(bench.kafka.uploads().len(), 2);
}

#[tokio::test]
async fn one_idempotency_key_of_a_known_driver_with_several_photos_at_once_publishes_one_of_them() {
    let bench = Bench::start().await;
    let (_, token) = known(&bench, 1).await.remove(0);
    assert_eq!(four_photos_under_one_key(&bench, &token).await, [202, 422, 422, 422]);
    assert_eq!(bench.kafka.uploads().len(), 2);
}

#[tokio::test]
async fn an_upload_that_waits_for_another_transaction_does_not_hold_the_others_up() {
    let bench = Bench::start().await;
    let drivers = known(&bench, 3).await;
    // The holder of the first driver's photo, as a transaction that stands still would hold it.
    let mut other = bench.pool.begin().await.unwrap();
    sqlx::query("select from photo_first_holders for update").execute(&mut *other).await.unwrap();
    let same = Form::photo(&jpeg(FIRST));
    let mut waiting = std::pin::pin!(bench.post(&drivers[1].1, &same));
    let passing = Form::photo(&jpeg(1));
    tokio::select! {
        response = &mut waiting => panic!("nobody may decide who is first yet: {response:?}"),
        response = bench.post(&drivers[2].1, &passing) => assert_eq!(response.status, 202, "{response:?}"),
    }
    other.commit().await.unwrap();
    assert_eq!(waiting.await.status, 202);
    let last = bench.kafka.events().pop().unwrap();
    assert_eq!(last.stamp.first_holder.unwrap().user_id, drivers[0].0);
}
