//! From the configuration's text to what paying and watching need.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chain::health::LIMITS;
use chain::{BlockId, Node, Observer};
use ingest::config::ChainAccess;
use processors::chain_submission::PayoutConfig;
use processors::chain_submission::network::{Network, NetworkError};
use processors::chain_submission::submit::terms::{Strategy, Terms};
use runtime::Engine;
use runtime::clock::SystemClock;
use schemas::events::ActivityLogged;
use schemas::payouts::network_label;
use secrecy::ExposeSecret as _;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use url::{Host, Url};
use watch::{HttpGateway, Journal, Settings, Source, SourceError, Watched, Watcher, WatcherConfig, Watching};

use crate::config::Config;
use crate::{rewinds, signing as keys};

/// Gas that a transaction of ours may ask for: 40 rewards to new receivers used 10.8M on a solo node, and a block holds 40M.
const GAS_CEILING: u64 = 15_000_000;
/// Rewards of one transaction at most.
const MOST_REWARDS: usize = 40;
/// A day of blocks: an end that lies further off is proven too late to be of use.
const MOST_BLOCKS: u32 = 8_640;

/// The network that is paid on; none where the configuration names none.
///
/// # Errors
/// When the id is malformed.
pub fn genesis(config: &Config) -> Result<Option<BlockId>> {
    let text = config.chain.genesis_id.trim();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).context("chain.genesis_id is not 0x and 64 hex digits")
}

/// What `chain_submission` needs; none where no network is named.
///
/// # Errors
/// For a value that cannot work, with the key.
pub fn config(config: &Config) -> Result<Option<PayoutConfig>> {
    let Some(genesis) = genesis(config)? else { return Ok(None) };
    let section = &config.chain;
    ensure!(
        (1..=MOST_REWARDS).contains(&section.batch_rewards),
        "chain.batch_rewards: {} is not between 1 and {MOST_REWARDS}",
        section.batch_rewards
    );
    ensure!(
        (1..=MOST_BLOCKS).contains(&section.expiration_blocks),
        "chain.expiration_blocks: {} is not between 1 and {MOST_BLOCKS}",
        section.expiration_blocks
    );
    Ok(Some(PayoutConfig {
        genesis,
        signer: keys::signer(config)?,
        gas_payer: keys::gas_payer(config)?,
        limits: keys::limits(config)?,
        policy: keys::policy(config, GAS_CEILING)?,
        batch_rewards: section.batch_rewards,
        batch_wait: Duration::from_millis(section.batch_wait_ms),
        terms: Terms {
            expiration: section.expiration_blocks,
            gas_ceiling: GAS_CEILING,
            strategy: Strategy::parse(&section.gas_strategy).with_context(|| {
                format!("chain.gas_strategy: {:?} is not low, medium or high", section.gas_strategy)
            })?,
            daily_ceiling: keys::b3tr("chain.daily_ceiling", &section.daily_ceiling)?,
        },
        proofs: Some(proofs(config)?),
        owner: format!("{}{}", config.instance().unwrap_or_else(|| "pid-".into()), std::process::id()),
    }))
}

