//! Logins of those who have an account, which are looked up and written together.

use chain::Signer;
use futures::future::join_all;
use serde_json::Value;

use crate::signing_in::{
    GENESIS, access, access_to, bench, challenge, login, refresh, signed_in, typed, wallet,
};
use crate::support::Bench;

async fn count(bench: &Bench, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&bench.pool).await.unwrap()
}

fn sign_in_here(config: &mut ingest::GatewayConfig) {
    let many = ingest::config::Rate::new(10_000, std::time::Duration::from_secs(60));
    config.chain = Some(access_to(GENESIS));
    (config.rates.login_per_address, config.rates.login_per_wallet) = (many, many);
}

async fn known(bench: &Bench, count: usize) -> Vec<(Signer, Value)> {
    let mut known = Vec::new();
    for _ in 0..count {
        let wallet = wallet();
        let tokens = signed_in(bench, &wallet).await;
        known.push((wallet, tokens));
    }
    known
}

#[tokio::test]
async fn each_of_many_logins_at_once_has_its_own_session_record_and_tokens() {
    let bench = bench().await;
    let drivers = known(&bench, 8).await;
    sqlx::query("update users set last_login_at = null").execute(&bench.pool).await.unwrap();
    let logins = drivers.iter().map(|(wallet, _)| async {
        let open = challenge(&bench, wallet).await;
        login(&bench, &typed(&open, wallet)).await
    });
    for ((wallet, before), response) in drivers.iter().zip(join_all(logins).await) {
        assert_eq!(response.status, 200, "{response:?}");
        let tokens = response.json();
        assert_eq!(tokens["user_id"], before["user_id"], "{}", wallet.address());
        assert_eq!(bench.get("/v1/me", access(&tokens)).await.status, 200);
        assert_eq!(refresh(&bench, &tokens).await.status, 200);
    }
    assert_eq!(count(&bench, "select count(*) from users where last_login_at is null").await, 0);
    let active = "select count(*) from user_sessions where is_active and last_activity = date_trunc('minute', last_activity)";
    assert_eq!(count(&bench, active).await, 16);
    bench.relay().await;
    let logs = bench.kafka.documents("auth_logs");
    let of = |name: &str| logs.iter().filter(|log| log["action"] == name && log["success"] == true).count();
    assert_eq!((of("login"), of("token_refresh")), (16, 8));
}

#[tokio::test]
async fn of_a_known_wallets_attempts_at_once_with_one_challenge_one_wins() {
    let bench = bench().await;
    let (wallet, _) = known(&bench, 1).await.remove(0);
    let proof = typed(&challenge(&bench, &wallet).await, &wallet);
    let responses = join_all((0..6).map(|_| login(&bench, &proof))).await;
    assert_eq!(responses.iter().filter(|response| response.status == 200).count(), 1, "{responses:?}");
    for response in responses.iter().filter(|response| response.status != 200) {
        response.assert_problem(401, "challenge_used");
    }
    assert_eq!(count(&bench, "select count(*) from user_sessions").await, 2);
    let events = bench.kafka.documents("security_events");
    assert_eq!(events.iter().filter(|event| event["event_type"] == "challenge_replay").count(), 5);
}

#[tokio::test]
async fn logins_at_once_leave_a_known_user_twenty_sessions_and_record_each_that_made_room() {
    let bench = bench().await;
    let (wallet, _) = known(&bench, 1).await.remove(0);
    for _ in 1..18 {
        signed_in(&bench, &wallet).await;
    }
    let gateways = [bench.another(sign_in_here).await, bench.another(sign_in_here).await];
    let proofs = join_all((0..6).map(|_| async { typed(&challenge(&bench, &wallet).await, &wallet) })).await;
    let responses =
        join_all(proofs.iter().enumerate().map(|(n, proof)| login(&gateways[n % 2], proof))).await;
    assert!(responses.iter().all(|response| response.status == 200), "{responses:?}");
    assert_eq!(count(&bench, "select count(*) from user_sessions where is_active").await, 20);
    bench.relay().await;
    let logs = bench.kafka.documents("auth_logs");
    let ended =
        logs.iter().filter(|log| log["action"] == "session_revoke" && log["metadata"]["cause"] == "too_many");
    assert_eq!(ended.count(), 4);
}

#[tokio::test]
async fn a_known_wallet_that_was_removed_or_whose_account_is_locked_or_has_another_role_is_looked_at_anew() {
    let bench = bench().await;
    let (wallet, tokens) = known(&bench, 1).await.remove(0);
    let run = async |sql: &'static str| sqlx::query(sql).execute(&bench.pool).await.unwrap();
    run("update users set role = 'reviewer'").await;
    let reviewer = signed_in(&bench, &wallet).await;
    assert_eq!(bench.get("/v1/reviews", access(&reviewer)).await.status, 200);
    run("update users set is_active = false").await;
    login(&bench, &typed(&challenge(&bench, &wallet).await, &wallet))
        .await
        .assert_problem(403, "account_locked");
    run("update users set is_active = true").await;
    // An operator's account, and a wallet that never signed: what that proves is written down.
    run("update user_wallets set verified_at = null").await;
    run("update users set is_verified = false").await;
    assert_eq!(signed_in(&bench, &wallet).await["user_id"], tokens["user_id"]);
    assert_eq!(count(&bench, "select count(*) from users where is_verified").await, 1);
    assert_eq!(count(&bench, "select count(*) from user_wallets where verified_at is not null").await, 1);
    assert_eq!(count(&bench, "select count(*) from users").await, 1);
}
