//! Signing in with a wallet, and the sessions that come of it.

use std::sync::Arc;
use std::time::Duration;

use chain::certificate::{Certificate, Payload};
use chain::typed_data::Member;
use chain::{Address, Signer, TypedData};
use chrono::Utc;
use futures::future::join_all;
use ingest::config::ChainAccess;
use runtime::clock::{Clock as _, ManualClock, SystemClock};
use schemas::ids::Micros;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Bench, Response};

/// A solo network's genesis block.
pub const GENESIS: &str = "0x00000000bb55405beed90df9fea5acdb1cb7caba61b0d7513395f42efd30e558";

/// The main network's.
pub const MAINNET: &str = "0x00000000851caf3cfdb6e899cf5958bfb1ac3413d346d43539627e6be7ec1b4a";

/// A network by its genesis block.
pub fn access_to(genesis: &str) -> ChainAccess {
    ChainAccess { genesis_id: genesis.into(), secret: "s".repeat(32).into() }
}

/// A gateway where people sign in, and change their wallets at once.
pub async fn bench() -> Bench {
    bench_with(|config| config.wallet_cooling = Duration::ZERO).await
}

/// The same with other settings.
pub async fn bench_with(change: impl FnOnce(&mut ingest::GatewayConfig)) -> Bench {
    Bench::start_with(|config| {
        config.chain = Some(access_to(GENESIS));
        let many = ingest::config::Rate::new(10_000, Duration::from_secs(60));
        (config.rates.login_per_address, config.rates.login_per_wallet) = (many, many);
        config.rates.api_per_user = ingest::config::Rate::new(10_000, Duration::from_secs(60));
        config.rates.api_per_address = ingest::config::Rate::new(10_000, Duration::from_secs(60));
        config.timeouts.stream = Duration::from_millis(50);
        change(config);
    })
    .await
}

/// A new wallet.
pub fn wallet() -> Signer {
    let key: [u8; 32] = std::array::from_fn(|n| if n == 0 { 0x7f } else { rand::random() });
    Signer::from_hex(&hex::encode(key)).unwrap()
}

pub async fn challenge(bench: &Bench, wallet: &Signer) -> Value {
    challenge_of(bench, wallet.address()).await
}

/// The challenge for whoever signs as an address.
pub async fn challenge_of(bench: &Bench, address: Address) -> Value {
    let request = json!({ "address": address.checksummed() });
    let response = bench.json("POST", "/v1/auth/challenge", "", &request).await;
    assert_eq!(response.status, 200, "{response:?}");
    assert!(response.head.contains("cache-control: no-store"), "{}", response.head);
    response.json()
}

/// A certificate over a challenge, as a wallet makes it for a page of `domain`.
pub fn certificate(challenge: &Value, wallet: &Signer, domain: &str, timestamp: i64) -> Value {
    let content = challenge["text"].as_str().unwrap().to_owned();
    let certificate = Certificate {
        domain: domain.into(),
        payload: Payload { content, kind: "text".into() },
        purpose: "identification".into(),
        signer: wallet.address(),
        timestamp,
    };
    let signature = wallet.sign_prehash(&certificate.signing_hash()).unwrap();
    let mut signed = serde_json::to_value(&certificate).unwrap();
    signed["signature"] = json!(format!("0x{}", hex::encode(signature.0)));
    json!({ "method": "certificate", "challenge_id": challenge["challenge_id"], "certificate": signed })
}

/// Typed data over a challenge, from the document that the gateway gives.
pub fn typed(challenge: &Value, wallet: &Signer) -> Value {
    let document = &challenge["typed_data"];
    let members = document["types"]["Proof"].as_array().unwrap().iter().map(|member| {
        let name: &'static str = Box::leak(member["name"].as_str().unwrap().to_owned().into_boxed_str());
        let text = document["message"][name].as_str().unwrap();
        let address = member["type"] == "address";
        (name, if address { Member::Address(text.parse().unwrap()) } else { Member::Text(text.into()) })
    });
    let typed = TypedData {
        name: document["domain"]["name"].as_str().unwrap().into(),
        version: document["domain"]["version"].as_str().unwrap().into(),
        primary_type: "Proof",
        members: members.collect(),
    };
    let signature = wallet.sign_prehash(&typed.signing_hash()).unwrap();
    let signature = format!("0x{}", hex::encode(signature.0));
    json!({ "method": "eip712", "challenge_id": challenge["challenge_id"], "signature": signature })
}

