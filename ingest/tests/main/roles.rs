//! Who may call what. Generated from the table of routes, as `/openapi.json` shows it: every route, every role and none, own and others'
//! objects.

use std::time::Duration;

use ingest::Role;
use ingest::token::issue;
use runtime::clock::{Clock as _, SystemClock};
use schemas::ids::UserId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::appeals::rejected;
use crate::reviews::doubt;
use crate::signing_in::{bench, wallet};
use crate::support::{Bench, Form, Response, SCHEMAS, jpeg};

const ROLES: [(Role, &str); 4] = [
    (Role::Driver, "driver"),
    (Role::Reviewer, "reviewer"),
    (Role::Operator, "operator"),
    (Role::Service, "service"),
];

async fn token(bench: &Bench, user: UserId, role: Role) -> String {
    let hour = Duration::from_secs(3600);
    issue(&bench.pool, &bench.key, SCHEMAS(), (user, role), hour, SystemClock.now()).await.unwrap()
}

/// An object of `owner` for a path with an id. A new path needs a line here.
async fn object(bench: &Bench, path: &str, owner: UserId) -> String {
    let token = token(bench, owner, Role::Driver).await;
    match path {
        "/v1/uploads/{id}" | "/v1/uploads/{id}/events" | "/v1/uploads/{id}/photo" => {
            let upload = bench.post(&token, &Form::photo(&jpeg(1))).await.json();
            upload["upload_id"].as_str().unwrap().to_owned()
        }
        "/v1/uploads/{id}/appeal" => rejected(bench, owner, 1).await.header.upload_id.to_string(),
        "/v1/rewards/{id}/claim" => {
            let upload = bench.post(&token, &Form::photo(&jpeg(1))).await.json();
            let upload: Uuid = upload["upload_id"].as_str().unwrap().parse().unwrap();
            schemas::ids::RewardId::of(schemas::ids::UploadId(upload)).to_string()
        }
        path if path.starts_with("/v1/reviews/{id}") => {
            doubt(bench, owner, 0).await.header.upload_id.to_string()
        }
        "/v1/wallets/{id}" => {
            let address = format!("0x{}", hex::encode(rand::random::<[u8; 20]>()));
            let now = SystemClock.now();
            ingest::wallets::add_wallet(&bench.pool, SCHEMAS(), owner, &address, "testnet", now)
                .await
                .unwrap()
                .to_string()
        }
        "/v1/vehicles/{id}" | "/v1/vehicles/{id}/transfers" => vehicle(bench, &token).await,
        // What its owner takes back, and what is offered to whoever answers.
        "/v1/transfers/{id}" => offer(bench, owner, UserId(Uuid::now_v7())).await,
        "/v1/transfers/{id}/accept" | "/v1/transfers/{id}/decline" => {
            offer(bench, UserId(Uuid::now_v7()), owner).await
        }
        "/v1/notices/{id}/send" => crate::notices::told(bench, owner).await.to_string(),
        "/v1/sessions/{id}" => {
            let made: Uuid = sqlx::query_scalar(
                "insert into user_sessions (id, user_id, is_active, created_at, expires_at)
                 values ($1, $2, true, now(), now() + interval '1 day') returning id",
            )
            .bind(Uuid::now_v7())
            .bind(owner.0)
            .fetch_one(&bench.pool)
            .await
            .unwrap();
            made.to_string()
        }
        other => panic!("{other} has no object in this test: add one"),
    }
}

async fn vehicle(bench: &Bench, token: &str) -> String {
    let made = bench.json("POST", "/v1/vehicles", token, &json!({})).await.json();
    made["vehicle_id"].as_str().unwrap().to_owned()
}

