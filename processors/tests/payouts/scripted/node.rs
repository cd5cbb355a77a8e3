//! One node: the questions that submitter, watcher and reconciliation ask, in the words of Thor 2.4.4.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use chain::{BlockId, SignedTx, TxId};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Block, Chain, GENESIS, logs};

/// One node of the chain.
pub struct Thor {
    pub url: String,
    pub chain: Arc<Mutex<Chain>>,
    /// Blocks that it lacks.
    pub behind: AtomicU32,
    /// Accepts connections and answers nothing.
    pub silent: AtomicBool,
    /// What it gives instead of every response: status and text.
    pub page: Mutex<Option<(u16, &'static str)>>,
    /// Calls its best block final.
    pub lies: AtomicBool,
    /// The branch on which it stands still; none while it follows the chain.
    pub frozen: Mutex<Option<Vec<Arc<Block>>>>,
}

/// What a node responds.
enum Response {
    Json(Value),
    Text(u16, &'static str),
}

impl From<Value> for Response {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl Thor {
    pub async fn start(chain: &Arc<Mutex<Chain>>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let thor = Arc::new(Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            chain: chain.clone(),
            behind: AtomicU32::new(0),
            silent: AtomicBool::new(false),
            page: Mutex::new(None),
            lies: AtomicBool::new(false),
            frozen: Mutex::new(None),
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

    /// Stands still on its present branch, or follows the chain again.
    pub fn freeze(&self, still: bool) {
        *self.frozen.lock().unwrap() = still.then(|| self.chain().blocks.clone());
    }

    /// Answers one request after the other.
    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut bytes = Vec::new();
        loop {
            let (head, body) = request(&mut stream, &mut bytes).await?;
            if self.silent.load(Ordering::Relaxed) {
                let hung = self.chain().hung.clone();
                hung.count.fetch_add(1, Ordering::Relaxed);
                hung.news.notify_one();
                // Until the client gives up.
                let _ = stream.read(&mut [0; 1]).await;
                hung.count.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
            let target = head.split(' ').nth(1)?.to_owned();
            let elsewhere = header(&head, "x-genesis-id").is_some_and(|found| found != GENESIS.to_string());
            let page = *self.page.lock().unwrap();
            let response = if let Some((status, text)) = page {
                Response::Text(status, text)
            } else if elsewhere {
                Response::Text(403, "genesis id mismatch")
            } else {
                self.answer(&target, &body)
            };
            let (status, kind, text) = match response {
                Response::Json(value) => (200, "application/json; charset=utf-8", value.to_string()),
                Response::Text(status, text) => (status, "text/plain; charset=utf-8", text.to_owned()),
            };
            // Go ends each of them so.
            let text = format!("{text}\n");
            let response = format!(
                "HTTP/1.1 {status} Any\r\ncontent-type: {kind}\r\nx-genesis-id: {GENESIS}\r\nx-thorest-ver: 2.4.4\r\ncontent-length: {}\r\n\r\n{text}",
                text.len()
            );
            stream.write_all(response.as_bytes()).await.ok()?;
        }
    }

    fn answer(&self, target: &str, body: &Value) -> Response {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let value = |name: &str| {
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        let frozen = self.frozen.lock().unwrap().clone();
        let mut chain = self.chain();
        let mut branch = frozen.unwrap_or_else(|| chain.blocks.clone());
        branch.truncate(branch.len() - usize::try_from(self.behind.load(Ordering::Relaxed)).unwrap());
        let best = branch.last().unwrap().id.number();
        let finalized = if self.lies.load(Ordering::Relaxed) { best } else { chain.finalized.min(best) };
        let view = View { branch: &branch, finalized };
        match parts.as_slice() {
            ["blocks", revision] => {
                view.block(&chain, revision, value("expanded").as_deref() == Some("true"))
            }
            ["logs", "event"] => {
                chain.looks += 1;
                view.events(body).into()
            }
            ["transactions"] => post(&mut chain, &view, body),
            ["transactions", id, "receipt"] => {
                chain.receipts += 1;
                view.receipt(id, value("head"))
            }
            ["transactions", id] => view.transaction(
                id,
                value("raw").as_deref() == Some("true"),
                value("pending").as_deref(),
                &chain,
            ),
            ["accounts", "*"] => {
                let then = value("revision").is_some_and(|revision| revision.starts_with("0x"));
                chain.outcomes(body, then).into()
            }
            ["accounts", _, "code"] => json!({ "code": "0x60" }).into(),
            ["accounts", _] => {
                let energy = if chain.energy { "0xffffffffffffffffffffff" } else { "0x0" };
                json!({ "balance": "0x0", "energy": energy, "hasCode": false }).into()
            }
            ["fees", "priority"] => json!({ "maxPriorityFeePerGas": "0x1" }).into(),
            _ => Response::Text(404, "404 page not found"),
        }
    }
}

/// The chain as one node sees it.
struct View<'a> {
    branch: &'a [Arc<Block>],
    finalized: u32,
}

impl View<'_> {
    fn best(&self) -> usize {
        self.branch.len() - 1
    }

    fn time(&self, block: &Block) -> u64 {
        block.time.unwrap_or_else(|| now() - 10 * (self.best().saturating_sub(block.number())) as u64)
    }

    /// A transaction of the branch, with its block.
    fn find(&self, id: &str, upto: usize) -> Option<(&Block, &SignedTx, bool)> {
        self.branch.iter().take(upto + 1).find_map(|block| {
            let (tx, reverted) = block.transactions.iter().find(|(tx, _)| tx.id().to_string() == id)?;
            Some((&**block, tx, *reverted))
        })
    }

    fn block(&self, chain: &Chain, revision: &str, expanded: bool) -> Response {
        let on_branch = |number: usize| self.branch.get(number).map(|block| (block.clone(), true));
        let found = match revision {
            "best" => on_branch(self.best()),
            "justified" | "finalized" => on_branch(usize::try_from(self.finalized).unwrap()),
            id if id.starts_with("0x") => {
                let Ok(id) = id.parse::<BlockId>() else {
                    return Response::Text(400, "revision: invalid length");
                };
                let known =
                    self.branch.iter().find(|block| block.id == id).map(|block| (block.clone(), true));
                known.or_else(|| Some((chain.side.get(&id)?.clone(), false)))
            }
            number => match number.parse() {
                Ok(number) => on_branch(number),
                Err(_) => {
                    return Response::Text(400, "revision: strconv.ParseUint: parsing \"x\": invalid syntax");
                }
            },
        };
        let Some((block, is_trunk)) = found else { return Value::Null.into() };
        let zero = BlockId([0; 32]);
        let transactions: Vec<Value> = match expanded {
            false => block.transactions.iter().map(|(tx, _)| json!(tx.id())).collect(),
            true => block.transactions.iter().map(|(tx, reverted)| expand(tx, *reverted)).collect(),
        };
        json!({
            "number": block.number(), "id": block.id, "size": 364, "parentID": block.parent, "timestamp": self.time(&block),
            "gasLimit": 40_000_000, "beneficiary": chain::Address([0; 20]), "gasUsed": 0, "baseFeePerGas": "0x9184e72a000",
            "totalScore": block.number(), "txsRoot": zero, "txsFeatures": 1, "stateRoot": zero, "receiptsRoot": zero, "com": false,
            "signer": chain::Address([0; 20]), "isTrunk": is_trunk, "isFinalized": is_trunk && block.id.number() <= self.finalized,
            "transactions": transactions,
        })
        .into()
    }

    fn receipt(&self, id: &str, head: Option<String>) -> Response {
        let upto = match head {
            None => self.best(),
            Some(head) => match self.branch.iter().position(|block| block.id.to_string() == head) {
                Some(upto) => upto,
                None => return Response::Text(400, "head: leveldb: not found"),
            },
        };
        let Some((block, tx, reverted)) = self.find(id, upto) else { return Value::Null.into() };
        json!({
            "type": 81, "gasUsed": 100_000, "gasPayer": tx.origin(), "paid": "0xde0b6b3a7640000", "reward": "0x1", "reverted": reverted,
            "outputs": outputs(tx, reverted),
            "meta": {
                "blockID": block.id, "blockNumber": block.number(), "blockTimestamp": self.time(block), "txID": id,
                "txOrigin": tx.origin(),
            },
        })
        .into()
    }

    fn transaction(&self, id: &str, raw: bool, pending: Option<&str>, chain: &Chain) -> Response {
        let held = self.find(id, self.best());
        let meta = held.map(|(block, ..)| {
            json!({ "blockID": block.id, "blockNumber": block.number(), "blockTimestamp": self.time(block) })
        });
        let waiting = || {
            let id: TxId = id.parse().ok()?;
            chain.pool.get(&id).filter(|_| pending == Some("true"))
        };
        let Some(tx) = held.map(|(_, tx, _)| tx).or_else(waiting) else { return Value::Null.into() };
        if raw {
            return json!({ "raw": format!("0x{}", hex::encode(tx.encode())), "meta": meta }).into();
        }
        let mut found = content(tx);
        found["meta"] = json!(meta);
        found.into()
    }

    /// The pool's logs in a range of blocks.
    fn events(&self, body: &Value) -> Value {
        let height = |name: &str| usize::try_from(body["range"][name].as_u64().unwrap()).unwrap();
        let mut found = Vec::new();
        for block in self.branch.iter().take(height("to").saturating_add(1)).skip(height("from")) {
            let mut log_index = 0;
            for (tx_index, (tx, reverted)) in block.transactions.iter().enumerate() {
                for log in logs(tx).into_iter().filter(|_| !reverted) {
                    found.push(json!({
                        "address": log.address, "topics": log.topics, "data": log.data,
                        "meta": {
                            "blockID": block.id, "blockNumber": block.number(), "blockTimestamp": self.time(block), "txID": tx.id(),
                            "txOrigin": tx.origin(), "clauseIndex": log.clause_index, "txIndex": tx_index, "logIndex": log_index,
                        },
                    }));
                    log_index += 1;
                }
            }
        }
        let skipped = usize::try_from(body["options"]["offset"].as_u64().unwrap_or(0)).unwrap();
        json!(found.into_iter().skip(skipped).take(1_000).collect::<Vec<_>>())
    }
}

/// Takes signed bytes, or says why not.
fn post(chain: &mut Chain, view: &View<'_>, body: &Value) -> Response {
    let raw = body["raw"].as_str().and_then(|raw| hex::decode(raw.trim_start_matches("0x")).ok());
    let Some(tx) = raw.and_then(|raw| SignedTx::decode(&raw).ok()) else {
        return Response::Text(400, "raw: typed transaction too short");
    };
    let (id, unsigned) = (tx.id(), tx.unsigned());
    chain.posts += 1;
    if unsigned.chain_tag != GENESIS.chain_tag() {
        return Response::Text(400, "bad tx: chain tag mismatch");
    }
    if view.find(&id.to_string(), view.best()).is_some() {
        return Response::Text(403, "tx rejected: known tx");
    }
    if u64::try_from(view.best()).unwrap() >= unsigned.last_valid_block() {
        return Response::Text(403, "tx rejected: expired");
    }
    // The network may hold it in a block that this node lacks.
    let known = chain.blocks.iter().flat_map(|block| &block.transactions).any(|(tx, _)| tx.id() == id);
    if !known && !(chain.drops)(id) {
        chain.pool.insert(id, tx);
    }
    json!({ "id": id }).into()
}

/// A transaction as nodes print it.
fn content(tx: &SignedTx) -> Value {
    let unsigned = tx.unsigned();
    let clauses: Vec<Value> = unsigned
        .clauses
        .iter()
        .map(|clause| json!({ "to": clause.to, "value": "0x0", "data": format!("0x{}", hex::encode(&clause.data)) }))
        .collect();
    json!({
        "id": tx.id(), "type": 81, "chainTag": unsigned.chain_tag, "blockRef": format!("0x{:016x}", unsigned.block_ref.0),
        "expiration": unsigned.expiration, "clauses": clauses, "gas": unsigned.gas, "maxFeePerGas": "0x1", "maxPriorityFeePerGas": "0x1",
        "origin": tx.origin(), "delegator": null, "nonce": format!("0x{:x}", unsigned.nonce), "dependsOn": null,
        "size": tx.encode().len(),
    })
}

/// A transaction with what it did, as an expanded block holds it.
fn expand(tx: &SignedTx, reverted: bool) -> Value {
    let mut found = content(tx);
    let did = json!({
        "gasUsed": 100_000, "gasPayer": tx.origin(), "paid": "0xde0b6b3a7640000", "reward": "0x1", "reverted": reverted,
        "outputs": outputs(tx, reverted),
    });
    for (name, value) in did.as_object().unwrap() {
        found[name] = value.clone();
    }
    found
}

fn outputs(tx: &SignedTx, reverted: bool) -> Vec<Value> {
    if reverted {
        return Vec::new();
    }
    let output = |log: &schemas::events::ChainLog| {
        let event = json!({ "address": log.address, "topics": log.topics, "data": log.data });
        json!({ "contractAddress": null, "events": [event], "transfers": [] })
    };
    logs(tx).iter().map(output).collect()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// A header of a request, by its name in small letters.
fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.to_ascii_lowercase() == name).then(|| value.trim().to_owned())
    })
}

/// Reads one request: its head and its body, null where that is no JSON. `bytes` is what was read beyond the one before.
async fn request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<(String, Value)> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length = header(&head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                let body = serde_json::from_slice(&bytes[end + 4..end + 4 + length]).unwrap_or_default();
                bytes.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        let mut piece = [0; 65536];
        let count = stream.read(&mut piece).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&piece[..count]);
    }
}
