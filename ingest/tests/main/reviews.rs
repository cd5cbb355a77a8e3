//! `/v1/reviews`.

use std::time::Duration;

use futures::future::join_all;
use ingest::Role;
use ingest::token::issue;
use runtime::clock::{Clock as _, SystemClock};
use schemas::codec;
use schemas::events::{Event as _, LookAlike, OdometerRead, Unit};
use schemas::ids::{EventId, Micros, UploadId, UserId};
use schemas::reason::Reason;
use schemas::sealed::UserKey;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Bench, Response, SCHEMAS};

/// A person with this role, and their token.
pub async fn person(bench: &Bench, role: Role) -> (UserId, String) {
    let user = UserId(Uuid::now_v7());
    let hour = Duration::from_secs(3600);
    let token =
        issue(&bench.pool, &bench.key, SCHEMAS(), (user, role), hour, SystemClock.now()).await.unwrap();
    (user, token)
}

/// An upload of this user that is in doubt, accepted on this day.
pub async fn doubt(bench: &Bench, user: UserId, day: i64) -> OdometerRead {
    let example = include_str!("../../../schemas/examples/uploads.readings/edge-low-confidence.json");
    let mut example: Value = serde_json::from_str(example).unwrap();
    let mut record: OdometerRead = serde_json::from_value(example["event"].take()).unwrap();
    record.header.user_id = user;
    record.header.upload_id = UploadId(Uuid::now_v7());
    record.header.event_id = EventId(Uuid::now_v7());
    record.header.accepted_at = Micros(record.header.accepted_at.0 + day * 86_400_000_000);
    sqlx::query(
        "insert into reviews (upload_id, user_id, accepted_at, opened_at, reason, detail, signals, record)
         values ($1, $2, $3, now(), 'low_confidence', '0.41 < 0.80', '{\"checks\": {}}', $4)",
    )
    .bind(record.header.upload_id.0)
    .bind(user.0)
    .bind(record.header.accepted_at.to_utc())
    .bind(serde_json::to_value(&record).unwrap())
    .execute(&bench.pool)
    .await
    .unwrap();
    record
}

pub async fn decide(bench: &Bench, upload: UploadId, token: &str, decision: &Value) -> Response {
    let body = decision.to_string();
    let head = format!(
        "POST /v1/reviews/{upload} HTTP/1.1\r\nauthorization: Bearer {token}\r\ncontent-length: {}",
        body.len()
    );
    bench.send(&head, body.as_bytes()).await
}

/// What is on `uploads.readings`, after the outbox was relayed.
pub async fn published(bench: &Bench) -> Vec<OdometerRead> {
    bench.relay().await;
    let decode = |payload: &[u8]| {
        let (id, datum) = codec::unframe(payload).unwrap();
        codec::decode(OdometerRead::schema(), id, datum).unwrap()
    };
    let records = bench.kafka.records("uploads.readings");
    records.iter().map(|record| decode(record.payload.as_deref().unwrap())).collect()
}

