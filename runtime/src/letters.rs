//! What operators do with dead letters: look at them, and redrive them once the cause is gone.
//!
//! A redrive appends the original record, under its own key and headers, to the topic it came from, with the header
//! `redrive` raised by one. The count is part of a decision's key: redriving one letter twice decides once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::dead_letter::header;
use crate::producer::{KafkaProducer, Message, Patience, send_and_wait};
use crate::publish::PublishError;
use crate::worker::REDRIVE;

/// In front of every header that the engine added.
const OURS: &str = "dlq.";
/// Longest wait for the brokers.
const PATIENCE: Duration = Duration::from_secs(30);

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Partition of the dead-letter topic.
    pub partition: i32,
    /// Offset there.
    pub offset: i64,
    /// The original's key.
    pub key: Option<Vec<u8>>,
    /// The original's bytes.
    pub payload: Option<Vec<u8>>,
    /// All headers: the original's, then the engine's.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Why dead letters could not be read or redriven.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// Kafka does not answer.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Kafka does not take a record.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The topic was not read to its end in time.
    #[error("{0} was not read to its end within {PATIENCE:?}")]
    Slow(String),
    /// There is no such letter.
    #[error("there is no dead letter at {partition}:{offset}")]
    Unknown {
        /// As asked for.
        partition: i32,
        /// As asked for.
        offset: i64,
    },
    /// The letter does not say where it came from.
    #[error("the dead letter at {partition}:{offset} has no header {name}")]
    Headless {
        /// Where it is.
        partition: i32,
        /// Where it is.
        offset: i64,
        /// The header.
        name: &'static str,
    },
}

impl Letter {
    /// The last header of a name, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// The headers of the record that is appended again: the original's own, with the count raised.
    #[must_use]
    pub fn redriven_headers(&self) -> Vec<(String, Option<Vec<u8>>)> {
        let count = self.header(REDRIVE).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        let own = self.headers.iter().filter(|(name, _)| !name.starts_with(OURS) && name != REDRIVE);
        let raised = (REDRIVE.to_owned(), Some(count.saturating_add(1).to_string().into_bytes()));
        own.cloned().chain([raised]).collect()
    }
}

/// Every dead letter up to the topic's present end, by partition and offset. Blocks.
///
/// # Errors
/// [`LettersError`].
pub fn read(kafka: &ClientConfig, topic: &str) -> Result<Vec<Letter>, LettersError> {
    let mut config = kafka.clone();
    // No group is joined and no offset stored: the name is only what librdkafka asks for.
    config.set("group.id", "milestream-operator").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let (mut list, mut left) = (TopicPartitionList::new(), BTreeMap::new());
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (low, high) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE)?;
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        if high > low {
            left.insert(partition.id(), high);
        }
    }
    consumer.assign(&list)?;
    let (mut letters, until) = (Vec::new(), Instant::now() + PATIENCE);
    while !left.is_empty() {
        if Instant::now() > until {
            return Err(LettersError::Slow(topic.to_owned()));
        }
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let letter = own(&message?);
        if left.get(&letter.partition).is_some_and(|end| letter.offset + 1 >= *end) {
            left.remove(&letter.partition);
        }
        letters.push(letter);
    }
    letters.sort_by_key(|letter| (letter.partition, letter.offset));
    Ok(letters)
}

fn own(message: &BorrowedMessage<'_>) -> Letter {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Letter {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

/// Appends the originals of these letters (partition, offset) to their topics; returns the topic of each. All letters are
/// looked up before the first is sent.
///
/// # Errors
/// [`LettersError`]; after a `Publish` the letters before it are redriven, and redriving them again changes nothing.
pub async fn redrive(
    kafka: &ClientConfig,
    letters: &[Letter],
    wanted: &[(i32, i64)],
) -> Result<Vec<String>, LettersError> {
    let chosen = wanted
        .iter()
        .map(|&(partition, offset)| {
            let found =
                letters.iter().find(|letter| (letter.partition, letter.offset) == (partition, offset));
            let letter = found.ok_or(LettersError::Unknown { partition, offset })?;
            let name = header::TOPIC;
            let topic = letter.header(name).ok_or(LettersError::Headless { partition, offset, name })?;
            Ok((letter, topic))
        })
        .collect::<Result<Vec<_>, LettersError>>()?;
    let producer = KafkaProducer::new(kafka, Patience::Within(PATIENCE))?;
    let mut topics = Vec::with_capacity(chosen.len());
    for (letter, topic) in chosen {
        let headers = letter.redriven_headers();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let (key, payload) = (letter.key.as_deref(), letter.payload.as_deref());
        send_and_wait(&producer, &Message { topic, key, payload, headers: &headers }).await?;
        topics.push(topic.to_owned());
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redriven_record_has_its_own_headers_and_a_raised_count_and_none_of_the_engines() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let letter = Letter {
            partition: 0,
            offset: 7,
            key: None,
            payload: None,
            headers: vec![
                ("traceparent".into(), text("00-a")),
                ("redrive".into(), text("1")),
                ("own".into(), None),
                ("dlq.reason".into(), text("bad_row")),
            ],
        };
        let expected = vec![
            ("traceparent".to_owned(), text("00-a")),
            ("own".into(), None),
            ("redrive".into(), text("2")),
        ];
        assert_eq!(letter.redriven_headers(), expected);
        assert_eq!(letter.header("dlq.reason"), Some("bad_row"));
    }
}