pub async fn login(bench: &Bench, proof: &Value) -> Response {
    bench.json("POST", "/v1/auth/login", "", proof).await
}

/// Signs in.
pub async fn sign_in(bench: &Bench, wallet: &Signer) -> Response {
    let challenge = challenge(bench, wallet).await;
    login(bench, &certificate(&challenge, wallet, "gateway.test", Utc::now().timestamp())).await
}

/// Signs in, and gives the tokens.
pub async fn signed_in(bench: &Bench, wallet: &Signer) -> Value {
    let response = sign_in(bench, wallet).await;
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

pub fn access(tokens: &Value) -> &str {
    tokens["access_token"].as_str().unwrap()
}

pub async fn refresh(bench: &Bench, tokens: &Value) -> Response {
    let request = json!({ "refresh_token": tokens["refresh_token"] });
    bench.json("POST", "/v1/auth/refresh", "", &request).await
}

async fn count(bench: &Bench, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&bench.pool).await.unwrap()
}

#[tokio::test]
async fn the_first_login_makes_the_account_with_its_wallet_and_the_token_opens_the_gateway() {
    let (bench, wallet) = (bench().await, wallet());
    let tokens = signed_in(&bench, &wallet).await;
    let uploads = bench.get("/v1/uploads", access(&tokens)).await;
    assert_eq!(uploads.status, 200, "{uploads:?}");
    let (address, verified, seen, role): (String, bool, bool, String) =
        sqlx::query_as("select wallet_address, is_verified, last_login_at is not null, role from users")
            .fetch_one(&bench.pool)
            .await
            .unwrap();
    assert_eq!((address, verified, seen, role), (wallet.address().to_string(), true, true, "driver".into()));
    let (primary, proven): (bool, bool) =
        sqlx::query_as("select is_primary, verified_at is not null from user_wallets")
            .fetch_one(&bench.pool)
            .await
            .unwrap();
    assert!(primary && proven);
    // Again by the other way of signing: the same account, another session.
    let challenge = challenge(&bench, &wallet).await;
    let again = login(&bench, &typed(&challenge, &wallet)).await.json();
    assert_eq!(again["user_id"], tokens["user_id"]);
    assert_ne!(again["session_id"], tokens["session_id"]);
    assert_eq!(count(&bench, "select count(*) from users").await, 1);
    assert_eq!(count(&bench, "select count(*) from user_sessions where ip_address = '127.0.0.1'").await, 2);
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let kept: Vec<String> =
        sqlx::query_scalar("select refresh_token from user_sessions").fetch_all(&bench.pool).await.unwrap();
    assert!(kept.iter().all(|kept| kept.len() == 71 && !kept.contains(refresh)), "only a hash is kept");
    bench.relay().await;
    let logs = bench.kafka.documents("auth_logs");
    let methods: Vec<&Value> = logs.iter().map(|log| &log["metadata"]["method"]).collect();
    assert_eq!(methods, ["certificate", "eip712"]);
    assert!(
        logs.iter().all(|log| log["success"] == true
            && log["action"] == "login"
            && log["ip_address"] == "127.0.0.1")
    );
    assert_eq!(logs[0]["wallet_address"], wallet.address().to_string());
    assert_eq!(logs[0]["metadata"]["network"], "testnet");
    assert_eq!(count(&bench, "select count(*) from outbox where topic = 'accounts.changed'").await, 1);
}

#[tokio::test]
async fn of_two_logins_at_once_with_one_challenge_one_wins_and_a_replay_is_recorded() {
    let (bench, wallet) = (bench().await, wallet());
    let challenge = challenge(&bench, &wallet).await;
    let proof = certificate(&challenge, &wallet, "gateway.test", Utc::now().timestamp());
    let responses = join_all((0..6).map(|_| login(&bench, &proof))).await;
    let won = responses.iter().filter(|response| response.status == 200).count();
    assert_eq!(won, 1, "{responses:?}");
    for response in responses.iter().filter(|response| response.status != 200) {
        response.assert_problem(401, "challenge_used");
    }
    assert_eq!(count(&bench, "select count(*) from user_sessions").await, 1);
    let events = bench.kafka.documents("security_events");
    assert_eq!(
        events.iter().filter(|event| event["event_type"] == "challenge_replay").count(),
        5,
        "{events:?}"
    );
    assert_eq!(events[0]["location_data"]["source"], "private");
    let logs = bench.kafka.documents("auth_logs");
    assert!(logs.iter().all(|log| log["error_message"].as_str().unwrap().starts_with("challenge_used: ")));
}