/// Where the pages of rewards are: `chain.proofs_url`, or the gateway's public address.
fn proofs(config: &Config) -> Result<String> {
    let (key, text) = match config.chain.proofs_url.trim() {
        "" => ("ingest.public_url, which stands for chain.proofs_url,", config.ingest.public_url.trim()),
        text => ("chain.proofs_url", text),
    };
    let url = Url::parse(text).with_context(|| format!("{key} is not a URL"))?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    ensure!(
        url.scheme() == "https" || (url.scheme() == "http" && loopback),
        "{key}: {text:?} does not begin with https://: what it shows stands for payments on a public chain"
    );
    ensure!(
        url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none(),
        "{key} is an address alone, without a query, a fragment or a user"
    );
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Least length of the secret that authenticates chain events: as long as the hash.
const LEAST_SECRET: usize = 32;
/// Longest wait for Kafka to take a document on a node's state; one that is not taken is left out.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Who may post the chain's blocks to the gateway; none where no network is named.
///
/// # Errors
/// For a secret that is too short.
pub fn access(config: &Config) -> Result<Option<ChainAccess>> {
    let Some(genesis) = genesis(config)? else { return Ok(None) };
    let secret = config.chain.watch_secret.clone();
    let length = secret.expose_secret().len();
    ensure!(
        length >= LEAST_SECRET,
        "chain.watch_secret has {length} characters, {LEAST_SECRET} are the least"
    );
    Ok(Some(ChainAccess { genesis_id: genesis.to_string(), secret }))
}

/// Watches the chain until stopped.
///
/// # Errors
/// Where no network is named, or the gateway's address is none.
pub async fn watch(
    config: &Config,
    engine: &Engine,
    (pool, observer): (PgPool, Observer),
    stop: CancellationToken,
) -> Result<()> {
    let access = access(config)?.context("chain.genesis_id is empty: name the network to watch")?;
    let genesis: BlockId = access.genesis_id.parse()?;
    let settings = WatcherConfig {
        genesis,
        poll: Duration::from_millis(config.watch.poll_ms.max(1)),
        start_block: config.watch.start_block,
    };
    let gateway = HttpGateway::new(&config.watch.gateway_url, access.secret.clone())?;
    let producer = engine.producer("watch", DELIVERY_TIMEOUT)?;
    let journal = Journal::new(
        Arc::new(producer),
        &config.kafka.topic_prefix,
        engine.schema_id::<ActivityLogged>().await?,
        network_label(&access.genesis_id),
    );
    let watcher = Watcher::new(settings, gateway, Arc::new(SystemClock), &engine.metrics)?
        .with_health(engine.health.clone())
        .with_journal(journal);
    watcher.run(&NetworkRows { pool, genesis, observer }, stop).await;
    Ok(())
}

/// The network's rows, which operators change while the watcher runs.
struct NetworkRows {
    pool: PgPool,
    genesis: BlockId,
    observer: Observer,
}

impl Source for NetworkRows {
    type Chain = Node;

    async fn load(&self) -> Result<Settings<Node>, SourceError> {
        let later = |error: sqlx::Error| SourceError::Later(format!("postgres: {error}"));
        let rewind = rewinds::newest(&self.pool, self.genesis).await.map_err(later)?;
        let network = Network::load(&self.pool, self.genesis, LIMITS).await;
        match network.map(|network| network.observed(Some(&self.observer))) {
            Ok(Network { pool, app, token, urls, nodes, .. }) => {
                let watched = Watched { pool, app };
                Ok(Settings { watching: Watching { watched, token, rewind }, urls, nodes })
            }
            Err(NetworkError::Postgres(error)) => Err(later(error)),
            Err(error) => Err(SourceError::Operator(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(proofs_url: &str, public_url: &str) -> Result<String> {
        let mut config = Config::default();
        config.chain.proofs_url = proofs_url.into();
        config.ingest.public_url = public_url.into();
        proofs(&config)
    }

    #[test]
    fn payments_link_pages_under_https_or_on_this_machine_alone() {
        assert_eq!(of("", "http://127.0.0.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(of("https://m.example/app/", "http://127.0.0.1").unwrap(), "https://m.example/app");
        assert_eq!(of("http://[::1]:9/", "").unwrap(), "http://[::1]:9");
        for bad in [
            "http://m.example",
            "ftp://m.example",
            "m.example",
            "https://m.example/?a",
            "https://u:p@m.example",
        ] {
            let error = format!("{:#}", of(bad, "").unwrap_err());
            assert!(error.starts_with("chain.proofs_url"), "{error}");
            assert!(!error.contains("u:p@"), "{error}");
        }
        let error = of("", "http://m.example").unwrap_err().to_string();
        assert!(error.contains("ingest.public_url") && error.contains("chain.proofs_url"), "{error}");
    }
}
