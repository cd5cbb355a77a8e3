//! How a granted reward is paid, and what the chain says of it: the types of `payouts.updated`, `chain.events` and the claim on
//! `rewards.granted`.
//!
//! B3TR are decimals on the grid of 1e-8; whatever the chain counts in wei travels as a decimal string of wei, exact. Hashes
//! and addresses are lower-case hex with `0x`.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::header::{Stamp, UploadHeader};
use crate::ids::{EventId, Micros, RewardId, UserId};

/// A driver asked for a granted reward: one a reward, whatever the number of requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewardClaimed {
    /// This event's id.
    pub event_id: EventId,
    /// When the gateway took the claim.
    pub occurred_at: Micros,
    /// The reward.
    pub reward_id: RewardId,
    /// Whose it is.
    pub user_id: UserId,
    /// The wallet to be paid.
    pub wallet_id: Uuid,
}

/// Where a payout stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayoutState {
    /// Granted; waits for a claim or for a wallet.
    Waiting,
    /// To be paid with the next transaction.
    Ready,
    /// In a transaction that is planned, signed, sent or in a block.
    InFlight,
    /// 12 confirmations: distributed.
    Paid,
    /// Its block can no longer be undone.
    Final,
    /// Cannot be paid as it is; a person must look.
    Quarantined,
    /// Will not be paid.
    Cancelled,
}

impl PayoutState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Ready,
        Self::InFlight,
        Self::Paid,
        Self::Final,
        Self::Quarantined,
        Self::Cancelled,
    ];

    /// The label on the wire and in `payouts.state`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Ready => "ready",
            Self::InFlight => "in_flight",
            Self::Paid => "paid",
            Self::Final => "final",
            Self::Quarantined => "quarantined",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Where a signed transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Its bytes are stored; no node has seen them.
    Signed,
    /// Posted at least once; in no block that we know of.
    Sent,
    /// In a block with less than 12 confirmations.
    Included,
    /// 12 confirmations, and it paid what was planned.
    Confirmed,
    /// 12 confirmations, and all its clauses failed.
    Reverted,
    /// Confirmed in a block that can no longer be undone.
    Final,
    /// Reverted in a block that can no longer be undone.
    RevertedFinal,
    /// Proven to be in no block for good: the chain is final beyond the last block that could have held it.
    Dead,
    /// In a block that can no longer be undone, where it did something else than planned; or in a block although it was dead.
    Stray,
}

impl AttemptState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Signed,
        Self::Sent,
        Self::Included,
        Self::Confirmed,
        Self::Reverted,
        Self::Final,
        Self::RevertedFinal,
        Self::Dead,
        Self::Stray,
    ];

    /// The label on the wire and in `payout_attempts.state`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Sent => "sent",
            Self::Included => "included",
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Final => "final",
            Self::RevertedFinal => "reverted_final",
            Self::Dead => "dead",
            Self::Stray => "stray",
        }
    }
}

/// No state has this label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no state is called {0:?}")]
pub struct UnknownState(pub String);

impl TryFrom<String> for PayoutState {
    type Error = UnknownState;
    fn try_from(label: String) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.label() == label).ok_or(UnknownState(label))
    }
}

impl TryFrom<String> for AttemptState {
    type Error = UnknownState;
    fn try_from(label: String) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.label() == label).ok_or(UnknownState(label))
    }
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockPlace {
    /// Its id.
    pub id: String,
    /// Its height.
    pub number: i64,
    /// Its own time.
    pub timestamp: Micros,
}

/// The transaction that pays a reward, as it stands: what it has in common with the other rewards that it pays, and this
/// reward's share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutTransaction {
    /// Its id, known before it was signed.
    pub tx_id: String,
    /// Rises with every change of the transaction; an undone block raises it too.
    pub revision: i64,
    /// The network's genesis block.
    pub genesis_id: String,
    /// Where it stands.
    pub state: AttemptState,
    /// The distributor's address.
    pub signer: String,
    /// Who pays the gas; the signer unless delegated.
    pub gas_payer: String,
    /// The reward pool's address, which every clause calls.
    pub contract: String,
    /// blake2b-256 of the sorted (reward, attempt number) pairs.
    pub batch_id: String,
    /// Rewards in the transaction, one a clause.
    pub clause_count: i32,
    /// B3TR of all clauses.
    pub batch_amount: Decimal,
    /// The user whom all clauses pay; null when several.
    pub beneficiary_user: Option<UserId>,
    /// The wallet that all clauses pay; null when several.
    pub beneficiary_wallet: Option<Uuid>,
    /// Simulated and intrinsic gas of all clauses.
    pub estimated_gas: i64,
    /// Gas limit that was signed.
    pub gas_limit: i64,
    /// `low`, `medium` or `high`.
    pub gas_strategy: String,
    /// Wei of VTHO per gas.
    pub max_fee_wei: String,
    /// Wei of VTHO per gas.
    pub priority_fee_wei: String,
    /// Block reference, eight bytes as hex.
    pub block_ref: String,
    /// Blocks after the reference in which it is valid.
    pub expiration: i32,
    /// The salt, a decimal `u64`.
    pub nonce: String,
    /// Times that its bytes were posted.
    pub broadcast_count: i32,
    /// When its bytes were stored.
    pub signed_at: Micros,
    /// The block that it is in; null while in none.
    pub block: Option<BlockPlace>,
    /// Gas of the whole transaction; null while in no block.
    pub gas_used: Option<i64>,
    /// Wei of VTHO per gas that was really paid; null while in no block.
    pub gas_price_wei: Option<String>,
    /// Wei of VTHO paid for the whole transaction; null while in no block.
    pub fee_wei: Option<String>,
    /// Blocks on top of its own, at most 12; 0 while in none.
    pub confirmations: i32,
    /// When the 12th was seen.
    pub confirmed_at: Option<Micros>,
    /// When its block was seen as final.
    pub finalized_at: Option<Micros>,
    /// Why it failed.
    pub error: Option<String>,
    /// The reward's clause, from 0.
    pub clause_index: i32,
    /// The reward's how many-eth transaction this is, from 1.
    pub attempt_no: i32,
    /// This reward's share of the gas; the shares of all clauses sum to `gas_used`.
    pub reward_gas_used: Option<i64>,
    /// This reward's share of the fee, VTHO on the grid of 1e-8; the shares sum to the fee, cut to that grid.
    pub reward_fee: Option<Decimal>,
}

