//! The sink of a rebuild: keeps the rows of uploads until what the topics say of them has come together, and writes large sets of
//! them, one row a table and upload.
//!
//! It keeps no promise about one batch: what [`Refill::write`] took is stored when [`Refill::finish`] has ended, and a rebuild that
//! ends before is run again. What it writes is right in any case, because an upload of which a row is there already (written here
//! before its other events came, or by the live sink beside) goes the live sink's way, event by event.
//!
//! All topics are read side by side. One that is ahead of the others waits while the shelf is full, so that the events of an upload,
//! which carry the time of its acceptance, meet on the shelf: half a shelf is some thousand uploads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::stream;
use futures::{StreamExt as _, TryStreamExt as _};
use runtime::planner::look_up_by_key;
use runtime::{Envelope, Sink, SinkError};
use schemas::topic::Topic;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Notify;
use uuid::Uuid;

use super::event::UploadEvent;
use super::fold::Folded;
use super::rows::Rows;
use super::service::{self, Delta};
use super::writer::WriteError;
use super::{PostgresConfig, PostgresSink, erased, payouts, rewards, uploads};
use crate::database::sink_error;

/// Events on the shelf. Of about 2 kB as rows they are 60 MB.
const SHELF: usize = 30_000;
/// Uploads of one transaction.
const SET: usize = 1_000;
/// Sets that are written side by side: two thirds of the time are Postgres', which works on one core for a connection. Sets have no
/// upload in common, and take the users that they have in common in one order.
const WRITERS: usize = 2;
/// Users whose scores are worked out in one transaction.
const SCORED: usize = 500;
/// Longest wait of a topic that is ahead: then it goes on, and more uploads are written in two parts.
const AHEAD: Duration = Duration::from_secs(20);

/// Writes what a rebuild reads.
#[derive(Debug)]
pub(super) struct Refill {
    pool: PgPool,
    config: PostgresConfig,
    live: PostgresSink,
    shelf: Mutex<Shelf>,
    moved: Notify,
}

/// What came and is not written yet.
#[derive(Debug, Default)]
struct Shelf {
    uploads: HashMap<Uuid, Kept>,
    events: usize,
    /// The newest acceptance that each topic has told of, of topics that are not read to their end.
    heads: BTreeMap<Arc<str>, DateTime<Utc>>,
    decided: HashSet<Uuid>,
    refused: BTreeMap<Arc<str>, u64>,
}

/// An upload's events in the order in which they came, each with its topic.
type Kept = Vec<(Arc<str>, Rows)>;

impl Refill {
    /// A sink that refills the tables, from these topics, named with their prefix.
    pub(super) fn new(
        pool: PgPool,
        config: PostgresConfig,
        topics: impl IntoIterator<Item = Arc<str>>,
    ) -> Self {
        let heads = topics.into_iter().map(|topic| (topic, DateTime::<Utc>::MIN_UTC)).collect();
        let live = PostgresSink::new(pool.clone(), config);
        let shelf = Mutex::new(Shelf { heads, ..Shelf::default() });
        Self { pool, config, live, shelf, moved: Notify::new() }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, batch: &[Envelope<UploadEvent>]) -> Result<(), SinkError> {
        let Some(topic) = batch.first().map(|event| event.position.topic.clone()) else { return Ok(()) };
        let is_other = |event: &&Envelope<UploadEvent>| {
            matches!(
                event.payload,
                UploadEvent::Chain(_)
                    | UploadEvent::Deployed(_)
                    | UploadEvent::Erased(_)
                    | UploadEvent::Standing
            )
        };
        let other: Vec<_> = batch.iter().filter(is_other).cloned().collect();
        if !other.is_empty() {
            self.live.write(&other).await?;
        }
        if other.len() == batch.len() {
            return Ok(());
        }
        let failed = |error| sink_error(error, "keys of users", "user_keys");
        let mut connection = self.pool.acquire().await.map_err(failed)?;
        let rows = uploads::rows(&mut connection, batch).await.map_err(|error| bad(error, &topic))?;
        drop(connection);
        self.make_room(&topic).await?;
        let mut shelf = self.shelf();
        shelf.events += rows.len();
        for rows in rows {
            if let Some(head) = shelf.heads.get_mut(&topic) {
                *head = rows.upload.created_at.max(*head);
            }
            shelf.uploads.entry(rows.upload.id).or_default().push((topic.clone(), rows));
        }
        drop(shelf);
        self.moved.notify_waiters();
        Ok(())
    }

