//! Publishing: a record is published when Kafka has acknowledged it on all in-sync replicas.

/// Where an acknowledged record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// Why a record was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The local queue is full, or the broker did not respond in time; nothing is known of the record.
    #[error("kafka did not acknowledge in time: {0}")]
    Timeout(String),
    /// The record itself is refused, e.g. too large.
    #[error("kafka refuses the record: {0}")]
    Refused(String),
    /// This user may not write there: every record is refused until somebody grants it.
    #[error("kafka denies the permission to write: {0}")]
    Denied(String),
    /// The client cannot go on; another one can.
    #[error("the producer has failed for good: {0}")]
    Fatal(String),
}
