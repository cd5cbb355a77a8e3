//! A producer of librdkafka with a thread that takes its acknowledgements.
//!
//! `ThreadedProducer` of rdkafka does the same with polls of 100 ms. A poll of `BaseProducer` returns at its deadline and not before, and
//! its last millisecond is waited for in a loop, since librdkafka takes whole milliseconds: 1 ms of CPU per poll at most, so 10 ms a second
//! there and half a millisecond a second here, where nothing is produced.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext, PurgeConfig};

/// One poll: it takes every acknowledgement that comes meanwhile, at once. Also the longest time between the producer's drop and the end of
/// its client, which nobody waits for.
const POLL: Duration = Duration::from_secs(2);

/// A [`BaseProducer`] that is polled until it is dropped. What is not acknowledged by then fails at once; its thread ends the client.
pub(crate) struct Polled<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    is_dropped: Arc<AtomicBool>,
}

impl<C: ProducerContext + 'static> Polled<C> {
    /// Connects (lazily) and starts the thread.
    ///
    /// # Errors
    /// For settings that librdkafka refuses, and where the system has no thread left.
    pub(crate) fn start(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        let producer = Arc::new(BaseProducer::from_config_and_context(config, context)?);
        let is_dropped = Arc::new(AtomicBool::new(false));
        let (polled, stop) = (producer.clone(), is_dropped.clone());
        std::thread::Builder::new()
            .name("poll-producer".to_owned())
            .spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    polled.poll(POLL);
                }
            })
            .map_err(|error| KafkaError::ClientCreation(format!("no thread to poll it: {error}")))?;
        Ok(Self { producer, is_dropped })
    }
}

impl<C: ProducerContext + 'static> Deref for Polled<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for Polled<C> {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::SeqCst);
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}
