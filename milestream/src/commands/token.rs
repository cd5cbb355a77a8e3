//! `milestream token`: a bearer token for a user.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use runtime::clock::{Clock as _, SystemClock};
use runtime::registry::Registry;
use schemas::ids::UserId;
use uuid::Uuid;

use crate::config::Config;
use crate::{database, key_files, schema_ids};

/// Whose token, and what it allows.
#[derive(Debug, Args)]
pub struct Token {
    /// The user.
    #[arg(long)]
    user: Uuid,
    /// What the token allows.
    #[arg(long, value_enum, default_value = "driver")]
    role: Role,
    /// Hours until it expires.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=168))]
    hours: u32,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Sends photos.
    Driver,
    /// Looks at doubtful photos.
    Reviewer,
    /// Operates the system.
    Operator,
    /// Sends photos for an account, and sees what becomes of them.
    Service,
}

impl Token {
    /// Prints the token on standard output, and nothing else there.
    pub async fn run(&self, config: &Config) -> Result<()> {
        let key = key_files::signing_key(&config.keys.signing_key_file)?;
        let registry = Registry::new(&config.registry_client())?;
        let schemas = schema_ids::registered(&registry, &config.kafka.topic_prefix).await?;
        let role = match self.role {
            Role::Driver => ingest::keys::Role::Driver,
            Role::Reviewer => ingest::keys::Role::Reviewer,
            Role::Operator => ingest::keys::Role::Operator,
            Role::Service => ingest::keys::Role::Service,
        };
        let life = Duration::from_secs(u64::from(self.hours) * 3_600);
        let (pool, user) = (database::pool(config)?, (UserId(self.user), role));
        let token = ingest::token::issue(&pool, &key, schemas, user, life, SystemClock.now()).await?;
        println!("{token}");
        Ok(())
    }
}
