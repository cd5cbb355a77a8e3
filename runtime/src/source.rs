//! Where records come from: partitions are assigned as lanes, each with a bounded queue and the offset to commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::stage::Position;

/// Records that wait in one lane. 2,048 of about 1.5 kB are 3 MiB per partition. A fetch brings about as many of a partition with a
/// backlog: with fewer places the consumer's thread would stand at one lane while the workers of the others have nothing.
/// And a partition that is resumed when half of them are free has work for the time of a long poll.
pub const LANE_RECORDS: usize = 2_048;

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

    /// The last header of a name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
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
    pub records: mpsc::Receiver<RawRecord>,
    /// What worker and consumer share.
    pub lane: Arc<Lane>,
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
