//! `milestream networks`: the nodes of networks. Each change is recorded in `system_audit_logs`, in the same transaction.

use anyhow::{Context as _, Result, ensure};
use chain::node::{Limits, Node, Revision};
use clap::Subcommand;
use schemas::payouts::network_label;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

/// Gas that a transaction of ours may ask for, as `network_configs.gas_limit` has it.
const GAS_LIMIT: i32 = 15_000_000;
/// Longest pause between two blocks that is believed, s.
const SLOWEST_BLOCKS: u64 = 60;
/// A change of a node, as `system_audit_logs` has it.
const UPDATE: Action = Action { module: "chain", action: "network.update", severity: "info" };

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum Networks {
    /// Add a node, or change it: its genesis block says which network it is of.
    Add {
        /// Address of its API, without login.
        #[arg(long, value_name = "URL")]
        rpc_url: String,
        /// Address of its WebSockets.
        #[arg(long, value_name = "URL")]
        websocket_url: Option<String>,
        /// 1 is asked first.
        #[arg(long, default_value_t = 1)]
        priority: i32,
    },
    /// List nodes: network, address, priority, active.
    List,
    /// Stop asking a node; `milestream networks add` enables it again.
    Disable {
        /// Its address as it was added.
        #[arg(value_name = "URL")]
        rpc_url: String,
    },
}

impl Networks {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Add { rpc_url, websocket_url, priority } => {
                add(config, rpc_url, websocket_url.as_deref(), *priority).await
            }
            Self::List => list(config).await,
            Self::Disable { rpc_url } => disable(config, rpc_url).await,
        }
    }
}

/// Adds a node, or changes it.
async fn add(config: &Config, rpc_url: &str, websocket_url: Option<&str>, priority: i32) -> Result<()> {
    ensure!((1..=99).contains(&priority), "--priority: {priority} is not between 1 and 99");
    for url in [Some(rpc_url), websocket_url].into_iter().flatten() {
        let parsed = Url::parse(url).context("the address is not a URL")?;
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
    let pool = database::pool(config)?;
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
    audit(&mut tx, UPDATE, rpc_url, before, after).await?;
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

/// Prints nodes, one per line.
async fn list(config: &Config) -> Result<()> {
    let rows: Vec<(String, String, i32, bool)> = sqlx::query_as(
        "select network_name::text, rpc_url, priority, is_active from network_configs order by genesis_id, priority, rpc_url",
    )
    .fetch_all(&database::pool(config)?)
    .await?;
    for (network, url, priority, active) in rows {
        println!("{network} {url} {priority} {}", if active { "active" } else { "disabled" });
    }
    Ok(())
}

/// Stops asking a node.
async fn disable(config: &Config, rpc_url: &str) -> Result<()> {
    let pool = database::pool(config)?;
    let mut tx = pool.begin().await?;
    let done =
        sqlx::query("update network_configs set is_active = false, updated_at = now() where rpc_url = $1")
            .bind(rpc_url)
            .execute(&mut *tx)
            .await?;
    ensure!(done.rows_affected() > 0, "there is no node {rpc_url}: `milestream networks list` shows them");
    audit(&mut tx, UPDATE, rpc_url, None, json!({"is_active": false})).await?;
    tx.commit().await?;
    Ok(())
}
