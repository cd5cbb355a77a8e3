//! From the configuration's text to what paying and watching need.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use chain::{BlockId, Wei};
use processors::chain_submission::PayoutConfig;
use processors::chain_submission::plan::{Strategy, Terms};

use crate::config::Config;

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
    let ceiling = section.daily_ceiling.parse().context("chain.daily_ceiling is no decimal number of B3TR")?;
    Ok(Some(PayoutConfig {
        genesis,
        keystore: section.keystore_file.clone(),
        password: section.keystore_password_file.clone(),
        batch_rewards: section.batch_rewards,
        batch_wait: Duration::from_millis(section.batch_wait_ms),
        terms: Terms {
            expiration: section.expiration_blocks,
            gas_ceiling: GAS_CEILING,
            strategy: Strategy::parse(&section.gas_strategy)
                .with_context(|| format!("chain.gas_strategy: {:?} is not low, medium or high", section.gas_strategy))?,
            daily_ceiling: Wei::from_b3tr(ceiling).context("chain.daily_ceiling")?,
        },
        owner: format!("{}{}", config.instance().unwrap_or_else(|| "pid-".into()), std::process::id()),
    }))
}
