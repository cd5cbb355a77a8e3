//! The records of one partition, out of a queue that librdkafka keeps for it alone: whoever works on the partition polls them itself,
//! without another thread in between, and what it does not take waits there, bounded by the client.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::consumer::ConsumerContext;
use rdkafka::consumer::base_consumer::PartitionQueue as ClientQueue;
use rdkafka::error::KafkaError;
use tokio::sync::Notify;

use crate::source::{Queue, RawRecord, Taken};

/// Records of which the memory is kept for the next ones: as many as a worker takes at once.
const SPARE: usize = 64;
/// Bytes of a record of which the memory is kept: most have 1.5 kB, and 64 of 8 KiB are half a MiB of a partition.
const SPARE_BYTES: usize = 8_192;

/// A queue of the client's, until the partition is taken away.
pub(crate) struct PartitionQueue<C: ConsumerContext> {
    topic: Arc<str>,
    /// None once the partition is gone. A queue keeps its client, so this is what lets the client end while a worker still holds on.
    queue: Mutex<Option<ClientQueue<C>>>,
    filled: Arc<Notify>,
    next: AtomicI64,
    errors: Mutex<Vec<KafkaError>>,
    spare: Mutex<Vec<RawRecord>>,
}

impl<C: ConsumerContext> PartitionQueue<C> {
    /// The queue of a partition of `topic`, of which nothing below `start` is handed out.
    pub(crate) fn new(topic: Arc<str>, mut queue: ClientQueue<C>, start: i64) -> Self {
        let filled = Arc::new(Notify::new());
        let woken = filled.clone();
        // Called when the queue was empty and is not any more; one that comes before anybody waits is kept.
        queue.set_nonempty_callback(move || woken.notify_one());
        let (queue, next) = (Mutex::new(Some(queue)), AtomicI64::new(start));
        Self { topic, queue, filled, next, errors: Mutex::default(), spare: Mutex::default() }
    }

    /// The offset behind the newest record that was taken.
    pub(crate) fn next(&self) -> i64 {
        self.next.load(Ordering::Relaxed)
    }

    /// What the client has said of the partition in place of a record, since it was last asked.
    pub(crate) fn take_errors(&self) -> Vec<KafkaError> {
        std::mem::take(&mut *lock(&self.errors))
    }

    /// Gives nothing out any more, and wakes who waits.
    pub(crate) fn close(&self) {
        let queue = lock(&self.queue).take();
        // Outside the lock: this may be the last that keeps the client.
        drop(queue);
        self.filled.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C: ConsumerContext + 'static> Queue for PartitionQueue<C> {
    fn take(&self, records: &mut Vec<RawRecord>, most: usize) -> Taken {
        let (queue, mut spare) = (lock(&self.queue), lock(&self.spare));
        let Some(queue) = queue.as_ref() else { return Taken::Ended };
        let mut count = 0;
        while count < most {
            match queue.poll(Duration::ZERO) {
                Some(Ok(message)) => {
                    records.push(match spare.pop() {
                        Some(mut record) => {
                            record.refill(&message, &self.topic);
                            record
                        }
                        None => RawRecord::of(&message, &self.topic),
                    });
                    count += 1;
                }
                // It concerns the client: the consumer's thread decides what it means.
                Some(Err(error)) => lock(&self.errors).push(error),
                None => break,
            }
        }
        match records.last() {
            Some(newest) if count > 0 => {
                self.next.store(newest.position.offset + 1, Ordering::Relaxed);
                Taken::Records(count)
            }
            _ => Taken::Nothing,
        }
    }

    fn give_back(&self, records: &mut Vec<RawRecord>) {
        let mut spare = lock(&self.spare);
        let room = SPARE.saturating_sub(spare.len());
        spare.extend(records.drain(..).filter(|record| record.capacity() <= SPARE_BYTES).take(room));
    }

    fn filled(&self) -> &Notify {
        &self.filled
    }
}

impl<C: ConsumerContext> fmt::Debug for PartitionQueue<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionQueue").field("topic", &self.topic).field("next", &self.next()).finish()
    }
}
