//! Settings of the sink.

use std::time::Duration;

/// Settings of the sink.
#[derive(Clone, Copy, Debug)]
pub struct PostgresConfig {
    /// Longest run of one statement, milliseconds in effect; a lock that is held longer ends the batch, which is then
    /// tried again. At least 1 ms. Default 30 s: a batch of 500 takes well under one.
    pub statement_timeout: Duration,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self { statement_timeout: Duration::from_secs(30) }
    }
}

/// Why the sink cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PostgresStartError {
    /// The database does not respond.
    #[error("postgres does not respond")]
    Postgres(#[from] sqlx::Error),
    /// A table of the sink is missing.
    #[error("table {0} does not exist in this schema: run `milestream migrate`")]
    Missing(&'static str),
}
