//! What several requests ask of the database at the same time, in one statement: while a batch is away, those that come wait, and are
//! the next batch. Alone, a request waits for nobody.

use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Requests that can wait for a batch: as many as there are connections by default.
const WAITING: usize = 1024;
/// Items of a batch, at most: a statement of 64 stays well below a millisecond for each index that it looks into.
const MOST: usize = 64;

/// Batches of items `I` with a result `O` each. Dropping it ends its task.
pub(crate) struct Batches<I, O> {
    queue: mpsc::Sender<(I, oneshot::Sender<O>)>,
    _worker: JoinSet<()>,
}

impl<I: Send + 'static, O: Send + 'static> Batches<I, O> {
    /// `work` gives one result per item, in order; none where the batch as a whole failed.
    pub(crate) fn new(
        work: impl Fn(Vec<I>) -> BoxFuture<'static, Option<Vec<O>>> + Send + Sync + 'static,
    ) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(I, oneshot::Sender<O>)>(WAITING);
        let mut worker = JoinSet::new();
        worker.spawn(async move {
            let mut batch = Vec::with_capacity(MOST);
            while waiting.recv_many(&mut batch, MOST).await > 0 {
                let (items, senders): (Vec<I>, Vec<_>) = batch.drain(..).unzip();
                let results = work(items).await.unwrap_or_default();
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

/// The results of a batch; none where it failed: those who asked ask by themselves, and meet their own error.
pub(crate) fn whole<O>(results: Result<Vec<O>, sqlx::Error>) -> Option<Vec<O>> {
    results.inspect_err(|error| tracing::debug!(%error, "a batch failed")).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::FutureExt as _;
    use futures::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_comes_while_a_batch_is_away_is_the_next_batch_and_each_gets_its_own_result() {
        let (sizes, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let batches = Arc::new(Batches::new({
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
        }));
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
        let batches = Batches::new(|items: Vec<u32>| async move { (items != [1]).then_some(items) }.boxed());
        assert_eq!(batches.ask(1).await, None);
        assert_eq!(batches.ask(2).await, Some(2));
    }
}
