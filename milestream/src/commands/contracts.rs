//! `milestream contracts`: the contracts of networks. Each change is recorded in `system_audit_logs`, in the same transaction.

use anyhow::{Context as _, Result, bail, ensure};
use chain::contract::Contract;
use chain::node::{Limits, Node, Revision};
use chain::{Address, AppId, BlockId, TxId};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use processors::chain_submission::network::{APPS, Network, PASSPORT, REWARDS_POOL, TOKEN, VOTING};
use rust_decimal::Decimal;
use schemas::payouts::network_label;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::{database, payments};

/// Version of the package that the other contracts' interfaces are of.
const ABI_PACKAGE: &str = "4.1.0";
/// A change of a contract, as `system_audit_logs` has it.
const UPDATE: Action = Action { module: "chain", action: "contract.update", severity: "info" };

/// What to do with contracts.
#[derive(Debug, Subcommand)]
pub enum Contracts {
    /// Add a contract of the network that chain.genesis_id names, or change it.
    Add(AddContract),
    /// List contracts: network, address, active, name.
    List,
    /// Read the token's supplies again.
    Refresh,
}

/// A contract.
#[derive(Debug, Args)]
pub struct AddContract {
    /// `B3TR Token Contract`, `X2EarnRewardsPool`, `X2EarnApps`, `VeBetterPassport` or `XAllocationVoting`.
    #[arg(long)]
    name: String,
    /// Its address.
    #[arg(long)]
    address: String,
    /// The app whose purse pays; for the pool.
    #[arg(long, value_name = "ID")]
    app_id: Option<String>,
    /// The transaction that created it.
    #[arg(long, value_name = "ID")]
    deployed_tx: Option<String>,
}

impl Contracts {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Add(contract) => add(config, contract).await,
            Self::List => list(config).await,
            Self::Refresh => refresh(config).await,
        }
    }
}

/// What is read from the chain about a contract.
struct Deployed {
    code: Vec<u8>,
    version: String,
    deployed: Option<(DateTime<Utc>, Address)>,
    supply: Option<Decimal>,
    circulating: Option<Decimal>,
}

/// Adds a contract, or changes it.
async fn add(config: &Config, contract: &AddContract) -> Result<()> {
    let name = contract.name.as_str();
    let (kind, interface) = match name {
        TOKEN => ("token", "Token"),
        REWARDS_POOL => ("reward_distributor", "RewardsPool"),
        APPS => ("governance", "Apps"),
        PASSPORT => ("governance", "Passport"),
        VOTING => ("governance", "Voting"),
        _ => bail!("--name: choose of {TOKEN}, {REWARDS_POOL}, {APPS}, {PASSPORT}, {VOTING}"),
    };
    let address: Address = Address::parse_checked(&contract.address).context("--address")?;
    let app: Option<AppId> = contract
        .app_id
        .as_deref()
        .map(str::parse)
        .transpose()
        .context("--app-id is not 0x and 64 hex digits")?;
    ensure!(name != REWARDS_POOL || app.is_some(), "--app-id: the pool needs the app whose purse pays");
    let deployed: Option<TxId> =
        contract.deployed_tx.as_deref().map(str::parse).transpose().context("--deployed-tx")?;
    let genesis = genesis(config)?;
    let pool = database::pool(config)?;
    let node = node(&pool, genesis).await?;
    let facts = facts(&pool, &node, genesis, name, address, deployed).await?;
    let abi: Value = serde_json::from_str(chain::abi::json())?;
    let mut tx = pool.begin().await?;
    let before = replace_active(&mut tx, genesis, name, address).await?;
    sqlx::query(
        "insert into smart_contracts as c (id, contract_name, contract_address, contract_type, network, abi_version, deployed_at,
            is_active, total_supply, circulating_supply, created_at, updated_at, bytecode, abi, deployed_by, app_id, genesis_id)
         values ($1, $2, $3, $4::smart_contracts_contract_type, $5::smart_contracts_network, $6, $7, true, $8, $9, now(), now(), $10,
            $11, $12, $13, $14)
         on conflict (genesis_id, contract_address) do update set contract_name = excluded.contract_name,
            contract_type = excluded.contract_type, abi_version = excluded.abi_version,
            deployed_at = coalesce(excluded.deployed_at, c.deployed_at), is_active = true,
            total_supply = excluded.total_supply, circulating_supply = excluded.circulating_supply, updated_at = now(),
            bytecode = excluded.bytecode, abi = excluded.abi, deployed_by = coalesce(excluded.deployed_by, c.deployed_by),
            app_id = excluded.app_id",
    )
    .bind(Uuid::now_v7())
    .bind(name)
    .bind(address.to_string())
    .bind(kind)
    .bind(if network_label(&genesis.to_string()) == "vechain_mainnet" { "mainnet" } else { "testnet" })
    .bind(&facts.version)
    .bind(facts.deployed.map(|(at, _)| at))
    .bind(facts.supply)
    .bind(facts.circulating)
    .bind(format!("0x{}", hex::encode(&facts.code)))
    .bind(&abi[interface])
    .bind(facts.deployed.map(|(_, by)| by.to_string()))
    .bind(app.map(|app| app.to_string()))
    .bind(genesis.to_string())
    .execute(&mut *tx)
    .await?;
    let after = json!({"contract_address": address, "app_id": app, "abi_version": facts.version, "genesis_id": genesis});
    audit(&mut tx, UPDATE, name, before, after).await?;
    tx.commit().await?;
    println!("{name} {address} version {}", facts.version);
    Ok(())
}