/// A payout changed: a snapshot of it and of its newest transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutUpdated {
    /// Header.
    pub header: UploadHeader,
    /// What was true at acceptance.
    pub stamp: Stamp,
    /// The reward.
    pub reward_id: RewardId,
    /// Rises by one with every change of the payout, from 0.
    pub revision: i64,
    /// Where it stands.
    pub state: PayoutState,
    /// What is owed, B3TR on the grid of 1e-8.
    pub amount: Decimal,
    /// The wallet to be paid; null until there is one.
    pub wallet_id: Option<Uuid>,
    /// When it was claimed, by the driver or by itself.
    pub claimed_at: Option<Micros>,
    /// Why it waits, is quarantined or cancelled: `code: sentence`.
    pub reason: Option<String>,
    /// Failures of its own so far.
    pub strikes: i32,
    /// Failures of its own that are allowed.
    pub max_retries: i32,
    /// The newest [`Adjustment`](crate::events::Adjustment) that the amount has taken, if any.
    #[serde(default)]
    pub adjustment: Option<i32>,
    /// When 12 confirmations were seen.
    pub paid_at: Option<Micros>,
    /// Its newest transaction; null before the first is signed.
    pub transaction: Option<PayoutTransaction>,
}

/// A log of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainLog {
    /// The clause that emitted it, from 0.
    pub clause_index: i32,
    /// Ordinal among the events of the whole block, from 0 (= `/logs` `logIndex`).
    pub log_index: i32,
    /// The contract.
    pub address: String,
    /// Topics, the first being the event's signature; empty for an anonymous log.
    pub topics: Vec<String>,
    /// Data, hex.
    pub data: String,
    /// Of a transfer of B3TR: what the receiver holds after this block, in wei; none where the node did not say.
    #[serde(default)]
    pub balance_after_wei: Option<String>,
}

/// A transaction in a block that has to do with our app: one that calls the reward pool for it, or makes the pool emit a log
/// about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainTransaction {
    /// Its id.
    pub id: String,
    /// Position in the block, from 0.
    pub index: i32,
    /// Who signed it.
    pub origin: String,
    /// Who paid the gas.
    pub gas_payer: String,
    /// Gas used.
    pub gas_used: i64,
    /// Wei of VTHO paid.
    pub paid_wei: String,
    /// Whether all its clauses failed.
    pub reverted: bool,
    /// Its logs, in order; none where reverted.
    pub logs: Vec<ChainLog>,
}

/// The chain grew by a block: it follows the block that was adopted last and was not undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockAdopted {
    /// This event's id: [`chain_event_id`].
    pub event_id: EventId,
    /// When the watcher saw it.
    pub occurred_at: Micros,
    /// Place in the network's stream, from 1, without gaps.
    pub seq: i64,
    /// The network's genesis block.
    pub genesis_id: String,
    /// The block.
    pub block: BlockPlace,
    /// The block before it.
    pub parent_id: String,
    /// How often this block was adopted, this time included.
    pub adoption: i32,
    /// Height up to which the node calls blocks final.
    pub finalized_number: i64,
    /// Those of its transactions that have to do with our app.
    pub transactions: Vec<ChainTransaction>,
    /// Whether the block was adopted before and is told again: it is no step of the branch, and only its transactions count.
    #[serde(default)]
    pub retold: bool,
}

impl BlockAdopted {
    /// The id that the step must have.
    #[must_use]
    pub fn derived_id(&self) -> EventId {
        if self.retold {
            // The same adoption may be told again more than once.
            let step = format!("retold-{}", self.seq);
            return chain_event_id(&self.genesis_id, &step, &self.block.id, self.adoption);
        }
        chain_event_id(&self.genesis_id, "adopted", &self.block.id, self.adoption)
    }
}

