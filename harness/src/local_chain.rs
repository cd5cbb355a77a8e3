//! A local chain to pay on: the contracts on a Thor solo node, and what Milestream must be told of them.

use std::path::Path;

use anyhow::{Context as _, Result};
use chain::deploy::{Artifacts, Deployment as Contracts, Plan, SOLO_KEYS, deploy};
use chain::hash::keccak256;
use chain::node::{Limits, Node};
use chain::{Address, Signer, Wei};
use devstack::Stack;
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::deployment::{Deployment, DeploymentConfig, RoleSpec, make_folder, of_a_load, sibling_binary};

/// B3TR in the app's purse: more than any run pays.
const FUNDS: i64 = 1_000_000;

/// The contracts of a run, on a chain of its own.
pub struct LocalChain {
    url: String,
    contracts: Contracts,
    folder: std::path::PathBuf,
    secret: String,
}

impl LocalChain {
    /// Compiles the contracts (kept in `work`, half a minute the first time) and puts them on the stack's node. `folder` takes the
    /// distributor's keystore.
    ///
    /// # Errors
    /// When npm or the compiler fails, or the node refuses.
    pub async fn deploy(stack: &Stack, work: &Path, folder: &Path) -> Result<Self> {
        let url = stack.thor_url().to_owned();
        let contracts = contracts_of(&url, work, SOLO_KEYS[1]).await?;
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        Ok(Self { url, contracts, folder: folder.to_owned(), secret })
    }

    /// Settings of every role, as environment variables. Blocks come each second here, so that batches wait a second and the window
    /// of validity is long in blocks.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        let keys = self.folder.join("keys");
        [
            ("CHAIN__GENESIS_ID", self.contracts.genesis_id.to_string()),
            ("CHAIN__KEYSTORE_FILE", keys.join("distributor.json").display().to_string()),
            ("CHAIN__KEYSTORE_PASSWORD_FILE", keys.join("distributor.password").display().to_string()),
            ("CHAIN__BATCH_WAIT_MS", "1000".to_owned()),
            ("CHAIN__EXPIRATION_BLOCKS", "1800".to_owned()),
            ("CHAIN__WATCH_SECRET", self.secret.clone()),
            ("WATCH__POLL_MS", "500".to_owned()),
            // Nothing was paid before the contracts were there.
            ("WATCH__START_BLOCK", self.contracts.block_number.to_string()),
        ]
        .map(|(key, value)| (format!("MILESTREAM_{key}"), value))
        .into()
    }

    /// Tells a prepared deployment of the node and the contracts, as an operator does, and hands it the distributor's key.
    ///
    /// # Errors
    /// When a command fails.
    pub fn register(&self, deployment: &Deployment) -> Result<()> {
        let contracts = &self.contracts;
        let key = self.folder.join("keys/solo-distributor.hex");
        std::fs::create_dir_all(self.folder.join("keys")).context("make the folder of keys")?;
        // Published, and worth nothing: see `SOLO_KEYS`.
        std::fs::write(&key, SOLO_KEYS[1]).context("write the solo distributor's key")?;
        let key = key.display().to_string();
        if !self.folder.join("keys/distributor.json").exists() {
            deployment.command(&["keys", "distributor", "--light", "--import", &key])?;
        }
        deployment.command(&[
            "networks",
            "add",
            "--rpc-url",
            &self.url,
            "--websocket-url",
            &self.websocket(),
        ])?;
        let (app, created) = (contracts.app_id.to_string(), contracts.created_by.to_string());
        let add = |name: &str, address: Address, more: &[&str]| {
            let address = address.to_string();
            let command = ["contracts", "add", "--name", name, "--address", &address];
            deployment.command(&[&command[..], more].concat()).map(drop)
        };
        add("X2EarnRewardsPool", contracts.rewards_pool, &["--app-id", &app, "--deployed-tx", &created])?;
        add("B3TR Token Contract", contracts.b3tr, &[])?;
        add("X2EarnApps", contracts.x2earn_apps, &[])?;
        add("VeBetterPassport", contracts.passport, &[])
    }

    fn websocket(&self) -> String {
        format!("{}/subscriptions/block", self.url.replacen("http", "ws", 1))
    }

    /// A client of the node.
    ///
    /// # Errors
    /// When its address is malformed.
    pub fn node(&self) -> Result<Node> {
        Ok(Node::new(&self.url, Some(self.contracts.genesis_id), Limits::default())?)
    }

    /// The contracts.
    #[must_use]
    pub fn contracts(&self) -> &Contracts {
        &self.contracts
    }
}

