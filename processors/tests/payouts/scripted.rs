//! A scripted node: a small HTTP server that says it is one. It stands in for what a solo node cannot show: a batch that reverts,
//! transactions that are dropped in silence, finality at will, nodes that lag, stay silent or contradict each other. Its shapes are
//! those that `chain/tests/solo.rs` reads from a real node.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chain::abi::{RewardCall, topic};
use chain::{Address, BlockId, SignedTx, TxId};
use schemas::events::{BlockAdopted, BlockPlace, ChainLog, ChainTransaction};
use schemas::ids::{EventId, Micros};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The chain that the nodes of a test share.
pub struct Chain {
    pub blocks: Vec<Block>,
    pub finalized: u32,
    /// What was posted and is in no block.
    pub pool: BTreeMap<TxId, SignedTx>,
    /// Posts so far.
    pub posts: usize,
    /// Receipts that were asked for so far.
    pub receipts: usize,
    /// Times that logs were asked for so far.
    pub looks: usize,
    /// Receivers whose clause fails when it is tried out now, with the pool's words.
    pub refused: HashMap<Address, String>,
    /// The same for every clause.
    pub refused_all: Option<String>,
    /// Receivers whose clause failed in the state before a block that is there.
    pub refused_then: HashMap<Address, String>,
    /// Wei of B3TR in the purse.
    pub purse: u128,
}

pub struct Block {
    pub id: BlockId,
    pub transactions: Vec<(SignedTx, bool)>,
}

fn block_id(number: usize) -> BlockId {
    let mut id = [0xaa; 32];
    id[..4].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    BlockId(id)
}

impl Chain {
    pub fn new() -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            blocks: vec![Block { id: block_id(0), transactions: Vec::new() }],
            finalized: 0,
            pool: BTreeMap::new(),
            posts: 0,
            receipts: 0,
            looks: 0,
            refused: HashMap::new(),
            refused_all: None,
            refused_then: HashMap::new(),
            purse: 1_000_000_000_000_000_000_000,
        }))
    }

    /// Adds empty blocks.
    pub fn grow(&mut self, count: usize) {
        for _ in 0..count {
            let id = block_id(self.blocks.len());
            self.blocks.push(Block { id, transactions: Vec::new() });
        }
    }

    /// Adds a block of all that waits.
    pub fn mine(&mut self, reverted: bool) {
        self.grow(1);
        let transactions = std::mem::take(&mut self.pool).into_values().map(|tx| (tx, reverted)).collect();
        self.blocks.last_mut().unwrap().transactions = transactions;
    }

    /// Forgets what waits.
    pub fn drop_pool(&mut self) {
        self.pool.clear();
    }

    /// A block as the gateway publishes it; its step is its number.
    pub fn adopted(&self, number: usize, genesis: BlockId) -> BlockAdopted {
        let block = &self.blocks[number];
        let at = Micros(1_772_438_400_000_000 + i64::try_from(number).unwrap() * 10_000_000);
        let number = i64::try_from(number).unwrap();
        BlockAdopted {
            event_id: EventId(uuid::Uuid::now_v7()),
            occurred_at: at,
            seq: number,
            genesis_id: genesis.to_string(),
            block: BlockPlace { id: block.id.to_string(), number, timestamp: at },
            parent_id: self.blocks[usize::try_from(number - 1).unwrap()].id.to_string(),
            adoption: 1,
            finalized_number: self.finalized.into(),
            retold: false,
            transactions: (0..)
                .zip(&block.transactions)
                .map(|(index, (tx, reverted))| ChainTransaction {
                    id: tx.id().to_string(),
                    index,
                    origin: tx.origin().to_string(),
                    gas_payer: tx.origin().to_string(),
                    gas_used: 100_000,
                    paid_wei: "1000000000000000000".into(),
                    reverted: *reverted,
                    logs: if *reverted { Vec::new() } else { logs(tx) },
                })
                .collect(),
        }
    }

    fn outcomes(&self, body: &Value, then: bool) -> Value {
        let mut outcomes = Vec::new();
        for clause in body["clauses"].as_array().unwrap() {
            let data = hex::decode(clause["data"].as_str().unwrap().trim_start_matches("0x")).unwrap();
            let refused = RewardCall::decode(&data).and_then(|(_, call)| {
                let of = if then { &self.refused_then } else { &self.refused };
                self.refused_all.clone().or_else(|| of.get(&call.receiver).cloned())
            });
            let failed = refused.is_some();
            let data = match refused {
                Some(text) => revert(&text),
                None => response(&data, self.purse),
            };
            outcomes.push(json!({
                "data": format!("0x{data}"), "events": [], "transfers": [], "gasUsed": 50_000, "reverted": failed,
                "vmError": if failed { "execution reverted" } else { "" },
            }));
            if failed {
                break;
            }
        }
        json!(outcomes)
    }
}

