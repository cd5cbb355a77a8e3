//! What of a difference can be carried over into the live books, and how: a reward of which nothing is left is cancelled whole, and one of
//! another amount is lowered or raised, where no transaction pays it. Everything else is for a person, and the report says why.

use rust_decimal::Decimal;
use schemas::events::RewardCalculated;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _, query, query_scalar};
use uuid::Uuid;

use super::outcome::Outcome;
use crate::chain_submission::adjust::Wanted;

/// What promoting a difference does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The reward is cancelled whole.
    Cancel,
    /// Less is owed.
    Lower,
    /// More is owed.
    Raise,
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
            (_, is) if is.is_zero() => Self::Cancel,
            (was, is) if was < is => Self::Raise,
            _ => Self::Lower,
        }
    }

    /// As a report has it.
    #[must_use]
    pub fn told(self) -> &'static str {
        match self {
            Self::Cancel => "the reward is cancelled",
            Self::Lower => "the reward is lowered",
            Self::Raise => "the reward is raised, where the budgets hold it",
            Self::Nothing(why) => why,
        }
    }
}

/// A difference whose promotion does something.
#[derive(Clone, Debug)]
pub struct Move {
    /// What was decided once, e.g. `verdict:UPLOAD`.
    pub effect: String,
    /// The upload.
    pub upload_id: Uuid,
    /// What is owed by what was recorded, B3TR.
    pub granted_before: Decimal,
    /// What the reward is to become; none where it is cancelled.
    pub wanted: Option<Wanted>,
}

/// What a replay that was made anew under the same name does not share with the one before: its name, and when it was begun.
///
/// # Errors
/// Postgres'.
pub async fn promotion(connection: &mut PgConnection, name: &str) -> sqlx::Result<String> {
    let begun: String = query_scalar(
        "select to_char(begun_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from replay",
    )
    .fetch_one(connection)
    .await?;
    Ok(format!("{name}, begun at {begun}"))
}

const MOVES: &str =
    "select effect, upload_id, recorded, replayed, calculation, grant_detail from replay_outcomes";

/// The differences whose promotion does something and is not done, in order: those that give back, or those that raise.
///
/// # Errors
/// Postgres'.
pub async fn open(
    connection: &mut PgConnection,
    promotion: &str,
    (raises, behind): (bool, &str),
    most: i64,
) -> sqlx::Result<Vec<Move>> {
    let sql = format!(
        "{MOVES} where (cancels or calculation is not null) and promoted_at is null and effect > $1
            and (coalesce((replayed->>'granted')::numeric, 0) > coalesce((recorded->>'granted')::numeric, 0)) = $2
         order by effect limit $3"
    );
    let rows = query(sqlx::AssertSqlSafe(sql)).bind(behind).bind(raises).bind(most);
    rows.fetch_all(connection).await?.iter().map(|row| moved(row, promotion)).collect()
}

/// What these rewards were to become.
///
/// # Errors
/// Postgres'.
pub async fn of_rewards(
    connection: &mut PgConnection,
    promotion: &str,
    rewards: &[Uuid],
) -> sqlx::Result<Vec<Move>> {
    let sql =
        format!("{MOVES} where calculation is not null and (calculation->>'reward_id')::uuid = any($1)");
    let rows = query(sqlx::AssertSqlSafe(sql)).bind(rewards).fetch_all(connection).await?;
    rows.iter().map(|row| moved(row, promotion)).collect()
}

fn moved(row: &sqlx::postgres::PgRow, promotion: &str) -> sqlx::Result<Move> {
    let recorded = row.try_get::<Json<Outcome>, _>("recorded")?.0;
    let replayed = row.try_get::<Json<Outcome>, _>("replayed")?.0;
    let detail: Option<String> = row.try_get("grant_detail")?;
    let calculation = row.try_get::<Option<Json<RewardCalculated>>, _>("calculation")?;
    let granted_before = recorded.granted.unwrap_or_default();
    Ok(Move {
        effect: row.try_get("effect")?,
        upload_id: row.try_get("upload_id")?,
        granted_before,
        wanted: calculation.map(|Json(calculation)| Wanted {
            calculation,
            promotion: promotion.to_owned(),
            calculated_before: recorded.calculated.unwrap_or_default(),
            granted_before,
            granted: replayed.granted.unwrap_or_default(),
            detail,
        }),
    })
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