#[tokio::test]
async fn first_logins_at_once_with_challenges_of_their_own_make_one_account() {
    let (bench, wallet) = (bench().await, wallet());
    let challenges = join_all((0..5).map(|_| challenge(&bench, &wallet))).await;
    let proofs: Vec<Value> = challenges.iter().map(|challenge| typed(challenge, &wallet)).collect();
    let responses = join_all(proofs.iter().map(|proof| login(&bench, proof))).await;
    assert!(responses.iter().all(|response| response.status == 200), "{responses:?}");
    assert_eq!(count(&bench, "select count(*) from users").await, 1);
    assert_eq!(count(&bench, "select count(*) from user_wallets where is_primary").await, 1);
    assert_eq!(count(&bench, "select count(*) from user_sessions where is_active").await, 5);
}

#[tokio::test]
async fn what_is_signed_for_another_domain_network_time_or_wallet_opens_nothing() {
    let (bench, wallet) = (bench().await, wallet());
    let now = Utc::now().timestamp();
    let open = challenge(&bench, &wallet).await;
    login(&bench, &certificate(&open, &wallet, "gateway.evil", now))
        .await
        .assert_problem(401, "wrong_domain");
    login(&bench, &certificate(&open, &wallet, "gateway.test", now - 120))
        .await
        .assert_problem(401, "stale_certificate");
    login(&bench, &certificate(&open, &wallet, "gateway.test", now + 120))
        .await
        .assert_problem(401, "stale_certificate");
    let other = crate::signing_in::wallet();
    login(&bench, &certificate(&open, &other, "gateway.test", now))
        .await
        .assert_problem(401, "signature_refused");
    let mut named = certificate(&open, &other, "gateway.test", now);
    named["certificate"]["signer"] = json!(wallet.address());
    login(&bench, &named).await.assert_problem(401, "signature_refused");
    // So many attempts in vain about one wallet are delayed.
    sqlx::query("delete from sign_in_failures where key like 'wallet/%'").execute(&bench.pool).await.unwrap();
    // The gateway was of another network when it issued this one.
    let elsewhere = bench.another(|config| config.chain = Some(access_to(MAINNET))).await;
    let foreign = challenge(&elsewhere, &wallet).await;
    login(&bench, &typed(&foreign, &wallet)).await.assert_problem(401, "challenge_expired");
    // Issued six minutes ago, and two minutes from now.
    for minutes in [-6, 2] {
        let clock = ManualClock::at(Micros(SystemClock.now().0 + minutes * 60_000_000));
        let other =
            bench.another_with(Arc::new(clock), |config| config.chain = Some(access_to(GENESIS))).await;
        let open = challenge(&other, &wallet).await;
        login(&bench, &typed(&open, &wallet)).await.assert_problem(401, "challenge_expired");
    }
    let unknown = json!({ "method": "eip712", "challenge_id": Uuid::nil(), "signature": "0x" });
    login(&bench, &unknown).await.assert_problem(401, "challenge_expired");
    for table in ["select count(*) from users", "select count(*) from user_sessions"] {
        assert_eq!(count(&bench, table).await, 0);
    }
    let events = bench.kafka.documents("security_events");
    assert!(events.iter().any(|event| event["event_type"] == "failed_login" && event["severity"] == "low"));
    assert!(
        events.iter().any(|event| event["event_type"] == "failed_login" && event["severity"] == "medium")
    );
}

