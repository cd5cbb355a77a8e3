//! What somebody was told, and telling it again.

use schemas::ids::UserId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Bench;

/// A notice that was delivered, as the sink leaves it.
pub async fn told(bench: &Bench, user: UserId) -> Uuid {
    sqlx::query_scalar(
        "insert into notice_deliveries (id, user_id, channel, kind, document, occurred_at, created_at, due_at, attempts, delivered_at)
         values ($1, $2, 'webhook', 'reward_paid', $3, now(), now(), now(), 2, now()) returning id",
    )
    .bind(Uuid::now_v7())
    .bind(user.0)
    .bind(json!({ "amount": "1.5" }))
    .fetch_one(&bench.pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn notices_are_listed_to_their_receiver_and_sent_again_on_demand() {
    let bench = Bench::start().await;
    let ((user, token), (_, other)) = (bench.driver().await, bench.driver().await);
    let (first, second) = (told(&bench, user).await, told(&bench, user).await);
    let page = bench.get("/v1/notices?limit=1", &token).await.json();
    assert_eq!(page["items"][0]["id"], json!(second));
    let next = format!("/v1/notices?cursor={}", page["next_cursor"].as_str().unwrap());
    let item = bench.get(&next, &token).await.json()["items"][0].clone();
    assert_eq!(
        (&item["id"], &item["type"], &item["status"]),
        (&json!(first), &json!("reward_paid"), &json!("delivered"))
    );
    assert_eq!((&item["data"]["amount"], &item["due_at"]), (&json!("1.5"), &Value::Null));
    assert_eq!(bench.get("/v1/notices", &other).await.json()["items"], json!([]));
    let path = format!("/v1/notices/{first}/send");
    bench.json("POST", &path, &other, &json!({})).await.assert_problem(404, "notice_not_found");
    assert_eq!(bench.json("POST", &path, &token, &json!({})).await.status, 204);
    let items = bench.get("/v1/notices", &token).await.json()["items"].clone();
    let waiting = items.as_array().unwrap().iter().find(|item| item["id"] == json!(first)).unwrap();
    assert_eq!((&waiting["status"], &waiting["attempts"]), (&json!("waiting"), &json!(0)));
    assert_ne!(waiting["due_at"], Value::Null);
}

#[tokio::test]
async fn a_secret_of_webhooks_is_shown_once_and_is_in_no_log() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let secret = async || {
        let response = bench.json("POST", "/v1/notices/secret", &token, &json!({})).await;
        assert!(response.head.contains("cache-control: no-store"), "{}", response.head);
        response.json()["secret"].as_str().unwrap().to_owned()
    };
    let (first, second) = (secret().await, secret().await);
    assert!(first.starts_with("whsec_") && first != second);
    let audited: Value = sqlx::query_scalar(
        "select jsonb_agg(to_jsonb(l)) from system_audit_logs l where action = 'key.create'",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap();
    assert_eq!(audited.as_array().unwrap().len(), 2);
    assert!(!audited.to_string().contains(&second[6..]), "{audited}");
}
