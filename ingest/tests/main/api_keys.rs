//! Keys of services.

use chrono::{TimeDelta, Utc};
use ingest::api_keys::{Scopes, create};
use schemas::ids::UserId;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{Bench, Form, jpeg};

async fn key(bench: &Bench, user: UserId, scopes: Scopes) -> String {
    let mut connection = bench.pool.acquire().await.unwrap();
    let made = create(&mut connection, (user, "fleet"), scopes, 30, Utc::now()).await.unwrap();
    made.key.expose_secret().to_owned()
}

const BOTH: Scopes = Scopes { read: true, write: true };

#[tokio::test]
async fn a_key_does_what_the_role_service_may_for_its_account_and_no_more() {
    let bench = Bench::start().await;
    let ((user, token), (other, _)) = (bench.driver().await, bench.driver().await);
    let (ours, others) = (key(&bench, user, BOTH).await, key(&bench, other, BOTH).await);
    let upload = bench.post(&ours, &Form::photo(&jpeg(1))).await;
    assert_eq!(upload.status, 202, "{upload:?}");
    let path = format!("/v1/uploads/{}", upload.json()["upload_id"].as_str().unwrap());
    assert_eq!(bench.get("/v1/uploads", &ours).await.status, 200);
    assert_eq!(bench.get("/v1/uploads", &token).await.json(), bench.get("/v1/uploads", &ours).await.json());
    bench.get(&path, &others).await.assert_problem(404, "upload_not_found");
    // Every route, as its row says.
    let document = bench.get("/openapi.json", "").await.json();
    let mut rows = 0;
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let access = operation["x-access"].as_array().unwrap();
            if access.contains(&json!("public")) || access.contains(&json!("watcher")) {
                continue;
            }
            rows += 1;
            let path = template.replace("{id}", "01890000-0000-7000-8000-000000000000");
            let response = bench.json(&method.to_ascii_uppercase(), &path, &ours, &json!({})).await;
            let code = serde_json::from_str::<Value>(&response.body)
                .map_or(Value::Null, |body| body["code"].clone());
            assert_eq!(
                code == "role_missing",
                !access.contains(&json!("service")),
                "{method} {template}: {response:?}"
            );
        }
    }
    assert!(rows > 15, "{rows}");
}

#[tokio::test]
async fn a_key_reads_and_writes_as_its_scopes_say() {
    let bench = Bench::start().await;
    let (user, _) = bench.driver().await;
    let reads = key(&bench, user, Scopes { read: true, write: false }).await;
    let writes = key(&bench, user, Scopes { read: false, write: true }).await;
    bench.post(&reads, &Form::photo(&jpeg(1))).await.assert_problem(403, "scope_missing");
    bench.get("/v1/uploads", &writes).await.assert_problem(403, "scope_missing");
    assert_eq!(bench.get("/v1/uploads", &reads).await.status, 200);
    assert_eq!(bench.post(&writes, &Form::photo(&jpeg(1))).await.status, 202);
    assert_eq!(bench.kafka.uploads().len(), 1);
}

#[tokio::test]
async fn a_key_that_is_unknown_revoked_or_past_its_end_or_of_a_locked_account_opens_nothing_and_is_kept_as_a_hash()
 {
    let bench = Bench::start().await;
    let (user, _) = bench.driver().await;
    let ours = key(&bench, user, BOTH).await;
    let ask = async |key: &str| bench.get("/v1/uploads", key).await;
    assert_eq!(ask(&ours).await.status, 200);
    for unknown in ["msk_", "msk_AAAA", &ours[..ours.len() - 1], &format!("{ours}A")] {
        ask(unknown).await.assert_problem(401, "token_invalid");
    }
    let row: Value =
        sqlx::query_scalar("select to_jsonb(k) from api_keys k").fetch_one(&bench.pool).await.unwrap();
    assert!(!row.to_string().contains(&ours[4..]), "{row}");
    assert_ne!(row["last_used_at"], Value::Null);
    let set = async |sql: &'static str| {
        sqlx::query(sql).execute(&bench.pool).await.unwrap();
    };
    set("update api_keys set expires_at = now()").await;
    ask(&ours).await.assert_problem(401, "token_expired");
    set("update api_keys set expires_at = now() + interval '1 day'").await;
    set("update users set is_active = false").await;
    ask(&ours).await.assert_problem(403, "account_locked");
    set("update users set is_active = true").await;
    set("update api_keys set revoked_at = now()").await;
    ask(&ours).await.assert_problem(401, "token_invalid");
    let created = Utc::now() + TimeDelta::days(31);
    assert!(serde_json::from_value::<chrono::DateTime<Utc>>(row["expires_at"].clone()).unwrap() < created);
}
