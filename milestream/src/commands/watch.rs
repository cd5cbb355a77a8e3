//! `milestream watch`: runs the watcher of the chain, or has it tell blocks again.

use anyhow::{Context as _, Result};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::roles::{self, Roles};
use crate::{database, payments, rewinds};

/// Runs the watcher, unless something else is to be done.
#[derive(Debug, Args)]
pub struct Watch {
    #[command(subcommand)]
    order: Option<Order>,
}

/// What else to do.
#[derive(Debug, Subcommand)]
enum Order {
    /// Have the running watcher tell every block after a height again, by what is set now: payments that landed while another pool or
    /// app was set are taken into the books. What is known already stays as it is.
    Rewind {
        /// The height: blocks after it are told again. Not below watch.start_block.
        #[arg(long, value_name = "BLOCK")]
        to: u32,
        /// Why, for the audit log.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
}

impl Watch {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match &self.order {
            None => roles::run(config, Roles::watcher()).await,
            Some(Order::Rewind { to, reason }) => rewind(config, *to, reason).await,
        }
    }
}

async fn rewind(config: &Config, to: u32, reason: &str) -> Result<()> {
    let genesis = payments::genesis(config)?.context("chain.genesis_id is empty: nothing is watched")?;
    let mut tx = database::pool(config)?.begin().await?;
    let tip = rewinds::order(&mut tx, genesis, (to, config.watch.start_block), reason).await?;
    let what = Action { module: "chain", action: "watch.rewind", severity: "warning" };
    let after = json!({"to": to, "told": tip, "why": reason});
    audit(&mut tx, what, &genesis.to_string(), None, after).await?;
    tx.commit().await?;
    println!("{} blocks are told again within a minute of a watcher's life", tip - to);
    Ok(())
}
