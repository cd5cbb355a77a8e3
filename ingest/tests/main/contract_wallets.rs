//! Wallets that are contracts (EIP-1271), on a real Thor node. `THOR_URL` names a solo node with a block interval.

use std::time::{Duration, Instant};

use chain::certificate::{Certificate, Payload};
use chain::deploy::{Operator, SOLO_KEYS};
use chain::node::{Limits, Node};
use chain::{Address, Clause, Signer};
use chrono::Utc;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::signing_in::{access, bench_with, challenge_of, login, signed_in, typed, wallet};
use crate::support::{Bench, Response};

/// The node, and the network's genesis block.
async fn thor() -> (Node, String) {
    let url =
        std::env::var("THOR_URL").expect("THOR_URL is not set: run this test under `devstack --with thor`");
    let node = Node::new(&url, None, Limits::default()).unwrap();
    let genesis = node.genesis().await.unwrap().to_string();
    (node, genesis)
}

/// A gateway on the node's network that asks this node about contracts.
async fn bench(node: Option<Node>, genesis: &str) -> Bench {
    bench_with(|config| {
        config.chain.as_mut().unwrap().genesis_id = genesis.to_owned();
        config.contract_wallets = node;
    })
    .await
}

/// A smart account in 118 bytes: `isValidSignature` says yes where `ecrecover` finds its owner. It does not look at the selector.
fn smart_account(owner: Address) -> Vec<u8> {
    let magic = format!("1626ba7e{}", "00".repeat(28));
    let code = [
        // The hash, at 4 of the call data, into the first word of memory.
        "600435600052",
        // v, the last of the signature's 65 bytes, which begin at 0x64; 27 more, as the precompile wants it; into the second word.
        "60a43560001a",
        "601b01602052",
        // r and s into the third and fourth.
        "606435604052",
        "608435606052",
        // ecrecover (contract 1) of these 0x80 bytes, into the word behind them.
        "60206080608060006001",
        "5afa50",
        // Its owner? Then on at 0x4c, else the empty word at 0xa0 is the response.
        "60805173",
        &hex::encode(owner.0),
        "14",
        "604c57",
        "602060a0f3",
        // The magic value.
        "5b7f",
        &magic,
        "60005260206000f3",
    ]
    .concat();
    let code = hex::decode(code).unwrap();
    assert_eq!(code[0x4c], 0x5b, "a jump goes to a JUMPDEST");
    // What makes the contract copies the code behind itself: 11 bytes.
    let length = u8::try_from(code.len()).unwrap();
    [&[0x60, length, 0x80, 0x60, 0x0b, 0x60, 0x00, 0x39, 0x60, 0x00, 0xf3][..], &code].concat()
}

/// A contract that fails whatever it is called with.
fn failing() -> Vec<u8> {
    // PUSH1 0, PUSH1 0, REVERT: 5 bytes.
    hex::decode("600580600b6000396000f360006000fd").unwrap()
}

async fn deploy(node: &Node, code: Vec<u8>) -> Address {
    let signer = Signer::from_hex(SOLO_KEYS[2]).unwrap();
    let operator = Operator::new(node, &signer).await.unwrap();
    let receipt = operator.send("a wallet", vec![Clause::create(code)]).await.unwrap();
    receipt.outputs[0].contract_address.unwrap()
}

/// A certificate of the contract's, whose signature is its owner's.
fn certificate(challenge: &Value, wallet: Address, owner: &Signer) -> Value {
    let certificate = Certificate {
        domain: "gateway.test".into(),
        payload: Payload { content: challenge["text"].as_str().unwrap().to_owned(), kind: "text".into() },
        purpose: "identification".into(),
        signer: wallet,
        timestamp: Utc::now().timestamp(),
    };
    let mut signed = serde_json::to_value(&certificate).unwrap();
    signed["signature"] =
        json!(format!("0x{}", hex::encode(owner.sign_prehash(&certificate.signing_hash()).unwrap().0)));
    json!({ "method": "certificate", "challenge_id": challenge["challenge_id"], "certificate": signed })
}

/// Signs in as a wallet by typed data that somebody signs.
async fn by_typed_data(bench: &Bench, wallet: Address, signer: &Signer) -> Response {
    let challenge = challenge_of(bench, wallet).await;
    login(bench, &typed(&challenge, signer)).await
}

async fn failures(bench: &Bench) -> i64 {
    sqlx::query_scalar("select count(*) from sign_in_failures").fetch_one(&bench.pool).await.unwrap()
}

