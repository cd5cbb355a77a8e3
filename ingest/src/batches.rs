//! What several requests ask of the database at the same time, in one statement: while a batch is away, those that come wait, and are
//! the next batch. Alone, a request waits for nobody.
//!
//! A statement costs Postgres a few tenths of a millisecond to begin and end, whatever it is asked; what each item adds is small beside
//! that. So batches that nobody waits for may keep a pace: those that come sooner wait for the rest of it together.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, PgPool};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Requests that can wait for a batch: as many as there are connections by default.
const WAITING: usize = 1024;
/// Items of a batch, at most: a statement of 64 stays well below a millisecond for each index that it looks into.
const MOST: usize = 64;

/// A connection that was used so long ago is asked whether it is still there.
const UNTESTED: Duration = Duration::from_secs(1);

/// Batches of items `I` with a result `O` each. Dropping it ends its task.
pub(crate) struct Batches<I, O> {
    queue: mpsc::Sender<(I, oneshot::Sender<O>)>,
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
        let options = options.options([("plan_cache_mode", "force_generic_plan")]);
        let limit = self.pool.options().get_acquire_timeout();
        let connected = timeout(limit, PgConnection::connect_with(&options)).await;
        connected.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

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
        Self::new(Statement { pool: pool.clone(), connection: None, run }, pace)
    }

    fn new(mut work: impl Work<I, O>, pace: Duration) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(I, oneshot::Sender<O>)>(WAITING);
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
                let (items, senders): (Vec<I>, Vec<_>) = batch.drain(..).unzip();
                let results = work.work(items).await.unwrap_or_default();
                // A sender without a result is dropped, which tells its request so.
                for (sender, result) in senders.into_iter().zip(results) {
                    let _ = sender.send(result);
                }
            }
        });
        Self { queue, _worker: worker }
    }

    /// The item's result; none where its batch failed as a whole, so that the request has to ask by itself.
    pub(crate) async fn ask(&self, item: I) -> Option<O> {
        self.add(item).await?.await.ok()
    }

    /// Adds an item without waiting for its result, which the receiver gets.
    pub(crate) async fn add(&self, item: I) -> Option<oneshot::Receiver<O>> {
        let (sender, receiver) = oneshot::channel();
        self.queue.send((item, sender)).await.ok()?;
        Some(receiver)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

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
        assert_eq!(first.await.unwrap(), Some(10));
        gate.notify_one();
        assert_eq!(others.await.unwrap(), [Some(20), Some(30), Some(40), Some(50)]);
        assert_eq!(*sizes.lock().unwrap(), [1, 4]);
    }

    #[tokio::test]
    async fn a_batch_that_fails_has_a_result_for_nobody_and_the_next_is_worked_on() {
        let batches = Batches::new(
            |items: Vec<u32>| async move { (items != [1]).then_some(items) }.boxed(),
            Duration::ZERO,
        );
        assert_eq!(batches.ask(1).await, None);
        assert_eq!(batches.ask(2).await, Some(2));
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
        ));
        let ask = |item| {
            let batches = batches.clone();
            tokio::spawn(async move { batches.ask(item).await })
        };
        ask(1).await.unwrap();
        let (second, third) = (ask(2), ask(3));
        assert_eq!((second.await.unwrap(), third.await.unwrap()), (Some(2), Some(3)));
        tokio::time::advance(PACE * 2).await;
        ask(4).await.unwrap();
        assert_eq!(*begun.lock().unwrap(), [(Duration::ZERO, 1), (PACE, 2), (PACE * 3, 1)]);
    }
}
