//! What of a difference can be carried over into the live books, and how: a reward that nothing would be granted for any more is cancelled
//! whole, where no transaction pays it. Everything else is for a person, and the report says why.

use rust_decimal::Decimal;
use sqlx::{PgConnection, query, query_as};
use uuid::Uuid;

use super::outcome::Outcome;

/// What promoting a difference does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The reward is cancelled whole.
    Cancel,
    /// Nothing, and why.
    Nothing(&'static str),
}

impl Act {
    /// What would be done about a difference.
    #[must_use]
    pub fn of(recorded: &Outcome, replayed: &Outcome) -> Self {
        let verdict = |outcome: &Outcome| (outcome.verdict.clone(), outcome.reason.clone());
        let read = |outcome: &Outcome| (outcome.mileage, outcome.distance_km);
        let granted = |outcome: &Outcome| outcome.granted.unwrap_or_default();
        if verdict(recorded) != verdict(replayed) {
            return Self::Nothing("a verdict is changed by a person: in a review, or upon an appeal");
        }
        if read(recorded) != read(replayed) {
            return Self::Nothing("a reading is lowered by `milestream uploads correct`, and never raised");
        }
        match (granted(recorded), granted(replayed)) {
            (was, is) if was == is => Self::Nothing("no amount moves"),
            (was, is) if was < is => {
                Self::Nothing("an upload has one reward, and what is granted is never raised")
            }
            (_, is) if is.is_zero() => Self::Cancel,
            _ => Self::Nothing("a reward is cancelled whole or not at all"),
        }
    }

    /// As a report has it.
    #[must_use]
    pub fn told(self) -> &'static str {
        match self {
            Self::Cancel => "the reward is cancelled",
            Self::Nothing(why) => why,
        }
    }
}

/// The differences whose promotion does something and is not done, in order: effect, upload and B3TR.
///
/// # Errors
/// Postgres'.
pub async fn open(
    connection: &mut PgConnection,
    behind: &str,
    most: i64,
) -> sqlx::Result<Vec<(String, Uuid, Decimal)>> {
    query_as(
        "select effect, upload_id, (recorded->>'granted')::numeric from replay_outcomes
         where cancels and promoted_at is null and effect > $1 order by effect limit $2",
    )
    .bind(behind)
    .bind(most)
    .fetch_all(connection)
    .await
}

/// Notes in the caller's transaction, which is on the live schema, that a difference is promoted.
///
/// # Errors
/// Postgres'.
pub async fn note(tx: &mut PgConnection, schema: &str, effect: &str) -> sqlx::Result<()> {
    // A name of a replay holds letters, digits and underscores only.
    let sql = format!("update {schema}.replay_outcomes set promoted_at = now() where effect = $1");
    query(sqlx::AssertSqlSafe(sql)).bind(effect).execute(tx).await.map(drop)
}
