//! The outbox relay: what no input record causes is written to `outbox` in the change's own transaction and published
//! from there, in order, until acknowledged. Several relays may run; a row lock keeps them apart.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::producer::{Ack, Message, Outbound, send};
use crate::publish::PublishError;
use crate::stage::StageError;
use crate::worker::ErrorReport;

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
                tracing::warn!(error = %ErrorReport(&error), "outbox relay");
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
    let rows = sqlx::query_as::<_, Row>(
        "select id, topic, key, payload from outbox where published_at is null order by id limit $1",
    )
    .bind(ROUND)
    .fetch_all(&mut *tx)
    .await?;
    let mut done = Vec::with_capacity(rows.len());
    for run in runs(&rows) {
        // Sent one after the other, awaited together; they cannot overtake each other where it matters.
        let mut answers = Vec::with_capacity(run.len());
        for (id, topic, key, payload) in run {
            let topic = format!("{prefix}{topic}");
            let message =
                Message { topic: &topic, key: key.as_deref(), payload: Some(payload), headers: &[] };
            let (sender, receiver) = oneshot::channel();
            let taken = send(outbound, &message, Ack::Waiter(sender)).await;
            taken.map_err(|error| StageError::new("publish", error))?;
            answers.push((*id, receiver));
        }
        for (id, answer) in answers {
            let answer =
                answer.await.unwrap_or_else(|_| Err(PublishError::Fatal("the producer is gone".into())));
            answer.map_err(|error| StageError::new("publish", error))?;
            done.push(id);
        }
    }
    sqlx::query("update outbox set published_at = now() where id = any($1)")
        .bind(&done)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(done.len())
}

/// Id, topic, key, payload.
type Row = (i64, String, Option<Vec<u8>>, Vec<u8>);

/// Cuts rows into runs in which no (topic, key) comes twice: where a record fails, no later one of its key was sent, so that the
/// order per key holds.
fn runs(rows: &[Row]) -> Vec<&[Row]> {
    let (mut runs, mut seen, mut start) = (Vec::new(), HashSet::new(), 0);
    for (at, (_, topic, key, _)) in rows.iter().enumerate() {
        if !seen.insert((topic, key)) {
            runs.push(&rows[start..at]);
            start = at;
            seen = HashSet::from([(topic, key)]);
        }
    }
    if start < rows.len() {
        runs.push(&rows[start..]);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_key_are_never_awaited_together() {
        let row = |id, topic: &str, key: &str| (id, topic.to_owned(), Some(key.as_bytes().to_vec()), vec![]);
        let rows = [
            row(1, "a", "x"),
            row(2, "a", "y"),
            row(3, "b", "x"),
            row(4, "a", "x"),
            row(5, "a", "y"),
            row(6, "a", "y"),
        ];
        let ids: Vec<Vec<i64>> =
            runs(&rows).into_iter().map(|run| run.iter().map(|(id, ..)| *id).collect()).collect();
        assert_eq!(ids, [vec![1, 2, 3], vec![4, 5], vec![6]]);
        assert!(runs(&[]).is_empty());
    }
}