    /// Waits while the shelf is full: the topic that is behind all others writes the oldest half.
    async fn make_room(&self, topic: &Arc<str>) -> Result<(), SinkError> {
        let until = tokio::time::Instant::now() + AHEAD;
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let oldest = {
                let mut shelf = self.shelf();
                if shelf.events < SHELF {
                    return Ok(());
                }
                (shelf.is_last(topic) || tokio::time::Instant::now() >= until).then(|| shelf.oldest_half())
            };
            match oldest {
                Some(oldest) => self.write_or_keep(oldest).await?,
                // Woken by what came or was written, or by the end of patience.
                None => drop(tokio::time::timeout_at(until, moved).await),
            }
        }
    }

    /// Writes uploads; those that were not written are on the shelf again.
    async fn write_or_keep(&self, oldest: Vec<Kept>) -> Result<(), SinkError> {
        let mut sets: Vec<Vec<Kept>> = Vec::new();
        for kept in oldest {
            match sets.last_mut().filter(|set| set.len() < SET) {
                Some(set) => set.push(kept),
                None => sets.push(vec![kept]),
            }
        }
        let failed = AtomicBool::new(false);
        let writing = sets.into_iter().map(|set| self.write_or_put_back(set, &failed));
        let ended: Vec<_> = stream::iter(writing).buffer_unordered(WRITERS).collect().await;
        self.moved.notify_waiters();
        ended.into_iter().collect()
    }

    /// Writes a set, unless another one has failed; one that is not written is on the shelf again.
    async fn write_or_put_back(&self, set: Vec<Kept>, failed: &AtomicBool) -> Result<(), SinkError> {
        let written = if failed.load(Ordering::SeqCst) { Ok(false) } else { self.write_set(&set).await };
        if !matches!(written, Ok(true)) {
            self.shelf().put_back(set);
        }
        failed.fetch_or(written.is_err(), Ordering::SeqCst);
        written.map(drop)
    }

    /// Writes a set, whole or, where it holds a row that does not fit, event by event.
    async fn write_set(&self, set: &[Kept]) -> Result<bool, SinkError> {
        match self.write_whole(set).await {
            Ok(()) => Ok(true),
            Err(SinkError::Retry(error)) => Err(SinkError::Retry(error)),
            Err(SinkError::BadRow(_)) => {
                for (topic, rows) in set.iter().flatten() {
                    match self.write_alone(rows.clone()).await {
                        Ok(()) => {}
                        Err(SinkError::Retry(error)) => return Err(SinkError::Retry(error)),
                        Err(SinkError::BadRow(detail)) => {
                            tracing::warn!(topic = %topic, detail, "a record is left out");
                            *self.shelf().refused.entry(topic.clone()).or_default() += 1;
                        }
                    }
                }
                Ok(true)
            }
        }
    }

    async fn write_alone(&self, rows: Rows) -> Result<(), SinkError> {
        let named = format!("upload {}", rows.upload.id);
        let failed = |error| sink_error(error, &named, "(table)");
        let mut tx = self.begin().await.map_err(failed)?;
        uploads::write(&mut tx, vec![rows]).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn write_whole(&self, set: &[Kept]) -> Result<(), SinkError> {
        let failed = |error| sink_error(error, "a set of uploads", "(table)");
        let mut tx = self.begin().await.map_err(failed)?;
        let (decided, known) = write(&mut tx, set).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        self.shelf().decided.extend(decided);
        if known.is_empty() {
            return Ok(());
        }
        // In a transaction of its own: the first holds users already, and uploads are locked before users.
        let mut tx = self.begin().await.map_err(failed)?;
        uploads::write(&mut tx, known).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn begin(&self) -> sqlx::Result<sqlx::Transaction<'static, sqlx::Postgres>> {
        let mut tx = self.pool.begin().await?;
        look_up_by_key(&mut tx, Some(self.config.statement_timeout)).await?;
        Ok(tx)
    }

    /// A topic is read to its end: nobody waits for it any more.
    pub(super) fn ended(&self, topic: &str) {
        self.shelf().heads.remove(topic);
        self.moved.notify_waiters();
    }

    /// Writes everything that is left, and the scores. Returns how many records of each topic were left out, because a row of them
    /// does not fit.
    ///
    /// # Errors
    /// [`SinkError::Retry`]; again goes on where it ended.
    pub(super) async fn finish(&self) -> Result<BTreeMap<Arc<str>, u64>, SinkError> {
        loop {
            let oldest = self.shelf().oldest_half();
            if oldest.is_empty() {
                break;
            }
            self.write_or_keep(oldest).await?;
        }
        self.forget().await?;
        let users: BTreeSet<Uuid> = self.shelf().decided.iter().copied().collect();
        let users: Vec<Uuid> = users.into_iter().collect();
        let sets = stream::iter(users.chunks(SCORED).map(Ok::<_, SinkError>));
        sets.try_for_each_concurrent(2, |users| self.score(users)).await?;
        Ok(self.shelf().refused.clone())
    }

    /// What was written before its topic of erasures was read.
    async fn forget(&self) -> Result<(), SinkError> {
        let failed = |error| sink_error(error, "rows of erased users", "odometer_uploads");
        let mut tx = self.pool.begin().await.map_err(failed)?;
        erased::forget_all(&mut tx).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn score(&self, users: &[Uuid]) -> Result<(), SinkError> {
        let failed = |error| sink_error(error, "scores", "users");
        let mut tx = self.begin().await.map_err(failed)?;
        service::lock_users(&mut tx, users).await.map_err(failed)?;
        service::scores(&mut tx, users).await.map_err(failed)?;
        tx.commit().await.map_err(failed)
    }
}

fn bad(error: WriteError, topic: &str) -> SinkError {
    match error {
        WriteError::Postgres(error) => sink_error(error, topic, "user_keys"),
        WriteError::Value(bad) => SinkError::BadRow(bad.to_string()),
    }
}

impl Shelf {
    /// Whether no topic is behind this one.
    fn is_last(&self, topic: &Arc<str>) -> bool {
        let own = self.heads.get(topic);
        own.is_none_or(|own| self.heads.values().all(|head| head >= own))
    }

    /// Takes the older half of the uploads, by acceptance; all of few.
    fn oldest_half(&mut self) -> Vec<Kept> {
        let accepted = |kept: &Kept| kept.first().map(|(_, rows)| rows.upload.created_at);
        let mut uploads: Vec<Kept> = mem::take(&mut self.uploads).into_values().collect();
        if uploads.len() > SET {
            let middle = uploads.len() / 2;
            uploads.select_nth_unstable_by_key(middle, accepted);
            let newer = uploads.split_off(middle);
            self.uploads =
                newer.into_iter().filter_map(|kept| Some((kept.first()?.1.upload.id, kept))).collect();
        }
        self.events = self.uploads.values().map(Vec::len).sum();
        uploads
    }

    /// What was taken comes before what came since.
    fn put_back(&mut self, set: Vec<Kept>) {
        for mut kept in set {
            let Some((_, first)) = kept.first() else { continue };
            self.events += kept.len();
            let place = self.uploads.entry(first.upload.id).or_default();
            kept.append(place);
            *place = kept;
        }
    }
}

/// Writes what the events of new uploads come to. Returns the users whose uploads are decided and not scored yet, and the events of
/// uploads of which something is stored already.
async fn write(tx: &mut PgConnection, set: &[Kept]) -> sqlx::Result<(Vec<Uuid>, Vec<Rows>)> {
    let mut folded = Vec::with_capacity(set.len());
    for kept in set {
        let mut events = kept.iter().map(|(_, rows)| rows);
        let Some(first) = events.next() else { continue };
        let mut upload = Folded::first(first);
        events.for_each(|rows| upload.add(rows));
        folded.push((upload, kept));
    }
    folded.sort_unstable_by_key(|(upload, _)| upload.upload.id);
    service::parents(tx, folded.iter().map(|(upload, _)| &upload.upload)).await?;
    let new = service::new_uploads(tx, &folded.iter().map(|(upload, _)| &upload.upload).collect::<Vec<_>>())
        .await?;
    let (fresh, known): (Vec<_>, Vec<_>) =
        folded.into_iter().partition(|(upload, _)| new.contains(&upload.upload.id));
    let id = |upload: &Folded| upload.upload.id;
    let mileages: Vec<_> =
        fresh.iter().filter_map(|(upload, _)| Some((id(upload), upload.mileage.as_ref()?))).collect();
    service::mileages(tx, &mileages).await?;
    let verifications: Vec<_> =
        fresh.iter().filter_map(|(upload, _)| Some((id(upload), upload.verification.as_ref()?))).collect();
    service::verifications(tx, &verifications).await?;
    let earned: Vec<_> =
        fresh.iter().filter_map(|(upload, _)| Some((id(upload), upload.reward.as_ref()?))).collect();
    rewards::rewards(tx, &earned).await?;
    let paid =
        fresh.iter().flat_map(|(_, kept)| kept.iter()).filter_map(|(_, rows)| rows.transaction.clone());
    payouts::transactions(tx, paid.collect()).await?;
    let mut totals: BTreeMap<Uuid, Delta> = BTreeMap::new();
    let mut decided = Vec::new();
    for (upload, _) in &fresh {
        let user = upload.upload.user_id;
        if let Some(km) = upload.decided_km() {
            totals.entry(user).or_default().km += km;
            decided.push(user);
        }
        if let Some(owed) = upload.owed() {
            totals.entry(user).or_default().b3tr += owed;
        }
    }
    if !totals.is_empty() {
        service::totals(tx, &totals).await?;
    }
    let known = known.iter().flat_map(|(_, kept)| kept.iter().map(|(_, rows)| rows.clone())).collect();
    Ok((decided, known))
}

impl Sink for Refill {
    const NAME: &'static str = PostgresSink::NAME;
    const TOPICS: &'static [Topic] = PostgresSink::TOPICS;
    type In = UploadEvent;

    fn write(&self, batch: &[Envelope<UploadEvent>]) -> impl Future<Output = Result<(), SinkError>> + Send {
        self.take(batch)
    }
}
