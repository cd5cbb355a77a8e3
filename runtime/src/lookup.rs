//! Reads one record from outside the pipeline, for operators.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::snapshot;
use crate::source::RawRecord;
use crate::stage::Position;

/// Longest wait for the brokers.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a record could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Kafka does not respond.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// No such topic, or no such partition of it.
    #[error("there is no partition {partition} of {topic}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The offset is not kept any more, or not written yet.
    #[error("{topic}/{partition} holds the offsets {low} to {last}, not {offset}")]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
        /// The oldest that is kept.
        low: i64,
        /// The newest.
        last: i64,
    },
    /// The offset holds no record: a transaction's marker, or a compacted record.
    #[error(
        "there is no record at {topic}/{partition}@{offset}: a compacted record or a transaction's marker"
    )]
    NoRecord {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        offset: i64,
    },
    /// The broker knows the offset but did not deliver the record.
    #[error("the record was not read within {TIMEOUT:?}")]
    Slow,
}

/// The record at a position. Blocks. Joins no group and stores no offset.
///
/// # Errors
/// [`LookupError`].
pub fn record_at(kafka: &ClientConfig, at: &Position) -> Result<RawRecord, LookupError> {
    let Position { topic, partition, offset } = at;
    let (topic, partition, offset) = (topic.to_string(), *partition, *offset);
    let mut config = kafka.clone();
    config.set("group.id", "milestream-lookup").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let extents = snapshot::extents(&consumer, &topic)?;
    let Some(&(low, end)) = extents.get(&partition) else {
        return Err(LookupError::NoPartition { topic, partition });
    };
    if !(low..end).contains(&offset) {
        return Err(LookupError::OutOfRange { topic, partition, offset, low, last: end - 1 });
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
    consumer.assign(&list)?;
    let (name, until): (Arc<str>, _) = (topic.as_str().into(), Instant::now() + TIMEOUT);
    while Instant::now() < until {
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                let record = RawRecord::of(&message, &name);
                let found = record.position.offset == offset;
                return if found {
                    Ok(record)
                } else {
                    Err(LookupError::NoRecord { topic, partition, offset })
                };
            }
            Some(Err(error)) => tracing::debug!(%error, "waiting for the record"),
            None => {}
        }
    }
    Err(LookupError::Slow)
}
