//! What several requests ask of the database at the same time, in one statement: while a batch is away, those that come wait, and are
//! the next batch. Alone, a request waits for nobody.
//!
//! A statement costs Postgres a few tenths of a millisecond to begin and end, whatever it is asked; what each item adds is small beside
//! that. So batches that nobody waits for may keep a pace: those that come sooner wait for the rest of it together.
//!
//! A server that vanishes without a word, or a path that loses packets, answers never: TCP gives up after some fifteen minutes. So a batch
//! has as long as a request may wait for a connection of the pool (`postgres.acquire_timeout_s`, 5 s), for connecting, if need be, and for
//! its statement. Then its connection is dropped, its requests are told that the database is away, and the next batch connects anew. One
//! that has waited for longer than that behind others is told the same before it is asked, so that no request is kept for longer than twice
//! that (10 s), however many wait.
//!
//! A statement whose answer is lost may have been committed, or may yet be: Postgres goes on with it until it writes to its client. Whoever
//! is told so sends the request again, which has to be harmless after either end; each statement says why it is.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, PgPool};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::http::problem::ApiError;

/// Requests that can wait for a batch: as many as there are connections by default.
const WAITING: usize = 1024;
/// Items of a batch, at most: a statement of 64 stays well below a millisecond for each index that it looks into.
const MOST: usize = 64;

/// A connection that was used so long ago is asked whether it is still there.
const UNTESTED: Duration = Duration::from_secs(1);

/// Who comes right after a batch that is lost is asked with the next one, though a pace and a timer that fires late are added to its wait.
const SLACK: Duration = Duration::from_millis(100);

/// What becomes of an item: its result, or [`Lost`].
pub(crate) type Answer<O> = Result<O, Lost>;

/// Nobody knows what the database made of an item: it has not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

impl From<Lost> for ApiError {
    /// As where no connection can be had.
    fn from(_: Lost) -> Self {
        sqlx::Error::PoolTimedOut.into()
    }
}

/// An item that waits, and since when.
type Waiting<I, O> = (I, oneshot::Sender<Answer<O>>, Instant);

/// Batches of items `I` with a result `O` each. Dropping it ends its task.
pub(crate) struct Batches<I, O> {
    queue: mpsc::Sender<Waiting<I, O>>,
    _worker: JoinSet<()>,
}

/// What is done with a batch: one result per item, in order; none where it failed as a whole.
trait Work<I, O>: Send + 'static {
    fn work(&mut self, items: Vec<I>) -> BoxFuture<'_, Option<Vec<O>>>;
}

/// A statement over a batch, on a connection of its own: a pool asks each connection that it lends whether it is there, before and after,
/// so that a statement would cost three round trips; and each of its connections would have to plan it.
struct Statement<F> {
    pool: PgPool,
    /// And when it was used last.
    connection: Option<(PgConnection, Instant)>,
    run: F,
}

impl<F> Statement<F> {
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        // The values of one batch are no better plan than those of another.
        let options = PgConnectOptions::clone(&self.pool.connect_options());
        PgConnection::connect_with(&options.options([("plan_cache_mode", "force_generic_plan")])).await
    }

    /// Dropped before its end it drops the connection: an answer that comes late is nobody's.
    async fn run<I, O>(&mut self, items: &[I]) -> Result<Vec<O>, sqlx::Error>
    where
        F: for<'a> Fn(&'a mut PgConnection, &'a [I]) -> BoxFuture<'a, Result<Vec<O>, sqlx::Error>>,
    {
        let mut connection = match self.connection.take() {
            Some((mut connection, used)) => {
                let there = used.elapsed() < UNTESTED || connection.ping().await.is_ok();
                if there { connection } else { self.connect().await? }
            }
            None => self.connect().await?,
        };
        let results = (self.run)(&mut connection, items).await;
        // One that Postgres has refused a statement on is as good as before; one that broke is not.
        if results.is_ok() || connection.ping().await.is_ok() {
            self.connection = Some((connection, Instant::now()));
        }
        results
    }
}

