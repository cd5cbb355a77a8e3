//! Reads topics from outside the pipeline: what a run has left behind, and what it writes while it goes on.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use runtime::Decided;
use runtime::registry::{Registry, SchemaSource as _};
use runtime::snapshot;
use runtime::source::RawRecord;
use schemas::codec;
use schemas::events::Event;

/// A decoded record with its bytes.
#[derive(Clone, Debug)]
pub struct Decoded<E> {
    /// The record's bytes.
    pub bytes: Vec<u8>,
    /// The event.
    pub event: E,
}

/// Every event of a topic up to its present end, by partition and offset.
///
/// # Errors
/// When the broker does not respond, or a record does not decode.
pub fn read_all<E: Event>(kafka: &ClientConfig, prefix: &str) -> Result<Vec<Decoded<E>>> {
    let decoded = |record: RawRecord| {
        let bytes = record.payload.unwrap_or_default();
        Ok(Decoded { event: decode(&bytes)?, bytes })
    };
    snapshot::read(kafka, &topic::<E>(prefix))?.into_iter().map(decoded).collect()
}

/// Every record of a topic that a stage with this input would take, up to its present end, by partition and offset; those of other types of
/// the topic are left out.
///
/// # Errors
/// When the broker or the registry does not respond, or a record does not decode.
pub async fn read_each<R: Decided>(
    kafka: &ClientConfig,
    registry: &Registry,
    prefix: &str,
) -> Result<Vec<Decoded<R>>> {
    let mut found = Vec::new();
    for record in snapshot::read(kafka, &format!("{prefix}{}", R::READS.name()))? {
        let bytes = record.payload.unwrap_or_default();
        let (id, datum) = codec::unframe(&bytes)?;
        let schema = registry.schema(id).await?;
        if let Some(event) = R::from_record(&schema, id, datum) {
            found.push(Decoded { event: event?, bytes });
        }
    }
    Ok(found)
}

/// Records that a group still has to consume on a topic, summed over its partitions.
///
/// # Errors
/// When the broker does not respond.
pub fn lag(kafka: &ClientConfig, group: &str, topic: &str) -> Result<i64> {
    let mut config = kafka.clone();
    config.set("group.id", group).set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().context("kafka client")?;
    let ends = snapshot::extents(&consumer, topic)?;
    let mut wanted = TopicPartitionList::new();
    for partition in ends.keys() {
        wanted.add_partition(topic, *partition);
    }
    let committed = consumer.committed_offsets(wanted, Duration::from_secs(10)).context("group offsets")?;
    let behind = committed.elements().into_iter().map(|element| {
        let (_, end) = ends.get(&element.partition()).copied().unwrap_or_default();
        match element.offset() {
            Offset::Offset(offset) => end - offset,
            _ => end,
        }
    });
    Ok(behind.sum())
}

fn topic<E: Event>(prefix: &str) -> String {
    format!("{prefix}{}", E::TOPIC.name())
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
    /// When the broker does not respond at the start; later outages are waited out.
    pub fn follow(kafka: &ClientConfig, prefix: &str) -> Result<Self> {
        let topic = topic::<E>(prefix);
        let consumer = snapshot::from_beginning(kafka, &topic)?;
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
