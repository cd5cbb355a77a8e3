//! Several people at one queue of reviews: items that are claimed, their order, and two people about a large distance.

use ingest::Role;
use ingest::config::ReviewRules;
use schemas::events::OdometerRead;
use schemas::ids::UploadId;
use schemas::reason::Reason;
use serde_json::{Value, json};

use crate::reviews::{code, decide, doubt, person, published};
use crate::support::{Bench, Response};

async fn claim(bench: &Bench, upload: UploadId, token: &str) -> Response {
    let head = format!(
        "POST /v1/reviews/{upload}/claim HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-length: 0"
    );
    bench.send(&head, b"").await
}

/// What this person is shown.
async fn queue(bench: &Bench, token: &str) -> Vec<Value> {
    let page = bench.get("/v1/reviews", token).await.json();
    page["items"].as_array().unwrap().iter().map(|item| item["upload_id"].clone()).collect()
}

/// An upload whose vehicle's last verified reading was this.
async fn doubt_after(bench: &Bench, user: schemas::ids::UserId, last_km: &str) -> OdometerRead {
    let record = doubt(bench, user, 0).await;
    let signals = json!({ "checks": {}, "vehicle_before": { "last_km": last_km, "unit_shown": "km" } });
    sqlx::query("update reviews set signals = $2 where upload_id = $1")
        .bind(record.header.upload_id.0)
        .bind(signals)
        .execute(&bench.pool)
        .await
        .unwrap();
    record
}

fn approve(mileage: &str) -> Value {
    json!({ "decision": "approve", "mileage": mileage, "unit": "km" })
}

#[tokio::test]
async fn what_one_person_has_claimed_nobody_else_is_shown_or_may_decide_until_the_time_is_over() {
    let bench = Bench::start().await;
    let (driver, driver_token) = bench.driver().await;
    let ((_, one), (reviewer, other)) =
        (person(&bench, Role::Reviewer).await, person(&bench, Role::Reviewer).await);
    let upload = doubt(&bench, driver, 0).await.header.upload_id;
    let held = claim(&bench, upload, &one).await;
    assert_eq!(held.status, 200, "{held:?}");
    assert!(held.json()["claimed_until"].is_string() && held.json()["photo"].is_string());
    assert_eq!((queue(&bench, &one).await, queue(&bench, &other).await), (vec![json!(upload)], vec![]));
    for refused in [claim(&bench, upload, &other).await, decide(&bench, upload, &other, &approve("5")).await]
    {
        assert_eq!(code(&refused), (409, "review_held".into()));
        let wait = refused.json()["retry_after"].as_u64().unwrap();
        assert!((590..=601).contains(&wait), "{wait}");
    }
    assert_eq!(claim(&bench, upload, &one).await.status, 200, "again");
    sqlx::query("update reviews set claimed_until = now()").execute(&bench.pool).await.unwrap();
    assert_eq!(queue(&bench, &other).await, [json!(upload)]);
    assert_eq!(claim(&bench, upload, &other).await.status, 200);
    assert_eq!(code(&decide(&bench, upload, &one, &approve("5")).await), (409, "review_held".into()));
    assert_eq!(decide(&bench, upload, &other, &approve("5")).await.status, 202);
    // Who claims what is decided, their own or nothing at all is told so.
    assert_eq!(code(&claim(&bench, upload, &one).await), (409, "review_decided".into()));
    let own = doubt(&bench, reviewer, 0).await.header.upload_id;
    assert_eq!(code(&claim(&bench, own, &other).await), (403, "own_upload".into()));
    assert_eq!(code(&claim(&bench, own, &driver_token).await), (403, "role_missing".into()));
    let unknown = UploadId(uuid::Uuid::now_v7());
    assert_eq!(code(&claim(&bench, unknown, &one).await), (404, "review_not_found".into()));
}

#[tokio::test]
async fn a_point_of_risk_is_worth_six_hours_of_waiting() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    let (_, token) = person(&bench, Role::Reviewer).await;
    let mut ids = Vec::new();
    // The last was opened by a release before, which ranks nothing.
    for (day, risk) in [(3, Some(1_i16)), (3, Some(5)), (1, Some(0)), (2, None)] {
        let id = doubt(&bench, driver, day).await.header.upload_id;
        sqlx::query(
            "update reviews set risk = coalesce($2, 0), ranked_at = accepted_at - $2::int * interval '6 hours'
             where upload_id = $1",
        )
        .bind(id.0)
        .bind(risk)
        .execute(&bench.pool)
        .await
        .unwrap();
        ids.push(json!(id));
    }
    let expected = [ids[2].clone(), ids[1].clone(), ids[3].clone(), ids[0].clone()];
    assert_eq!(queue(&bench, &token).await, expected);
    let first = bench.get("/v1/reviews?limit=2", &token).await.json();
    assert_eq!(first["items"][1]["risk"], 5);
    let next = first["next_cursor"].as_str().unwrap();
    let rest = bench.get(&format!("/v1/reviews?cursor={next}"), &token).await.json();
    assert_eq!(rest["items"][0]["upload_id"], expected[2]);
}

