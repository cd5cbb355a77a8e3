//! The Kafka producer: idempotent, acks=all, bounded, with acknowledgements that go straight to the ledger.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::ledger::Ledger;
use crate::publish::{Delivered, PublishError};

/// Wait before a full local queue is tried again. librdkafka empties it in milliseconds while the broker answers.
const FULL_QUEUE_WAIT: Duration = Duration::from_millis(5);

/// A record to send, borrowed: librdkafka copies it.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Key; none chooses a random partition.
    pub key: Option<&'a [u8]>,
    /// Value; none is a tombstone.
    pub payload: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Who gets the acknowledgement.
#[derive(Debug)]
pub enum Ack {
    /// A record of the ledger has one part less to wait for.
    Ledger(Arc<Ledger>, i64),
    /// Somebody waits.
    Waiter(oneshot::Sender<Result<Delivered, PublishError>>),
}

impl Ack {
    /// Hands the result over.
    pub fn settle(self, result: Result<Delivered, PublishError>) {
        match (self, result) {
            (Ack::Ledger(ledger, offset), Ok(_)) => ledger.acknowledge(offset),
            (Ack::Ledger(ledger, _), Err(error)) => ledger.fail(error.to_string()),
            // The waiter may have given up: nothing depends on it then.
            (Ack::Waiter(sender), result) => drop(sender.send(result)),
        }
    }
}

/// The record was not taken; the acknowledgement comes back to be used again.
#[derive(Debug)]
pub enum NotTaken {
    /// The local queue is full.
    Full(Ack),
    /// It will never be taken.
    Never(PublishError),
}

/// Takes records without waiting for their acknowledgement.
pub trait Outbound: Send + Sync + 'static {
    /// Takes a record.
    ///
    /// # Errors
    /// [`NotTaken`].
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken>;
}

/// Sends, waiting while the local queue is full.
///
/// # Errors
/// [`PublishError`] when the record will never be taken.
pub async fn send(outbound: &dyn Outbound, message: &Message<'_>, ack: Ack) -> Result<(), PublishError> {
    let mut ack = ack;
    loop {
        match outbound.send(message, ack) {
            Ok(()) => return Ok(()),
            Err(NotTaken::Never(error)) => return Err(error),
            Err(NotTaken::Full(back)) => ack = back,
        }
        tokio::time::sleep(FULL_QUEUE_WAIT).await;
    }
}

/// Sends and waits for the acknowledgement.
///
/// # Errors
/// [`PublishError`].
pub async fn send_and_wait(
    outbound: &dyn Outbound,
    message: &Message<'_>,
) -> Result<Delivered, PublishError> {
    let (sender, receiver) = oneshot::channel();
    send(outbound, message, Ack::Waiter(sender)).await?;
    receiver.await.unwrap_or_else(|_| Err(PublishError::Fatal("the producer is gone".into())))
}

/// How a producer is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryTimeout {
    /// Never gives a record up: for stages, whose offset waits.
    Unlimited,
    /// Gives up after this time: for the gateway, whose client waits.
    After(Duration),
}

/// librdkafka behind [`Outbound`].
pub struct KafkaProducer {
    producer: ThreadedProducer<Delivery>,
}

struct Delivery;

impl ClientContext for Delivery {}

impl ProducerContext for Delivery {
    type DeliveryOpaque = Box<Ack>;

    fn delivery(&self, result: &DeliveryResult<'_>, ack: Box<Ack>) {
        ack.settle(match result {
            Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(publish_error(error)),
        });
    }
}

fn publish_error(error: &KafkaError) -> PublishError {
    let text = error.to_string();
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::QueueFull
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic,
        ) => PublishError::Timeout(text),
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessage) => {
            PublishError::Refused(text)
        }
        _ => PublishError::Fatal(text),
    }
}

impl KafkaProducer {
    /// Connects (lazily) to the cluster that `base` names.
    ///
    /// # Errors
    /// [`PublishError::Fatal`] for settings that librdkafka refuses.
    pub fn new(base: &ClientConfig, timeout: DeliveryTimeout) -> Result<Self, PublishError> {
        let timeout_ms = match timeout {
            DeliveryTimeout::Unlimited => 0,
            DeliveryTimeout::After(limit) => limit.as_millis(),
        };
        let producer = base
            .clone()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The clients of every language agree on this one; librdkafka's default differs.
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", timeout_ms.to_string())
            // 5 ms gather a batch under load and cost one upload nothing a person could see.
            .set("linger.ms", "5")
            .set("compression.type", "zstd")
            // 16 MiB: about 10,000 events of 1.5 kB, a second of the fastest stage.
            .set("queue.buffering.max.kbytes", "16384")
            .set("queue.buffering.max.messages", "20000")
            .create_with_context(Delivery)
            .map_err(|error| PublishError::Fatal(error.to_string()))?;
        Ok(Self { producer })
    }

    /// Waits for outstanding acknowledgements, at most `limit`. Blocks the thread.
    pub fn flush(&self, limit: Duration) {
        if let Err(error) = self.producer.flush(limit) {
            tracing::warn!(error = %error, "records were not acknowledged before the end; they are not lost: their offsets did not move");
        }
    }
}

impl Outbound for KafkaProducer {
    fn send(&self, message: &Message<'_>, ack: Ack) -> Result<(), NotTaken> {
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in message.headers {
            headers = headers.insert(Header { key, value: *value });
        }
        let mut record: BaseRecord<'_, [u8], [u8], Box<Ack>> =
            BaseRecord::with_opaque_to(message.topic, Box::new(ack)).headers(headers);
        record.key = message.key;
        record.payload = message.payload;
        self.producer.send(record).map_err(|(error, record)| {
            let ack = *record.delivery_opaque;
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                NotTaken::Full(ack)
            } else {
                NotTaken::Never(publish_error(&error))
            }
        })
    }
}
