//! Where records come from: partitions are assigned as lanes, each with a queue and the offset to commit.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::stage::Position;

/// An undecoded record.
#[derive(Clone, Debug)]
pub struct RawRecord {
    /// Where it stands.
    pub position: Position,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Option<Vec<u8>>,
    /// Its headers; a name can stand more than once.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Kafka's record timestamp, milliseconds.
    pub timestamp_ms: i64,
}

impl RawRecord {
    /// A copy of a message that librdkafka owns.
    pub(crate) fn of(message: &BorrowedMessage<'_>, topic: &Arc<str>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
        });
        Self {
            position: Position {
                topic: topic.clone(),
                partition: message.partition(),
                offset: message.offset(),
            },
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        }
    }

    /// The same in the memory of this record, which is done with.
    pub(crate) fn refill(&mut self, message: &BorrowedMessage<'_>, topic: &Arc<str>) {
        if !Arc::ptr_eq(&self.position.topic, topic) {
            self.position.topic = topic.clone();
        }
        (self.position.partition, self.position.offset) = (message.partition(), message.offset());
        self.timestamp_ms = message.timestamp().to_millis().unwrap_or(-1);
        put(&mut self.key, message.key());
        put(&mut self.payload, message.payload());
        let mut count = 0;
        for header in message.headers().iter().flat_map(|headers| headers.iter()) {
            match self.headers.get_mut(count) {
                Some((name, value)) => {
                    header.key.clone_into(name);
                    put(value, header.value);
                }
                None => self.headers.push((header.key.to_owned(), header.value.map(<[u8]>::to_vec))),
            }
            count += 1;
        }
        self.headers.truncate(count);
    }

    /// Bytes that it keeps of memory.
    pub(crate) fn capacity(&self) -> usize {
        let of = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::capacity);
        let headers = self.headers.iter().map(|(name, value)| name.capacity() + of(value));
        of(&self.key) + of(&self.payload) + headers.sum::<usize>()
    }

    /// The last header of a name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

fn put(place: &mut Option<Vec<u8>>, bytes: Option<&[u8]>) {
    match (place.as_mut(), bytes) {
        (Some(place), Some(bytes)) => bytes.clone_into(place),
        _ => *place = bytes.map(<[u8]>::to_vec),
    }
}

/// One partition, handed to a worker until it is revoked.
#[derive(Debug)]
pub struct Assignment {
    /// Topic, with its prefix.
    pub topic: Arc<str>,
    /// Partition.
    pub partition: i32,
    /// Kafka's committed offset, from which records come.
    pub start: i64,
    /// True when the group had no offset here and it was set to the beginning just now.
    pub bootstrapped: bool,
    /// The records.
    pub records: Records,
    /// What worker and consumer share.
    pub lane: Arc<Lane>,
}

/// What a [`Queue`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many records, at least one.
    Records(usize),
    /// None is there yet.
    Nothing,
    /// None will come any more.
    Ended,
}

/// The records of one partition, in order, as they come.
pub trait Queue: fmt::Debug + Send + Sync {
    /// Appends what is there, at most `most` records.
    fn take(&self, records: &mut Vec<RawRecord>, most: usize) -> Taken;

    /// Takes back what is done with: the memory serves the next records. Worth it where records are many and small, since the allocator
    /// would have to find as much again for each.
    fn give_back(&self, records: &mut Vec<RawRecord>);

    /// Notified when there may be more than the last [`Queue::take`] found. One waits at a time: the partition's worker.
    fn filled(&self) -> &Notify;
}

/// The records that a worker takes.
#[derive(Debug)]
pub enum Records {
    /// Out of the client's queue.
    Queue(Arc<dyn Queue>),
    /// From whoever holds the other end: a replay, a test.
    Channel(mpsc::Receiver<RawRecord>),
}

impl Records {
    /// Waits for records and appends what is there, at most `most`; how many, and 0 once none will come any more. What is not
    /// waited for to its end has taken nothing.
    pub async fn recv_many(&mut self, records: &mut Vec<RawRecord>, most: usize) -> usize {
        let queue = match self {
            Self::Queue(queue) => queue,
            Self::Channel(channel) => return channel.recv_many(records, most).await,
        };
        // With a backlog nothing here ever waits: this gives others their turn.
        tokio::task::coop::consume_budget().await;
        loop {
            match queue.take(records, most) {
                Taken::Records(count) => return count,
                Taken::Ended => return 0,
                Taken::Nothing => queue.filled().notified().await,
            }
        }
    }

    /// As [`Queue::give_back`].
    pub fn give_back(&mut self, records: &mut Vec<RawRecord>) {
        match self {
            Self::Queue(queue) => queue.give_back(records),
            Self::Channel(_) => records.clear(),
        }
    }

    /// Waits for the next record; `None` once none will come any more.
    pub async fn recv(&mut self) -> Option<RawRecord> {
        let mut records = Vec::with_capacity(1);
        self.recv_many(&mut records, 1).await;
        records.pop()
    }
}

impl From<mpsc::Receiver<RawRecord>> for Records {
    fn from(channel: mpsc::Receiver<RawRecord>) -> Self {
        Self::Channel(channel)
    }
}

/// What a worker and the consumer pass to each other.
#[derive(Debug)]
pub struct Lane {
    frontier: AtomicI64,
    /// Set by the consumer: finish what is in flight and end.
    pub stop: CancellationToken,
    finished: AtomicBool,
    restart: AtomicBool,
    ended: Notify,
}

impl Lane {
    /// A lane whose offset to commit is `start`.
    #[must_use]
    pub fn starting_at(start: i64) -> Arc<Self> {
        Arc::new(Self {
            frontier: AtomicI64::new(start),
            stop: CancellationToken::new(),
            finished: AtomicBool::new(false),
            restart: AtomicBool::new(false),
            ended: Notify::new(),
        })
    }

    /// Moves the offset to commit; it never moves back.
    pub fn advance(&self, next_offset: i64) {
        self.frontier.fetch_max(next_offset, Ordering::SeqCst);
    }

    /// The offset to commit.
    #[must_use]
    pub fn frontier(&self) -> i64 {
        self.frontier.load(Ordering::SeqCst)
    }

    /// The worker has ended; `restart` asks for the partition anew from Kafka's committed offset.
    pub fn finish(&self, restart: bool) {
        self.restart.store(restart, Ordering::SeqCst);
        self.finished.store(true, Ordering::SeqCst);
        self.ended.notify_waiters();
    }

    /// Whether the worker has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst)
    }

    /// Whether the worker has ended and wants to begin anew; true once.
    #[must_use]
    pub fn take_restart(&self) -> bool {
        self.is_finished() && self.restart.swap(false, Ordering::SeqCst)
    }

    /// Waits on this thread until the worker has ended, at most `limit`; false when it has not.
    #[must_use]
    pub fn wait_finished(&self, limit: Duration) -> bool {
        let until = std::time::Instant::now() + limit;
        while !self.is_finished() {
            if std::time::Instant::now() >= until {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        true
    }

    /// Waits until the worker has ended.
    pub async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.is_finished() {
                return;
            }
            ended.await;
        }
    }
}