/// Makes room for a contract: one of a name is active in a network. Returns what was active before.
async fn replace_active(
    tx: &mut PgConnection,
    genesis: BlockId,
    name: &str,
    address: Address,
) -> Result<Option<Value>> {
    let before = sqlx::query_scalar(
        "select jsonb_build_object('contract_address', contract_address, 'app_id', app_id, 'abi_version', abi_version)
         from smart_contracts where genesis_id = $1 and contract_name = $2 and is_active for update",
    )
    .bind(genesis.to_string())
    .bind(name)
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query(
        "update smart_contracts set is_active = false, updated_at = now()
         where genesis_id = $1 and contract_name = $2 and contract_address <> $3 and is_active",
    )
    .bind(genesis.to_string())
    .bind(name)
    .bind(address.to_string())
    .execute(&mut *tx)
    .await?;
    Ok(before)
}

async fn facts(
    pool: &PgPool,
    node: &Node,
    genesis: BlockId,
    name: &str,
    address: Address,
    deployed_tx: Option<TxId>,
) -> Result<Deployed> {
    let code = node.code(address, Revision::Best).await?;
    ensure!(!code.is_empty(), "there is no contract at {address} on network {genesis}");
    let contract = Contract::new(node, address, Revision::Best);
    let version = if name == REWARDS_POOL { contract.pool_version().await? } else { ABI_PACKAGE.to_owned() };
    ensure!(version.len() <= 20, "the contract's version is longer than 20 characters");
    let deployed = match deployed_tx {
        None => None,
        Some(id) => {
            let receipt =
                node.receipt(id, None).await?.with_context(|| format!("there is no transaction {id}"))?;
            let seconds = i64::try_from(receipt.meta.block_timestamp)?;
            let at = DateTime::from_timestamp(seconds, 0).context("the block's time is out of range")?;
            Some((at, receipt.meta.tx_origin))
        }
    };
    let (mut supply, mut circulating) = (None, None);
    if name == TOKEN {
        (supply, circulating) =
            supplies(pool, node, genesis, address).await.map(|(all, free)| (Some(all), Some(free)))?;
    }
    Ok(Deployed { code, version, deployed, supply, circulating })
}

/// All B3TR, and those that are not in the pool.
async fn supplies(
    pool: &PgPool,
    node: &Node,
    genesis: BlockId,
    token: Address,
) -> Result<(Decimal, Decimal)> {
    let contract = Contract::new(node, token, Revision::Best);
    let all = contract.token_supply().await?.to_coins_cut()?;
    let holder: Option<String> = sqlx::query_scalar(
        "select contract_address from smart_contracts where genesis_id = $1 and contract_name = $2 and is_active",
    )
    .bind(genesis.to_string())
    .bind(REWARDS_POOL)
    .fetch_optional(pool)
    .await?;
    let held = match holder {
        Some(holder) => contract.token_balance(holder.parse()?).await?.to_coins_cut()?,
        None => Decimal::ZERO,
    };
    Ok((all, all - held))
}

/// Prints contracts, one per line.
async fn list(config: &Config) -> Result<()> {
    let rows: Vec<(String, String, String, bool)> = sqlx::query_as(
        "select network::text, contract_name, contract_address, is_active from smart_contracts order by genesis_id, contract_name",
    )
    .fetch_all(&database::pool(config)?)
    .await?;
    for (network, name, address, active) in rows {
        println!("{network} {address} {} {name}", if active { "active" } else { "disabled" });
    }
    Ok(())
}

/// Reads the token's supplies again.
async fn refresh(config: &Config) -> Result<()> {
    let genesis = genesis(config)?;
    let pool = database::pool(config)?;
    let node = node(&pool, genesis).await?;
    let token = Network::load(&pool, genesis, Limits::default())
        .await?
        .token
        .with_context(|| format!("{TOKEN} is not added yet"))?;
    let (all, free) = supplies(&pool, &node, genesis, token).await?;
    let mut tx = pool.begin().await?;
    let before: Option<Value> = sqlx::query_scalar(
        "select jsonb_build_object('total_supply', total_supply::text, 'circulating_supply', circulating_supply::text)
         from smart_contracts where genesis_id = $1 and contract_address = $2 for update",
    )
    .bind(genesis.to_string())
    .bind(token.to_string())
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query(
        "update smart_contracts set total_supply = $3, circulating_supply = $4, updated_at = now()
         where genesis_id = $1 and contract_address = $2",
    )
    .bind(genesis.to_string())
    .bind(token.to_string())
    .bind(all)
    .bind(free)
    .execute(&mut *tx)
    .await?;
    let after = json!({"total_supply": all, "circulating_supply": free});
    audit(&mut tx, UPDATE, TOKEN, before, after).await?;
    tx.commit().await?;
    println!("{TOKEN}: {all} in all, {free} in circulation");
    Ok(())
}

fn genesis(config: &Config) -> Result<BlockId> {
    payments::genesis(config)?.context("chain.genesis_id is empty: set it to the network's genesis block id")
}

/// The network's preferred node, serving that network.
async fn node(pool: &PgPool, genesis: BlockId) -> Result<Node> {
    let url: Option<String> = sqlx::query_scalar(
        "select rpc_url from network_configs where genesis_id = $1 and is_active order by priority, rpc_url limit 1",
    )
    .bind(genesis.to_string())
    .fetch_optional(pool)
    .await?;
    let url =
        url.with_context(|| format!("no node of {genesis} is active: run `milestream networks add` first"))?;
    Ok(Node::new(&url, Some(genesis), Limits::default())?)
}
