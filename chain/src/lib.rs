//! VeChain as a library: transaction bytes and ids, amounts, signers (an encrypted local keystore, AWS KMS, others over HTTP), what
//! wallets sign to show who they are, a typed client of a Thor node's REST API, the calls and events of the VeBetterDAO contracts, and
//! the core of a watcher that follows blocks by id.
//!
//! Nothing here knows Kafka, a database or a reward: a payout is a list of clauses, an id and a receipt.
//!
//! Sources: Thor v2.4.4 (`vechain/thor`), VIP-191 (gas payers), VIP-192 (certificates), VIP-251 (dynamic fees), EIP-712 (typed data), the
//! Web3 Secret Storage definition and the `VeBetterDAO` contracts 4.1.0.

pub mod abi;
pub mod amount;
pub mod asked;
pub mod certificate;
pub mod contract;
pub mod deploy;
pub mod fee;
pub mod follow;
pub mod gas;
pub mod hash;
pub mod health;
pub mod id;
pub mod keystore;
pub mod node;
pub mod signer;
pub mod signing;
pub mod tx;
pub mod typed_data;

pub use amount::{AmountError, Wei};
pub use asked::{Asked, Observer};
pub use certificate::Certificate;
pub use id::{Address, AppId, BlockId, IdError, TxId};
pub use node::{Node, NodeError};
pub use signer::{Signature, Signer, SignerError};
pub use signing::TransactionSigner;
pub use tx::{BlockRef, Clause, Fees, SignedTx, TxError, UnsignedTx};
pub use typed_data::TypedData;
