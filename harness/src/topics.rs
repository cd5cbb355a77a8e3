//! Reads topics from outside the pipeline: what a run has left behind, and what it writes while it goes on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use schemas::codec;
use schemas::events::Event;

/// Longest wait for the broker, which may be restarting.
const PATIENCE: Duration = Duration::from_secs(60);

/// A decoded record with its place.
#[derive(Clone, Debug)]
pub struct Placed<E> {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// The record's bytes.
    pub bytes: Vec<u8>,
    /// The event.
    pub event: E,
}

/// Every event of a topic up to its present end, by partition and offset.
///
/// # Errors
/// When the broker does not answer, or a record does not decode.
pub fn read_all<E: Event>(kafka: &ClientConfig, prefix: &str) -> Result<Vec<Placed<E>>> {
    let topic = format!("{prefix}{}", E::TOPIC.name());
    let decoded = |raw: Raw| {
        let bytes = raw.payload.unwrap_or_default();
        Ok(Placed { partition: raw.partition, offset: raw.offset, event: decode(&bytes)?, bytes })
    };
    raw_records(kafka, &topic)?.into_iter().map(decoded).collect()
}

/// An undecoded record.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub payload: Option<Vec<u8>>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Raw {
    /// The last header of a name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }
}

/// Every record of a topic up to its present end, by partition and offset.
///
/// # Errors
/// When the broker does not answer.
pub fn raw_records(kafka: &ClientConfig, topic: &str) -> Result<Vec<Raw>> {
    let consumer = consumer(kafka, topic)?;
    let ends = end_offsets(&consumer, topic)?;
    let mut left: BTreeMap<i32, i64> = ends.into_iter().filter(|(_, end)| *end > 0).collect();
    let mut records = Vec::new();
    let until = Instant::now() + PATIENCE;
    while !left.is_empty() {
        ensure!(Instant::now() < until, "{topic} was not read to its end within {PATIENCE:?}");
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
        let (partition, offset) = (message.partition(), message.offset());
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
        });
        let (key, payload) = (message.key().map(<[u8]>::to_vec), message.payload().map(<[u8]>::to_vec));
        records.push(Raw { partition, offset, key, payload, headers });
        if left.get(&partition).is_some_and(|end| offset + 1 >= *end) {
            left.remove(&partition);
        }
    }
    records.sort_by_key(|record| (record.partition, record.offset));
    Ok(records)
}

/// Records that a group still has to consume on a topic, summed over its partitions.
///
/// # Errors
/// When the broker does not answer.
pub fn lag(kafka: &ClientConfig, group: &str, topic: &str) -> Result<i64> {
    let mut config = kafka.clone();
    config.set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().context("kafka client")?;
    let ends = end_offsets(&consumer, topic)?;
    let mut wanted = TopicPartitionList::new();
    for partition in ends.keys() {
        wanted.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(wanted, Duration::from_secs(10)).context("group offsets")?;
    let behind = committed.elements().into_iter().map(|element| {
        let end = ends.get(&element.partition()).copied().unwrap_or_default();
        match element.offset() {
            Offset::Offset(offset) => end - offset,
            _ => end,
        }
    });
    Ok(behind.sum())
}

fn consumer(kafka: &ClientConfig, topic: &str) -> Result<BaseConsumer> {
    let mut config = kafka.clone();
    config.set("group.id", "harness-reader").set("enable.auto.commit", "false");
    config.set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = config.create().context("kafka client")?;
    let mut list = TopicPartitionList::new();
    for partition in end_offsets(&consumer, topic)?.keys() {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list).context("assign")?;
    Ok(consumer)
}

fn end_offsets(consumer: &BaseConsumer, topic: &str) -> Result<BTreeMap<i32, i64>> {
    let limit = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(topic), limit).context("topic metadata")?;
    let found = metadata.topics().first().with_context(|| format!("topic {topic}"))?;
    found
        .partitions()
        .iter()
        .map(|partition| {
            let (_, high) = consumer.fetch_watermarks(topic, partition.id(), limit).context("watermarks")?;
            Ok((partition.id(), high))
        })
        .collect()
}

fn decode<E: Event>(bytes: &[u8]) -> Result<E> {
    let (id, datum) = codec::unframe(bytes)?;
    Ok(codec::decode(E::schema(), id, datum)?)
}

/// Follows a topic on a thread of its own until dropped.
pub struct Tail<E> {
    seen: Arc<Mutex<Vec<E>>>,
    count: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl<E: Event> Tail<E> {
    /// Follows a topic from its beginning.
    ///
    /// # Errors
    /// When the broker does not answer at the start; later outages are waited out.
    pub fn follow(kafka: &ClientConfig, prefix: &str) -> Result<Self> {
        let topic = format!("{prefix}{}", E::TOPIC.name());
        let consumer = consumer(kafka, &topic)?;
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let count = Arc::new(AtomicUsize::new(0));
        let (events, stopped, counter) = (seen.clone(), stop.clone(), count.clone());
        let thread = std::thread::Builder::new().name(format!("tail-{topic}")).spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50))
                    && let Ok(event) = decode(message.payload().unwrap_or_default())
                {
                    events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        })?;
        Ok(Self { seen, count, stop, thread: Some(thread) })
    }

    /// How many events were seen so far, to be read from other threads; repeats count.
    #[must_use]
    pub fn counter(&self) -> Arc<AtomicUsize> {
        self.count.clone()
    }

    /// The events so far.
    #[must_use]
    pub fn seen(&self) -> Vec<E> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<E> Drop for Tail<E> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Err means that the thread panicked: the test that used it has failed already.
            let _ = thread.join();
        }
    }
}
