//! `POST /v1/uploads/{id}/appeal`.

use futures::future::join_all;
use ingest::Role;
use schemas::events::OdometerRead;
use schemas::ids::{UploadId, UserId};
use serde_json::json;
use uuid::Uuid;

use crate::reviews::{code, decide, doubt, person, published};
use crate::support::{Bench, Response};

/// An upload of this user that a rule has turned down so many days ago.
pub async fn rejected(bench: &Bench, user: UserId, days: i32) -> OdometerRead {
    let record = doubt(bench, user, 0).await;
    sqlx::query(
        "with moved as (delete from reviews where upload_id = $1 returning *)
         insert into rejections (upload_id, user_id, accepted_at, rejected_at, reason, detail, signals, record, risk, ranked_at)
         select upload_id, user_id, accepted_at, now() - make_interval(days => $2), 'rollback', detail, signals, record, 3, accepted_at
         from moved",
    )
    .bind(record.header.upload_id.0)
    .bind(days)
    .execute(&bench.pool)
    .await
    .unwrap();
    record
}

async fn appeal(bench: &Bench, upload: UploadId, token: &str) -> Response {
    say(bench, upload, token, "").await
}

async fn say(bench: &Bench, upload: UploadId, token: &str, body: &str) -> Response {
    let head = format!(
        "POST /v1/uploads/{upload}/appeal HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-length: {}",
        body.len()
    );
    bench.send(&head, body.as_bytes()).await
}

#[tokio::test]
async fn a_driver_appeals_once_and_a_person_decides_as_they_decide_what_is_in_doubt() {
    let bench = Bench::start().await;
    let (driver, token) = bench.driver().await;
    let (_, reviewer) = person(&bench, Role::Reviewer).await;
    let upload = rejected(&bench, driver, 1).await.header.upload_id;
    assert_eq!(bench.get("/v1/reviews", &reviewer).await.json()["items"], json!([]), "nobody has appealed");
    let responses = join_all((0..4).map(|_| appeal(&bench, upload, &token))).await;
    let mut statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 202], "{responses:?}");
    assert!(responses.iter().all(|response| response.json() == responses[0].json()), "{responses:?}");

    let waiting = bench.get("/v1/reviews", &reviewer).await.json();
    let items = waiting["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{waiting}");
    assert_eq!((&items[0]["upload_id"], &items[0]["appealed"]), (&json!(upload), &json!(true)));
    assert_eq!((&items[0]["reason"], &items[0]["risk"]), (&json!("rollback"), &json!(3)));
    let approve = json!({ "decision": "approve", "mileage": "50310", "unit": "km" });
    assert_eq!(decide(&bench, upload, &reviewer, &approve).await.status, 202);
    let events = published(&bench).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].review.as_ref().unwrap().mileage, Some(50_310.into()));
    assert_eq!(events[0].fault, None);
    // What the person has decided stands.
    assert_eq!(appeal(&bench, upload, &token).await.status, 200, "the first response again");
    assert_eq!(published(&bench).await.len(), 1);
    assert_eq!(bench.get("/v1/reviews", &reviewer).await.json()["items"], json!([]));
}

#[tokio::test]
async fn what_is_anothers_or_too_old_or_was_turned_down_by_no_rule_is_no_matter_for_an_appeal() {
    let bench = Bench::start().await;
    let (driver, token) = bench.driver().await;
    let (_, stranger) = bench.driver().await;
    let upload = rejected(&bench, driver, 1).await.header.upload_id;
    assert_eq!(code(&appeal(&bench, upload, &stranger).await), (404, "upload_not_found".into()));
    let old = rejected(&bench, driver, 15).await.header.upload_id;
    assert_eq!(code(&appeal(&bench, old, &token).await), (410, "appeal_too_late".into()));
    let unknown = UploadId(Uuid::now_v7());
    assert_eq!(code(&appeal(&bench, unknown, &token).await), (404, "upload_not_found".into()));
    // A person is asked already, and what they decide is no rule's.
    let record = doubt(&bench, driver, 0).await;
    let upload = record.header.upload_id;
    sqlx::query(
        "insert into odometer_uploads (id, user_id, vehicle_id, upload_status) values ($1, $2, $3, 'processing')",
    )
    .bind(upload.0)
    .bind(driver.0)
    .bind(record.header.vehicle_id.0)
    .execute(&bench.pool)
    .await
    .unwrap();
    assert_eq!(code(&appeal(&bench, upload, &token).await), (409, "not_appealable".into()));
    let (_, reviewer) = person(&bench, Role::Reviewer).await;
    assert_eq!(decide(&bench, upload, &reviewer, &json!({ "decision": "reject" })).await.status, 202);
    assert_eq!(code(&appeal(&bench, upload, &token).await), (409, "not_appealable".into()));
}

#[tokio::test]
async fn the_status_says_until_when_an_appeal_is_possible_and_the_reviewer_sees_what_the_driver_says() {
    let bench = Bench::start().await;
    let (driver, token) = bench.driver().await;
    let (_, reviewer) = person(&bench, Role::Reviewer).await;
    let record = rejected(&bench, driver, 1).await;
    let upload = record.header.upload_id;
    sqlx::query(
        "with o as (insert into odometer_uploads (id, user_id, vehicle_id, upload_status, created_at)
                    values ($1, $2, $3, 'rejected', now()))
         insert into mileage_data (id, upload_id, verification_status, status_rank, rejection_reason)
         values ($1, $1, 'rejected', 2, 'rollback: 10 is below 20')",
    )
    .bind(upload.0)
    .bind(driver.0)
    .bind(record.header.vehicle_id.0)
    .execute(&bench.pool)
    .await
    .unwrap();
    let path = format!("/v1/uploads/{upload}");
    let possible = bench.get(&path, &token).await.json();
    assert_eq!(possible["appeal"]["state"], "possible", "{possible}");
    assert!(possible["appeal"]["until"].is_string() && possible["appeal"]["appealed_at"].is_null());

    let refused = say(&bench, upload, &token, r#"{"text":"\u0000"}"#).await;
    assert_eq!(code(&refused), (422, "invalid_field".into()));
    assert_eq!(say(&bench, upload, &token, r#"{"text":"it is an 8"}"#).await.status, 202);
    let waiting = bench.get(&path, &token).await.json();
    assert_eq!((&waiting["appeal"]["state"], &waiting["verdict"]), (&json!("waiting"), &json!("rejected")));
    assert_eq!(
        (&waiting["appeal"]["text"], &waiting["appeal"]["until"]),
        (&json!("it is an 8"), &json!(null))
    );
    let listed = bench.get("/v1/uploads", &token).await.json();
    assert_eq!(listed["items"][0]["appeal"], waiting["appeal"], "{listed}");

    let seen = bench.get(&format!("/v1/reviews/{upload}"), &reviewer).await.json();
    assert_eq!((&seen["appeal_text"], &seen["reason"]), (&json!("it is an 8"), &json!("rollback")), "{seen}");
    assert!(seen["appealed_at"].is_string(), "{seen}");

    assert_eq!(decide(&bench, upload, &reviewer, &json!({ "decision": "reject" })).await.status, 202);
    let state = || async { bench.get(&path, &token).await.json()["appeal"]["state"].clone() };
    assert_eq!(state().await, "waiting", "the tables show the rule's verdict");
    sqlx::query("update mileage_data set status_rank = 3 where upload_id = $1")
        .bind(upload.0)
        .execute(&bench.pool)
        .await
        .unwrap();
    assert_eq!(state().await, "decided");
}