/// The pool's `RewardDistributed` for each clause.
fn logs(tx: &SignedTx) -> Vec<ChainLog> {
    (0..)
        .zip(&tx.unsigned().clauses)
        .map(|(n, clause)| {
            let (_, call) = RewardCall::decode(&clause.data).unwrap();
            let text = String::from_utf8_lossy(&clause.data).into_owned();
            let reward = text.split_once("reward ").unwrap().1[..36].to_owned();
            let proof = format!("{{\"text\":\"reward {reward}\"}}");
            ChainLog {
                clause_index: n,
                log_index: n,
                address: clause.to.unwrap().to_string(),
                topics: vec![
                    topic::REWARD_DISTRIBUTED.to_string(),
                    call.app.to_string(),
                    format!("0x{:0>64}", call.receiver.to_string().trim_start_matches("0x")),
                    format!("0x{:0>64}", tx.origin().to_string().trim_start_matches("0x")),
                ],
                data: format!(
                    "0x{:0>64}{:064x}{}",
                    call.amount.to_hex().trim_start_matches("0x"),
                    64,
                    text_tail(&proof)
                ),
            }
        })
        .collect()
}

/// A string's length and bytes, padded to words.
fn text_tail(text: &str) -> String {
    let mut bytes = hex::encode(text);
    bytes.push_str(&"0".repeat((64 - bytes.len() % 64) % 64));
    format!("{:064x}{bytes}", text.len())
}

fn revert(text: &str) -> String {
    format!("08c379a0{:064x}{}", 32, text_tail(text))
}

/// What the pool returns, by the function's selector.
fn response(data: &[u8], purse: u128) -> String {
    match data.get(..4).map(hex::encode).as_deref() {
        // version(): "8".
        Some("54fd4d50") => format!("{:064x}{}", 32, text_tail("8")),
        // isRewardsPoolEnabled, rewardsPoolBalance.
        Some("b81ddb2e") => format!("{:064x}", 1),
        Some("60dbdd08") => format!("{purse:064x}"),
        _ => format!("{:064x}", 0),
    }
}

/// One node of the chain.
pub struct Thor {
    pub url: String,
    pub chain: Arc<Mutex<Chain>>,
    /// Blocks that it lacks.
    pub behind: AtomicU32,
    /// Accepts connections and answers nothing.
    pub silent: AtomicBool,
    genesis: BlockId,
}

impl Thor {
    pub async fn start(chain: &Arc<Mutex<Chain>>, genesis: BlockId) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let thor = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            chain: chain.clone(),
            behind: AtomicU32::new(0),
            silent: AtomicBool::new(false),
            genesis,
        });
        let server = thor.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(stream).await });
            }
        });
        thor
    }

    pub fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap()
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        let (head, length) = loop {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
            bytes.extend_from_slice(&piece[..count]);
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
                let length = head.lines().find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok()
                });
                break (head, (end + 4, length.unwrap_or(0)));
            }
        };
        while bytes.len() < length.0 + length.1 {
            let mut piece = [0; 65536];
            let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
            bytes.extend_from_slice(&piece[..count]);
        }
        if self.silent.load(Ordering::Relaxed) {
            // Until the client gives up.
            let _ = stream.read(&mut [0; 1]).await;
            return None;
        }
        let target = head.split(' ').nth(1)?.to_owned();
        let body: Value = serde_json::from_slice(&bytes[length.0..]).unwrap_or_default();
        let text = self.answer(&target, &body).to_string();
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-genesis-id: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
            self.genesis,
            text.len()
        );
        stream.write_all(response.as_bytes()).await.ok()
    }

    fn answer(&self, target: &str, body: &Value) -> Value {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        let mut chain = self.chain();
        let best = chain.blocks.len() - 1 - usize::try_from(self.behind.load(Ordering::Relaxed)).unwrap();
        match parts.as_slice() {
            ["blocks", revision] => {
                let mut found = block(&chain, revision, best);
                if value("expanded").is_some() {
                    expand(&chain, &mut found);
                }
                found
            }
            ["logs", "event"] => {
                chain.looks += 1;
                events(&chain, body, best)
            }
            ["transactions"] => {
                let raw = hex::decode(body["raw"].as_str().unwrap().trim_start_matches("0x")).unwrap();
                let tx = SignedTx::decode(&raw).unwrap();
                let id = tx.id();
                chain.posts += 1;
                let known =
                    chain.blocks.iter().flat_map(|block| &block.transactions).any(|(tx, _)| tx.id() == id);
                if !known {
                    chain.pool.insert(id, tx);
                }
                json!({ "id": id })
            }
            ["transactions", id, "receipt"] => {
                chain.receipts += 1;
                receipt(&chain, id, value("head"), best)
            }
            ["transactions", id] => {
                let mut all = chain.blocks.iter().take(best + 1).flat_map(|block| &block.transactions);
                let found = all.find(|(tx, _)| tx.id().to_string() == *id);
                found.map_or(
                    Value::Null,
                    |(tx, _)| json!({ "raw": format!("0x{}", hex::encode(tx.encode())) }),
                )
            }
            ["accounts", "*"] => {
                let then = value("revision").is_some_and(|revision| revision.starts_with("0x"));
                chain.outcomes(body, then)
            }
            ["accounts", _, "code"] => json!({ "code": "0x60" }),
            ["accounts", _] => {
                json!({ "balance": "0x0", "energy": "0xffffffffffffffffffffff", "hasCode": false })
            }
            ["fees", "priority"] => json!({ "maxPriorityFeePerGas": "0x1" }),
            _ => Value::Null,
        }
    }
}

