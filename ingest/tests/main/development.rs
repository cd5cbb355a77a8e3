//! Wallets that the gateway signs for, on a developer's machine.

use ingest::config::DevelopmentWallet;
use serde_json::{Value, json};

use crate::signing_in::{GENESIS, MAINNET, access_to, bench, challenge, login, wallet};
use crate::support::Bench;

const KEY: &str = "0x2222222222222222222222222222222222222222222222222222222222222222";

async fn development(genesis: &str) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wallets.json");
    std::fs::write(&file, json!([{ "name": "Ada", "key": KEY }]).to_string()).unwrap();
    let wallets = DevelopmentWallet::read(&file).unwrap();
    Bench::start_with(|config| {
        config.chain = Some(access_to(genesis));
        config.development_wallets = wallets;
    })
    .await
}

async fn sign(bench: &Bench, challenge: &Value) -> crate::support::Response {
    let request = json!({ "challenge_id": challenge["challenge_id"] });
    bench.json("POST", "/v1/auth/development-signature", "", &request).await
}

async fn wallets(bench: &Bench) -> Value {
    bench.get("/v1/about", "").await.json()["development_wallets"].clone()
}

#[tokio::test]
async fn a_development_wallet_signs_in_by_the_same_proof_as_every_other() {
    let bench = development(GENESIS).await;
    let wallets = wallets(&bench).await;
    assert_eq!(wallets[0]["name"], "Ada");
    let asked =
        bench.json("POST", "/v1/auth/challenge", "", &json!({ "address": wallets[0]["address"] })).await;
    let challenge = asked.json();
    let signed = sign(&bench, &challenge).await.json();
    let proof = json!({ "method": "eip712", "challenge_id": challenge["challenge_id"], "signature": signed["signature"] });
    assert_eq!(login(&bench, &proof).await.status, 200);
    login(&bench, &proof).await.assert_problem(401, "challenge_used");
}

#[tokio::test]
async fn nothing_is_signed_for_a_wallet_whose_key_the_gateway_does_not_hold() {
    let bench = development(GENESIS).await;
    let other = challenge(&bench, &wallet()).await;
    sign(&bench, &other).await.assert_problem(404, "no_development_wallet");
}

#[tokio::test]
async fn there_is_no_development_wallet_by_default_and_none_on_mainnet() {
    for bench in [bench().await, development(MAINNET).await] {
        assert_eq!(wallets(&bench).await, json!([]));
        let challenge = challenge(&bench, &wallet()).await;
        sign(&bench, &challenge).await.assert_problem(404, "no_development_wallet");
    }
}
