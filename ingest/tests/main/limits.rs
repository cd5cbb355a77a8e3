//! Limits, maintenance and flags: what operators change while gateways run, and what holds over all of them.

use std::time::Duration;

use futures::future::join_all;
use ingest::GatewayConfig;
use ingest::config::{ForwardedBy, Proxies, Rate, Rates};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::signing_in::{bench, wallet};
use crate::support::{Bench, Form, Response, jpeg};

const DAY: Duration = Duration::from_secs(86_400);

/// Writes the row of `system_config`, as an operator's command does.
async fn set(bench: &Bench, maintenance: bool, flags: Value, limits: Value) {
    sqlx::query(
        "insert into system_config (id, environment, maintenance_mode, feature_flags, rate_limits) values ($1, 'production', $2, $3, $4)
         on conflict (environment) do update set maintenance_mode = excluded.maintenance_mode,
           feature_flags = excluded.feature_flags, rate_limits = excluded.rate_limits, revision = system_config.revision + 1",
    )
    .bind(Uuid::now_v7())
    .bind(maintenance)
    .bind(flags)
    .bind(limits)
    .execute(&bench.pool)
    .await
    .unwrap();
}

/// Asks until the response is as wanted: a gateway looks each second.
async fn until(what: &str, wanted: impl Fn(&Response) -> bool, ask: impl AsyncFn() -> Response) -> Response {
    let asking = async {
        loop {
            let response = ask().await;
            if wanted(&response) {
                return response;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.unwrap_or_else(|_| panic!("{what}"))
}

fn photos(user: u32, vehicle: u32) -> impl Fn(&mut GatewayConfig) {
    move |config| {
        config.rates.uploads_per_user = Rate::new(user, DAY);
        config.rates.uploads_per_vehicle = Rate::new(vehicle, DAY);
    }
}

async fn post(bench: &Bench, token: &str, seed: u32) -> Response {
    bench.post(token, &Form::photo(&jpeg(seed))).await
}

#[tokio::test]
async fn two_addresses_behind_one_proxy_have_limits_of_their_own_at_each_gateway() {
    let behind = |config: &mut GatewayConfig| {
        config.trusted_proxies = Proxies::parse(&["127.0.0.0/8".to_owned()], ForwardedBy::default()).unwrap();
        config.rates.uploads_per_address = Rate::new(1, Duration::from_secs(3_600));
    };
    let first = Bench::start_with(behind).await;
    let second = first.another(behind).await;
    let (_, token) = first.driver().await;
    for (gateway, seeds) in [(&first, [1, 2, 3, 4]), (&second, [5, 6, 7, 8])] {
        let from = async |address: &str, seed: u32| {
            let header = format!("x-forwarded-for: {address}\r\n");
            gateway.post_with(&token, &Form::photo(&jpeg(seed)), &header).await
        };
        assert_eq!(from("203.0.113.1", seeds[0]).await.status, 202);
        assert_eq!(from("203.0.113.2", seeds[1]).await.status, 202);
        from("203.0.113.1", seeds[2]).await.assert_problem(429, "rate_limited");
        // What the client itself wrote in front is not believed.
        from("198.51.100.7, 203.0.113.2", seeds[3]).await.assert_problem(429, "rate_limited");
    }
}

#[tokio::test]
async fn photos_of_a_day_are_counted_over_gateways_and_over_a_restart() {
    let first = Bench::start_with(photos(3, 20)).await;
    let second = first.another(photos(3, 20)).await;
    let (_, token) = first.driver().await;
    assert_eq!(post(&first, &token, 1).await.status, 202);
    assert_eq!(post(&second, &token, 2).await.status, 202);
    assert_eq!(post(&first, &token, 3).await.status, 202);
    for gateway in [&first, &second] {
        let problem = post(gateway, &token, 4).await.assert_problem(429, "rate_limited");
        assert!((1..=86_400).contains(&problem["retry_after"].as_u64().unwrap()), "{problem}");
    }
    first.stop.cancel();
    let restarted = first.another(photos(3, 20)).await;
    post(&restarted, &token, 4).await.assert_problem(429, "rate_limited");
    assert_eq!(post(&restarted, &token, 2).await.status, 200, "the same photo again is no further one");
    let (_, other) = restarted.driver().await;
    assert_eq!(post(&restarted, &other, 4).await.status, 202, "another driver has photos of their own");
    // A day later.
    sqlx::query("update upload_counts set window_start = window_start - interval '1 day'")
        .execute(&restarted.pool)
        .await
        .unwrap();
    assert_eq!(post(&restarted, &token, 5).await.status, 202);
}

#[tokio::test]
async fn photos_of_a_vehicle_are_counted_whoever_drives_it_and_refused_ones_cost_its_driver_nothing() {
    let bench = Bench::start_with(photos(4, 2)).await;
    let (user, token) = bench.driver().await;
    let vehicle = Uuid::new_v4().to_string();
    let of_vehicle =
        async |seed: u32| bench.post(&token, &Form::photo(&jpeg(seed)).field("vehicle_id", &vehicle)).await;
    assert_eq!(of_vehicle(1).await.status, 202);
    assert_eq!(of_vehicle(2).await.status, 202);
    for seed in 3..6 {
        let problem = of_vehicle(seed).await.assert_problem(429, "rate_limited");
        assert!(problem["detail"].as_str().unwrap().starts_with("this vehicle has 2 photos"), "{problem}");
    }
    for seed in [6, 7] {
        assert_eq!(post(&bench, &token, seed).await.status, 202, "their other vehicle has its own");
    }
    let taken: i32 =
        sqlx::query_scalar("select taken from upload_counts where subject = $1 and not of_vehicle")
            .bind(user.0)
            .fetch_one(&bench.pool)
            .await
            .unwrap();
    assert_eq!(taken, 4);
}

#[tokio::test]
async fn a_vehicle_that_is_called_as_a_user_takes_no_photo_of_theirs() {
    let bench = Bench::start_with(photos(2, 2)).await;
    let ((victim, theirs), (other, token)) = (bench.driver().await, bench.driver().await);
    for (seed, vehicle) in [(1, victim), (2, victim), (3, other)] {
        let form = Form::photo(&jpeg(seed)).field("vehicle_id", &vehicle.to_string());
        let expected = if seed < 3 { 202 } else { 429 };
        assert_eq!(bench.post(&token, &form).await.status, expected, "{seed}");
    }
    assert_eq!(post(&bench, &theirs, 4).await.status, 202);
    assert_eq!(post(&bench, &theirs, 5).await.status, 202);
}

#[tokio::test]
async fn of_many_photos_at_once_at_two_gateways_exactly_as_many_are_taken_as_the_day_allows() {
    let first = Bench::start_with(photos(5, 20)).await;
    let second = first.another(photos(5, 20)).await;
    let (user, token) = first.driver().await;
    assert_eq!(post(&first, &token, 100).await.status, 202);
    let posts = (0..12).map(|seed| post(if seed % 2 == 0 { &first } else { &second }, &token, seed));
    let statuses: Vec<u16> = join_all(posts).await.iter().map(|response| response.status).collect();
    let taken = statuses.iter().filter(|status| **status == 202).count();
    assert_eq!(taken, 4, "{statuses:?}");
    let kept: i64 = sqlx::query_scalar("select count(*) from photo_hashes where user_id = $1")
        .bind(user.0)
        .fetch_one(&first.pool)
        .await
        .unwrap();
    assert_eq!(kept, 5);
}

#[tokio::test]
async fn a_limit_that_an_operator_changes_holds_within_seconds() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    let ask = async || bench.get("/v1/uploads", &token).await;
    let limits = json!({ "api": { "per_user": { "requests": 1, "window_s": 3_600 } } });
    set(&bench, false, json!({}), limits).await;
    let refused = until("the limit holds", |response| response.status == 429, &ask).await;
    refused.assert_problem(429, "rate_limited");
    assert!(refused.head.contains("retry-after: "), "{}", refused.head);
    let limits = json!({ "api": { "per_user": { "requests": 1_000, "window_s": 60 } } });
    set(&bench, false, json!({}), limits).await;
    until("the limit is raised", |response| response.status == 200, &ask).await;
}

#[tokio::test]
async fn a_gateway_refuses_to_start_without_a_row_and_with_one_that_it_cannot_use() {
    let bench = Bench::start().await;
    let check = async || ingest::check_live_settings(&bench.pool, Rates::default()).await;
    let none = check().await.unwrap_err().to_string();
    assert!(none.contains("milestream migrate"), "{none}");
    set(&bench, false, json!({}), json!({ "api": { "per_user": { "requests": 0, "window_s": 1 } } })).await;
    let unusable = check().await.unwrap_err().to_string();
    assert!(unusable.contains("rate_limits.api.per_user: requests is not 1 to 1000000"), "{unusable}");
    set(&bench, false, json!({ "autoclaim": true }), json!({})).await;
    assert!(check().await.unwrap_err().to_string().contains("feature_flags.autoclaim"));
    set(&bench, false, json!({ "auto_claim": true }), json!({})).await;
    check().await.unwrap();
}

#[tokio::test]
async fn maintenance_pauses_what_people_write_and_neither_reads_nor_operators_nor_the_chain_nor_health() {
    let bench = Bench::start().await;
    let (_, token) = bench.driver().await;
    set(&bench, true, json!({}), json!({})).await;
    let wrote = async || bench.json("POST", "/v1/vehicles", &token, &json!({})).await;
    let refused = until("maintenance holds", |response| response.status == 503, &wrote).await;
    assert_eq!(refused.assert_problem(503, "maintenance")["retry_after"], 120);
    assert!(refused.head.contains("retry-after: 120"));
    post(&bench, &token, 1).await.assert_problem(503, "maintenance");
    bench.json("POST", "/v1/auth/login", "", &json!({})).await.assert_problem(503, "maintenance");
    bench
        .json("POST", &format!("/v1/reviews/{}", Uuid::now_v7()), &token, &json!({}))
        .await
        .assert_problem(403, "role_missing");
    assert!(bench.kafka.uploads().is_empty());
    for path in ["/v1/uploads", "/v1/me", "/livez", "/readyz", "/openapi.json"] {
        assert_eq!(bench.get(path, &token).await.status, 200, "{path}");
    }
    let chain = bench.json("POST", "/v1/chain/events", "", &json!({})).await;
    chain.assert_problem(404, "chain_disabled");
    bench
        .json("POST", "/v1/auth/refresh", "", &json!({ "refresh_token": "x" }))
        .await
        .assert_problem(401, "refresh_invalid");
    assert!([200, 204].contains(&bench.json("POST", "/v1/auth/logout", &token, &json!({})).await.status));
    // A gateway that is started meanwhile does not take the first request either.
    let (_, other) = bench.driver().await;
    let second = bench.another(|_| {}).await;
    second.json("POST", "/v1/vehicles", &other, &json!({})).await.assert_problem(503, "maintenance");
    set(&bench, false, json!({}), json!({})).await;
    let again = async || bench.json("POST", "/v1/vehicles", &other, &json!({})).await;
    until("maintenance ends", |response| response.status == 201, &again).await;
}

#[tokio::test]
async fn a_flag_that_is_off_holds_within_seconds() {
    let bench = bench().await;
    let (user, token) = bench.driver().await;
    assert_eq!(post(&bench, &token, 1).await.status, 202);
    let known = wallet();
    let tokens = crate::signing_in::signed_in(&bench, &known).await;
    let id = bench.kafka.events()[0].header.upload_id;
    set(&bench, false, json!({ "live_updates": false, "registrations": false }), json!({})).await;
    let events = async || bench.get(&format!("/v1/uploads/{id}/events"), &token).await;
    until("no stream is served", |response| response.status == 503, &events)
        .await
        .assert_problem(503, "live_updates_off");
    crate::signing_in::sign_in(&bench, &wallet()).await.assert_problem(403, "registrations_closed");
    assert_eq!(crate::signing_in::sign_in(&bench, &known).await.status, 200, "who has an account signs in");
    drop((user, tokens));
}
