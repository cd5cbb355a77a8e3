//! The row of `system_config`: what operators set while roles run. Each change is one of its revision, in one transaction with its record
//! in the audit log.

use anyhow::{Context as _, Result, ensure};
use runtime::switches::Flag;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;

/// The row, where there is none yet: the limits of the configuration, every flag on, no maintenance. Where there is one it says of which
/// release and environment it is.
pub async fn add(pool: &PgPool, config: &Config) -> Result<()> {
    let flags: Value = Flag::ALL
        .iter()
        .map(|flag| (flag.label().to_owned(), json!(true)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    sqlx::query(
        "with changed as (
           update system_config set version = $2, environment = $1::system_config_environment, updated_at = now(), revision = revision + 1
           where (version, environment) is distinct from ($2, $1::system_config_environment) and (select count(*) from system_config) = 1)
         insert into system_config (id, environment, version, maintenance_mode, feature_flags, rate_limits, created_at, updated_at)
         select $3, $1::system_config_environment, $2, false, $4, $5, now(), now() where not exists (select from system_config)",
    )
    .bind(&config.system.environment)
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(Uuid::now_v7())
    .bind(flags)
    .bind(config.first_rates().document())
    .execute(pool)
    .await?;
    Ok(())
}

/// What is set.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    /// `maintenance_mode`.
    #[sqlx(rename = "maintenance_mode")]
    pub maintenance: bool,
    /// `feature_flags`.
    #[sqlx(rename = "feature_flags")]
    pub flags: Value,
    /// `rate_limits`.
    #[sqlx(rename = "rate_limits")]
    pub limits: Value,
}

impl Row {
    /// The row, locked until the transaction ends.
    pub async fn find(tx: &mut PgConnection) -> Result<Self> {
        let row = sqlx::query_as(
            "select coalesce(maintenance_mode, false) as maintenance_mode, coalesce(feature_flags, '{}') as feature_flags,
               coalesce(rate_limits, '{}') as rate_limits
             from system_config order by revision desc limit 1 for update",
        )
        .fetch_optional(tx)
        .await?;
        row.context("system_config has no row: run `milestream migrate` first")
    }

    /// Stores it, and what was changed of it.
    pub async fn store(
        &self,
        tx: &mut PgConnection,
        what: (&'static str, &'static str),
        (target, before, after): (&str, Value, Value),
    ) -> Result<()> {
        let changed = sqlx::query(
            "update system_config set maintenance_mode = $1, feature_flags = $2, rate_limits = $3, revision = revision + 1,
               updated_at = now() where revision = (select max(revision) from system_config)",
        )
        .bind(self.maintenance)
        .bind(&self.flags)
        .bind(&self.limits)
        .execute(&mut *tx)
        .await?;
        ensure!(changed.rows_affected() == 1, "system_config has several rows of one revision: leave one");
        let (action, severity) = what;
        audit(tx, Action { module: "config", action, severity }, target, Some(before), after).await
    }
}
