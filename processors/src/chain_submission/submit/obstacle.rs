//! Why nothing can be signed at the moment. Each is seen in a metric and in the log, nothing is lost meanwhile, and work goes on by
//! itself when the world has healed.

use chain::abi::{Cause, Refusal};
use chain::contract::ContractError;
use chain::gas::GasTooLarge;
use chain::keystore::KeystoreError;
use chain::node::{NodeError, Snippet};
use chain::signing::{Role, SignError, SigningError};
use chain::{Address, Wei};
use runtime::StageError;

use super::pool::Pool;
use crate::chain_submission::network::NetworkError;

/// What stands in the way of every payment.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The rows of the network or of its contracts.
    #[error(transparent)]
    Configuration(#[from] NetworkError),
    /// The signer's key.
    #[error("the distributor's keystore: {0}")]
    Keystore(#[from] KeystoreError),
    /// Who signs, or who pays the gas, gives no signature.
    #[error("{who}: {error}")]
    Signer {
        /// Which of them.
        who: String,
        /// What it said.
        error: SigningError,
    },
    /// A plan may not be signed.
    #[error(
        "{incidents} plans are refused by the policy in [signing], the first of {first}: `milestream payouts resolve` once a person has looked"
    )]
    Policy {
        /// How many.
        incidents: i64,
        /// Transaction and what is wrong with it.
        first: String,
    },
    /// Gas costs more than may be offered.
    #[error(
        "the next block asks for {price} wei of VTHO per gas and signing.gas_price_ceiling is {ceiling}: payments wait until it falls"
    )]
    GasPrice {
        /// Base fee and tip.
        price: Wei,
        /// The most.
        ceiling: Wei,
    },
    /// No node gives usable responses.
    #[error("no node responds as it should: {0}")]
    NodeUnavailable(NodeError),
    /// A node serves another network than the one that is paid on.
    #[error("the node serves another network than chain.genesis_id: correct the row in network_configs")]
    WrongNetwork,
    /// The node refuses a question that it should respond to.
    #[error("the node refuses: {0}")]
    NodeRefused(NodeError),
    /// There is no contract where the pool should be.
    #[error("there is no contract at {0}: correct its row in smart_contracts")]
    NoContract(Address),
    /// A contract responds otherwise than the one that its row names.
    #[error("the contract at {0} does not respond as the one that its row in smart_contracts names: {1}")]
    WrongContract(Address, String),
    /// The app is not known to the registry of apps.
    #[error("the app is not endorsed: {0}")]
    UnknownApp(String),
    /// The signer may not pay the app's rewards.
    #[error("{0} is no reward distributor of the app: its admin has to add it")]
    NotDistributor(Address),
    /// The app's rewards, or the token, are stopped.
    #[error("payments are paused: {0}")]
    Paused(String),
    /// The pool does not allow an impact that every payment carries.
    #[error(
        "the pool does not allow the impact key {0:?}: payments would fail; ask VeBetterDAO which keys it allows"
    )]
    ImpactKey(&'static str),
    /// The app's purse does not hold what is owed.
    #[error("the app's purse holds {available} wei of B3TR and {needed} are due: deposit into the pool")]
    NoFunds {
        /// What is due now.
        needed: Wei,
        /// What there is.
        available: Wei,
    },
    /// The gas payer lacks VTHO.
    #[error("{payer} holds {available} wei of VTHO and {needed} are needed: send VTHO")]
    NoVtho {
        /// Who pays the gas.
        payer: Address,
        /// For all that is not in a block yet and what is to be signed.
        needed: Wei,
        /// What there is.
        available: Wei,
    },
    /// Not even one reward fits what a transaction may ask for; while a chain is young, its next block may hold it.
    #[error("the payment of a single reward is too large: {gas}; the best block holds {block_limit} gas")]
    GasTooLarge {
        /// What it used, and what may be asked for.
        gas: GasTooLarge,
        /// Gas limit of the best block.
        block_limit: u64,
    },
    /// The pool refuses every reward, in words that this release does not know.
    #[error("the pool refuses every reward: {0}")]
    Refused(String),
    /// Something that must not happen did.
    #[error(
        "{incidents} incidents are unresolved, the first of {first}: `milestream payouts resolve` once a person has looked"
    )]
    Incident {
        /// How many.
        incidents: i64,
        /// Transaction and what happened.
        first: String,
    },
    /// The chain shows payments that the books cannot explain.
    #[error(
        "{incidents} payments on the chain are unexplained, the first of {first}: `milestream payouts resolve` once a person has looked"
    )]
    UnknownPayment {
        /// How many.
        incidents: i64,
        /// Transaction and what it did.
        first: String,
    },
    /// Nodes contradict each other about what was paid.
    #[error(
        "a node shows {first}, a payment that the books do not know, and {asked} other nodes do not: nothing is signed until they agree"
    )]
    Disputed {
        /// The transaction.
        first: String,
        /// Nodes that do not show it.
        asked: usize,
    },
    /// The database was set back: what was signed since may still come into a block.
    #[error(
        "the database has lost {lost} signatures: one of them may still pay, until block {last_valid} is final; the chain is final up to {finalized}"
    )]
    LostCommits {
        /// How many.
        lost: usize,
        /// Last block that may hold one of them.
        last_valid: i64,
        /// Height up to which blocks are final.
        finalized: u32,
    },
    /// What an earlier key signed may still pay.
    #[error(
        "{transactions} transactions of earlier distributors, the first of {signer}, are in no block and not proven dead: this key signs once they are"
    )]
    Predecessor {
        /// How many.
        transactions: i64,
        /// The distributor of the oldest.
        signer: String,
    },
    /// Kafka does not keep what must be kept outside of the database.
    #[error("payouts.guard: {0}")]
    Guard(StageError),
    /// An operator has paused payments.
    #[error("an operator has paused payments: {0}; `milestream payouts resume` goes on")]
    Stopped(String),
    /// An operator has switched payments off for the whole deployment.
    #[error("{0}: `milestream flags set` goes on")]
    SwitchedOff(&'static str),
    /// The day's ceiling is reached.
    #[error("chain.daily_ceiling of {0} wei is reached: the rest is paid after midnight UTC")]
    DailyCeiling(Wei),
    /// A pool for all is reached.
    #[error("the {} pool for all of {} wei in the rules of rewards is reached: the rest is paid in the next one", .0.limit_type.label(), .0.ceiling)]
    Pool(Pool),
}

