//! Publishing: a record is published when Kafka has acknowledged it on all in-sync replicas.

use std::future::Future;

/// A record to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutRecord {
    /// The topic's name.
    pub topic: String,
    /// The key; murmur2 of it chooses the partition.
    pub key: Vec<u8>,
    /// Framed Avro.
    pub payload: Vec<u8>,
    /// Headers, in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Where an acknowledged record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Why a record was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The local queue is full, or the broker did not answer in time; nothing is known of the record.
    #[error("kafka did not acknowledge in time: {0}")]
    Timeout(String),
    /// The record itself is refused, e.g. too large.
    #[error("kafka refuses the record: {0}")]
    Refused(String),
    /// The producer cannot go on.
    #[error("the producer has failed for good: {0}")]
    Fatal(String),
}

/// Publishes records and waits for their acknowledgement.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes one record.
    ///
    /// # Errors
    /// [`PublishError`]; after a `Timeout` the record may or may not be on the topic.
    fn publish(&self, record: OutRecord) -> impl Future<Output = Result<Delivered, PublishError>> + Send;
}

impl<P: Publisher> Publisher for std::sync::Arc<P> {
    async fn publish(&self, record: OutRecord) -> Result<Delivered, PublishError> {
        (**self).publish(record).await
    }
}
