//! Accounts of drivers: as `milestream wallet add` and `milestream token` make them, without two processes for each of hundreds.

use std::time::Duration;

use anyhow::Result;
use harness::local_chain::wallet_of;
use ingest::{Role, SchemaIds, SigningKey, token, wallets};
use runtime::clock::{Clock as _, SystemClock};
use runtime::registry::{Registry, RegistryConfig};
use schemas::events::{
    AccountChanged, ActivityLogged, BlockAdopted, BlockUndone, OdometerRead, RewardClaimed, UploadReceived,
};
use schemas::ids::UserId;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

/// Longer than any run.
const LIFE: Duration = Duration::from_secs(12 * 3_600);

/// Where the accounts of a run are made.
#[derive(Clone)]
pub struct Places {
    pub database_url: String,
    pub registry_url: String,
    pub key_file: String,
}

pub struct Accounts {
    pool: PgPool,
    key: SigningKey,
    schemas: SchemaIds,
}

impl Accounts {
    pub async fn open(places: &Places) -> Self {
        let pool = PgPoolOptions::new().max_connections(1).connect(&places.database_url).await.unwrap();
        let key = SigningKey::from_pem(&std::fs::read_to_string(&places.key_file).unwrap()).unwrap();
        let registry = Registry::new(&RegistryConfig::open(&places.registry_url)).unwrap();
        let schemas = SchemaIds {
            upload_received: registry.id_of::<UploadReceived>("").await.unwrap(),
            activity_logged: registry.id_of::<ActivityLogged>("").await.unwrap(),
            account_changed: registry.id_of::<AccountChanged>("").await.unwrap(),
            reward_claimed: registry.id_of::<RewardClaimed>("").await.unwrap(),
            odometer_read: registry.id_of::<OdometerRead>("").await.unwrap(),
            block_adopted: registry.id_of::<BlockAdopted>("").await.unwrap(),
            block_undone: registry.id_of::<BlockUndone>("").await.unwrap(),
        };
        Self { pool, key, schemas }
    }

    /// A driver with a wallet; the token.
    pub async fn driver(&self, user: Uuid) -> Result<String> {
        let (now, address) = (SystemClock.now(), wallet_of(user).to_string());
        wallets::add_wallet(&self.pool, self.schemas, UserId(user), &address, "testnet", now).await?;
        let who = (UserId(user), Role::Driver);
        Ok(token::issue(&self.pool, &self.key, self.schemas, who, LIFE, now).await?)
    }
}
