//! `milestream migrate`: the tables, the embedded reader's row, and that of `system_config`.

use anyhow::{Context as _, Result};
use migrations::MIGRATIONS;

use super::service;
use crate::config::Config;
use crate::{database, system_config};

/// Brings the tables up to date, with the reading service that is part of the program and what operators set while roles run; several at
/// once take turns under the migrator's lock.
pub async fn run(config: &Config) -> Result<()> {
    let pool = database::pool(config)?;
    MIGRATIONS.run(&pool).await.context("migrations")?;
    system_config::add(&pool, config).await.context("the row of system_config")?;
    service::add_embedded(config).await.context("the embedded reader's row")
}