#[tokio::test]
async fn a_wallet_that_is_a_contract_signs_in_and_is_linked_by_its_owners_signature_in_both_ways() {
    let ((node, genesis), owner) = (thor().await, wallet());
    let account = deploy(&node, smart_account(owner.address())).await;
    let bench = bench(Some(node.clone()), &genesis).await;
    let first = by_typed_data(&bench, account, &owner).await;
    assert_eq!(first.status, 200, "{first:?}");
    let challenge = challenge_of(&bench, account).await;
    let again = login(&bench, &certificate(&challenge, account, &owner)).await;
    assert_eq!((again.status, &again.json()["user_id"]), (200, &first.json()["user_id"]), "{again:?}");
    let me = bench.get("/v1/me", access(&again.json())).await.json();
    assert_eq!(me["wallet_address"], account.to_string());
    // The owner's own address is another wallet, and whoever has that may link the contract.
    let other = signed_in(&bench, &owner).await;
    assert_ne!(other["user_id"], me["user_id"]);
    let second = deploy(&node, smart_account(owner.address())).await;
    let request = json!({ "address": second });
    let challenge = bench.json("POST", "/v1/wallets/challenge", access(&other), &request).await.json();
    let linked = bench.json("POST", "/v1/wallets", access(&other), &typed(&challenge, &owner)).await;
    assert_eq!((linked.status, &linked.json()["address"]), (200, &json!(second)), "{linked:?}");
    bench.relay().await;
    let logs = bench.kafka.documents("auth_logs");
    let methods: Vec<_> = logs.iter().map(|log| (&log["action"], &log["metadata"]["method"])).collect();
    let (eip1271, by_key) = (json!("eip1271"), json!("certificate"));
    let (sign_in, connect) = (json!("login"), json!("wallet_connect"));
    assert_eq!(
        methods,
        [(&sign_in, &eip1271), (&sign_in, &eip1271), (&sign_in, &by_key), (&connect, &eip1271)]
    );
}

#[tokio::test]
async fn what_a_contract_does_not_take_for_its_own_is_refused_and_counted_and_so_is_an_address_without_one() {
    let ((node, genesis), owner) = (thor().await, wallet());
    let account = deploy(&node, smart_account(owner.address())).await;
    let broken = deploy(&node, failing()).await;
    let bench = bench(Some(node), &genesis).await;
    let precompiled: Address = format!("0x{:040x}", 4).parse().unwrap();
    let nobody = wallet().address();
    for address in [account, broken, precompiled, nobody] {
        let refused = by_typed_data(&bench, address, &wallet()).await;
        refused.assert_problem(401, "signature_refused");
        assert_eq!(failures(&bench).await, 2, "of the network and of the wallet");
        sqlx::query("delete from sign_in_failures").execute(&bench.pool).await.unwrap();
    }
    // A contract's signature may have any length, and one that is used is used.
    let challenge = challenge_of(&bench, account).await;
    for length in [0, 1, 64, 66, 4096, 4097] {
        let signature = format!("0x{}", "ab".repeat(length));
        let proof =
            json!({ "method": "eip712", "challenge_id": challenge["challenge_id"], "signature": signature });
        login(&bench, &proof).await.assert_problem(401, "signature_refused");
        sqlx::query("delete from sign_in_failures").execute(&bench.pool).await.unwrap();
    }
    let proof = typed(&challenge, &owner);
    assert_eq!(login(&bench, &proof).await.status, 200);
    login(&bench, &proof).await.assert_problem(401, "challenge_used");
}

#[tokio::test]
async fn a_node_that_does_not_respond_is_no_wrong_signature_and_holds_nobody_up_who_signs_with_a_key() {
    let (_, genesis) = thor().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let limits = Limits { call: Duration::from_millis(300), ..Limits::default() };
    let another = format!("0x00000000{}", "12".repeat(28)).parse().unwrap();
    let url_of_thor = std::env::var("THOR_URL").unwrap();
    let nodes = [
        ("silent", Node::new(&url, None, limits).unwrap()),
        ("closed", Node::new("http://127.0.0.1:1", None, limits).unwrap()),
        ("of another network", Node::new(&url_of_thor, Some(another), Limits::default()).unwrap()),
    ];
    for (name, node) in nodes {
        let (bench, begun) = (bench(Some(node), &genesis).await, Instant::now());
        let unheard = async { by_typed_data(&bench, wallet().address(), &wallet()).await };
        let (unheard, own) = (unheard, wallet());
        let (unheard, by_key) = tokio::join!(unheard, signed_in(&bench, &own));
        let problem = unheard.assert_problem(503, "node_unavailable");
        assert!(!problem.to_string().contains("127.0.0.1"), "{name}: {problem}");
        assert!(by_key["access_token"].is_string(), "{name}");
        assert!(begun.elapsed() < Duration::from_secs(30), "{name}");
        assert_eq!(failures(&bench).await, 0, "{name}: nobody has done wrong");
    }
}

#[tokio::test]
async fn without_a_node_a_contracts_signature_is_refused_as_what_is_not_served() {
    let (_, genesis) = thor().await;
    let bench = bench(None, &genesis).await;
    let challenge = challenge_of(&bench, wallet().address()).await;
    let signature = format!("0x{}", "ab".repeat(97));
    let proof =
        json!({ "method": "eip712", "challenge_id": challenge["challenge_id"], "signature": signature });
    login(&bench, &proof).await.assert_problem(422, "contract_wallet_unsupported");
    login(&bench, &typed(&challenge, &wallet())).await.assert_problem(401, "signature_refused");
}
