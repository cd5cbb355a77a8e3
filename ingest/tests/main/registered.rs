//! Photos of vehicles that must be registered.

use serde_json::json;
use uuid::Uuid;

use crate::support::{Bench, Form, Response, jpeg};

async fn strict() -> Bench {
    Bench::start_with(|config| config.vehicles_must_be_registered = true).await
}

async fn add(bench: &Bench, token: &str) -> String {
    let made = bench.json("POST", "/v1/vehicles", token, &json!({ "name": "Van" })).await.json();
    made["vehicle_id"].as_str().unwrap().to_owned()
}

async fn post(bench: &Bench, token: &str, seed: u32, vehicle: &str) -> Response {
    bench.post(token, &Form::photo(&jpeg(seed)).field("vehicle_id", vehicle)).await
}

/// Photos in the store.
fn kept(bench: &Bench) -> usize {
    std::fs::read_dir(bench.folder.path().join("photos"))
        .map_or(0, |users| users.flatten().map(|user| std::fs::read_dir(user.path()).unwrap().count()).sum())
}

#[tokio::test]
async fn a_photo_of_an_unknown_vehicle_is_refused_before_it_is_kept() {
    let bench = strict().await;
    let (_, token) = bench.driver().await;
    let problem = post(&bench, &token, 1, &Uuid::new_v4().to_string()).await;
    let problem = problem.assert_problem(404, "vehicle_not_found");
    assert_eq!(problem["field"], "vehicle_id");
    bench.assert_nothing_left();
    assert_eq!(kept(&bench), 0);
    let vehicles: i64 =
        sqlx::query_scalar("select count(*) from vehicles").fetch_one(&bench.pool).await.unwrap();
    assert_eq!(vehicles, 0, "nobody has added it");
}

#[tokio::test]
async fn a_photo_of_anothers_vehicle_is_refused_before_it_is_kept() {
    let bench = strict().await;
    let ((_, owner), (_, other)) = (bench.driver().await, bench.driver().await);
    let vehicle = add(&bench, &owner).await;
    post(&bench, &other, 1, &vehicle).await.assert_problem(404, "vehicle_not_found");
    bench.assert_nothing_left();
    assert_eq!(kept(&bench), 0);
    assert_eq!(post(&bench, &owner, 1, &vehicle).await.status, 202);
}

#[tokio::test]
async fn a_retired_vehicle_takes_no_photo_until_it_is_brought_back_and_shows_what_it_took() {
    let bench = strict().await;
    let (_, token) = bench.driver().await;
    let vehicle = add(&bench, &token).await;
    let first = post(&bench, &token, 1, &vehicle).await;
    assert_eq!(first.status, 202);
    let set = async |retired: bool| {
        let path = format!("/v1/vehicles/{vehicle}");
        assert_eq!(bench.json("PATCH", &path, &token, &json!({ "retired": retired })).await.status, 200);
    };
    set(true).await;
    post(&bench, &token, 2, &vehicle).await.assert_problem(409, "vehicle_retired");
    assert_eq!(kept(&bench), 1);
    let again = post(&bench, &token, 1, &vehicle).await;
    assert_eq!((again.status, again.json()), (200, first.json()), "the same photo again");
    set(false).await;
    assert_eq!(post(&bench, &token, 2, &vehicle).await.status, 202);
}

#[tokio::test]
async fn who_names_no_vehicle_drives_the_one_that_every_account_has() {
    let bench = strict().await;
    let (_, token) = bench.driver().await;
    assert_eq!(bench.post(&token, &Form::photo(&jpeg(1))).await.status, 202);
}

#[tokio::test]
async fn an_upload_shows_its_photo_to_its_driver_and_to_nobody_else() {
    let bench = strict().await;
    let ((_, token), (_, other)) = (bench.driver().await, bench.driver().await);
    let photo = jpeg(7);
    let upload = bench.post(&token, &Form::photo(&photo)).await.json();
    let path = format!("/v1/uploads/{}/photo", upload["upload_id"].as_str().unwrap());
    let shown = bench.get(&path, &token).await;
    assert_eq!((shown.status, shown.bytes), (200, photo));
    for header in
        ["content-type: image/jpeg", "cache-control: private, no-store", "x-content-type-options: nosniff"]
    {
        assert!(shown.head.contains(header), "{}", shown.head);
    }
    bench.get(&path, &other).await.assert_problem(404, "upload_not_found");
}
