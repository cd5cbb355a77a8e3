//! `milestream migrate`: the tables, and the embedded reader's row.

use anyhow::{Context as _, Result};
use sqlx::migrate::Migrator;

use super::service;
use crate::config::Config;
use crate::database;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Brings the tables up to date, and the reading service that is part of the program; several at once take turns under the
/// migrator's lock.
pub async fn run(config: &Config) -> Result<()> {
    MIGRATIONS.run(&database::pool(config)?).await.context("migrations")?;
    service::add_embedded(config).await.context("the embedded reader's row")
}
