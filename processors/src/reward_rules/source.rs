//! Where a stage has the rules from. A version is in every stage's copy before it comes into force: it is applied at least [`LEAD`] before
//! its instant, and a copy is at most `FRESH` old when it decides about a record, which was accepted before the copy was read or at most
//! that long after. Which version decides therefore depends on the acceptance alone, and not on when a process has looked.
//!
//! [`LEAD`]: super::apply::LEAD

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::LimitType;
use schemas::ids::Micros;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{RewardRules, Rulebook, parse};

/// Age of a copy that still decides.
pub const FRESH: Duration = Duration::from_secs(10);

/// The rules as a stage has them.
#[derive(Debug)]
pub struct RuleSource {
    /// None for rules that never change.
    pool: Option<PgPool>,
    held: Mutex<Held>,
    fresh: Duration,
}

#[derive(Clone, Debug)]
struct Held {
    book: Arc<Rulebook>,
    /// When the tables were asked for it; none before the first time.
    read: Option<Instant>,
}

/// The first rules alone.
impl Default for RuleSource {
    fn default() -> Self {
        Self::fixed(Rulebook::first())
    }
}

impl RuleSource {
    /// Rules that never change.
    #[must_use]
    pub fn fixed(book: Rulebook) -> Self {
        Self { pool: None, held: Mutex::new(Held { book: Arc::new(book), read: None }), fresh: FRESH }
    }

    /// The tables of this database.
    #[must_use]
    pub fn tables(pool: PgPool) -> Self {
        Self { pool: Some(pool), ..Self::default() }
    }

    /// The same, whose copy decides for at most this long.
    #[must_use]
    pub fn renewed_after(self, fresh: Duration) -> Self {
        Self { fresh: fresh.min(FRESH), ..self }
    }

    /// The rules, at most `FRESH` old.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer, or holds a version that this release cannot read: nothing is decided then.
    pub async fn current(&self) -> Result<Arc<Rulebook>, StageError> {
        let held = self.held.lock().await;
        let Some(pool) = self.pool.as_ref().filter(|_| !held.is_fresh(self.fresh)) else {
            return Ok(held.book.clone());
        };
        // Whoever waits for a connection holds nothing that the holders of connections wait for.
        drop(held);
        let mut connection = pool.acquire().await?;
        self.current_in(&mut connection).await
    }

    /// The same on a connection of the stage's own, which may hold the last one of the pool.
    ///
    /// # Errors
    /// As [`RuleSource::current`].
    pub async fn current_in(&self, connection: &mut PgConnection) -> Result<Arc<Rulebook>, StageError> {
        let mut held = self.held.lock().await;
        if self.pool.is_some() && !held.is_fresh(self.fresh) {
            held.refresh(connection).await?;
        }
        Ok(held.book.clone())
    }
}

impl Held {
    fn is_fresh(&self, fresh: Duration) -> bool {
        self.read.is_some_and(|read| read.elapsed() < fresh)
    }

    /// Reads the versions; those that are held already are not parsed again, as none is ever changed.
    async fn refresh(&mut self, connection: &mut PgConnection) -> Result<(), StageError> {
        let asked = Instant::now();
        let count: i64 =
            sqlx::query_scalar("select count(*) from reward_rules").fetch_one(&mut *connection).await?;
        if usize::try_from(count).ok() != Some(self.book.applied()) {
            self.book = Arc::new(read(connection).await?);
        }
        self.read = Some(asked);
        Ok(())
    }
}

/// Every version.
async fn read(connection: &mut PgConnection) -> Result<Rulebook, StageError> {
    let rows: Vec<(String, DateTime<Utc>, String)> =
        sqlx::query_as("select version, in_force_from, document from reward_rules")
            .fetch_all(connection)
            .await?;
    let mut later = Vec::with_capacity(rows.len());
    for (version, from, document) in rows {
        let rules = read_version(&version, &document)
            .map_err(|error| StageError::new("reward_rules", error.to_string()))?;
        later.push((Micros::from(from), rules));
    }
    Ok(Rulebook::with(later))
}

/// A version that this release cannot read.
#[derive(Debug, thiserror::Error)]
#[error("version {version}: {faults}")]
struct Unreadable {
    version: String,
    faults: String,
}

fn read_version(version: &str, document: &str) -> Result<RewardRules, Unreadable> {
    parse(document).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Unreadable { version: version.to_owned(), faults: faults.join("; ") }
    })
}

/// What all users together are paid at most by the version in force at an instant, straight from the tables.
///
/// # Errors
/// Postgres', and where this release cannot read the version.
pub async fn pools_at(
    connection: &mut PgConnection,
    at: DateTime<Utc>,
) -> sqlx::Result<Vec<(LimitType, Decimal)>> {
    let found: Option<(String, String)> = sqlx::query_as(
        "select version, document from reward_rules where in_force_from <= $1 order by in_force_from desc limit 1",
    )
    .bind(at)
    .fetch_optional(connection)
    .await?;
    let Some((version, document)) = found else { return Ok(Vec::new()) };
    let rules = read_version(&version, &document).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(rules.policy.pools)
}
