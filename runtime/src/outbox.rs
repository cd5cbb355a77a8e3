//! The outbox relay: what no input record causes is written to `outbox` in the change's own transaction and published
//! from there, in order, until acknowledged. Several relays may run; a row lock keeps them apart.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::producer::{Message, Outbound, send_and_wait};
use crate::stage::StageError;
use crate::worker::Chain;

/// Rows of one round.
const ROUND: i64 = 100;
/// Wait after an empty round.
const IDLE: Duration = Duration::from_millis(250);

/// Publishes outbox rows until stopped.
pub async fn relay(pool: PgPool, outbound: Arc<dyn Outbound>, prefix: String, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        match round(&pool, outbound.as_ref(), &prefix).await {
            Ok(0) => {
                backoff = Backoff::default();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(IDLE) => {}
                }
            }
            Ok(_) => backoff = Backoff::default(),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "outbox relay");
                backoff.wait(&stop).await;
            }
        }
    }
}

/// Publishes the oldest rows and marks them; returns how many. A crash between the two publishes a row twice, under the
/// same event id.
///
/// # Errors
/// [`StageError`]; unmarked rows are published by the next round.
pub async fn round(pool: &PgPool, outbound: &dyn Outbound, prefix: &str) -> Result<usize, StageError> {
    let mut tx = pool.begin().await?;
    // Advisory lock: a second relay waits its turn instead of overtaking, which would break the order per key.
    let mine: bool = sqlx::query_scalar(
        "select pg_try_advisory_xact_lock(hashtextextended('milestream.outbox ' || current_schema(), 0))",
    )
    .fetch_one(&mut *tx)
    .await?;
    if !mine {
        return Ok(0);
    }
    let rows = sqlx::query_as::<_, (i64, String, Option<Vec<u8>>, Vec<u8>)>(
        "select id, topic, key, payload from outbox where published_at is null order by id limit $1",
    )
    .bind(ROUND)
    .fetch_all(&mut *tx)
    .await?;
    let mut done = Vec::with_capacity(rows.len());
    for (id, topic, key, payload) in &rows {
        let topic = format!("{prefix}{topic}");
        let message = Message { topic: &topic, key: key.as_deref(), payload: Some(payload), headers: &[] };
        send_and_wait(outbound, &message).await.map_err(|error| StageError::new("publish", error))?;
        done.push(*id);
    }
    sqlx::query("update outbox set published_at = now() where id = any($1)")
        .bind(&done)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done.len())
}
