//! An e-mail address is proven by a code. The notices sink draws and sends it; here its row is filled as that leaves it.

use futures::future::join_all;
use runtime::one_time::OneTimeCode;
use serde_json::{Value, json};

use crate::signing_in::{access, bench, signed_in, wallet};
use crate::support::{Bench, Form, Response, jpeg};

const ADDRESS: &str = "ada@example.org";

/// A driver with an address that is not proven.
async fn driver(bench: &Bench) -> Value {
    let tokens = signed_in(bench, &wallet()).await;
    put(bench, &tokens, ADDRESS).await;
    tokens
}

async fn put(bench: &Bench, tokens: &Value, address: &str) -> Value {
    bench.json("PATCH", "/v1/me", access(tokens), &json!({ "email": address })).await.json()
}

async fn ask(bench: &Bench, tokens: &Value) -> Response {
    bench.json("POST", "/v1/me/email/code", access(tokens), &json!({})).await
}

async fn prove(bench: &Bench, tokens: &Value, code: &str) -> Response {
    bench.json("POST", "/v1/me/email/proof", access(tokens), &json!({ "code": code })).await
}

/// As the sink leaves the row after it has sent this code to this address.
async fn sent(bench: &Bench, code: &str, address: &str) {
    let digest = OneTimeCode::typed(code).unwrap().digest(address);
    sqlx::query(
        "update email_codes set code_hash = $1, salt = $2, expires_at = now() + interval '10 min', due_at = null, tries = 0",
    )
    .bind(&digest.hash[..])
    .bind(&digest.salt[..])
    .execute(&bench.pool)
    .await
    .unwrap();
}

async fn run(bench: &Bench, sql: &'static str) {
    sqlx::query(sql).execute(&bench.pool).await.unwrap();
}

async fn level(bench: &Bench, tokens: &Value) -> (Value, Value) {
    let me = bench.get("/v1/me", access(tokens)).await.json();
    (me["email_verified"].clone(), me["verification_level"].clone())
}

#[tokio::test]
async fn a_code_proves_the_address_and_with_a_wallet_that_has_signed_the_account_is_verified() {
    let bench = bench().await;
    let tokens = driver(&bench).await;
    assert_eq!(level(&bench, &tokens).await, (json!(false), json!("basic")));
    assert_eq!(ask(&bench, &tokens).await.status, 204);
    prove(&bench, &tokens, "123456").await.assert_problem(409, "email_code_expired");
    sent(&bench, "123456", ADDRESS).await;
    let wrong = prove(&bench, &tokens, "123457").await.assert_problem(422, "email_code_wrong");
    assert!(wrong["detail"].as_str().unwrap().contains("4 tries"), "{wrong}");
    let proven = prove(&bench, &tokens, "123456").await;
    assert!(proven.head.contains("cache-control: no-store"), "{}", proven.head);
    let proven = proven.json();
    assert_eq!(
        (&proven["email_verified"], &proven["verification_level"]),
        (&json!(true), &json!("verified"))
    );
    prove(&bench, &tokens, "123456").await.assert_problem(409, "email_proven");
    ask(&bench, &tokens).await.assert_problem(409, "email_proven");
    // The next photo is accepted from a verified account.
    bench.post(access(&tokens), &Form::photo(&jpeg(1))).await;
    assert_eq!(bench.kafka.events()[0].stamp.verification_level, "verified");
    let announced: i64 = sqlx::query_scalar("select count(*) from outbox where topic = 'accounts.changed'")
        .fetch_one(&bench.pool)
        .await
        .unwrap();
    assert_eq!(announced, 2, "the account was made, then verified");
    let (before, after): (Value, Value) = sqlx::query_as(
        "select action_details -> 'before', action_details -> 'after' from system_audit_logs
         order by timestamp desc, id desc limit 1",
    )
    .fetch_one(&bench.pool)
    .await
    .unwrap();
    assert_eq!(before, json!({ "email_verified": false, "verification_level": "basic" }));
    assert_eq!(after, json!({ "email_verified": true, "verification_level": "verified" }));
}

