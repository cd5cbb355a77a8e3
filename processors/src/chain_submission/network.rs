//! The network that rewards are paid on: its nodes and contracts, as operators have put them into `network_configs` and
//! `smart_contracts`.

use chain::node::Limits;
use chain::{Address, AppId, BlockId, Node, NodeError, Observer};
use runtime::settings::SettingError;
use sqlx::PgPool;

/// `smart_contracts.contract_name` of the pool that pays.
pub const REWARDS_POOL: &str = "X2EarnRewardsPool";
/// `smart_contracts.contract_name` of the token.
pub const TOKEN: &str = "B3TR Token Contract";
/// `smart_contracts.contract_name` of the registry of apps.
pub const APPS: &str = "X2EarnApps";
/// `smart_contracts.contract_name` of the allocation voting, which keeps the rounds.
pub const VOTING: &str = "XAllocationVoting";

/// `smart_contracts.contract_name` of the passport, which knows cheaters.
pub const PASSPORT: &str = "VeBetterPassport";

/// Why a network cannot be used as it is configured: an operator mends it, and the next look finds it mended.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The database gave no response.
    #[error("postgres")]
    Postgres(#[from] sqlx::Error),
    /// No node of the network is active.
    #[error("no node of network {0} is active: run `milestream networks add`")]
    NoNode(BlockId),
    /// A contract is missing.
    #[error("{0} is not among the network's active contracts: run `milestream contracts add`")]
    NoContract(&'static str),
    /// The pool's row names no app.
    #[error("the row of {REWARDS_POOL} has no app id: run `milestream contracts add` with --app-id")]
    NoApp,
    /// An address, app id or URL in a row is malformed.
    #[error("a row of {table} is malformed: {detail}")]
    Malformed {
        /// The table.
        table: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// The setting that names the network of all payouts.
const SETTING: &str = "chain.genesis_id";

/// Holds the configured network against the one that this deployment's payouts were granted for, which the first start chooses: what
/// was granted for one network is never paid on another. Payouts from before networks were noted count as those of the chosen one.
///
/// # Errors
/// [`SettingError`]: the network is another one, or the database gave no response.
pub async fn choose(pool: &PgPool, genesis: BlockId) -> Result<(), SettingError> {
    runtime::settings::choose(pool, SETTING, genesis.to_string()).await
}

/// A network's nodes and contracts.
#[derive(Clone, Debug)]
pub struct Network {
    /// The genesis block, which every node must serve.
    pub genesis: BlockId,
    /// Addresses of the nodes' APIs, the preferred one first; never empty.
    pub urls: Vec<String>,
    /// Clients of them, in the same order.
    pub nodes: Vec<Node>,
    /// The pool that pays.
    pub pool: Address,
    /// The app whose purse pays.
    pub app: AppId,
    /// B3TR.
    pub token: Option<Address>,
    /// The registry of apps.
    pub apps: Option<Address>,
    /// The rounds that actions count in: a pool of version 8 or later is told in which each was done. Without it, all count in the round
    /// in which they are paid.
    pub voting: Option<Address>,
    /// Whom it lists as a cheater is not paid. Without it nobody is asked.
    pub passport: Option<Address>,
}

impl Network {
    /// Reads the active rows of a network; calls of its nodes have these bounds.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn load(pool: &PgPool, genesis: BlockId, limits: Limits) -> Result<Self, NetworkError> {
        let urls: Vec<String> = sqlx::query_scalar(
            "select rpc_url from network_configs where genesis_id = $1 and is_active order by priority, rpc_url",
        )
        .bind(genesis.to_string())
        .fetch_all(pool)
        .await?;
        if urls.is_empty() {
            return Err(NetworkError::NoNode(genesis));
        }
        let contracts: Vec<(String, String, Option<String>)> = sqlx::query_as(
            "select contract_name, contract_address, app_id from smart_contracts
             where genesis_id = $1 and is_active and contract_name is not null and contract_address is not null",
        )
        .bind(genesis.to_string())
        .fetch_all(pool)
        .await?;
        let row = |wanted: &str| contracts.iter().find(|(name, ..)| name == wanted);
        let (_, _, app) = row(REWARDS_POOL).ok_or(NetworkError::NoContract(REWARDS_POOL))?;
        let app = app.as_deref().ok_or(NetworkError::NoApp)?;
        let address = |name| row(name).map(|(_, address, _)| parsed("smart_contracts", address)).transpose();
        Ok(Self {
            genesis,
            nodes: urls.iter().map(|url| client(url, genesis, limits)).collect::<Result<_, _>>()?,
            urls,
            pool: address(REWARDS_POOL)?.ok_or(NetworkError::NoContract(REWARDS_POOL))?,
            app: parsed("smart_contracts", app)?,
            token: address(TOKEN)?,
            apps: address(APPS)?,
            voting: address(VOTING)?,
            passport: address(PASSPORT)?,
        })
    }
}

impl Network {
    /// The same, whose nodes tell of each request.
    #[must_use]
    pub fn observed(mut self, observer: Option<&Observer>) -> Self {
        if let Some(observer) = observer {
            self.nodes = self.nodes.into_iter().map(|node| node.observed(observer.clone())).collect();
        }
        self
    }

    /// Whether an address is one of the network's contracts, which could move nothing that it is paid.
    #[must_use]
    pub fn is_contract(&self, address: Address) -> bool {
        let others = [self.token, self.apps, self.voting, self.passport];
        address == self.pool || others.contains(&Some(address))
    }
}

fn client(url: &str, genesis: BlockId, limits: Limits) -> Result<Node, NetworkError> {
    Node::new(url, Some(genesis), limits).map_err(|error: NodeError| NetworkError::Malformed {
        table: "network_configs",
        detail: error.to_string(),
    })
}

fn parsed<T>(table: &'static str, text: &str) -> Result<T, NetworkError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| NetworkError::Malformed { table, detail: error.to_string() })
}
