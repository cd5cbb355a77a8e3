//! The outbox: what no input record causes is written to `outbox` in the change's own transaction, and published from there by a
//! relay, in order, until acknowledged. Several relays may run; a row lock keeps them apart.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use schemas::codec::{self, CodecError};
use schemas::events::Event;
use schemas::reason::Reason;
use schemas::topic::Topic;
use sqlx::{PgConnection, PgPool};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::clock::{Clock as _, SystemClock};
use crate::dead_letter;
use crate::engine::{Engine, EngineError};
use crate::failpoint::{self, Step};
use crate::outbound::{Ack, Message, Outbound, send, send_and_wait};
use crate::publish::{Delivered, PublishError};
use crate::source::RawRecord;
use crate::stage::{Position, StageError};
use crate::worker::ErrorReport;

/// Rows of one round: a payment of 40 rewards has some 160 at a time, of 1 to 2 KiB.
const ROUND: i64 = 500;
/// Wait after an empty round.
const IDLE: Duration = Duration::from_millis(250);
/// Between two looks at the age of the oldest row.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The relay's name in health, metrics and dead letters.
const NAME: &str = "outbox";
/// A relay that has failed for this long is not ready: a broker's restart takes a few seconds.
const FAILING: Duration = Duration::from_secs(60);

/// Rows on their way into the outbox, in the order in which they are to be published.
#[derive(Debug, Default)]
pub struct OutboxRows {
    topics: Vec<&'static str>,
    keys: Vec<Vec<u8>>,
    ids: Vec<Uuid>,
    payloads: Vec<Vec<u8>>,
    created_at: Option<DateTime<Utc>>,
}

impl OutboxRows {
    /// Rows that are created at this time; [`OutboxRows::default`] takes the database's.
    #[must_use]
    pub fn created_at(at: DateTime<Utc>) -> Self {
        Self { created_at: Some(at), ..Self::default() }
    }

    /// Adds an event under an id: what is there already is not published a second time. The relay adds the topic's prefix.
    ///
    /// # Errors
    /// [`CodecError`] when the event does not fit its schema.
    pub fn push<E: Event>(&mut self, schema_id: u32, event: &E, id: Uuid) -> Result<(), CodecError> {
        let payload = codec::encode(schema_id, event)?;
        self.topics.push(E::TOPIC.name());
        self.keys.push(event.key().into_bytes());
        self.ids.push(id);
        self.payloads.push(payload);
        Ok(())
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Writes the rows in the caller's transaction, and returns how many were not there already.
    ///
    /// # Errors
    /// Postgres'.
    pub async fn insert(self, tx: &mut PgConnection) -> sqlx::Result<u64> {
        if self.is_empty() {
            return Ok(0);
        }
        let inserted = sqlx::query(
            "insert into outbox (topic, key, event_id, payload, created_at)
             select topic, key, event_id, payload, coalesce($5, now())
             from unnest($1::text[], $2::bytea[], $3::uuid[], $4::bytea[]) with ordinality
                as r (topic, key, event_id, payload, n)
             order by n on conflict (event_id) do nothing",
        )
        .bind(self.topics)
        .bind(self.keys)
        .bind(self.ids)
        .bind(self.payloads)
        .bind(self.created_at)
        .execute(tx)
        .await?;
        Ok(inserted.rows_affected())
    }
}

/// Puts a record without a value into the outbox: a compacted topic forgets what it holds under the key. Nobody who reads our topics
/// needs to know of it: a release before this one publishes it as an empty record, which stays.
///
/// # Errors
/// Postgres'.
pub async fn tombstone(
    tx: &mut PgConnection,
    topic: Topic,
    key: &str,
    at: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query("insert into outbox (topic, key, event_id, payload, created_at) values ($1, $2, $3, '', $4)")
        .bind(topic.name())
        .bind(key.as_bytes())
        .bind(Uuid::now_v7())
        .bind(at)
        .execute(tx)
        .await?;
    Ok(())
}

/// Publishes outbox rows until the engine is stopped; a row that is not acknowledged within `timeout` is tried again.
///
/// # Errors
/// For settings that the producer refuses.
pub async fn run(engine: &Engine, pool: PgPool, timeout: Duration) -> Result<(), EngineError> {
    let producer = engine.producer(NAME, timeout)?;
    let (stop, mut backoff, mut failing_since) = (engine.stopping(), Backoff::default(), None);
    let (oldest, mut looked) = (engine.metrics.outbox_oldest.with_label_values(&[]), None);
    engine.health.ready(NAME);
    while !stop.is_cancelled() {
        if looked.is_none_or(|at: Instant| at.elapsed() >= LOOK_EVERY) {
            looked = Some(Instant::now());
            // An age that cannot be had stays as it was; that the database is away shows elsewhere.
            if let Ok(age) = age(&pool).await {
                oldest.set(age);
            }
        }
        match round(&pool, &producer, engine.prefix()).await {
            Ok(count) => {
                (backoff, failing_since) = (Backoff::default(), None);
                engine.health.ready(NAME);
                if count == 0 {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = tokio::time::sleep(IDLE) => {}
                    }
                }
            }
            Err(error) => {
                tracing::warn!(error = %ErrorReport(&error), "outbox rows wait");
                let since: Instant = *failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= FAILING {
                    engine.health.unready(NAME);
                }
                backoff.wait(&stop).await;
            }
        }
    }
    Ok(())
}