#[tokio::test]
async fn another_address_is_unproven_whoever_puts_it_in_and_the_code_of_the_one_before_proves_nothing() {
    let bench = bench().await;
    let tokens = driver(&bench).await;
    ask(&bench, &tokens).await;
    sent(&bench, "123456", ADDRESS).await;
    // The code goes to one address, and another one is put in.
    put(&bench, &tokens, "eve@example.org").await;
    prove(&bench, &tokens, "123456").await.assert_problem(422, "email_code_wrong");
    put(&bench, &tokens, ADDRESS).await;
    assert_eq!(prove(&bench, &tokens, "123456").await.json()["email_verified"], true);
    // The same again changes nothing; another one, also by a program that knows nothing of proofs, does.
    assert_eq!(put(&bench, &tokens, &ADDRESS.to_uppercase()).await["email_verified"], true);
    run(&bench, "update users set email = 'old@example.org', username = 'by a release before'").await;
    assert_eq!(level(&bench, &tokens).await, (json!(false), json!("verified")));
    run(&bench, "update users set email = null").await;
    ask(&bench, &tokens).await.assert_problem(409, "no_email");
    prove(&bench, &tokens, "123456").await.assert_problem(409, "no_email");
}

#[tokio::test]
async fn a_code_is_good_for_five_tries_however_many_come_at_once_and_for_ten_minutes() {
    let bench = bench().await;
    let tokens = driver(&bench).await;
    ask(&bench, &tokens).await;
    sent(&bench, "123456", ADDRESS).await;
    let tries = join_all((0..12).map(|n| {
        let (bench, tokens) = (&bench, &tokens);
        async move { prove(bench, tokens, &format!("00000{}", n % 10)).await.status }
    }))
    .await;
    assert_eq!(tries.iter().filter(|status| **status == 422).count(), 5, "{tries:?}");
    assert_eq!(tries.iter().filter(|status| **status == 409).count(), 7, "{tries:?}");
    prove(&bench, &tokens, "123456").await.assert_problem(409, "email_code_expired");
    sent(&bench, "123456", ADDRESS).await;
    run(&bench, "update email_codes set expires_at = now()").await;
    prove(&bench, &tokens, "123456").await.assert_problem(409, "email_code_expired");
    for bad in ["", "12345", "1234567", "12345a", "１２３４５６"] {
        assert_eq!(prove(&bench, &tokens, bad).await.assert_problem(422, "invalid_field")["field"], "code");
    }
    let number = bench.json("POST", "/v1/me/email/proof", access(&tokens), &json!({ "code": 123456 })).await;
    number.assert_problem(400, "malformed_document");
    // Each attempt is in the log, and no code is.
    let attempts: Vec<Value> = bench
        .kafka
        .documents("auth_logs")
        .into_iter()
        .filter(|log| log["action"] == "verification")
        .collect();
    assert_eq!(attempts.len(), 14, "{attempts:?}");
    assert!(attempts.iter().all(|log| log["success"] == false && log["metadata"]["method"] == "email"));
    assert!(!format!("{attempts:?}").contains("123456"), "{attempts:?}");
}

#[tokio::test]
async fn one_code_is_sent_a_minute_and_five_a_day_and_the_one_before_is_good_no_more() {
    let bench = bench().await;
    let tokens = driver(&bench).await;
    assert_eq!(ask(&bench, &tokens).await.status, 204);
    sent(&bench, "123456", ADDRESS).await;
    let early = ask(&bench, &tokens).await.assert_problem(429, "rate_limited");
    assert!((1..=61).contains(&early["retry_after"].as_u64().unwrap()), "{early}");
    for _ in 0..4 {
        run(&bench, "update email_codes set asked_at = asked_at - interval '61 s'").await;
        assert_eq!(ask(&bench, &tokens).await.status, 204);
        prove(&bench, &tokens, "123456").await.assert_problem(409, "email_code_expired");
    }
    run(&bench, "update email_codes set asked_at = asked_at - interval '61 s'").await;
    let spent = ask(&bench, &tokens).await.assert_problem(429, "rate_limited");
    assert!(spent["retry_after"].as_u64().unwrap() > 80_000, "{spent}");
    // Another gateway, and another address, count on.
    let other = bench.another(|_| {}).await;
    put(&other, &tokens, "eve@example.org").await;
    ask(&other, &tokens).await.assert_problem(429, "rate_limited");
    run(&bench, "update email_codes set window_start = window_start - interval '1 day'").await;
    assert_eq!(ask(&bench, &tokens).await.status, 204);
}
