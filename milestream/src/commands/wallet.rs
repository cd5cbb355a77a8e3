//! `milestream wallet`: links wallets to users.

use anyhow::{Context as _, Result};
use chain::Address;
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
        let address = &checked(address)?;
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

/// An address as a person gives it: one whose letters carry a checksum must fit it, since what is paid to a mistyped one is lost.
fn checked(address: &str) -> Result<String> {
    let address = Address::parse_checked(address)
        .context("--address: take it from the wallet once more, or type it in lower case")?;
    Ok(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::checked;

    #[test]
    fn an_address_with_a_broken_checksum_is_refused() {
        let good = "0xd989829d88B0eD1B06eDF5C50174eCfA64F14A64";
        assert_eq!(checked(good).unwrap(), good.to_lowercase());
        assert_eq!(checked(&good.to_lowercase()).unwrap(), good.to_lowercase());
        // One digit is another, as after a slip of the hand.
        let slip = good.replacen("d989", "d889", 1);
        assert!(format!("{:#}", checked(&slip).unwrap_err()).contains("checksum"));
        assert!(checked("0x12").is_err());
    }
}
