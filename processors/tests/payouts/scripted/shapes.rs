//! The same calls against a real solo node and a scripted one: status, kind of content, the shape of what is JSON and the words of what
//! is not are the same.

use chain::abi::{Proof, ProofType, RewardCall};
use chain::node::Revision;
use chain::{BlockRef, Clause, Fees, UnsignedTx};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::payouts::{LIMIT, SOLO_KEYS, Signer, b3tr, contracts, thor, wallet};

/// The call whose real response changes a moment after the block is there.
const ON_CHAIN: &str = "a post of what is on the chain";

/// A call and what it is about.
struct Call {
    method: &'static str,
    path: String,
    body: Option<Value>,
    genesis: BlockId,
}

/// What a node gives: status, kind, body.
#[derive(Debug)]
struct Given {
    status: u16,
    kind: String,
    body: String,
}

async fn ask(url: &str, call: &Call) -> Given {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = call.body.as_ref().map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{} {} HTTP/1.1\r\nhost: {address}\r\nx-genesis-id: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        call.method,
        call.path,
        call.genesis,
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    // The scripted node leaves the connection open: what it announces is read.
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let header = |name: &str| {
                head.lines().find_map(|line| {
                    let (found, value) = line.split_once(':')?;
                    found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let body = match header("content-length").and_then(|length| length.parse::<usize>().ok()) {
                Some(length) => rest.get(..length).map(str::to_owned),
                None => unchunked(rest),
            };
            if let Some(body) = body {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Given { status, kind: header("content-type").unwrap_or_default(), body };
            }
        }
        let mut piece = [0; 65536];
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "{} {}: cut after {text}", call.method, call.path);
        bytes.extend_from_slice(&piece[..count]);
    }
}

/// A body in chunks, once the last one is there.
fn unchunked(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (length, after) = rest.split_once("\r\n")?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.push_str(after.get(..length)?);
        rest = after.get(length + 2..)?;
    }
}