impl<I, O, F> Work<I, O> for Statement<F>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
    F: for<'a> Fn(&'a mut PgConnection, &'a [I]) -> BoxFuture<'a, Result<Vec<O>, sqlx::Error>>
        + Send
        + Sync
        + 'static,
{
    fn work(&mut self, items: Vec<I>) -> BoxFuture<'_, Option<Vec<O>>> {
        async move {
            let results = self.run(&items).await;
            // Those who asked ask by themselves, and meet their own error.
            results.inspect_err(|error| tracing::debug!(%error, "a batch failed")).ok()
        }
        .boxed()
    }
}

impl<I: Send + Sync + 'static, O: Send + 'static> Batches<I, O> {
    /// Batches of a statement in the pool's database.
    pub(crate) fn of(
        pool: &PgPool,
        run: impl for<'a> Fn(&'a mut PgConnection, &'a [I]) -> BoxFuture<'a, Result<Vec<O>, sqlx::Error>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self::paced(pool, Duration::ZERO, run)
    }

    /// The same, which begin at least `pace` apart.
    pub(crate) fn paced(
        pool: &PgPool,
        pace: Duration,
        run: impl for<'a> Fn(&'a mut PgConnection, &'a [I]) -> BoxFuture<'a, Result<Vec<O>, sqlx::Error>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let limit = pool.options().get_acquire_timeout();
        Self::new(Statement { pool: pool.clone(), connection: None, run }, pace, limit)
    }

