//! What operators do with dead letters: look at them, and redrive them once the cause is gone.
//!
//! A redrive appends the original record, under its own key and headers, to the topic it came from, with the header
//! `redrive` raised by one. The count is part of a decision's key: redriving one letter twice decides once.

use std::time::Duration;

use rdkafka::config::ClientConfig;

use crate::dead_letter::header;
use crate::producer::{DeliveryTimeout, KafkaProducer, Message, send_and_wait};
use crate::publish::PublishError;
use crate::source::RawRecord;
use crate::stage::Position;
use crate::worker::REDRIVE;

/// In front of every header that the engine added.
const OURS: &str = "dlq.";
/// Longest wait for an acknowledgement.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Why dead letters could not be redriven.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// Kafka does not take a record.
    #[error(transparent)]
    Publish(#[from] PublishError),
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

/// The headers of a letter's original as it is appended again: its own, with the count raised.
#[must_use]
pub fn redriven_headers(letter: &RawRecord) -> Vec<(String, Option<Vec<u8>>)> {
    let own = letter.headers.iter().filter(|(name, _)| !name.starts_with(OURS) && name != REDRIVE);
    let raised = (REDRIVE.to_owned(), Some(redrives(letter).saturating_add(1).to_string().into_bytes()));
    own.cloned().chain([raised]).collect()
}

/// How often a letter's original was redriven before it became this letter.
#[must_use]
pub fn redrives(letter: &RawRecord) -> u32 {
    letter.header(REDRIVE).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Where the original of a stage's letter stands; none for another role's.
#[must_use]
pub(crate) fn place_of(letter: &RawRecord, stage: &str) -> Option<Position> {
    let topic = letter.header(header::TOPIC).filter(|_| letter.header(header::STAGE) == Some(stage))?;
    Some(Position {
        topic: topic.into(),
        partition: letter.header(header::PARTITION)?.parse().ok()?,
        offset: letter.header(header::OFFSET)?.parse().ok()?,
    })
}

/// Whether a letter holds only the first bytes of its original, so that there is nothing to redrive.
#[must_use]
pub fn is_cut(letter: &RawRecord) -> bool {
    letter.header(header::CUT_FROM).is_some()
}

/// Appends originals to their topics again.
pub struct Redriver(KafkaProducer);

impl Redriver {
    /// With a producer of its own.
    ///
    /// # Errors
    /// For settings that the producer refuses.
    pub fn new(kafka: &ClientConfig) -> Result<Self, LettersError> {
        Ok(Self(KafkaProducer::new(kafka, DeliveryTimeout::After(DELIVERY_TIMEOUT))?))
    }

    /// Appends a letter's original to its topic, whose name is returned, and waits for the acknowledgement. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`LettersError`].
    pub async fn redrive<'a>(&self, letter: &'a RawRecord) -> Result<&'a str, LettersError> {
        let (partition, offset, name) = (letter.position.partition, letter.position.offset, header::TOPIC);
        let topic = letter.header(name).ok_or(LettersError::Headless { partition, offset, name })?;
        let headers = redriven_headers(letter);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let (key, payload) = (letter.key.as_deref(), letter.payload.as_deref());
        send_and_wait(&self.0, &Message { topic, key, payload, headers: &headers }).await?;
        Ok(topic)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redriven_record_has_its_own_headers_and_a_raised_count_and_none_of_the_engines() {
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let mut letter = crate::testing::raw("dead-letters", 7, None, None);
        letter.headers = vec![
            ("traceparent".into(), text("00-a")),
            ("redrive".into(), text("1")),
            ("own".into(), None),
            ("dlq.reason".into(), text("bad_row")),
        ];
        let expected = vec![
            ("traceparent".to_owned(), text("00-a")),
            ("own".into(), None),
            ("redrive".into(), text("2")),
        ];
        assert_eq!(redriven_headers(&letter), expected);
        assert_eq!(letter.header("dlq.reason"), Some("bad_row"));
        assert_eq!((redrives(&letter), is_cut(&letter)), (1, false));
        letter.headers.push((header::CUT_FROM.into(), text("1000001")));
        assert!(is_cut(&letter));
    }
}
