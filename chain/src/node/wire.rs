//! What a node responds with, as types (Thor `api/*_types.go`). Fields that nothing here needs are left out; unknown ones are ignored.

use serde::{Deserialize, Serialize};

use crate::abi::Refusal;
use crate::amount::Wei;
use crate::id::{Address, BlockId, TxId, Word};
use crate::tx::hex_bytes;

/// Amounts as `0x` and hex digits; Go's `HexOrDecimal256` may also write decimals, which are read too.
pub(super) mod hex_wei {
    use super::Wei;
    use serde::{Deserialize, Deserializer};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Wei, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let wei = if text.starts_with("0x") { Wei::from_hex(&text) } else { text.parse() };
        wei.map_err(serde::de::Error::custom)
    }

    pub mod optional {
        use super::{Deserialize, Deserializer, Wei};

        #[derive(Deserialize)]
        struct Hex(#[serde(with = "super")] Wei);

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Wei>, D::Error> {
            Ok(Option::<Hex>::deserialize(deserializer)?.map(|hex| hex.0))
        }
    }

    pub mod list {
        use super::{Deserialize, Deserializer, Wei};

        #[derive(Deserialize)]
        struct Hex(#[serde(with = "super")] Wei);

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Wei>, D::Error> {
            Ok(Vec::<Hex>::deserialize(deserializer)?.into_iter().map(|hex| hex.0).collect())
        }
    }
}

/// A block; `T` is what it holds of its transactions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Block<T> {
    /// Height; 0 is the genesis block.
    pub number: u32,
    /// Its id.
    pub id: BlockId,
    /// The id of the block before it.
    #[serde(rename = "parentID")]
    pub parent_id: BlockId,
    /// Seconds since 1970. On-demand solo nodes run ahead of the clock.
    pub timestamp: u64,
    /// Gas that its transactions may use together.
    pub gas_limit: u64,
    /// Gas that they used.
    pub gas_used: u64,
    /// Base fee, wei of VTHO per gas; absent before dynamic fees.
    #[serde(default, deserialize_with = "hex_wei::optional::deserialize")]
    pub base_fee_per_gas: Option<Wei>,
    /// False for a block that a fork left behind, as this node sees it now.
    pub is_trunk: bool,
    /// True for a block that can no longer be undone.
    pub is_finalized: bool,
    /// In the order of execution.
    pub transactions: Vec<T>,
}

/// A block with the ids of its transactions.
pub type BlockSummary = Block<TxId>;

/// A block with its transactions, what they did, and what it cost.
pub type ExpandedBlock = Block<BlockTx>;

/// A log with its place in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLog<'a> {
    /// The transaction.
    pub tx: &'a BlockTx,
    /// The transaction's place in its block, from 0.
    pub tx_index: u32,
    /// The clause, from 0.
    pub clause_index: u32,
    /// The log's place among all logs of its block, from 0: the same that a node's `/logs/event` gives, so a key made from
    /// either source is the same.
    pub log_index: u32,
    /// The log.
    pub event: &'a Event,
}

impl ExpandedBlock {
    /// All logs of contracts in the order of execution; reverted transactions have none.
    pub fn logs(&self) -> impl Iterator<Item = BlockLog<'_>> {
        let in_txs = self.transactions.iter().zip(0..).flat_map(|(tx, tx_index)| {
            tx.outputs.iter().zip(0..).flat_map(move |(output, clause_index)| {
                output.events.iter().map(move |event| (tx, tx_index, clause_index, event))
            })
        });
        in_txs.zip(0..).map(|((tx, tx_index, clause_index, event), log_index)| BlockLog {
            tx,
            tx_index,
            clause_index,
            log_index,
            event,
        })
    }
}

/// A transaction inside an expanded block.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockTx {
    /// Its id.
    pub id: TxId,
    /// The account that acted.
    pub origin: Address,
    /// The account that paid the gas.
    pub gas_payer: Address,
    /// Gas used.
    pub gas_used: u64,
    /// VTHO paid, in wei.
    #[serde(with = "hex_wei")]
    pub paid: Wei,
    /// True when a clause failed: then none took effect and `outputs` is empty.
    pub reverted: bool,
    /// The calls it makes.
    pub clauses: Vec<WireClause>,
    /// One for each clause, unless reverted.
    pub outputs: Vec<Output>,
}

/// A clause as nodes print it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct WireClause {
    /// The receiver; `None` creates a contract.
    pub to: Option<Address>,
    /// VET in wei.
    #[serde(with = "hex_wei")]
    pub value: Wei,
    /// Call data.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
}

/// What one clause did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// The contract that it created.
    pub contract_address: Option<Address>,
    /// Its logs, in order.
    pub events: Vec<Event>,
    /// Its moves of VET, in order.
    pub transfers: Vec<Transfer>,
}

