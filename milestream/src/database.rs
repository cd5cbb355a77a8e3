//! The connection to PostgreSQL.

use std::time::Duration;

use anyhow::Result;
use secrecy::ExposeSecret as _;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::config::Config;

/// A pool that connects when it is first used.
///
/// # Errors
/// For a URL that is none; the URL is not in the error, as it may hold a password.
pub fn pool(config: &Config) -> Result<PgPool> {
    Ok(pool_with(config, options(config)?))
}

/// A pool whose connections see one schema and no other.
///
/// # Errors
/// As [`pool`].
pub fn pool_of(config: &Config, schema: &str) -> Result<PgPool> {
    Ok(pool_with(config, options(config)?.options([("search_path", schema)])))
}

fn options(config: &Config) -> Result<PgConnectOptions> {
    let options: PgConnectOptions =
        config.postgres.url.expose_secret().parse().map_err(|_| {
            anyhow::anyhow!("postgres.url is not postgres://user:password@host:port/database")
        })?;
    Ok(options.application_name("milestream"))
}

fn pool_with(config: &Config, options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(config.postgres.max_connections)
        .acquire_timeout(Duration::from_secs(config.postgres.acquire_timeout_s))
        .connect_lazy_with(options)
}