pub fn code(response: &Response) -> (u16, String) {
    (response.status, response.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_reviewer_sees_what_waits_oldest_first_and_all_that_they_decide_by() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    let (reviewer, token) = person(&bench, Role::Reviewer).await;
    let second = doubt(&bench, driver, 2).await.header.upload_id;
    let first = doubt(&bench, driver, 1).await;
    let own = doubt(&bench, reviewer, 0).await.header.upload_id;
    let page = bench.get("/v1/reviews?limit=1", &token).await.json();
    assert_eq!(page["items"][0]["upload_id"], json!(first.header.upload_id), "{page}");
    let next = page["next_cursor"].as_str().unwrap();
    let rest = bench.get(&format!("/v1/reviews?cursor={next}"), &token).await.json();
    let ids: Vec<_> = rest["items"].as_array().unwrap().iter().map(|item| &item["upload_id"]).collect();
    assert_eq!(ids, [&json!(second)], "without the own {own}");
    let shown = bench.get(&format!("/v1/reviews/{}", first.header.upload_id), &token).await.json();
    assert_eq!((&shown["reason"], &shown["detail"]), (&json!("low_confidence"), &json!("0.41 < 0.80")));
    assert_eq!(shown["vehicle_id"], json!(first.header.vehicle_id));
    assert_eq!((&shown["decision"], &shown["history"]), (&Value::Null, &json!([])));
    let read = &first.reading.as_ref().unwrap().candidates;
    assert_eq!(shown["candidates"].as_array().unwrap().len(), read.len());
    assert_eq!(shown["boxes"]["boxes"].as_array().map(Vec::is_empty), Some(false));
    assert!(!shown.to_string().contains(&driver.to_string()), "whose photo it is has no say: {shown}");
}

#[tokio::test]
async fn a_decision_goes_out_once_as_the_uploads_record_with_the_notes_sealed() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    let key = UserKey::generate();
    sqlx::query(
        "insert into user_keys values ($1, $2) on conflict (user_id) do update set key = excluded.key",
    )
    .bind(driver.0)
    .bind(key.expose())
    .execute(&bench.pool)
    .await
    .unwrap();
    let (reviewer, token) = person(&bench, Role::Reviewer).await;
    let record = doubt(&bench, driver, 0).await;
    let upload = record.header.upload_id;
    let approve = json!({ "decision": "approve", "mileage": "50310", "unit": "km", "notes": "glare on the last wheel" });
    let responses = join_all((0..4).map(|_| decide(&bench, upload, &token, &approve))).await;
    let mut statuses: Vec<u16> = responses.iter().map(|response| response.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 202], "{responses:?}");
    let document = responses[0].json();
    assert_eq!(document["decision"], json!({ "decision": "approve", "mileage": "50310", "unit": "km" }));
    assert_eq!(document["reviewer_id"], json!(reviewer));

    let events = published(&bench).await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_ne!(event.header.event_id, record.header.event_id);
    let review = event.review.as_ref().unwrap();
    assert_eq!((review.mileage, review.unit, review.reason), (Some(50_310.into()), Some(Unit::Km), None));
    assert_eq!(review.reviewer_id, reviewer);
    let notes = review.notes.as_ref().unwrap();
    assert_eq!(key.open(upload, notes).unwrap(), "glare on the last wheel");
    assert_eq!((&event.reading, &event.stamp), (&record.reading, &record.stamp));
    // It waits no longer, and nobody decides it otherwise.
    assert_eq!(bench.get("/v1/reviews", &token).await.json()["items"], json!([]));
    let (_, other) = person(&bench, Role::Operator).await;
    let reject = json!({ "decision": "reject" });
    for (who, decision) in [(&other, &approve), (&other, &reject), (&token, &reject)] {
        let refused = decide(&bench, upload, who, decision).await;
        assert_eq!(code(&refused), (409, "review_decided".into()));
    }
    assert_eq!(published(&bench).await.len(), 1);
}

#[tokio::test]
async fn a_rejection_tells_the_driver_why() {
    let bench = Bench::start().await;
    let (driver, _) = bench.driver().await;
    let (_, token) = person(&bench, Role::Operator).await;
    for (reason, expected) in
        [(json!("photo_of_screen"), Reason::PhotoOfScreen), (Value::Null, Reason::ReviewRejected)]
    {
        let upload = doubt(&bench, driver, 0).await.header.upload_id;
        let response =
            decide(&bench, upload, &token, &json!({ "decision": "reject", "reason": reason })).await;
        assert_eq!(response.status, 202, "{response:?}");
        let events = published(&bench).await;
        let review = events.last().unwrap().review.clone().unwrap();
        assert_eq!((review.mileage, review.reason), (None, Some(expected)));
    }
}

#[tokio::test]
async fn only_reviewers_decide_and_nobody_about_a_photo_of_their_own() {
    let bench = Bench::start().await;
    let (driver, driver_token) = bench.driver().await;
    let (reviewer, token) = person(&bench, Role::Reviewer).await;
    let (own, others) = (doubt(&bench, reviewer, 0).await, doubt(&bench, driver, 0).await);
    let approve = json!({ "decision": "approve", "mileage": "1", "unit": null });
    let upload = others.header.upload_id;
    for refused in [
        decide(&bench, upload, &driver_token, &approve).await,
        bench.get("/v1/reviews", &driver_token).await,
        bench.get(&format!("/v1/reviews/{upload}"), &driver_token).await,
        bench.get(&format!("/v1/reviews/{upload}/photo"), &driver_token).await,
    ] {
        assert_eq!(code(&refused), (403, "role_missing".into()));
    }
    assert_eq!(decide(&bench, upload, "none", &approve).await.status, 401);
    let refused = decide(&bench, own.header.upload_id, &token, &approve).await;
    assert_eq!(code(&refused), (403, "own_upload".into()));
    let unknown = decide(&bench, UploadId(Uuid::now_v7()), &token, &approve).await;
    assert_eq!(code(&unknown), (404, "review_not_found".into()));
    for (decision, expected) in [
        (json!([]), (400, "malformed_document")),
        (json!({ "decision": "approve" }), (400, "malformed_document")),
        (json!({ "decision": "approve", "mileage": 5 }), (400, "malformed_document")),
        (json!({ "decision": "approve", "mileage": "5", "unit": "li" }), (422, "invalid_decision")),
        (json!({ "decision": "approve", "mileage": "-5" }), (422, "invalid_decision")),
        (json!({ "decision": "reject", "reason": "because" }), (422, "invalid_decision")),
    ] {
        let refused = decide(&bench, upload, &token, &decision).await;
        assert_eq!(code(&refused), (expected.0, expected.1.into()), "{decision}");
    }
    assert_eq!(published(&bench).await, []);
}