#[tokio::test]
async fn a_challenge_is_asked_for_a_real_address_and_a_known_domain() {
    let bench = Bench::start_with(|config| {
        config.chain = Some(access_to(GENESIS));
        config.cors_origins = vec!["https://app.example".into()];
    })
    .await;
    let ask = async |request: Value| bench.json("POST", "/v1/auth/challenge", "", &request).await;
    let good = "0xd989829d88B0eD1B06eDF5C50174eCfA64F14A64";
    let slip = good.replacen("B0eD", "b0eD", 1);
    for address in ["", "0x", &slip, &format!("0x{}", "0".repeat(40))] {
        ask(json!({ "address": address })).await.assert_problem(422, "invalid_address");
    }
    ask(json!({ "address": good, "domain": "evil.example" })).await.assert_problem(422, "unknown_domain");
    for request in [json!({}), json!([]), json!({ "address": 7 }), json!({ "address": good, "extra": 1 })] {
        ask(request).await.assert_problem(400, "malformed_document");
    }
    let app = ask(json!({ "address": good, "domain": "app.example" })).await.json();
    assert!(app["text"].as_str().unwrap().starts_with("Sign in to Milestream at app.example."), "{app}");
    assert_eq!(ask(json!({ "address": "a".repeat(70_000) })).await.status, 413);
}

#[tokio::test]
async fn asking_for_a_challenge_keeps_nothing_and_one_that_was_used_is_kept_for_an_hour_after_its_end() {
    let (bench, wallet) = (bench().await, wallet());
    let kept = async || count(&bench, "select count(*) from wallet_challenges").await;
    for _ in 0..30 {
        challenge(&bench, &wallet).await;
    }
    assert_eq!(kept().await, 0);
    signed_in(&bench, &wallet).await;
    signed_in(&bench, &wallet).await;
    assert_eq!(kept().await, 2);
    sqlx::query(
        "update wallet_challenges set expires_at = expires_at - interval '2 hours'
         where id = (select min(id::text)::uuid from wallet_challenges)",
    )
    .execute(&bench.pool)
    .await
    .unwrap();
    // A gateway that starts keeps house at once.
    let _other = bench.another(|_| {}).await;
    let pruned = async { while kept().await > 1 {} };
    tokio::time::timeout(Duration::from_secs(60), pruned).await.unwrap();
}

#[tokio::test]
async fn a_challenge_of_one_gateway_opens_another_and_each_once_in_all() {
    let (bench, wallet) = (bench().await, wallet());
    let other = bench.another(|config| config.chain = Some(access_to(GENESIS))).await;
    let open = challenge(&bench, &wallet).await;
    let proof = typed(&open, &wallet);
    assert_eq!(login(&other, &proof).await.status, 200);
    login(&bench, &proof).await.assert_problem(401, "challenge_used");
    // One for linking is used up in the same place.
    let tokens = signed_in(&bench, &wallet).await;
    let request = json!({ "address": crate::signing_in::wallet().address() });
    let linking = bench.json("POST", "/v1/wallets/challenge", access(&tokens), &request).await.json();
    let strangers =
        json!({ "method": "eip712", "challenge_id": linking["challenge_id"], "signature": "0x00" });
    login(&other, &strangers).await.assert_problem(401, "challenge_expired");
}