    fn new(mut work: impl Work<I, O>, pace: Duration, limit: Duration) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Waiting<I, O>>(WAITING);
        let mut worker = JoinSet::new();
        worker.spawn(async move {
            let mut batch = Vec::with_capacity(MOST);
            let mut next = Instant::now();
            while waiting.recv_many(&mut batch, MOST).await > 0 {
                sleep_until(next).await;
                while batch.len() < MOST
                    && let Ok(item) = waiting.try_recv()
                {
                    batch.push(item);
                }
                next = Instant::now() + pace;
                let (late, timely): (Vec<_>, Vec<_>) =
                    batch.drain(..).partition(|(_, _, since)| since.elapsed() > limit + SLACK);
                late.into_iter().for_each(|(_, sender, _)| drop(sender.send(Err(Lost))));
                if timely.is_empty() {
                    continue;
                }
                let (items, senders): (Vec<I>, Vec<_>) =
                    timely.into_iter().map(|(item, sender, _)| (item, sender)).unzip();
                match timeout(limit, work.work(items)).await {
                    // A sender without a result is dropped, which tells its request so.
                    Ok(results) => senders
                        .into_iter()
                        .zip(results.unwrap_or_default())
                        .for_each(|(sender, result)| drop(sender.send(Ok(result)))),
                    Err(_) => {
                        let items = senders.len();
                        tracing::warn!(items, ?limit, "the database has not answered a batch in time");
                        senders.into_iter().for_each(|sender| drop(sender.send(Err(Lost))));
                    }
                }
            }
        });
        Self { queue, _worker: worker }
    }

    /// The item's result; none where its batch failed as a whole, so that the request has to ask by itself.
    ///
    /// # Errors
    /// [`Lost`], where asking by itself would be waiting once more.
    pub(crate) async fn ask(&self, item: I) -> Result<Option<O>, Lost> {
        let Some(receiver) = self.add(item).await else { return Ok(None) };
        receiver.await.ok().transpose()
    }

    /// Adds an item without waiting for its result, which the receiver gets.
    pub(crate) async fn add(&self, item: I) -> Option<oneshot::Receiver<Answer<O>>> {
        let (sender, receiver) = oneshot::channel();
        self.queue.send((item, sender, Instant::now())).await.ok()?;
        Some(receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    impl<I, O, F> Work<I, O> for F
    where
        F: FnMut(Vec<I>) -> BoxFuture<'static, Option<Vec<O>>> + Send + 'static,
    {
        fn work(&mut self, items: Vec<I>) -> BoxFuture<'_, Option<Vec<O>>> {
            self(items)
        }
    }

    #[tokio::test]
    async fn what_comes_while_a_batch_is_away_is_the_next_batch_and_each_gets_its_own_result() {
        let (sizes, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let batches = Arc::new(Batches::new(
            {
                let (sizes, gate) = (sizes.clone(), gate.clone());
                move |items: Vec<u32>| {
                    sizes.lock().unwrap().push(items.len());
                    let gate = gate.clone();
                    async move {
                        gate.notified().await;
                        Some(items.into_iter().map(|item| item * 10).collect())
                    }
                    .boxed()
                }
            },
            Duration::ZERO,
            LIMIT,
        ));
        let first = tokio::spawn({
            let batches = batches.clone();
            async move { batches.ask(1).await }
        });
        while sizes.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let others = tokio::spawn({
            let batches = batches.clone();
            async move { join_all((2..=5).map(|item| batches.ask(item))).await }
        });
        // All four are in the queue before the first batch ends.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        assert_eq!(first.await.unwrap(), Ok(Some(10)));
        gate.notify_one();
        assert_eq!(others.await.unwrap(), [20, 30, 40, 50].map(|result| Ok(Some(result))));
        assert_eq!(*sizes.lock().unwrap(), [1, 4]);
    }

    #[tokio::test]
    async fn a_batch_that_fails_has_a_result_for_nobody_and_the_next_is_worked_on() {
        let batches = Batches::new(
            |items: Vec<u32>| async move { (items != [1]).then_some(items) }.boxed(),
            Duration::ZERO,
            LIMIT,
        );
        assert_eq!(batches.ask(1).await, Ok(None));
        assert_eq!(batches.ask(2).await, Ok(Some(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn batches_begin_no_sooner_than_their_pace_and_the_first_after_a_pause_at_once() {
        const PACE: Duration = Duration::from_millis(10);
        let begun = Arc::new(Mutex::new(Vec::new()));
        let start = Instant::now();
        let batches = Arc::new(Batches::new(
            {
                let begun = begun.clone();
                move |items: Vec<u32>| {
                    begun.lock().unwrap().push((start.elapsed(), items.len()));
                    async move { Some(items) }.boxed()
                }
            },
            PACE,
            LIMIT,
        ));
        let ask = |item| {
            let batches = batches.clone();
            tokio::spawn(async move { batches.ask(item).await })
        };
        ask(1).await.unwrap().unwrap();
        let (second, third) = (ask(2), ask(3));
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (Ok(Some(2)), Ok(Some(3))));
        tokio::time::advance(PACE * 2).await;
        ask(4).await.unwrap().unwrap();
        assert_eq!(*begun.lock().unwrap(), [(Duration::ZERO, 1), (PACE, 2), (PACE * 3, 1)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_without_an_answer_is_lost_in_time_and_nobody_behind_it_waits_for_longer_than_twice_that()
    {
        let batches = Arc::new(Batches::new(
            |items: Vec<u32>| {
                async move {
                    if items.contains(&0) {
                        std::future::pending::<()>().await;
                    }
                    Some(items)
                }
                .boxed()
            },
            Duration::ZERO,
            LIMIT,
        ));
        let start = Instant::now();
        let ask = |item| {
            let batches = batches.clone();
            tokio::spawn(async move { (batches.ask(item).await, start.elapsed()) })
        };
        assert_eq!(ask(0).await.unwrap(), (Err(Lost), LIMIT));
        assert_eq!(ask(1).await.unwrap(), (Ok(Some(1)), LIMIT), "the next one is asked at once");
        // Three batches and a bit of what is never answered, all at once.
        let silent = join_all((0..200).map(|_| ask(0))).await;
        let silent: Vec<_> = silent.into_iter().map(Result::unwrap).collect();
        assert!(
            silent.iter().all(|(answer, at)| *answer == Err(Lost) && *at <= LIMIT * 3 + SLACK),
            "{silent:?}"
        );
        assert_eq!(ask(2).await.unwrap().0, Ok(Some(2)));
    }
}