/// An offer of a vehicle of one person's to a wallet of another's.
async fn offer(bench: &Bench, from: UserId, to: UserId) -> String {
    let address = format!("0x{}", hex::encode(rand::random::<[u8; 20]>()));
    token(bench, to, Role::Driver).await;
    ingest::wallets::add_wallet(&bench.pool, SCHEMAS(), to, &address, "testnet", SystemClock.now())
        .await
        .unwrap();
    let proven = "update user_wallets set verified_at = now() where user_id = $1";
    sqlx::query(proven).bind(to.0).execute(&bench.pool).await.unwrap();
    let token = token(bench, from, Role::Driver).await;
    let path = format!("/v1/vehicles/{}/transfers", vehicle(bench, &token).await);
    let offered = bench.json("POST", &path, &token, &json!({ "address": address })).await.json();
    offered["transfer_id"].as_str().unwrap().to_owned()
}

async fn call(bench: &Bench, method: &str, path: &str, token: &str) -> Response {
    // What a change must hold, so that whose object it is decides.
    let body = match path {
        path if path.starts_with("/v1/wallets/") => json!({ "is_primary": true }),
        path if path.ends_with("/transfers") => json!({ "address": format!("0x{}", "1".repeat(40)) }),
        _ => json!({}),
    };
    bench.json(&method.to_ascii_uppercase(), path, token, &body).await
}

fn code(response: &Response) -> String {
    serde_json::from_str::<Value>(&response.body)
        .ok()
        .and_then(|document| Some(document["code"].as_str()?.to_owned()))
        .unwrap_or_default()
}

#[tokio::test]
async fn every_route_lets_those_pass_that_its_row_names_and_nobody_else() {
    let bench = bench().await;
    let document = bench.get("/openapi.json", "").await.json();
    let (mut rows, mut calls) = (0, 0);
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            rows += 1;
            let access: Vec<&str> =
                operation["x-access"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            let path = template.replace("{id}", &Uuid::now_v7().to_string());
            let none = call(&bench, method, &path, "").await;
            calls += 1;
            let is_open = access == ["public"] || access == ["watcher"];
            let row = format!("{method} {template}, {access:?}");
            assert_eq!(code(&none) == "token_missing", !is_open, "{row}: {none:?}");
            if is_open {
                continue;
            }
            for (role, name) in ROLES {
                // A person of their own each time: a route may end the session.
                let (user, other) = (UserId(Uuid::now_v7()), UserId(Uuid::now_v7()));
                let may = access.contains(&name);
                if !template.contains("{id}") {
                    let token = token(&bench, user, role).await;
                    let response = call(&bench, method, &path, &token).await;
                    calls += 1;
                    assert_eq!(code(&response) == "role_missing", !may, "{row}, {name}: {response:?}");
                    continue;
                }
                for owner in [user, other] {
                    // The call before may have ended its session.
                    let token = token(&bench, user, role).await;
                    let path = template.replace("{id}", &object(&bench, template, owner).await);
                    let response = call(&bench, method, &path, &token).await;
                    calls += 1;
                    let seen = format!("{row}, {name}, own: {}: {response:?}", owner == user);
                    assert_eq!(code(&response) == "role_missing", !may, "{seen}");
                    if may && !template.starts_with("/v1/reviews/") {
                        assert_eq!(response.status == 404, owner == other, "{seen}");
                    }
                }
            }
        }
    }
    println!("{rows} routes, {calls} calls");
    assert!(rows > 15, "{rows}");
}

#[tokio::test]
async fn a_role_that_an_account_was_given_is_in_the_next_token_and_gone_when_it_is_taken() {
    let (bench, wallet) = (bench().await, wallet());
    let tokens = crate::signing_in::signed_in(&bench, &wallet).await;
    let reviews = async |tokens: &Value| bench.get("/v1/reviews", crate::signing_in::access(tokens)).await;
    reviews(&tokens).await.assert_problem(403, "role_missing");
    sqlx::query("update users set role = 'reviewer'").execute(&bench.pool).await.unwrap();
    let refreshed = crate::signing_in::refresh(&bench, &tokens).await.json();
    assert_eq!(reviews(&refreshed).await.status, 200);
    sqlx::query("update users set role = 'driver'").execute(&bench.pool).await.unwrap();
    let again = crate::signing_in::signed_in(&bench, &wallet).await;
    reviews(&again).await.assert_problem(403, "role_missing");
}