#[tokio::test]
async fn attempts_in_vain_are_delayed_longer_each_time_and_a_wallets_owner_gets_in_from_where_they_were() {
    let (bench, wallet) = (bench().await, wallet());
    signed_in(&bench, &wallet).await;
    let stranger = crate::signing_in::wallet();
    let mut delays = Vec::new();
    for _ in 0..13 {
        let open = challenge(&bench, &stranger).await;
        login(&bench, &typed(&open, &wallet)).await.assert_problem(401, "signature_refused");
        let until: Vec<f64> = sqlx::query_scalar(
            "select extract(epoch from delayed_until - last_at)::float8 from sign_in_failures order by key",
        )
        .fetch_all(&bench.pool)
        .await
        .unwrap();
        delays.push(until);
        sqlx::query("update sign_in_failures set delayed_until = last_at")
            .execute(&bench.pool)
            .await
            .unwrap();
    }
    let of = |n: usize| delays.iter().map(|delay| delay[n].round()).collect::<Vec<f64>>();
    assert_eq!(of(0), [0., 0., 0., 0., 0., 0., 0., 0., 0., 0., 2., 4., 8.], "by network");
    assert_eq!(of(1), [0., 0., 0., 0., 0., 2., 4., 8., 16., 32., 60., 60., 60.], "by wallet");
    // The network's delay is in force now: nobody there gets in, with the right signature either.
    let set = async |key: &str, seconds: f64| {
        sqlx::query(
            "update sign_in_failures set delayed_until = now() + make_interval(secs => $2) where key like $1",
        )
        .bind(format!("{key}/%"))
        .bind(seconds)
        .execute(&bench.pool)
        .await
        .unwrap();
    };
    set("network", 90.).await;
    let open = challenge(&bench, &wallet).await;
    let refused = login(&bench, &typed(&open, &wallet)).await.assert_problem(429, "sign_in_delayed");
    assert!((89..=91).contains(&refused["retry_after"].as_i64().unwrap()), "{refused}");
    set("network", 0.).await;
    // A wallet's delay holds for the stranger, and not for one who signed in from here before.
    sqlx::query("update sign_in_failures set key = 'wallet/' || $1 where key like 'wallet/%'")
        .bind(wallet.address().to_string())
        .execute(&bench.pool)
        .await
        .unwrap();
    set("wallet", 30.).await;
    assert_eq!(login(&bench, &typed(&open, &wallet)).await.status, 200);
    assert_eq!(count(&bench, "select count(*) from sign_in_failures where key like 'wallet/%'").await, 0);
    let kinds: Vec<String> = bench
        .kafka
        .documents("security_events")
        .iter()
        .map(|event| event["event_type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "account_locked").count(),
        1,
        "once, where the delay begins"
    );
    assert_eq!(kinds.iter().filter(|kind| *kind == "rate_limited").count(), 1);
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_one_that_comes_again_ends_its_session() {
    let (bench, wallet) = (bench().await, wallet());
    let first = signed_in(&bench, &wallet).await;
    let other = signed_in(&bench, &wallet).await;
    let second = refresh(&bench, &first).await.json();
    assert_eq!((&second["session_id"], &second["user_id"]), (&first["session_id"], &first["user_id"]));
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(bench.get("/v1/uploads", access(&second)).await.status, 200);
    refresh(&bench, &first).await.assert_problem(401, "refresh_reused");
    refresh(&bench, &second).await.assert_problem(401, "refresh_invalid");
    bench.get("/v1/uploads", access(&second)).await.assert_problem(401, "token_invalid");
    assert_eq!(bench.get("/v1/uploads", access(&other)).await.status, 200, "other sessions go on");
    let reuse: Vec<Value> = bench
        .kafka
        .documents("security_events")
        .into_iter()
        .filter(|event| event["event_type"] == "token_reuse")
        .collect();
    assert_eq!(
        (reuse.len(), &reuse[0]["severity"], &reuse[0]["user_id"]),
        (1, &json!("high"), &first["user_id"])
    );
    // Of two at once one gets the next tokens, and the session ends: the other held a copy.
    let responses = join_all((0..2).map(|_| refresh(&bench, &other))).await;
    assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 1, "{responses:?}");
    assert_eq!(count(&bench, "select count(*) from user_sessions where is_active").await, 0);
    let guess = json!({ "refresh_token": "x".repeat(43) });
    refresh(&bench, &guess).await.assert_problem(401, "refresh_invalid");
}

#[tokio::test]
async fn a_session_ends_by_its_time_by_a_lock_and_by_its_owner_and_is_nobody_elses() {
    let (bench, wallet) = (bench().await, wallet());
    let mine = signed_in(&bench, &wallet).await;
    let phone = signed_in(&bench, &wallet).await;
    let theirs = signed_in(&bench, &crate::signing_in::wallet()).await;
    let list = bench.get("/v1/sessions", access(&mine)).await.json();
    let shown: Vec<(&Value, &Value)> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| (&item["session_id"], &item["current"]))
        .collect();
    assert_eq!(shown, [(&phone["session_id"], &json!(false)), (&mine["session_id"], &json!(true))]);
    let end = async |session: &Value| {
        let path = format!("/v1/sessions/{}", session["session_id"].as_str().unwrap());
        bench.json("DELETE", &path, access(&mine), &json!({})).await
    };
    end(&theirs).await.assert_problem(404, "session_not_found");
    end(&json!({ "session_id": "x" })).await.assert_problem(404, "session_not_found");
    assert_eq!(bench.get("/v1/uploads", access(&theirs)).await.status, 200);
    for _ in 0..2 {
        assert_eq!(end(&phone).await.status, 204);
    }
    bench.get("/v1/uploads", access(&phone)).await.assert_problem(401, "token_invalid");
    refresh(&bench, &phone).await.assert_problem(401, "refresh_invalid");
    assert_eq!(bench.json("POST", "/v1/auth/logout", access(&mine), &json!({})).await.status, 204);
    bench.get("/v1/uploads", access(&mine)).await.assert_problem(401, "token_invalid");
    bench.relay().await;
    let logs = bench.kafka.documents("auth_logs");
    let ended: Vec<&Value> =
        logs.iter().filter(|log| log["session_duration"].is_i64()).map(|log| &log["action"]).collect();
    assert_eq!(ended, ["session_revoke", "logout"]);

    let run = async |sql: &'static str| sqlx::query(sql).execute(&bench.pool).await.unwrap();
    let late = signed_in(&bench, &wallet).await;
    run("update user_sessions set expires_at = now() - interval '1 second'").await;
    refresh(&bench, &late).await.assert_problem(401, "refresh_invalid");
    let locked = signed_in(&bench, &wallet).await;
    run("update users set is_active = false").await;
    refresh(&bench, &locked).await.assert_problem(403, "account_locked");
    let open = challenge(&bench, &wallet).await;
    login(&bench, &typed(&open, &wallet)).await.assert_problem(403, "account_locked");
}