/// Where two responses differ in shape.
fn differences(place: &str, real: &Value, scripted: &Value, found: &mut Vec<String>) {
    match (real, scripted) {
        (Value::Object(one), Value::Object(other)) => {
            for name in one.keys().chain(other.keys().filter(|name| !one.contains_key(*name))) {
                match (one.get(name), other.get(name)) {
                    (Some(one), Some(other)) => differences(&format!("{place}.{name}"), one, other, found),
                    (Some(_), None) => found.push(format!("{place}.{name} is missing")),
                    _ => found.push(format!("{place}.{name} is too much")),
                }
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            if let (Some(one), Some(other)) = (one.first(), other.first()) {
                differences(&format!("{place}[0]"), one, other, found);
            }
        }
        _ if kind(real) == kind(scripted) => {}
        _ => found.push(format!("{place}: {real} and {scripted}")),
    }
}

/// Hashes and addresses are told from other hex by their length.
fn kind(value: &Value) -> String {
    match value {
        Value::String(text) if text.starts_with("0x") && [42, 66].contains(&text.len()) => {
            format!("{} digits", text.len())
        }
        Value::String(text) if text.starts_with("0x") => "hex".into(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        Value::Bool(_) => "bool".into(),
        Value::Null => "null".into(),
        Value::Array(_) => "array".into(),
        Value::Object(_) => "object".into(),
    }
}

/// What both nodes are about: the clauses that are posted, and what comes of them.
struct Place {
    url: String,
    genesis: BlockId,
    best: BlockId,
    clause: Clause,
}

impl Place {
    fn signed(&self, tag: u8, block: BlockRef, expiration: u32) -> SignedTx {
        let unsigned = UnsignedTx {
            chain_tag: tag,
            block_ref: block,
            expiration,
            clauses: vec![self.clause.clone()],
            fees: Fees::Dynamic {
                max_priority_fee_per_gas: 1_u128.into(),
                max_fee_per_gas: 100_000_000_000_000_u128.into(),
            },
            gas: 1_000_000,
            depends_on: None,
            nonce: 7,
            delegated: false,
        };
        SignedTx::sign(unsigned, &Signer::from_hex(SOLO_KEYS[1]).unwrap()).unwrap()
    }

    fn post(&self, tx: &SignedTx) -> Call {
        self.call("POST", "/transactions", Some(json!({ "raw": format!("0x{}", hex::encode(tx.encode())) })))
    }

    fn call(&self, method: &'static str, path: &str, body: Option<Value>) -> Call {
        Call { method, path: path.to_owned(), body, genesis: self.genesis }
    }

    /// The calls, with a name for each, once the transaction is in a block.
    fn calls(&self, paid: &SignedTx, block: BlockId) -> Vec<(&'static str, Call)> {
        let get = |path: String| self.call("GET", &path, None);
        let (id, unknown, head) = (paid.id(), BlockId([0x77; 32]), block.number());
        let pool = self.clause.to.unwrap();
        let simulated = |data: &[u8], revision: &str| {
            let clause = json!({ "to": pool, "value": "0x0", "data": format!("0x{}", hex::encode(data)) });
            let body = json!({ "clauses": [clause], "caller": paid.origin() });
            self.call("POST", &format!("/accounts/*?revision={revision}"), Some(body))
        };
        let logs = json!({
            "criteriaSet": [{ "address": pool, "topic0": topic::REWARD_DISTRIBUTED.to_string() }],
            "range": { "unit": "block", "from": head, "to": head },
            "options": { "offset": 0, "limit": 1000, "includeIndexes": true }, "order": "asc",
        });
        let tag = self.genesis.chain_tag();
        let elsewhere = Call { genesis: unknown, ..get("/blocks/best".into()) };
        vec![
            ("the best block", get("/blocks/best".into())),
            ("the final block", get("/blocks/finalized".into())),
            ("the genesis block", get("/blocks/0".into())),
            ("a block by its id", get(format!("/blocks/{block}"))),
            ("a block with its transactions", get(format!("/blocks/{block}?expanded=true"))),
            ("a height that is not there yet", get("/blocks/4000000000".into())),
            ("an unknown block", get(format!("/blocks/{unknown}"))),
            ("a revision that is none", get("/blocks/x".into())),
            ("a transaction", get(format!("/transactions/{id}"))),
            ("a transaction's bytes", get(format!("/transactions/{id}?raw=true"))),
            ("an unknown transaction", get(format!("/transactions/{unknown}"))),
            ("a receipt", get(format!("/transactions/{id}/receipt"))),
            ("an unknown receipt", get(format!("/transactions/{unknown}/receipt"))),
            ("a receipt as of a block before", get(format!("/transactions/{id}/receipt?head={}", self.best))),
            ("a receipt as of an unknown block", get(format!("/transactions/{id}/receipt?head={unknown}"))),
            (ON_CHAIN, self.post(paid)),
            ("a post of what has expired", self.post(&self.signed(tag, BlockRef(0), 1))),
            ("a post for another chain", self.post(&self.signed(tag.wrapping_add(1), self.best.into(), 30))),
            ("a post of no transaction", self.call("POST", "/transactions", Some(json!({ "raw": "0x51" })))),
            ("a reward that is tried out", simulated(&self.clause.data, "next")),
            ("the pool's version", simulated(&hex::decode("54fd4d50").unwrap(), "best")),
            ("logs", self.call("POST", "/logs/event", Some(logs))),
            ("an account", get(format!("/accounts/{}", paid.origin()))),
            ("a contract's code", get(format!("/accounts/{pool}/code"))),
            ("a suggested tip", get("/fees/priority".into())),
            ("another network", elsewhere),
        ]
    }
}

fn clause(pool: Address, app: chain::AppId) -> Clause {
    let evidence = vec![(ProofType::Text, format!("reward {}", uuid::Uuid::from_u128(7)))];
    let proof = Proof { evidence, impacts: Vec::new(), description: "a shape".into() };
    RewardCall { app, amount: b3tr(1), receiver: wallet(0x51) }.with_proof(pool, &proof)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scripted_node_responds_in_the_shapes_and_words_of_a_real_one() {
    let deployed = contracts().await;
    let node = chain::Node::new(&thor(), None, chain::node::Limits::default()).unwrap();
    let best = node.block(Revision::Best).await.unwrap().unwrap().id;
    let clause_of = |pool, app| clause(pool, app);
    let real = Place {
        url: thor(),
        genesis: deployed.genesis_id,
        best,
        clause: clause_of(deployed.rewards_pool, deployed.app_id),
    };
    let chain = Chain::new();
    chain.lock().unwrap().grow(20);
    let stand_in = Thor::start(&chain).await;
    let best = chain.lock().unwrap().blocks[20].id;
    let scripted = Place {
        url: stand_in.url.clone(),
        genesis: GENESIS,
        best,
        clause: clause_of(wallet(0x90), chain::AppId([0x0a; 32])),
    };

    let paid = [&real, &scripted].map(|place| place.signed(place.genesis.chain_tag(), place.best.into(), 30));
    let mut found = Vec::new();
    let posts =
        [ask(&real.url, &real.post(&paid[0])).await, ask(&scripted.url, &scripted.post(&paid[1])).await];
    compare("a post", &posts, &mut found);
    let pending = |place: &Place, tx: &SignedTx| {
        place.call("GET", &format!("/transactions/{}?pending=true", tx.id()), None)
    };
    let waiting = [
        ask(&real.url, &pending(&real, &paid[0])).await,
        ask(&scripted.url, &pending(&scripted, &paid[1])).await,
    ];
    // A real node may hold it in a block by now.
    if waiting[0].body.contains("\"meta\":null") {
        compare("a transaction that waits", &waiting, &mut found);
    }
    chain.lock().unwrap().mine(false);
    let until = std::time::Instant::now() + LIMIT;
    let block = loop {
        if let Some(receipt) = node.receipt(paid[0].id(), None).await.unwrap() {
            assert!(!receipt.reverted);
            break receipt.meta.block_id;
        }
        assert!(std::time::Instant::now() < until, "no block holds it");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let held = chain.lock().unwrap().blocks[21].id;
    let pairs = real.calls(&paid[0], block).into_iter().zip(scripted.calls(&paid[1], held));
    let mut calls = 2;
    for ((name, one), (_, other)) in pairs {
        let mut given = [ask(&real.url, &one).await, ask(&scripted.url, &other).await];
        // The real pool takes note of a block a little later, and takes its transactions for waiting until then.
        while name == ON_CHAIN && given[0].status == 200 && std::time::Instant::now() < until {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            given[0] = ask(&real.url, &one).await;
        }
        keep_only(&mut given[0], &paid[0].id().to_string());
        compare(name, &given, &mut found);
        calls += 1;
    }
    println!("{calls} calls compared");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Leaves out of a block what other tests have sent meanwhile.
fn keep_only(given: &mut Given, tx: &str) {
    let Ok(mut body) = serde_json::from_str::<Value>(&given.body) else { return };
    if let Some(Value::Array(transactions)) = body.get_mut("transactions") {
        transactions.retain(|one| one == tx || one["id"] == tx);
        given.body = body.to_string();
    }
}

fn compare(name: &str, [real, scripted]: &[Given; 2], found: &mut Vec<String>) {
    let before = found.len();
    if real.status != scripted.status || real.kind != scripted.kind {
        found.push(format!("{} {:?} and {} {:?}", real.status, real.kind, scripted.status, scripted.kind));
    }
    match (serde_json::from_str(&real.body), serde_json::from_str(&scripted.body)) {
        (Ok(one), Ok(other)) => differences("", &one, &other, found),
        _ if real.body == scripted.body => {}
        _ => found.push(format!("{:?} and {:?}", real.body, scripted.body)),
    }
    for difference in &mut found[before..] {
        *difference = format!("{name}: {difference}");
    }
}
