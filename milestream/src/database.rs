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
    let options: PgConnectOptions =
        config.postgres.url.expose_secret().parse().map_err(|_| {
            anyhow::anyhow!("postgres.url is not postgres://user:password@host:port/database")
        })?;
    Ok(PgPoolOptions::new()
        .max_connections(config.postgres.max_connections)
        .acquire_timeout(Duration::from_secs(config.postgres.acquire_timeout_s))
        .connect_lazy_with(options.application_name("milestream")))
}