#[tokio::test]
async fn a_driver_is_asked_for_another_photo() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    let (_, token) = person(&bench, Role::Reviewer).await;
    let upload = doubt(&bench, driver, 0).await.header.upload_id;
    let another = json!({ "decision": "another_photo", "notes": "the thumb covers it" });
    assert_eq!(decide(&bench, upload, &token, &another).await.status, 202);
    assert_eq!(decide(&bench, upload, &token, &another).await.status, 200);
    let review = published(&bench).await.pop().unwrap().review.unwrap();
    assert_eq!((review.mileage, review.reason), (None, Some(Reason::AnotherPhoto)));
    assert!(Reason::AnotherPhoto.advice().contains("take a new photo"));
}

#[tokio::test]
async fn a_large_distance_is_approved_by_two_people_who_see_the_same() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    let ((_, one), (second, other)) =
        (person(&bench, Role::Reviewer).await, person(&bench, Role::Reviewer).await);
    let record = doubt_after(&bench, driver, "50000").await;
    let upload = record.header.upload_id;
    assert_eq!(claim(&bench, upload, &one).await.status, 200);
    let first = decide(&bench, upload, &one, &approve("51001")).await;
    assert_eq!((first.status, first.json()["needs"].clone()), (202, json!("second_person")), "{first:?}");
    assert_eq!(
        (first.json()["decision"].clone(), first.json()["claimed_until"].clone()),
        (Value::Null, Value::Null)
    );
    assert_eq!(published(&bench).await, [], "one person pays nothing");
    assert_eq!(decide(&bench, upload, &one, &approve("51001")).await.status, 200, "the same again");
    assert_eq!(code(&decide(&bench, upload, &one, &approve("51002")).await), (409, "review_decided".into()));
    assert_eq!(code(&claim(&bench, upload, &one).await), (409, "another_person_needed".into()));
    assert_eq!((queue(&bench, &one).await, queue(&bench, &other).await), (vec![], vec![json!(upload)]));
    let shown = bench.get(&format!("/v1/reviews/{upload}"), &other).await.json();
    assert_eq!(shown["opinions"], json!([]), "the second looks with their own eyes");
    assert_eq!(decide(&bench, upload, &other, &approve("51001")).await.status, 202);
    let events = published(&bench).await;
    assert_eq!(events.len(), 1);
    let review = events[0].review.as_ref().unwrap();
    assert_eq!((review.mileage, review.reviewer_id), (Some(51_001.into()), second));
}

#[tokio::test]
async fn where_two_people_see_different_things_an_operator_decides() {
    let bench = Bench::start_with(|config| {
        config.reviews = ReviewRules { second_person_above_km: 100, ..config.reviews }
    })
    .await;
    let (driver, _) = bench.driver().await;
    let mut tokens = Vec::new();
    for role in [Role::Reviewer, Role::Reviewer, Role::Reviewer, Role::Operator] {
        tokens.push(person(&bench, role).await.1);
    }
    let [one, two, three, operator] = &tokens[..] else { panic!("four people") };
    let upload = doubt_after(&bench, driver, "50000").await.header.upload_id;
    assert_eq!(decide(&bench, upload, one, &approve("50101")).await.status, 202);
    let second =
        decide(&bench, upload, two, &json!({ "decision": "reject", "reason": "edited_photo" })).await;
    assert_eq!((second.status, second.json()["needs"].clone()), (202, json!("operator")));
    assert_eq!(published(&bench).await, []);
    for token in [one, two, three] {
        assert_eq!(queue(&bench, token).await, Vec::<Value>::new());
    }
    assert_eq!(
        code(&decide(&bench, upload, three, &approve("50101")).await),
        (403, "operator_needed".into())
    );
    let shown = bench.get(&format!("/v1/reviews/{upload}"), operator).await.json();
    assert_eq!(shown["opinions"][1]["decision"]["reason"], "edited_photo", "{shown}");
    assert_eq!(queue(&bench, operator).await, [json!(upload)]);
    assert_eq!(decide(&bench, upload, operator, &approve("50101")).await.status, 202);
    assert_eq!(published(&bench).await.len(), 1);
    // An operator who is the second person has decided at once.
    let upload = doubt_after(&bench, driver, "50000").await.header.upload_id;
    assert_eq!(decide(&bench, upload, one, &approve("50101")).await.status, 202);
    assert_eq!(decide(&bench, upload, operator, &json!({ "decision": "another_photo" })).await.status, 202);
    assert_eq!(published(&bench).await[1].review.as_ref().unwrap().reason, Some(Reason::AnotherPhoto));
}