#[tokio::test]
async fn the_photo_is_shown_to_reviewers_as_it_was_received_and_is_kept_nowhere() {
    let bench = Bench::start().await;
    let (driver, driver_token) = bench.driver().await;
    let photo = crate::support::jpeg(7);
    let form = crate::support::Form::photo(&photo);
    let accepted = bench.post(&driver_token, &form).await.json();
    let sent = bench.kafka.events().pop().unwrap();
    let mut record = doubt(&bench, driver, 0).await;
    record.header.object_key.clone_from(&sent.header.object_key);
    record.header.mime_type.clone_from(&sent.header.mime_type);
    sqlx::query("update reviews set record = $2 where upload_id = $1")
        .bind(record.header.upload_id.0)
        .bind(serde_json::to_value(&record).unwrap())
        .execute(&bench.pool)
        .await
        .unwrap();
    let (_, token) = person(&bench, Role::Reviewer).await;
    let path = format!("/v1/reviews/{}/photo", record.header.upload_id);
    let response = bench.get(&path, &token).await;
    assert_eq!(response.status, 200, "{accepted}");
    assert_eq!(response.bytes, photo);
    for header in
        ["content-type: image/jpeg", "cache-control: private, no-store", "x-content-type-options: nosniff"]
    {
        assert!(response.head.contains(header), "{}", response.head);
    }
}

#[tokio::test]
async fn the_photo_that_an_upload_looks_like_is_shown_beside_it() {
    let bench = Bench::start().await;
    let (driver, driver_token) = bench.driver().await;
    let photo = crate::support::jpeg(8);
    bench.post(&driver_token, &crate::support::Form::photo(&photo)).await;
    let original = bench.kafka.events().pop().unwrap().header;
    let mut record = doubt(&bench, UserId(Uuid::now_v7()), 0).await;
    let (_, token) = person(&bench, Role::Reviewer).await;
    let review = format!("/v1/reviews/{}", record.header.upload_id);
    let beside = format!("{review}/look-alike");
    assert_eq!(bench.get(&review, &token).await.json()["look_alike"], Value::Null);
    assert_eq!(code(&bench.get(&beside, &token).await), (404, "no_look_alike".into()));
    record.look_alike = Some(LookAlike {
        upload_id: original.upload_id,
        user_id: original.user_id,
        vehicle_id: original.vehicle_id,
        likeness: 1.into(),
    });
    sqlx::query("update reviews set record = $2 where upload_id = $1")
        .bind(record.header.upload_id.0)
        .bind(serde_json::to_value(&record).unwrap())
        .execute(&bench.pool)
        .await
        .unwrap();
    // The sink has not seen the other upload yet.
    assert_eq!(code(&bench.get(&beside, &token).await), (404, "no_look_alike".into()));
    sqlx::query("insert into odometer_uploads (id, user_id, image_hash, mime_type) values ($1, $2, $3, $4)")
        .bind(original.upload_id.0)
        .bind(driver.0)
        .bind(&original.image_hash)
        .bind(&original.mime_type)
        .execute(&bench.pool)
        .await
        .unwrap();
    assert_eq!(bench.get(&review, &token).await.json()["look_alike"], json!(beside));
    let response = bench.get(&beside, &token).await;
    assert_eq!((response.status, response.bytes), (200, photo));
    assert_eq!(code(&bench.get(&beside, &driver_token).await), (403, "role_missing".into()));
}
