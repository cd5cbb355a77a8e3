//! A scripted chain and nodes of it: small HTTP servers that say they are Thor. They stand in for what a solo node cannot show: forks, a
//! batch that reverts, transactions that are dropped in silence or included late, pools that are lost, finality at will or invented,
//! nodes that lag, stay silent or contradict each other. [`shapes`] holds their responses against a real node's.

mod node;
mod shapes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use chain::abi::{RewardCall, topic};
use chain::{Address, BlockId, SignedTx, TxId};
use schemas::events::{BlockAdopted, BlockPlace, ChainLog, ChainTransaction};
use schemas::ids::{EventId, Micros};
use serde_json::{Value, json};
use tokio::sync::Notify;

pub use node::Thor;

/// The block that names the network.
pub const GENESIS: BlockId = BlockId([
    0, 0, 0, 0, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
    0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
]);

/// The chain that the nodes of a test share.
pub struct Chain {
    /// The best branch, the genesis block first.
    pub blocks: Vec<Arc<Block>>,
    /// Blocks that forks have left behind.
    side: HashMap<BlockId, Arc<Block>>,
    /// Forks so far: a block's id says on which branch it was made.
    forks: u32,
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
    /// Accounts that the passport lists as cheaters.
    pub blacklisted: HashSet<Address>,
    /// Accounts that the passport lists as people.
    pub whitelisted: HashSet<Address>,
    /// Reports of accounts that the passport has; two make a bot.
    pub signals: HashMap<Address, u64>,
    /// Wei of B3TR in the purse.
    pub purse: u128,
    /// Whether accounts hold VTHO.
    pub energy: bool,
    /// Whether a post that a node takes never reaches the pool.
    pub drops: Box<dyn FnMut(TxId) -> bool + Send>,
    /// Seconds since 1970 at which the next block is made; none where the newest block is always of now.
    pub time: Option<u64>,
    /// Requests that a silent node has taken.
    pub hung: Arc<Hung>,
}

/// Requests that nobody will answer.
#[derive(Default)]
pub struct Hung {
    pub count: AtomicU32,
    pub news: Notify,
}

pub struct Block {
    pub id: BlockId,
    pub parent: BlockId,
    /// Transactions, and whether each reverted.
    pub transactions: Vec<(SignedTx, bool)>,
    /// Seconds since 1970; none where the newest block is always of now.
    time: Option<u64>,
}

impl Block {
    fn number(&self) -> usize {
        usize::try_from(self.id.number()).unwrap()
    }
}

impl Chain {
    pub fn new() -> Arc<Mutex<Self>> {
        let genesis =
            Block { id: GENESIS, parent: BlockId([0xff; 32]), transactions: Vec::new(), time: None };
        Arc::new(Mutex::new(Self {
            blocks: vec![Arc::new(genesis)],
            side: HashMap::new(),
            forks: 0,
            finalized: 0,
            pool: BTreeMap::new(),
            posts: 0,
            receipts: 0,
            looks: 0,
            refused: HashMap::new(),
            refused_all: None,
            refused_then: HashMap::new(),
            blacklisted: HashSet::new(),
            whitelisted: HashSet::new(),
            signals: HashMap::new(),
            purse: 1_000_000_000_000_000_000_000,
            energy: true,
            drops: Box::new(|_| false),
            time: None,
            hung: Arc::default(),
        }))
    }

    fn add(&mut self, transactions: Vec<(SignedTx, bool)>) {
        let mut id = [0xaa; 32];
        id[..4].copy_from_slice(&u32::try_from(self.blocks.len()).unwrap().to_be_bytes());
        id[4..8].copy_from_slice(&self.forks.to_be_bytes());
        let parent = self.blocks.last().unwrap().id;
        self.blocks.push(Arc::new(Block { id: BlockId(id), parent, transactions, time: self.time }));
    }

    /// Adds empty blocks.
    pub fn grow(&mut self, count: usize) {
        for _ in 0..count {
            self.add(Vec::new());
        }
    }

