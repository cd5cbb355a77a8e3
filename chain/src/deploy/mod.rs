//! Puts B3TR, the reward pool and what they need on a local Thor node, with one endorsed app, its distributor and its funds.
//!
//! The contracts are those of `@vechain/vebetterdao-contracts` 4.1.0, whose reward pool is version 4, compiled by
//! `contracts/compile.mjs`; for later versions of the pool see [`later_pool`]. Two of their
//! partners, the allocation voting and the Galaxy NFT, are not needed to pay a reward and are replaced by a ten-byte
//! contract that returns 1 to everything.

mod actions;
mod artifacts;
mod interface;
mod later;
mod lists;
mod operator;

pub use actions::deploy;
pub use artifacts::Artifacts;
pub use later::{LaterPool, later_pool};
pub use lists::{blacklist, report};
pub use operator::Operator;

use serde::{Deserialize, Serialize};

use crate::amount::Wei;
use crate::gas::GasTooLarge;
use crate::id::{Address, AppId, BlockId, TxId};
use crate::node::{Node, NodeError, Revision};
use crate::tx::TxError;

/// Private keys of a solo node's first funded accounts. They are published (Thor `genesis/devnet.go`) and worth nothing:
/// account 0 is the administrator, account 1 the distributor of a local chain.
pub const SOLO_KEYS: [&str; 3] = [
    "99f0500549792796c14fed62011a51081dc5b5e68fe8bd8a13b86be829c4fd36",
    "7b067f53d350f1cf20ec13df416b7b73e88a1dc7331bc904b92108b1e76a08b1",
    "f4a1a17039216f535d42ec23732c79943ffb45a089fbb78a14daad0dae93e991",
];

/// Chain tags of the public networks (last byte of their genesis ids), on which published keys have no place.
const PUBLIC_CHAIN_TAGS: [u8; 2] = [0x4a, 0x27];

/// Why the contracts could not be put on the chain.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The node gave no usable response.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A transaction could not be built or signed.
    #[error(transparent)]
    Tx(#[from] TxError),
    /// The compiled contracts are missing or damaged.
    #[error("compiled contracts: {0}")]
    Artifacts(String),
    /// A program is missing or failed.
    #[error("{name}: {reason}")]
    Tool {
        /// The program.
        name: String,
        /// What it said.
        reason: String,
    },
    /// An action's clause fails.
    #[error("{action} fails{}: {reason}", clause.map(|n| format!(" at clause {n}")).unwrap_or_default())]
    Reverted {
        /// The action.
        action: String,
        /// The clause, from 0, when the simulation showed it.
        clause: Option<usize>,
        /// The contract's reason.
        reason: String,
    },
    /// A transaction was sent and never got into a block.
    #[error("{action}: transaction {id} did not get into a block in time")]
    NotIncluded {
        /// The action.
        action: String,
        /// The transaction.
        id: TxId,
    },
    /// No block came that holds a transaction's gas.
    #[error("{action}: {gas}: no block of that size came in time")]
    GasTooLarge {
        /// The action.
        action: String,
        /// What it used, and what the best block holds.
        gas: GasTooLarge,
    },
    /// A receipt lacks the address of a contract that it created.
    #[error("the receipt of {0} names no contract")]
    NoAddress(String),
    /// The node has no best block.
    #[error("the node has no best block")]
    NoBestBlock,
    /// The node serves mainnet or testnet.
    #[error("the node serves a public network (chain tag {0:#04x}); this is for local chains")]
    PublicNetwork(u8),
}

/// What to set up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The app's name; its id is the keccak-256 of it.
    pub app_name: String,
    /// The account that may pay the app's rewards.
    pub distributor: Address,
    /// B3TR in the app's purse, wei. The token's cap is 1,000,243,154 B3TR.
    pub funds: Wei,
}

/// What was set up, with all that a payer must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The network.
    pub genesis_id: BlockId,
    /// Last byte of the genesis id.
    pub chain_tag: u8,
    /// Number of the block after which everything was in place: logs need not be looked for before it.
    pub block_number: u32,
    /// The B3TR token.
    pub b3tr: Address,
    /// The pool that pays rewards (`X2EarnRewardsPool`).
    pub rewards_pool: Address,
    /// The registry of apps (`X2EarnApps`).
    pub x2earn_apps: Address,
    /// `VeBetterPassport`.
    pub passport: Address,
    /// The app.
    pub app_id: AppId,
    /// Its name.
    pub app_name: String,
    /// Administrator of all contracts.
    pub admin: Address,
    /// Who may pay rewards.
    pub distributor: Address,
    /// Wei of B3TR that the app's purse was filled with.
    pub funds: Wei,
    /// The transaction that created the pool.
    pub created_by: TxId,
}

impl Deployment {
    /// True when the node still has it: same network, and code at the pool's address. A node whose data were deleted has not.
    ///
    /// # Errors
    /// [`DeployError::Node`].
    pub async fn is_on(&self, node: &Node) -> Result<bool, DeployError> {
        if node.genesis().await? != self.genesis_id {
            return Ok(false);
        }
        Ok(!node.code(self.rewards_pool, Revision::Best).await?.is_empty())
    }
}