/// Contracts on a node, with an app whose purse this distributor pays from.
async fn contracts_of(url: &str, work: &Path, distributor: &str) -> Result<Contracts> {
    let artifacts = compile(work)?;
    let node = Node::new(url, None, Limits::default())?;
    let plan = Plan {
        app_name: "milestream".to_owned(),
        distributor: Signer::from_hex(distributor)?.address(),
        funds: Wei::from_b3tr(Decimal::from(FUNDS))?,
    };
    Ok(deploy(&node, &artifacts, &Signer::from_hex(SOLO_KEYS[0])?, &plan).await?)
}

/// A deployment that pays, and beside it contracts of its own for another distributor on the same node: what that one pays is nobody's.
pub struct PaidChain {
    /// Every role.
    pub deployment: Deployment,
    /// The chain that it pays on.
    pub chain: LocalChain,
    /// The contracts of the other distributor, the third solo account.
    pub other: Contracts,
    /// The prefix of its topics.
    pub prefix: String,
}

/// As [`start_every_role`], with contracts of another distributor beside it.
///
/// # Errors
/// As [`start_every_role`].
pub async fn start_paying_roles(stack: &Stack, name: &str) -> Result<PaidChain> {
    let other = contracts_of(stack.thor_url(), Path::new(".local/contracts"), SOLO_KEYS[2]).await?;
    let (deployment, prefix, chain) = started(stack, name).await?;
    Ok(PaidChain { deployment, chain, other, prefix })
}

/// Every role of a bench as processes on a stack with a chain, ready, and the prefix of their topics. `name` keeps folder, logs and topics
/// apart from other benches'.
///
/// # Errors
/// When the contracts cannot be deployed, or a role does not become ready.
pub async fn start_every_role(stack: &Stack, name: &str) -> Result<(Deployment, String)> {
    let (deployment, prefix, _) = started(stack, name).await?;
    Ok((deployment, prefix))
}

async fn started(stack: &Stack, name: &str) -> Result<(Deployment, String, LocalChain)> {
    let folder = make_folder(&stack.folder().join(name))?;
    let chain = LocalChain::deploy(stack, Path::new(".local/contracts"), &folder).await?;
    let prefix = format!("{name}-{}-", Uuid::now_v7().simple());
    let mut settings = [of_a_load(), chain.settings()].concat();
    settings.push(("MILESTREAM_KAFKA__TOPIC_PREFIX".to_owned(), prefix.clone()));
    let logs = stack.logs().join(name);
    let config = DeploymentConfig { program: sibling_binary("milestream")?, folder, logs, settings };
    let mut deployment = Deployment::prepare(stack, config)?;
    chain.register(&deployment)?;
    for role in RoleSpec::every_role() {
        deployment.start(role)?;
    }
    deployment.wait_ready()?;
    Ok((deployment, prefix, chain))
}

/// The compiled contracts, from `work` where they were compiled before.
///
/// # Errors
/// When npm or the compiler fails.
pub fn compile(work: &Path) -> Result<Artifacts> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../chain/contracts");
    // The compiler runs in its own folder, so that the path must not be relative.
    Ok(Artifacts::compile(&sources, &make_folder(work)?)?)
}

/// A driver's wallet: the same for every run, and worth nothing, since anybody works its key out.
#[must_use]
pub fn wallet_of(user: Uuid) -> Address {
    Signer::from_hex(&key_of(user)).map(|signer| signer.address()).unwrap_or_default()
}

/// The key of a driver's wallet, 64 hex digits.
#[must_use]
pub fn key_of(user: Uuid) -> String {
    hex::encode(keccak256(format!("wallet of {user}").as_bytes()))
}
