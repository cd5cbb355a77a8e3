//! What an operator's command does with versions: applies one, and lists them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use schemas::ids::Micros;
use sqlx::PgConnection;

/// A version is applied at least this long before it comes into force. Of the 120 s the transaction may take 30 and a copy may be 10 old;
/// the rest is for clocks of gateways that differ from the database's.
pub const LEAD: Duration = Duration::from_secs(120);

/// A version as it was applied.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Applied {
    /// Its name.
    pub version: String,
    /// The first acceptance that it holds for.
    pub in_force_from: DateTime<Utc>,
    /// The file.
    pub document: String,
    /// When it was applied.
    pub applied_at: DateTime<Utc>,
}

/// Why a version was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There is one of this name.
    #[error(
        "version {0} is applied already: a version is never changed, so give the changed file another one"
    )]
    Known(String),
    /// Another one begins at the same instant.
    #[error("version {0} is in force from the same instant: they would overlap")]
    Overlaps(String),
    /// Too early.
    #[error("{from} is too early: a version is applied at least {} s before it is in force, so from {earliest} on", LEAD.as_secs())]
    TooEarly {
        /// What was asked for.
        from: String,
        /// What would do.
        earliest: String,
    },
    /// Postgres.
    #[error("postgres")]
    Database(#[from] sqlx::Error),
}

/// Stores a version in this transaction, which is to be committed at once: it is ended where it takes longer.
///
/// # Errors
/// [`ApplyError`].
pub async fn apply(
    tx: &mut PgConnection,
    version: &str,
    from: Micros,
    document: &str,
) -> Result<Applied, ApplyError> {
    // From the clock to the commit at most 25 s: three statements, and a pause before each but the first.
    sqlx::query("set local idle_in_transaction_session_timeout = '5s'").execute(&mut *tx).await?;
    sqlx::query("set local statement_timeout = '5s'").execute(&mut *tx).await?;
    // Of two operators the second sees what the first has applied.
    sqlx::query("lock table reward_rules in share row exclusive mode").execute(&mut *tx).await?;
    for known in all(tx).await? {
        if known.version == version {
            return Err(ApplyError::Known(known.version));
        }
        if Micros::from(known.in_force_from) == from {
            return Err(ApplyError::Overlaps(known.version));
        }
    }
    if version == super::file::first().version() {
        return Err(ApplyError::Known(version.to_owned()));
    }
    let now: DateTime<Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&mut *tx).await?;
    let earliest = now + LEAD;
    if from.to_utc() < earliest {
        let shown = |at: DateTime<Utc>| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        return Err(ApplyError::TooEarly { from: shown(from.to_utc()), earliest: shown(earliest) });
    }
    sqlx::query_as(
        "insert into reward_rules (version, in_force_from, document, applied_at) values ($1, $2, $3, $4) returning *",
    )
    .bind(version)
    .bind(from.to_utc())
    .bind(document)
    .bind(now)
    .fetch_one(tx)
    .await
    .map_err(ApplyError::Database)
}

/// Every version that was applied, in the order in which they are in force.
///
/// # Errors
/// Postgres.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<Applied>, sqlx::Error> {
    sqlx::query_as("select * from reward_rules order by in_force_from").fetch_all(connection).await
}
