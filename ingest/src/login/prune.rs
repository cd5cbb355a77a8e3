//! What signing in leaves behind is taken away once it is of no use any more. Two gateways never wait for each other here.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::refresh::REMEMBERED;

/// Rows of a statement, which locks them for some milliseconds.
const PORTION: i64 = 1_000;

/// Statements, and how long a row stays after the time that they look at.
const OLD: [(&str, TimeDelta); 4] = [
    // A challenge that was used and has expired: for an hour more a replay is told from a guess.
    (
        "delete from wallet_challenges where id in (select id from wallet_challenges where expires_at < $1
           order by expires_at limit $2 for update skip locked)",
        TimeDelta::hours(1),
    ),
    (
        "delete from sign_in_failures where key in (select key from sign_in_failures where last_at < $1
           order by last_at limit $2 for update skip locked)",
        TimeDelta::days(1),
    ),
    (
        "delete from user_sessions where id in (select id from user_sessions where expires_at < $1
           order by expires_at limit $2 for update skip locked)",
        TimeDelta::days(90),
    ),
    (
        "delete from spent_refresh_tokens where token_hash in (select token_hash from spent_refresh_tokens
           where spent_at < $1 order by spent_at limit $2 for update skip locked)",
        REMEMBERED,
    ),
];

/// Takes away what is old by now.
pub(crate) async fn prune(pool: &PgPool, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    for (statement, life) in OLD {
        loop {
            let pruned = sqlx::query(statement).bind(now - life).bind(PORTION).execute(pool).await?;
            if pruned.rows_affected() < PORTION.unsigned_abs() {
                break;
            }
        }
    }
    Ok(())
}