/// The block that was adopted last no longer counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockUndone {
    /// This event's id: [`chain_event_id`].
    pub event_id: EventId,
    /// When the watcher saw it.
    pub occurred_at: Micros,
    /// Place in the network's stream, from 1, without gaps.
    pub seq: i64,
    /// The network's genesis block.
    pub genesis_id: String,
    /// The block.
    pub block_id: String,
    /// Its height.
    pub number: i64,
    /// Which of its adoptions is undone.
    pub adoption: i32,
}

/// One step of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ChainStep {
    /// A block more.
    Adopted(BlockAdopted),
    /// A block less.
    Undone(BlockUndone),
}

impl ChainStep {
    /// Place in the network's stream.
    #[must_use]
    pub fn seq(&self) -> i64 {
        match self {
            Self::Adopted(step) => step.seq,
            Self::Undone(step) => step.seq,
        }
    }

    /// The network's genesis block.
    #[must_use]
    pub fn genesis_id(&self) -> &str {
        match self {
            Self::Adopted(step) => &step.genesis_id,
            Self::Undone(step) => &step.genesis_id,
        }
    }

    /// The step's id, as it stands in it.
    #[must_use]
    pub fn event_id(&self) -> EventId {
        match self {
            Self::Adopted(step) => step.event_id,
            Self::Undone(step) => step.event_id,
        }
    }

    /// The id that the step must have.
    #[must_use]
    pub fn derived_id(&self) -> EventId {
        match self {
            Self::Adopted(step) => step.derived_id(),
            Self::Undone(step) => chain_event_id(&step.genesis_id, "undone", &step.block_id, step.adoption),
        }
    }
}

/// The id of a transaction's row in `blockchain_transactions`.
#[must_use]
pub fn transaction_row_id(genesis_id: &str, tx_id: &str) -> Uuid {
    crate::ids::natural(&format!("{genesis_id}/{tx_id}"))
}

/// The id of a step (`adopted` or `undone`) of a block's n-th adoption: the second adoption after a fork is another event.
#[must_use]
pub fn chain_event_id(genesis_id: &str, step: &str, block_id: &str, adoption: i32) -> EventId {
    EventId(crate::ids::natural(&format!("chain/{genesis_id}/{step}/{block_id}/{adoption}")))
}

/// Body of `POST /v1/chain/events`: steps in order, and the watcher's state after them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainBatch {
    /// The network's genesis block.
    pub genesis_id: String,
    /// Steps with ascending `seq`; empty to ask where to go on.
    pub steps: Vec<ChainStep>,
    /// What the watcher needs to go on after these steps; kept by the gateway, opaque to it. Null with no steps.
    pub checkpoint: Option<serde_json::Value>,
}

/// What became of a step. A batch is taken whole or not at all: one that begins with a step that was taken before is a duplicate as
/// a whole, whatever follows, since another watcher's steps may stand under those numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepOutcome {
    /// Taken.
    Accepted,
    /// Not taken: there is a step under this batch's first number already.
    Duplicate,
}

/// A step's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepResult {
    /// The step.
    pub seq: i64,
    /// What became of it.
    pub outcome: StepOutcome,
}

/// Response of `POST /v1/chain/events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChainResponse {
    /// One per step, in order.
    pub results: Vec<StepResult>,
    /// The highest step that was ever taken; 0 before the first.
    pub highest_seq: i64,
    /// The checkpoint that came with it.
    pub checkpoint: Option<serde_json::Value>,
}

/// `vechain_mainnet` for mainnet's genesis block, `vechain_testnet` for every other, a local one too.
#[must_use]
pub fn network_label(genesis_id: &str) -> &'static str {
    if is_mainnet(genesis_id) { "vechain_mainnet" } else { "vechain_testnet" }
}

/// Whether a genesis block is mainnet's, in letters of either case.
#[must_use]
pub fn is_mainnet(genesis_id: &str) -> bool {
    genesis_id.trim().eq_ignore_ascii_case(MAINNET)
}

/// Mainnet's genesis block (Thor `genesis/mainnet.go`).
const MAINNET: &str = "0x00000000851caf3cfdb6e899cf5958bfb1ac3413d346d43539627e6be7ec1b4a";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mainnets_genesis_is_mainnet() {
        let main = "0x00000000851caf3cfdb6e899cf5958bfb1ac3413d346d43539627e6be7ec1b4a";
        assert_eq!((network_label(main), network_label("0x00")), ("vechain_mainnet", "vechain_testnet"));
    }

    #[test]
    fn a_label_is_the_name_that_the_wire_carries() {
        for state in PayoutState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.label());
        }
        for state in AttemptState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.label());
        }
    }

    #[test]
    fn a_second_adoption_of_a_block_and_its_undoing_are_events_of_their_own() {
        let ids = [
            chain_event_id("g", "adopted", "b", 1),
            chain_event_id("g", "adopted", "b", 2),
            chain_event_id("g", "undone", "b", 1),
            chain_event_id("h", "adopted", "b", 1),
        ];
        for (n, id) in ids.iter().enumerate() {
            assert!(!ids[n + 1..].contains(id));
        }
    }
}
