//! What operators tell of the chain: its nodes, its contracts, the distributor's key, users' wallets. Each change stands in
//! `system_audit_logs`, written in the same transaction.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use chain::contract::Contract;
use chain::keystore::{Keystore, Password, ScryptCost, generate_key};
use chain::node::{Limits, Node, Revision};
use chain::{Address, AppId, BlockId, TxId};
use chrono::{DateTime, Utc};
use processors::chain_submission::network::{APPS, Network, REWARDS_POOL, TOKEN};
use runtime::clock::{Clock as _, SystemClock};
use runtime::registry::Registry;
use rust_decimal::Decimal;
use schemas::ids::UserId;
use schemas::payouts::network_label;
use secrecy::SecretBox;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use url::Url;
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::{operate, payments};

/// Name in `smart_contracts` of the register of persons.
const PASSPORT: &str = "VeBetterPassport";
/// Version of the package that the other contracts' interfaces are of.
const ABI_PACKAGE: &str = "4.1.0";
/// Gas that a transaction of ours may ask for, as `network_configs.gas_limit` has it.
const GAS_LIMIT: i32 = 15_000_000;
/// Longest pause between two blocks that is believed, s.
const SLOWEST_BLOCKS: u64 = 60;

/// An action on the chain's rows, as `system_audit_logs` has it.
fn changed(action: &'static str) -> Action {
    Action { module: "chain", action, severity: "info" }
}

/// Adds a node, or changes it.
pub async fn add_node(
    config: &Config,
    rpc_url: &str,
    websocket_url: Option<&str>,
    priority: i32,
) -> Result<()> {
    ensure!((1..=99).contains(&priority), "--priority: {priority} is not between 1 and 99");
    for url in [Some(rpc_url), websocket_url].into_iter().flatten() {
        let parsed = Url::parse(url).with_context(|| "the address is no URL".to_owned())?;
        let plain = parsed.username().is_empty() && parsed.password().is_none();
        ensure!(
            plain,
            "the address holds a login, which the table would show: use a node or a proxy without one"
        );
        ensure!(url.len() <= 500, "the address is longer than 500 characters");
    }
    let node = Node::new(rpc_url, None, Limits::default())?;
    let genesis = node.genesis().await.context("the node's genesis block")?;
    let block_time = block_time(&node).await?;
    let pool = operate::pool(config)?;
    let mut tx = pool.begin().await?;
    let label = network_label(&genesis.to_string());
    let before: Option<Value> = sqlx::query_scalar(
        "select jsonb_build_object('websocket_url', websocket_url, 'priority', priority, 'is_active', is_active)
         from network_configs where genesis_id = $1 and rpc_url = $2 for update",
    )
    .bind(genesis.to_string())
    .bind(rpc_url)
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query(
        "insert into network_configs as n (id, network_name, rpc_url, websocket_url, chain_id, block_time, gas_limit, gas_price,
            is_active, created_at, updated_at, genesis_id, priority)
         values ($1, $2::network_configs_network_name, $3, $4, $5, $6, $7, 0.00001000, true, now(), now(), $8, $9)
         on conflict (genesis_id, rpc_url) do update set websocket_url = excluded.websocket_url, block_time = excluded.block_time,
            priority = excluded.priority, is_active = true, updated_at = now()",
    )
    .bind(Uuid::now_v7())
    .bind(label)
    .bind(rpc_url)
    .bind(websocket_url)
    .bind(i32::from(genesis.chain_tag()))
    .bind(block_time)
    .bind(GAS_LIMIT)
    .bind(genesis.to_string())
    .bind(priority)
    .execute(&mut *tx)
    .await?;
    let after = json!({"websocket_url": websocket_url, "priority": priority, "is_active": true, "genesis_id": genesis});
    audit(&mut tx, changed("network.update"), rpc_url, before, after).await?;
    tx.commit().await?;
    println!("{label} {genesis} {rpc_url}");
    Ok(())
}

/// Seconds between the node's newest blocks, 10 where it has too few: the public networks' interval.
async fn block_time(node: &Node) -> Result<i32> {
    let best = node.block(Revision::Best).await?;
    let Some(best) = best.filter(|best| best.number > 1) else { return Ok(10) };
    let before = node.block(Revision::Number(best.number - 1)).await?;
    let seconds = before.map_or(10, |before| best.timestamp.saturating_sub(before.timestamp));
    Ok(i32::try_from(seconds.clamp(1, SLOWEST_BLOCKS))?)
}

/// Prints nodes, a line each.
pub async fn list_nodes(config: &Config) -> Result<()> {
    let rows: Vec<(String, String, i32, bool)> = sqlx::query_as(
        "select network_name::text, rpc_url, priority, is_active from network_configs order by genesis_id, priority, rpc_url",
    )
    .fetch_all(&operate::pool(config)?)
    .await?;
    for (network, url, priority, active) in rows {
        println!("{network} {url} {priority} {}", if active { "active" } else { "disabled" });
    }
    Ok(())
}

