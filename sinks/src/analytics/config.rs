//! Settings of the sink, and the check at start.

use std::time::Duration;

use sqlx::{PgPool, query_scalar};

use super::metrics::Metric;
use super::sink::AnalyticsSink;
use super::{CATALOGUE, TABLES};

/// Settings of the sink.
#[derive(Clone, Copy, Debug)]
pub struct AnalyticsConfig {
    /// Longest run of one statement, milliseconds in effect; a lock that is held longer ends the batch, which is then
    /// tried again. At least 1 ms. Default 30 s: a batch of 500 takes well under one.
    pub statement_timeout: Duration,
}

impl Default for AnalyticsConfig {
    fn default() -> Self {
        Self { statement_timeout: Duration::from_secs(30) }
    }
}

/// Why the sink cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AnalyticsStartError {
    /// The database does not answer.
    #[error("postgres does not answer")]
    Postgres(#[from] sqlx::Error),
    /// A table of the sink is missing.
    #[error("table {0} does not exist in this schema: run `milestream migrate`")]
    Missing(&'static str),
    /// A metric of this release is missing.
    #[error("metric {0} is not in metric_catalogue: run `milestream migrate`")]
    UnknownMetric(String),
}

impl AnalyticsConfig {
    /// The sink, once its tables and metrics are there.
    ///
    /// # Errors
    /// [`AnalyticsStartError`].
    pub async fn build(self, pool: PgPool) -> Result<AnalyticsSink, AnalyticsStartError> {
        for table in TABLES.emptied.iter().copied().chain([CATALOGUE]) {
            let found: bool =
                query_scalar("select to_regclass($1) is not null").bind(table).fetch_one(&pool).await?;
            if !found {
                return Err(AnalyticsStartError::Missing(table));
            }
        }
        let missing: Option<String> = query_scalar(
            "select name from unnest($1::text[]) name
             where not exists (select from metric_catalogue where metric_name = name) limit 1",
        )
        .bind(Metric::ALL.map(Metric::name).to_vec())
        .fetch_optional(&pool)
        .await?;
        match missing {
            Some(name) => Err(AnalyticsStartError::UnknownMetric(name)),
            None => Ok(AnalyticsSink::with_config(pool, self)),
        }
    }
}