#[tokio::test]
async fn a_user_has_twenty_sessions_and_the_one_that_was_used_least_recently_makes_room() {
    let (bench, wallet) = (bench().await, wallet());
    let mut tokens = Vec::new();
    for _ in 0..20 {
        tokens.push(signed_in(&bench, &wallet).await);
    }
    // The first has been used since the second was.
    sqlx::query("update user_sessions set last_activity = last_activity + interval '1 hour' where id = $1")
        .bind(tokens[0]["session_id"].as_str().unwrap().parse::<Uuid>().unwrap())
        .execute(&bench.pool)
        .await
        .unwrap();
    let newest = signed_in(&bench, &wallet).await;
    let open = async |tokens: &Value| bench.get("/v1/me", access(tokens)).await;
    open(&tokens[1]).await.assert_problem(401, "token_invalid");
    for tokens in [&tokens[0], &tokens[2], &tokens[19], &newest] {
        assert_eq!(open(tokens).await.status, 200);
    }
    assert_eq!(count(&bench, "select count(*) from user_sessions where is_active").await, 20);
    bench.relay().await;
    let ended = bench.kafka.documents("auth_logs");
    let ended: Vec<&Value> = ended.iter().filter(|log| log["action"] == "session_revoke").collect();
    assert_eq!((ended.len(), &ended[0]["metadata"]["session_id"]), (1, &tokens[1]["session_id"]));
}

#[tokio::test]
async fn a_wallet_that_an_operator_linked_opens_the_account_that_it_was_linked_to() {
    let (bench, wallet) = (bench().await, wallet());
    let (user, _) = bench.driver().await;
    let address = wallet.address().to_string();
    let now = Micros(1_770_000_000_000_000);
    ingest::wallets::add_wallet(&bench.pool, crate::support::SCHEMAS(), user, &address, "testnet", now)
        .await
        .unwrap();
    assert_eq!(signed_in(&bench, &wallet).await["user_id"], json!(user));
    let verified = count(&bench, "select count(*) from users where is_verified").await;
    assert_eq!(verified, 1);
}

#[tokio::test]
async fn a_gateway_without_a_network_signs_nobody_in_and_publishes_its_keys_all_the_same() {
    let bench = Bench::start().await;
    let request = json!({ "address": wallet().address() });
    bench.json("POST", "/v1/auth/challenge", "", &request).await.assert_problem(503, "sign_in_unavailable");
    let keys = bench.send("GET /.well-known/jwks.json HTTP/1.1", b"").await;
    assert_eq!(keys.json(), serde_json::from_str::<Value>(&bench.key.jwks()).unwrap());
    assert!(keys.head.contains("cache-control: public"), "{}", keys.head);
}
