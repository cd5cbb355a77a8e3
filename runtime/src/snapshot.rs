//! Reads a topic from outside the pipeline, from its beginning or a time to its present end: for operators and for tests.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
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
    #[error("{0} was not read to its end: no record came for {TIMEOUT:?}")]
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

/// Of each partition the first offset to read, and the first not to read.
pub type Ranges = BTreeMap<i32, (i64, i64)>;

/// A consumer that joins no group and stores no offset.
fn consumer(kafka: &ClientConfig) -> Result<BaseConsumer, KafkaError> {
    let mut config = kafka.clone();
    config.set("group.id", "milestream-snapshot").set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest").create()
}

/// What stands on a topic from the first record at or after a time, in milliseconds by Kafka's timestamps, up to its present end. Blocks.
///
/// # Errors
/// Kafka's, where it does not respond within a minute.
pub fn since(kafka: &ClientConfig, topic: &str, timestamp_ms: i64) -> Result<Ranges, KafkaError> {
    let consumer = consumer(kafka)?;
    let mut ranges = extents(&consumer, topic)?;
    let mut times = TopicPartitionList::new();
    for partition in ranges.keys() {
        times.add_partition_offset(topic, *partition, Offset::Offset(timestamp_ms))?;
    }
    for found in consumer.offsets_for_times(times, TIMEOUT)?.elements() {
        if let Some((low, high)) = ranges.get_mut(&found.partition()) {
            // Nothing is that young: the end.
            *low =
                if let Offset::Offset(offset) = found.offset() { offset.clamp(*low, *high) } else { *high };
        }
    }
    Ok(ranges)
}

/// What stands on a topic from one time up to another, in milliseconds by Kafka's timestamps: from the first record at or after the one up
/// to the first at or after the other. Blocks.
///
/// # Errors
/// Kafka's, where it does not respond within a minute.
pub fn between(kafka: &ClientConfig, topic: &str, from_ms: i64, to_ms: i64) -> Result<Ranges, KafkaError> {
    let ends = since(kafka, topic, to_ms)?;
    let mut ranges = since(kafka, topic, from_ms)?;
    for (partition, (low, high)) in &mut ranges {
        // A partition that is new since has nothing of that time.
        *high = ends.get(partition).map_or(*low, |(end, _)| (*end).max(*low));
    }
    Ok(ranges)
}

/// A consumer at the beginning of every partition. It joins no group and stores no offset: the group's name is only what
/// librdkafka asks for.
///
/// # Errors
/// Kafka's.
pub fn from_beginning(kafka: &ClientConfig, topic: &str) -> Result<BaseConsumer, KafkaError> {
    let consumer = consumer(kafka)?;
    let mut list = TopicPartitionList::new();
    for partition in extents(&consumer, topic)?.keys() {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Every record of a topic up to its present end, by partition and offset. Blocks. An error on the way passes or is the result
/// after a minute without a record: a broker may be restarting.
///
/// # Errors
/// [`SnapshotError`].
pub fn read(kafka: &ClientConfig, topic: &str) -> Result<Vec<RawRecord>, SnapshotError> {
    let mut records = Vec::new();
    each(kafka, topic, |record| {
        records.push(record);
        ControlFlow::Continue(())
    })?;
    records.sort_by_key(|record: &RawRecord| (record.position.partition, record.position.offset));
    Ok(records)
}

/// Hands over every record of a topic up to its present end, one by one, of each partition in order, until told to stop. Blocks, and
/// holds a few MiB whatever the topic's length. Errors pass as in [`read`].
///
/// # Errors
/// [`SnapshotError`].
pub fn each(
    kafka: &ClientConfig,
    topic: &str,
    take: impl FnMut(RawRecord) -> ControlFlow<()>,
) -> Result<(), SnapshotError> {
    let ranges = extents(&consumer(kafka)?, topic)?;
    each_of(kafka, topic, ranges, take)
}

/// Hands over the records of a part of a topic, as [`each`] does with all of it.
///
/// # Errors
/// [`SnapshotError`].
pub fn each_of(
    kafka: &ClientConfig,
    topic: &str,
    ranges: Ranges,
    mut take: impl FnMut(RawRecord) -> ControlFlow<()>,
) -> Result<(), SnapshotError> {
    let mut kafka = kafka.clone();
    // What the client fetches ahead: 16 MiB for all partitions, of which it has 64 MiB by itself.
    kafka.set("queued.max.messages.kbytes", "16384").set("fetch.max.bytes", "16777216");
    let consumer = consumer(&kafka)?;
    let mut left = ranges;
    left.retain(|_, (low, high)| low < high);
    let mut list = TopicPartitionList::new();
    for (partition, (low, _)) in &left {
        list.add_partition_offset(topic, *partition, Offset::Offset(*low))?;
    }
    consumer.assign(&list)?;
    let name: Arc<str> = topic.into();
    let (mut last_error, mut until) = (None, Instant::now() + TIMEOUT);
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
                // What was written after the beginning of the look is left out, or a busy topic would have no end.
                let Some((_, end)) = left.get(&partition).copied() else { continue };
                if next >= end {
                    left.remove(&partition);
                }
                if next <= end && take(record).is_break() {
                    return Ok(());
                }
                until = Instant::now() + TIMEOUT;
            }
            Some(Err(error)) => last_error = Some(error),
            None => {}
        }
    }
    Ok(())
}
