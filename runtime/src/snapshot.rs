//! Reads a topic from outside the pipeline, from its beginning to its present end: for operators and for tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::source::RawRecord;

/// Longest wait for the brokers, and for a topic's end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why a topic could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Kafka does not respond.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The end was not reached in time, and Kafka gave no reason.
    #[error("{0} was not read to its end within {TIMEOUT:?}")]
    Slow(String),
}

/// First and next offset of each partition.
///
/// # Errors
/// Kafka's, where it does not respond within a minute.
pub fn extents(consumer: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, (i64, i64)>, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT)?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    partitions
        .map(|partition| Ok((partition.id(), consumer.fetch_watermarks(topic, partition.id(), TIMEOUT)?)))
        .collect()
}

/// A consumer at the beginning of every partition. It joins no group and stores no offset: the group's name is only what
/// librdkafka asks for.
///
/// # Errors
/// Kafka's.
pub fn from_beginning(kafka: &ClientConfig, topic: &str) -> Result<BaseConsumer, KafkaError> {
    let mut config = kafka.clone();
    config.set("group.id", "milestream-snapshot").set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in extents(&consumer, topic)?.keys() {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Every record of a topic up to its present end, by partition and offset. Blocks. An error on the way passes or is the result
/// after a minute: a broker may be restarting.
///
/// # Errors
/// [`SnapshotError`].
pub fn read(kafka: &ClientConfig, topic: &str) -> Result<Vec<RawRecord>, SnapshotError> {
    let consumer = from_beginning(kafka, topic)?;
    let mut left = extents(&consumer, topic)?;
    left.retain(|_, (low, high)| low < high);
    let name: Arc<str> = topic.into();
    let (mut records, mut last_error, until) = (Vec::new(), None, Instant::now() + TIMEOUT);
    while !left.is_empty() {
        if Instant::now() > until {
            return Err(
                last_error.map_or_else(|| SnapshotError::Slow(topic.to_owned()), SnapshotError::Kafka)
            );
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let record = RawRecord::of(&message, &name);
                let (partition, next) = (record.position.partition, record.position.offset + 1);
                if left.get(&partition).is_some_and(|(_, end)| next >= *end) {
                    left.remove(&partition);
                }
                records.push(record);
            }
            Some(Err(error)) => last_error = Some(error),
            None => {}
        }
    }
    records.sort_by_key(|record: &RawRecord| (record.position.partition, record.position.offset));
    Ok(records)
}