/// Asks a node no more.
pub async fn disable_node(config: &Config, rpc_url: &str) -> Result<()> {
    let pool = operate::pool(config)?;
    let mut tx = pool.begin().await?;
    let done =
        sqlx::query("update network_configs set is_active = false, updated_at = now() where rpc_url = $1")
            .bind(rpc_url)
            .execute(&mut *tx)
            .await?;
    ensure!(done.rows_affected() > 0, "there is no node {rpc_url}: `milestream networks list` shows them");
    audit(&mut tx, changed("network.update"), rpc_url, None, json!({"is_active": false})).await?;
    tx.commit().await?;
    Ok(())
}

/// What is read from the chain about a contract.
struct Facts {
    code: Vec<u8>,
    version: String,
    deployed: Option<(DateTime<Utc>, Address)>,
    supply: Option<Decimal>,
    circulating: Option<Decimal>,
}

/// Adds a contract, or changes it.
pub async fn add_contract(
    config: &Config,
    name: &str,
    address: &str,
    app_id: Option<&str>,
    deployed_tx: Option<&str>,
) -> Result<()> {
    let (kind, interface) = match name {
        TOKEN => ("token", "Token"),
        REWARDS_POOL => ("reward_distributor", "RewardsPool"),
        APPS => ("governance", "Apps"),
        PASSPORT => ("governance", "Passport"),
        _ => bail!("--name: choose of {TOKEN}, {REWARDS_POOL}, {APPS}, {PASSPORT}"),
    };
    let address: Address = Address::parse_checked(address).context("--address")?;
    let app: Option<AppId> =
        app_id.map(str::parse).transpose().context("--app-id is not 0x and 64 hex digits")?;
    ensure!(name != REWARDS_POOL || app.is_some(), "--app-id: the pool needs the app whose purse pays");
    let deployed: Option<TxId> = deployed_tx.map(str::parse).transpose().context("--deployed-tx")?;
    let genesis = genesis(config)?;
    let pool = operate::pool(config)?;
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
    audit(&mut tx, changed("contract.update"), name, before, after).await?;
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
) -> Result<Facts> {
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
    Ok(Facts { code, version, deployed, supply, circulating })
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

/// Prints contracts, a line each.
pub async fn list_contracts(config: &Config) -> Result<()> {
    let rows: Vec<(String, String, String, bool)> = sqlx::query_as(
        "select network::text, contract_name, contract_address, is_active from smart_contracts order by genesis_id, contract_name",
    )
    .fetch_all(&operate::pool(config)?)
    .await?;
    for (network, name, address, active) in rows {
        println!("{network} {address} {} {name}", if active { "active" } else { "disabled" });
    }
    Ok(())
}

/// Reads the token's supplies anew.
pub async fn refresh_contracts(config: &Config) -> Result<()> {
    let genesis = genesis(config)?;
    let pool = operate::pool(config)?;
    let node = node(&pool, genesis).await?;
    let token =
        Network::load(&pool, genesis).await?.token.with_context(|| format!("{TOKEN} is not added yet"))?;
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
    audit(&mut tx, changed("contract.update"), TOKEN, before, after).await?;
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

/// Puts the distributor's key into its keystore.
pub fn distributor(config: &Config, import: Option<&Path>, light: bool) -> Result<()> {
    let (keystore, password_file) = (&config.chain.keystore_file, &config.chain.keystore_password_file);
    ensure!(!keystore.exists(), "{} exists: it is never overwritten", keystore.display());
    let key = match import {
        None => generate_key(),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let mut decoded = Ok(());
            let key = SecretBox::init_with_mut(|key: &mut [u8; 32]| {
                decoded = hex::decode_to_slice(text.trim().trim_start_matches("0x"), key);
            });
            decoded.with_context(|| format!("{} does not hold 64 hex digits", path.display()))?;
            key
        }
    };
    for folder in [keystore.parent(), password_file.parent()].into_iter().flatten() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    if !password_file.exists() {
        let secret: [u8; 32] = rand::random();
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(password_file);
        let mut file = file.with_context(|| format!("write {}", password_file.display()))?;
        file.write_all(hex::encode(secret).as_bytes())?;
        file.sync_all()?;
    }
    let password = Password::from_file(password_file)?;
    let cost = if light { ScryptCost::LIGHT } else { ScryptCost::STANDARD };
    let store = Keystore::encrypt(&key, &password, cost)?;
    store.write_new(keystore)?;
    let address = store.address()?.map(|address| address.to_string()).unwrap_or_default();
    println!("{address} in {}", keystore.display());
    Ok(())
}

/// Links a wallet to a user.
pub async fn add_wallet(config: &Config, user: Uuid, address: &str) -> Result<()> {
    let registry = Registry::new(&config.registry_client())?;
    let schemas = operate::registered(&registry, &config.kafka.topic_prefix).await?;
    let network = match payments::genesis(config)? {
        Some(genesis) if network_label(&genesis.to_string()) == "vechain_mainnet" => "mainnet",
        _ => "testnet",
    };
    let pool = operate::pool(config)?;
    let now = SystemClock.now();
    let id = ingest::wallets::add_wallet(&pool, schemas, UserId(user), address, network, now).await?;
    println!("{id}");
    Ok(())
}