    /// Adds a block of all that waits.
    pub fn mine(&mut self, reverted: bool) {
        let waiting = std::mem::take(&mut self.pool);
        self.add(waiting.into_values().map(|tx| (tx, reverted)).collect());
    }

    /// Adds a block of what `takes` gives an end (whether it reverted), as far as the network's rules let the block hold it.
    pub fn forge(&mut self, mut takes: impl FnMut(&SignedTx) -> Option<bool>) {
        let number = u64::try_from(self.blocks.len()).unwrap();
        let mut taken = Vec::new();
        for (id, tx) in std::mem::take(&mut self.pool) {
            let unsigned = tx.unsigned();
            let valid =
                u64::from(unsigned.block_ref.number()) < number && number <= unsigned.last_valid_block();
            let end = if valid { takes(&tx) } else { None };
            match end {
                Some(reverted) => taken.push((tx, reverted)),
                None => _ = self.pool.insert(id, tx),
            }
        }
        self.add(taken);
    }

    /// Takes the newest blocks back; what they held waits again.
    pub fn fork(&mut self, depth: usize) {
        self.forks += 1;
        for _ in 0..depth {
            let block = self.blocks.pop().unwrap();
            assert!(block.id.number() > self.finalized, "a final block is not undone");
            self.pool.extend(block.transactions.iter().map(|(tx, _)| (tx.id(), tx.clone())));
            self.side.insert(block.id, block);
        }
    }

    /// Forgets what waits.
    pub fn drop_pool(&mut self) {
        self.pool.clear();
    }

    /// What the best branch paid: the proof's reward and the transaction of each log.
    pub fn paid(&self) -> Vec<(uuid::Uuid, TxId)> {
        let held = self.blocks.iter().flat_map(|block| &block.transactions).filter(|(_, reverted)| !reverted);
        held.flat_map(|(tx, _)| tx.unsigned().clauses.iter().map(|clause| (reward_of(&clause.data), tx.id())))
            .collect()
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
            parent_id: block.parent.to_string(),
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

    pub fn outcomes(&self, body: &Value, then: bool) -> Value {
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
                None => self.response(&data),
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

/// The reward that a clause's proof names.
fn reward_of(data: &[u8]) -> uuid::Uuid {
    let text = String::from_utf8_lossy(data).into_owned();
    text.split_once("reward ").unwrap().1[..36].parse().unwrap()
}

/// The pool's `RewardDistributed` for each clause.
pub fn logs(tx: &SignedTx) -> Vec<ChainLog> {
    (0..)
        .zip(&tx.unsigned().clauses)
        .map(|(n, clause)| {
            let (_, call) = RewardCall::decode(&clause.data).unwrap();
            let reward = reward_of(&clause.data);
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
                balance_after_wei: None,
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

impl Chain {
    /// What pool and passport return, by the function's selector.
    fn response(&self, data: &[u8]) -> String {
        let asked = data.get(16..36).and_then(|account| account.try_into().ok()).map(Address);
        let number = |number: u128| format!("{number:064x}");
        let listed =
            |list: &HashSet<Address>| number(asked.is_some_and(|asked| list.contains(&asked)).into());
        match data.get(..4).map(hex::encode).as_deref() {
            // version(): "8".
            Some("54fd4d50") => format!("{:064x}{}", 32, text_tail("8")),
            // getAllowedImpactKeys(): ["carbon"].
            Some("ae630ec8") => format!("{:064x}{:064x}{:064x}{}", 32, 1, 32, text_tail("carbon")),
            // isRewardsPoolEnabled, rewardsPoolBalance.
            Some("b81ddb2e") => number(1),
            Some("60dbdd08") => number(self.purse),
            // isBlacklisted, isWhitelisted, signaledCounter, signalingThreshold.
            Some("fe575a87") => listed(&self.blacklisted),
            Some("3af32abf") => listed(&self.whitelisted),
            Some("c107e0d1") => {
                number(asked.and_then(|asked| self.signals.get(&asked)).copied().unwrap_or(0).into())
            }
            Some("7fd4f54f") => number(2),
            // A reward returns nothing.
            _ if RewardCall::decode(data).is_some() => String::new(),
            _ => number(0),
        }
    }
}