/// A log of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The contract.
    pub address: Address,
    /// The event's signature and its indexed arguments; at most 5.
    pub topics: Vec<Word>,
    /// The other arguments, ABI-encoded.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
}

impl Event {
    /// A log from its parts as `chain.events` carries them; none where one is not `0x` and hex digits of its length.
    #[must_use]
    pub fn from_hex(address: &str, topics: &[String], data: &str) -> Option<Self> {
        Some(Self {
            address: address.parse().ok()?,
            topics: topics.iter().map(|topic| topic.parse()).collect::<Result<_, _>>().ok()?,
            data: hex::decode(data.strip_prefix("0x")?).ok()?,
        })
    }
}

/// A move of VET.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Transfer {
    /// From.
    pub sender: Address,
    /// To.
    pub recipient: Address,
    /// Wei.
    #[serde(with = "hex_wei")]
    pub amount: Wei,
}

/// Where a transaction stands on the chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TxMeta {
    /// The block that holds it.
    #[serde(rename = "blockID")]
    pub block_id: BlockId,
    /// That block's number.
    pub block_number: u32,
    /// That block's time, seconds since 1970.
    pub block_timestamp: u64,
}

/// A transaction by its id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Transaction {
    /// Its id.
    pub id: TxId,
    /// The account that acts.
    pub origin: Address,
    /// The gas payer when delegated.
    pub delegator: Option<Address>,
    /// The calls it makes.
    pub clauses: Vec<WireClause>,
    /// Gas limit.
    pub gas: u64,
    /// Bytes.
    pub size: u32,
    /// `None` while it waits in the pool.
    pub meta: Option<TxMeta>,
}

/// What a transaction on the chain did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// Gas used.
    pub gas_used: u64,
    /// Who paid.
    pub gas_payer: Address,
    /// VTHO paid, in wei.
    #[serde(with = "hex_wei")]
    pub paid: Wei,
    /// True when a clause failed; which one and why is not in the receipt: simulate at the parent block.
    pub reverted: bool,
    /// Where it stands.
    pub meta: ReceiptMeta,
    /// One for each clause, unless reverted.
    pub outputs: Vec<Output>,
}

/// Where a receipt stands on the chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptMeta {
    /// The block that holds it.
    #[serde(rename = "blockID")]
    pub block_id: BlockId,
    /// That block's number.
    pub block_number: u32,
    /// That block's time, seconds since 1970.
    pub block_timestamp: u64,
    /// The transaction.
    #[serde(rename = "txID")]
    pub tx_id: TxId,
    /// Its origin.
    pub tx_origin: Address,
}

/// An account's means.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// VET in wei.
    #[serde(with = "hex_wei")]
    pub balance: Wei,
    /// VTHO in wei.
    #[serde(with = "hex_wei")]
    pub energy: Wei,
    /// True for a contract.
    pub has_code: bool,
}

/// What one clause would do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CallOutcome {
    /// What it returns, or the reason of its failure, ABI-encoded.
    #[serde(with = "hex_bytes")]
    pub data: Vec<u8>,
    /// Logs.
    pub events: Vec<Event>,
    /// Moves of VET.
    pub transfers: Vec<Transfer>,
    /// Gas without the intrinsic gas.
    pub gas_used: u64,
    /// True when it fails.
    pub reverted: bool,
    /// The EVM's word for the failure; empty without one.
    pub vm_error: String,
}

impl CallOutcome {
    /// Why it fails; `None` when it succeeds.
    #[must_use]
    pub fn failure(&self) -> Option<Refusal> {
        self.reverted.then(|| Refusal::decode(&self.data, &self.vm_error))
    }
}

/// A log found by a filter.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LoggedEvent {
    /// The log.
    #[serde(flatten)]
    pub event: Event,
    /// Where it stands.
    pub meta: LogMeta,
}

/// Where a log stands on the chain.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogMeta {
    /// The block.
    #[serde(rename = "blockID")]
    pub block_id: BlockId,
    /// Its number.
    pub block_number: u32,
    /// Its time, seconds since 1970.
    pub block_timestamp: u64,
    /// The transaction.
    #[serde(rename = "txID")]
    pub tx_id: TxId,
    /// Its origin.
    pub tx_origin: Address,
    /// The clause, from 0.
    pub clause_index: u32,
    /// The transaction's place in its block, from 0.
    pub tx_index: u32,
    /// The log's place among all logs of its block, from 0.
    pub log_index: u32,
}

/// Fees of recent blocks, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeeHistory {
    /// The first block of the response.
    pub oldest_block: BlockId,
    /// Base fee of each, wei of VTHO per gas.
    #[serde(deserialize_with = "hex_wei::list::deserialize")]
    pub base_fee_per_gas: Vec<Wei>,
}