fn block(chain: &Chain, revision: &str, best: usize) -> Value {
    let number = match revision {
        "best" => best,
        "finalized" => best.min(usize::try_from(chain.finalized).unwrap()),
        id if id.starts_with("0x") => {
            match chain.blocks.iter().position(|block| block.id.to_string() == id) {
                Some(number) if number <= best => number,
                _ => return Value::Null,
            }
        }
        number => number.parse().unwrap(),
    };
    let Some(block) = chain.blocks.get(number).filter(|_| number <= best) else { return Value::Null };
    let ids: Vec<TxId> = block.transactions.iter().map(|(tx, _)| tx.id()).collect();
    json!({
        "number": number, "id": block.id, "parentID": block_id(number.saturating_sub(1)), "timestamp": now() - 10 * (best - number) as u64,
        "gasLimit": 40_000_000, "gasUsed": 0, "baseFeePerGas": "0x9184e72a000", "isTrunk": true,
        "isFinalized": number <= usize::try_from(chain.finalized).unwrap(), "transactions": ids,
    })
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn receipt(chain: &Chain, id: &str, head: Option<String>, best: usize) -> Value {
    let head = head.and_then(|head| chain.blocks.iter().position(|block| block.id.to_string() == head));
    let upto = head.unwrap_or(best);
    for (number, block) in chain.blocks.iter().enumerate().take(upto + 1) {
        for (tx, reverted) in &block.transactions {
            if tx.id().to_string() == id {
                return json!({
                    "gasUsed": 1, "gasPayer": tx.origin(), "paid": "0x1", "reward": "0x1", "reverted": reverted, "outputs": [],
                    "meta": { "blockID": block.id, "blockNumber": number, "blockTimestamp": 1, "txID": id, "txOrigin": tx.origin() },
                });
            }
        }
    }
    Value::Null
}

/// The pool's logs in a range of blocks.
fn events(chain: &Chain, body: &Value, best: usize) -> Value {
    let height = |name: &str| usize::try_from(body["range"][name].as_u64().unwrap()).unwrap();
    let mut found = Vec::new();
    for (number, block) in
        chain.blocks.iter().enumerate().take(best.min(height("to")) + 1).skip(height("from"))
    {
        let mut log_index = 0;
        for (tx_index, (tx, reverted)) in block.transactions.iter().enumerate() {
            for log in logs(tx).into_iter().filter(|_| !reverted) {
                found.push(json!({
                    "address": log.address, "topics": log.topics, "data": log.data,
                    "meta": {
                        "blockID": block.id, "blockNumber": number, "blockTimestamp": 1, "txID": tx.id(), "txOrigin": tx.origin(),
                        "clauseIndex": log.clause_index, "txIndex": tx_index, "logIndex": log_index,
                    },
                }));
                log_index += 1;
            }
        }
    }
    let skipped = usize::try_from(body["options"]["offset"].as_u64().unwrap_or(0)).unwrap();
    json!(found.into_iter().skip(skipped).take(1_000).collect::<Vec<_>>())
}

/// What a block's transactions did, in place of their ids.
fn expand(chain: &Chain, found: &mut Value) {
    let Some(number) = found["number"].as_u64() else { return };
    let transactions = &chain.blocks[usize::try_from(number).unwrap()].transactions;
    found["transactions"] = transactions
        .iter()
        .map(|(tx, reverted)| {
            let clauses: Vec<Value> = tx
                .unsigned()
                .clauses
                .iter()
                .map(|clause| json!({ "to": clause.to, "value": "0x0", "data": format!("0x{}", hex::encode(&clause.data)) }))
                .collect();
            let outputs: Vec<Value> = logs(tx)
                .iter()
                .map(|log| {
                    let event = json!({ "address": log.address, "topics": log.topics, "data": log.data });
                    json!({ "contractAddress": null, "events": [event], "transfers": [] })
                })
                .collect();
            json!({
                "id": tx.id(), "origin": tx.origin(), "gasPayer": tx.origin(), "gasUsed": 100_000, "paid": "0xde0b6b3a7640000",
                "reverted": reverted, "clauses": clauses, "outputs": if *reverted { Vec::new() } else { outputs },
            })
        })
        .collect();
}
