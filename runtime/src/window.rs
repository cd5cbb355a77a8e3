//! A stretch of what the pipeline has recorded, read beside live traffic: where a time begins on a topic, how far a stage has come, and the
//! records themselves. No group is joined and no offset moves.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use schemas::topic::Topic;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use crate::letters::place_of;
use crate::offsets::{self, OffsetsError};
use crate::snapshot::{self, Ranges, SnapshotError};
use crate::source::RawRecord;
use crate::stage::Position;

/// Records that wait to be taken: of 2 kB each they are 2 MB.
const WAITING: usize = 1_000;
/// Longest wait for a stage to come to where its topic ended.
const BEHIND: Duration = Duration::from_secs(120);
/// Between two looks at a stage that is behind.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Why what was recorded could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    /// A topic.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A group.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// The thread that reads died.
    #[error("thread")]
    Thread(#[from] JoinError),
    /// A topic's oldest records are gone.
    #[error(
        "{topic}/{partition} is kept from offset {low} on only: what was decided before cannot be folded from it"
    )]
    NotKept {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The oldest that is kept.
        low: i64,
    },
    /// A stage has not come to where its topic ended.
    #[error(
        "{stage} is {records} records behind: what it will make of them is not known yet. Start it, or wait for it"
    )]
    Behind {
        /// The stage.
        stage: &'static str,
        /// What waits.
        records: i64,
    },
}

/// What a deployment has recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recording<'a> {
    /// Kafka.
    pub kafka: &'a ClientConfig,
    /// In front of every topic's and group's name.
    pub prefix: &'a str,
}

impl Recording<'_> {
    fn name(&self, topic: Topic) -> String {
        format!("{}{}", self.prefix, topic.name())
    }

    /// The records of a topic between two times, by Kafka's timestamps.
    ///
    /// # Errors
    /// [`WindowError`].
    pub async fn between(&self, topic: Topic, from_ms: i64, to_ms: i64) -> Result<Ranges, WindowError> {
        let (kafka, topic) = (self.kafka.clone(), self.name(topic));
        let found =
            tokio::task::spawn_blocking(move || snapshot::between(&kafka, &topic, from_ms, to_ms)).await?;
        Ok(found.map_err(SnapshotError::from)?)
    }

    /// Everything that stands on a topic, from its first record.
    ///
    /// # Errors
    /// [`WindowError`].
    pub async fn whole(&self, topic: Topic) -> Result<Ranges, WindowError> {
        let (kafka, topic) = (self.kafka.clone(), self.name(topic));
        let name = topic.clone();
        let found = tokio::task::spawn_blocking(move || snapshot::since(&kafka, &topic, 0)).await?;
        kept(&name, found.map_err(SnapshotError::from)?)
    }

    /// What a stage has passed of the topic that it reads, from the first record.
    ///
    /// # Errors
    /// [`WindowError`].
    pub async fn passed(&self, stage: &str, reads: Topic) -> Result<Ranges, WindowError> {
        let (group, topic) = (format!("{}{stage}", self.prefix), self.name(reads));
        let shown = offsets::show(self.kafka, &group, vec![topic.clone()]).await?;
        let passed = shown.into_iter();
        let passed =
            passed.map(|place| (place.partition, (place.low, place.committed.unwrap_or(0).max(place.low))));
        kept(&topic, passed.collect())
    }

    /// Waits until a stage has passed what its topic ends with now.
    ///
    /// # Errors
    /// [`WindowError::Behind`] where it does not come there.
    pub async fn caught_up(&self, stage: &'static str, reads: Topic) -> Result<(), WindowError> {
        let ends = self.whole(reads).await?;
        let until = Instant::now() + BEHIND;
        loop {
            let passed = self.passed(stage, reads).await?;
            let at = |partition| passed.get(&partition).map_or(0, |(_, upto): &(i64, i64)| *upto);
            let records: i64 = ends.iter().map(|(partition, (_, end))| (end - at(*partition)).max(0)).sum();
            if records == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(WindowError::Behind { stage, records });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The places of the records that a stage has given up.
    ///
    /// # Errors
    /// [`WindowError`].
    pub async fn given_up(&self, stage: &str) -> Result<HashSet<Position>, WindowError> {
        let topic = Topic::DeadLetters;
        let (kafka, name) = (self.kafka.clone(), self.name(topic));
        let ranges = tokio::task::spawn_blocking(move || snapshot::since(&kafka, &name, 0)).await?;
        let mut letters = self.records(topic, ranges.map_err(SnapshotError::from)?);
        let mut places = HashSet::new();
        while let Some(letter) = letters.recv().await {
            places.extend(place_of(&letter?, stage));
        }
        Ok(places)
    }

    /// The records of a part of a topic, of each partition in order; an error is the last.
    #[must_use]
    pub fn records(&self, topic: Topic, ranges: Ranges) -> mpsc::Receiver<Result<RawRecord, SnapshotError>> {
        let (sender, records) = mpsc::channel(WAITING);
        let (kafka, topic) = (self.kafka.clone(), self.name(topic));
        tokio::task::spawn_blocking(move || {
            let read = snapshot::each_of(&kafka, &topic, ranges, |record| {
                // Nobody takes them any more: the reader is done.
                if sender.blocking_send(Ok(record)).is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            if let Err(error) = read {
                drop(sender.blocking_send(Err(error)));
            }
        });
        records
    }
}

fn kept(topic: &str, ranges: Ranges) -> Result<Ranges, WindowError> {
    match ranges.iter().find(|(_, (low, _))| *low > 0) {
        Some((partition, (low, _))) => {
            Err(WindowError::NotKept { topic: topic.to_owned(), partition: *partition, low: *low })
        }
        None => Ok(ranges),
    }
}
