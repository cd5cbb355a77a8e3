//! What the transaction of a batch tells Postgres' planner.

use std::time::Duration;

use sqlx::PgConnection;

/// Has a batch's transaction look rows up by key, and bounds its statements in time where `timeout` is given.
///
/// A planner that counts 200 look-ups in a table of 100,000 rows rather reads the table, and then a batch costs more with every row
/// until there are a million: it is told that a scan costs 10^10. A table of three rows, which no index helps to read, is scanned all the
/// same, and a statement of that cost would be compiled first (`jit_above_cost`, 10^5): 30 to 70 ms of CPU to read three rows. So nothing
/// is compiled.
///
/// # Errors
/// Postgres'.
pub async fn look_up_by_key(tx: &mut PgConnection, timeout: Option<Duration>) -> sqlx::Result<()> {
    sqlx::query(
        "select set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
            set_config('statement_timeout', coalesce($1, current_setting('statement_timeout')), true)",
    )
    .bind(timeout.map(|timeout| timeout.as_millis().max(1).to_string()))
    .execute(tx)
    .await?;
    Ok(())
}