impl Obstacle {
    /// Every label.
    pub const LABELS: [&'static str; 31] = [
        "configuration",
        "keystore",
        "signer_configuration",
        "signer_unavailable",
        "signer_refused",
        "signer_wrong",
        "policy",
        "gas_price",
        "node_unavailable",
        "wrong_network",
        "node_refused",
        "no_contract",
        "wrong_contract",
        "unknown_app",
        "not_distributor",
        "paused",
        "impact_key",
        "no_funds",
        "no_vtho",
        "gas_too_large",
        "refused",
        "incident",
        "unknown_payment",
        "disputed",
        "lost_commits",
        "predecessor",
        "guard",
        "stopped",
        "switched_off",
        "daily_ceiling",
        "pool",
    ];

    /// Metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "configuration",
            Self::Keystore(_) => "keystore",
            Self::Signer { error, .. } => match error {
                SigningError::Config(_) => "signer_configuration",
                SigningError::Unavailable(_) => "signer_unavailable",
                SigningError::Refused(_) => "signer_refused",
                SigningError::Wrong(_) => "signer_wrong",
            },
            Self::Policy { .. } => "policy",
            Self::GasPrice { .. } => "gas_price",
            Self::NodeUnavailable(_) => "node_unavailable",
            Self::WrongNetwork => "wrong_network",
            Self::NodeRefused(_) => "node_refused",
            Self::NoContract(_) => "no_contract",
            Self::WrongContract(..) => "wrong_contract",
            Self::UnknownApp(_) => "unknown_app",
            Self::NotDistributor(_) => "not_distributor",
            Self::Paused(_) => "paused",
            Self::ImpactKey(_) => "impact_key",
            Self::NoFunds { .. } => "no_funds",
            Self::NoVtho { .. } => "no_vtho",
            Self::GasTooLarge { .. } => "gas_too_large",
            Self::Refused(_) => "refused",
            Self::Incident { .. } => "incident",
            Self::UnknownPayment { .. } => "unknown_payment",
            Self::Disputed { .. } => "disputed",
            Self::LostCommits { .. } => "lost_commits",
            Self::Predecessor { .. } => "predecessor",
            Self::Guard(_) => "guard",
            Self::Stopped(_) => "stopped",
            Self::SwitchedOff(_) => "switched_off",
            Self::DailyCeiling(_) => "daily_ceiling",
            Self::Pool(_) => "pool",
        }
    }
}

impl From<SignError> for Obstacle {
    fn from(error: SignError) -> Self {
        match error {
            SignError::Signer { role, address, error } => {
                let who = if role == Role::Origin { "the signer" } else { "the gas payer" };
                Self::Signer { who: format!("{who} {address}"), error }
            }
            // The transaction is ours, and no signer could mend it.
            SignError::Tx(error) => Self::Signer {
                who: "the transaction".to_owned(),
                error: SigningError::Config(Snippet::new(&error.to_string())),
            },
        }
    }
}

impl From<NodeError> for Obstacle {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::WrongNetwork => Self::WrongNetwork,
            error if error.is_transient() => Self::NodeUnavailable(error),
            error => Self::NodeRefused(error),
        }
    }
}

impl From<ContractError> for Obstacle {
    fn from(error: ContractError) -> Self {
        match error {
            ContractError::Node(error) => error.into(),
            ContractError::NoCode(address) => Self::NoContract(address),
            ContractError::Reverted { address, .. } | ContractError::Response { address, .. } => {
                Self::WrongContract(address, error.to_string())
            }
        }
    }
}

/// The obstacle that a simulated clause's refusal reports, where the reason is the pool's and not the clause's own.
#[must_use]
pub fn shared_cause(refusal: &Refusal, signer: Address) -> Option<Obstacle> {
    match refusal.cause {
        Cause::Paused => Some(Obstacle::Paused(refusal.to_string())),
        Cause::NotDistributor => Some(Obstacle::NotDistributor(signer)),
        Cause::UnknownApp => Some(Obstacle::UnknownApp(refusal.to_string())),
        Cause::NoFunds => Some(Obstacle::NoFunds { needed: Wei::ZERO, available: Wei::ZERO }),
        Cause::InvalidImpactKey => Some(Obstacle::ImpactKey(schemas::impact::CARBON)),
        Cause::InvalidReceiver | Cause::Other => None,
    }
}
