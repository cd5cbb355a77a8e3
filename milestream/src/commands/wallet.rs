//! `milestream wallet`: links wallets to users.

use anyhow::Result;
use clap::Subcommand;
use runtime::clock::{Clock as _, SystemClock};
use runtime::registry::Registry;
use schemas::ids::UserId;
use schemas::payouts::network_label;
use uuid::Uuid;

use crate::config::Config;
use crate::{database, payments, schema_ids};

/// What to do with wallets.
#[derive(Debug, Subcommand)]
pub enum Wallet {
    /// Link a VeChain address to a user, making the account if there is none; the first is the one that rewards are paid to.
    Add {
        /// The user.
        #[arg(long)]
        user: Uuid,
        /// 0x and 40 hex digits.
        #[arg(long)]
        address: String,
    },
}

impl Wallet {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        let Self::Add { user, address } = self;
        let registry = Registry::new(&config.registry_client())?;
        let schemas = schema_ids::registered(&registry, &config.kafka.topic_prefix).await?;
        let network = match payments::genesis(config)? {
            Some(genesis) if network_label(&genesis.to_string()) == "vechain_mainnet" => "mainnet",
            _ => "testnet",
        };
        let pool = database::pool(config)?;
        let now = SystemClock.now();
        let id = ingest::wallets::add_wallet(&pool, schemas, UserId(*user), address, network, now).await?;
        println!("{id}");
        Ok(())
    }
}