/// Seconds since the oldest row that is not published was written; 0 without one.
///
/// # Errors
/// Postgres'.
pub async fn age(pool: &PgPool) -> sqlx::Result<i64> {
    let age: Option<i64> = sqlx::query_scalar(
        "select greatest(0, extract(epoch from now() - created_at))::bigint
         from outbox where published_at is null order by id limit 1",
    )
    .fetch_optional(pool)
    .await?;
    Ok(age.unwrap_or(0))
}

/// Publishes the oldest rows and marks them; returns how many. A crash between the two publishes a row twice, under the
/// same event id. A row that Kafka refuses for good, e.g. as too large, becomes a dead letter, and the others go on.
///
/// # Errors
/// [`StageError`] of the first row that was not published; the rows that were are marked, the others are published by the next
/// round.
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
    if rows.is_empty() {
        return Ok(0);
    }
    failpoint::at(Step::OutboxRead);
    let (mut done, mut failure) = (Vec::with_capacity(rows.len()), None);
    for run in runs(&rows) {
        failure = publish(run, outbound, prefix, &mut done).await.err();
        if failure.is_some() {
            break;
        }
    }
    failpoint::at(Step::OutboxAcknowledged);
    sqlx::query("update outbox set published_at = now() where id = any($1)")
        .bind(&done)
        .execute(&mut *tx)
        .await?;
    failpoint::at(Step::OutboxMarked);
    tx.commit().await?;
    failure.map_or(Ok(done.len()), |error| Err(StageError::new("publish", error)))
}

/// Sends rows one after the other and awaits them together: they cannot overtake each other where it matters. Those that are dealt with are
/// in `done`, whatever became of the others.
async fn publish(
    run: &[Row],
    outbound: &dyn Outbound,
    prefix: &str,
    done: &mut Vec<i64>,
) -> Result<(), PublishError> {
    let mut receivers = Vec::with_capacity(run.len());
    for row in run {
        let (_, topic, key, payload) = row;
        let topic = format!("{prefix}{topic}");
        // An event is never empty: this is a tombstone.
        let payload = (!payload.is_empty()).then_some(&payload[..]);
        let message = Message { topic: &topic, key: key.as_deref(), payload, headers: &[] };
        let (sender, receiver) = oneshot::channel();
        receivers.push((row, send(outbound, &message, Ack::Waiter(sender)).await, receiver));
    }
    let mut failure = None;
    for (row, sent, receiver) in receivers {
        let acknowledged = match sent {
            Ok(()) => receiver
                .await
                .unwrap_or_else(|_| Err(PublishError::Fatal("the producer is gone".into())))
                .map(drop),
            Err(error) => Err(error),
        };
        let settled = match acknowledged {
            Err(PublishError::Refused(detail)) => set_aside(row, &detail, outbound, prefix).await.map(drop),
            acknowledged => acknowledged,
        };
        match settled {
            Ok(()) => done.push(row.0),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Makes a row that Kafka refuses a dead letter.
async fn set_aside(
    (id, topic, key, payload): &Row,
    detail: &str,
    outbound: &dyn Outbound,
    prefix: &str,
) -> Result<Delivered, PublishError> {
    tracing::error!(
        id,
        topic,
        detail,
        "kafka refuses an outbox row: it becomes a dead letter, and stays in the table"
    );
    let record = RawRecord {
        // It has no place: it was never on its topic.
        position: Position { topic: format!("{prefix}{topic}").into(), partition: -1, offset: -1 },
        key: key.clone(),
        payload: Some(payload.clone()),
        headers: Vec::new(),
        timestamp_ms: -1,
    };
    let headers = dead_letter::headers(&record, NAME, Reason::ProcessingFailed, detail, SystemClock.now());
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let dead_letters = format!("{prefix}{}", Topic::DeadLetters.name());
    let letter = Message {
        topic: &dead_letters,
        key: key.as_deref(),
        payload: Some(&payload[..payload.len().min(dead_letter::PAYLOAD_MAX)]),
        headers: &headers,
    };
    send_and_wait(outbound, &letter).await
}

/// Id, topic, key, payload.
type Row = (i64, String, Option<Vec<u8>>, Vec<u8>);

/// Cuts rows into runs in which no (topic, key) comes twice where the topic is ordered: where a record fails, no later one of its key
/// was sent, so that the order per key holds. Each run is a round trip: the documents of a payment of 40 rewards, which all have the
/// key of one change, would be 80 of them, half a second in which nothing else is published.
fn runs(rows: &[Row]) -> Vec<&[Row]> {
    let unordered = |name: &str| Topic::ALL.iter().any(|topic| topic.name() == name && !topic.spec().ordered);
    let (mut runs, mut seen, mut start) = (Vec::new(), HashSet::new(), 0);
    for (at, (_, topic, key, _)) in rows.iter().enumerate() {
        if !unordered(topic) && !seen.insert((topic, key)) {
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

    fn row(id: i64, topic: &str, key: &str) -> Row {
        (id, topic.to_owned(), Some(key.as_bytes().to_vec()), vec![])
    }

    #[test]
    fn documents_of_one_change_are_awaited_together() {
        let documents = Topic::ActivityLogs.name();
        let rows: Vec<Row> = (0..80).map(|id| row(id, documents, "one change")).collect();
        assert_eq!(runs(&rows).len(), 1);
    }

    #[test]
    fn records_of_one_key_of_an_ordered_topic_are_never_awaited_together() {
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
