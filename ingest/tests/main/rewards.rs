//! `GET /v1/rewards`.

use schemas::ids::UserId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Bench;

/// A reward of a user, made in a minute of the hour.
async fn reward(bench: &Bench, user: UserId, minute: i32) -> Uuid {
    let (upload, id) = (Uuid::now_v7(), Uuid::now_v7());
    let pool = &bench.pool;
    sqlx::query("insert into users (id) values ($1) on conflict do nothing")
        .bind(user.0)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("insert into odometer_uploads (id, user_id) values ($1, $2)")
        .bind(upload)
        .bind(user.0)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into rewards (id, user_id, upload_id, base_amount, bonus_amount, granted_amount, reward_rate,
            distance_traveled, status, status_reason, created_at, updated_at)
         select $1, $2, $3, 3.09, 0.1545, 2, 0.01, 309, 'calculated', 'over_limit: a sentence', at, at
         from (select timestamptz '2026-03-02T10:00:00Z' + make_interval(mins => $4)) as r (at)",
    )
    .bind(id)
    .bind(user.0)
    .bind(upload)
    .bind(minute)
    .execute(pool)
    .await
    .unwrap();
    id
}

#[tokio::test]
async fn a_users_rewards_come_newest_first_page_by_page_and_never_anothers() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let (other, _) = bench.driver().await;
    let mut ids = Vec::new();
    // The last two are of one instant.
    for minute in [0, 1, 2, 3, 3] {
        ids.push(reward(&bench, user, minute).await);
        reward(&bench, other, minute).await;
    }
    ids.reverse();
    let (mut seen, mut path): (Vec<Value>, _) = (Vec::new(), "/v1/rewards?limit=2".to_owned());
    loop {
        let page = bench.get(&path, &token).await.json();
        seen.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/rewards?limit=2&cursor={cursor}");
    }
    assert_eq!(
        seen.iter().map(|item| item["id"].clone()).collect::<Vec<_>>(),
        ids.iter().map(|id| json!(id)).collect::<Vec<_>>()
    );
    let item = &seen[0];
    assert_eq!((&item["base"], &item["bonus"]), (&json!("3.09000000"), &json!("0.15450000")));
    assert_eq!((&item["granted"], &item["total"]), (&json!("2.00000000"), &json!("2.00000000")));
    assert_eq!((&item["reason"], &item["detail"]), (&json!("over_limit"), &json!("a sentence")));
    assert_eq!(item["created_at"], "2026-03-02T10:03:00.000000Z");
}

#[tokio::test]
async fn a_reward_shows_its_newest_transaction_and_when_it_was_claimed_by_itself() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    let id = reward(&bench, user, 0).await;
    let item = bench.get("/v1/rewards", &token).await.json()["items"][0].clone();
    assert_eq!((&item["payout"], &item["claimed_at"]), (&Value::Null, &Value::Null));
    sqlx::query(
        "insert into payouts (reward_id, user_id, amount_wei, state, claimed_at, header, stamp, updated_at)
         values ($1, $2, 2000000000000000000, 'in_flight', '2026-03-02T10:05:00Z', '{}', '{}', now())",
    )
    .bind(id)
    .bind(user.0)
    .execute(&bench.pool)
    .await
    .unwrap();
    for (attempt, status, confirmed) in
        [(1, "reverted", None), (2, "confirmed", Some("2026-03-02T10:09:00Z"))]
    {
        sqlx::query(
            "insert into reward_transactions (id, reward_id, user_id, blockchain_tx_hash, amount, block_number,
                confirmation_count, status, attempt_no, confirmed_at, created_at)
             values (gen_random_uuid(), $1, $2, $3, 2, 77, 12, $4::reward_transactions_status, $5, $6::timestamptz, now())",
        )
        .bind(id)
        .bind(user.0)
        .bind(format!("0x{attempt:064x}"))
        .bind(status)
        .bind(attempt)
        .bind(confirmed)
        .execute(&bench.pool)
        .await
        .unwrap();
    }
    let item = bench.get("/v1/rewards", &token).await.json()["items"][0].clone();
    assert_eq!(item["claimed_at"], "2026-03-02T10:05:00.000000Z");
    assert_eq!(
        item["payout"],
        json!({
            "tx_id": format!("0x{:064x}", 2), "status": "confirmed", "confirmations": 12, "block_number": 77,
            "confirmed_at": "2026-03-02T10:09:00.000000Z", "amount": "2.00000000",
        })
    );
    let upload: Uuid =
        sqlx::query_scalar("select upload_id from rewards").fetch_one(&bench.pool).await.unwrap();
    sqlx::query("update odometer_uploads set created_at = now()").execute(&bench.pool).await.unwrap();
    let status = bench.get(&format!("/v1/uploads/{upload}"), &token).await.json();
    assert_eq!((&status["payout"], &status["reward"]["claimed_at"]), (&item["payout"], &item["claimed_at"]));
}

#[tokio::test]
async fn a_request_without_a_token_or_with_an_unknown_parameter_is_refused() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    bench.send("GET /v1/rewards HTTP/1.1", b"").await.assert_problem(401, "token_missing");
    bench.get("/v1/rewards?status=paid", &token).await.assert_problem(400, "unknown_parameter");
    bench.get("/v1/rewards?cursor=%00", &token).await.assert_problem(400, "invalid_parameter");
    assert_eq!(bench.get("/v1/rewards", &token).await.json(), json!({ "items": [], "next_cursor": null }));
}
