//! Outputs as they stand in `decisions.output`: published again byte for byte, whatever release runs by then.
//!
//! Format: fields with a big-endian `u32` length each, `u32::MAX` for null. A record is topic, key, payload, the number
//! of headers as decimal text, then name and value of each header; records follow one another to the end.

use crate::outbound::{Ack, Message, Outbound, send};
use crate::publish::PublishError;

/// A length that stands for null.
const NULL: u32 = u32::MAX;

/// A record read back.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredRecord {
    /// Topic.
    pub topic: String,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value.
    pub payload: Option<Vec<u8>>,
    /// Headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl StoredRecord {
    /// Its headers, borrowed.
    pub(crate) fn header_refs(&self) -> Vec<(&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect()
    }

    /// As it is sent, with its own [`StoredRecord::header_refs`].
    pub(crate) fn message<'a>(&'a self, headers: &'a [(&'a str, Option<&'a [u8]>)]) -> Message<'a> {
        let (key, payload) = (self.key.as_deref(), self.payload.as_deref());
        Message { topic: &self.topic, key, payload, headers }
    }

    pub(crate) async fn send(&self, outbound: &dyn Outbound, ack: Ack) -> Result<(), PublishError> {
        let headers = self.header_refs();
        send(outbound, &self.message(&headers), ack).await
    }
}

/// The bytes are not what [`pack`] writes.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("stored output is damaged at byte {at}")]
pub struct Damaged {
    at: usize,
}

/// Appends a record.
pub fn pack(out: &mut Vec<u8>, message: &Message<'_>) {
    field(out, Some(message.topic.as_bytes()));
    field(out, message.key);
    field(out, message.payload);
    field(out, Some(message.headers.len().to_string().as_bytes()));
    for (name, value) in message.headers {
        field(out, Some(name.as_bytes()));
        field(out, *value);
    }
}

fn field(out: &mut Vec<u8>, value: Option<&[u8]>) {
    // A Kafka record is at most 1 MiB by default: its fields fit.
    let length = value.map_or(NULL, |value| u32::try_from(value.len()).unwrap_or(NULL));
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.unwrap_or_default());
}

/// Reads all records.
///
/// # Errors
/// [`Damaged`].
pub fn unpack(bytes: &[u8]) -> Result<Vec<StoredRecord>, Damaged> {
    let mut reader = Reader { bytes, at: 0 };
    let mut records = Vec::new();
    while reader.at < bytes.len() {
        let topic = reader.text()?;
        let (key, payload) = (reader.field()?, reader.field()?);
        let count: usize = reader.text()?.parse().map_err(|_| Damaged { at: reader.at })?;
        let headers = (0..count).map(|_| Ok((reader.text()?, reader.field()?))).collect::<Result<_, _>>()?;
        records.push(StoredRecord { topic, key, payload, headers });
    }
    Ok(records)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn field(&mut self) -> Result<Option<Vec<u8>>, Damaged> {
        let damaged = Damaged { at: self.at };
        let head = self.bytes.get(self.at..self.at + 4).and_then(|head| head.try_into().ok());
        let length = u32::from_be_bytes(head.ok_or(Damaged { at: self.at })?);
        self.at += 4;
        if length == NULL {
            return Ok(None);
        }
        let end = self.at.checked_add(length as usize).filter(|end| *end <= self.bytes.len());
        let value = self.bytes[self.at..end.ok_or(damaged)?].to_vec();
        self.at += value.len();
        Ok(Some(value))
    }

    fn text(&mut self) -> Result<String, Damaged> {
        let at = self.at;
        String::from_utf8(self.field()?.ok_or(Damaged { at })?).map_err(|_| Damaged { at })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_packed_is_read_back_to_the_byte(
            records in proptest::collection::vec(
                ("[a-z.]{1,9}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
                 proptest::option::of(proptest::collection::vec(any::<u8>(), 0..99)),
                 proptest::collection::vec(("[a-z]{1,5}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..5))), 0..3)), 0..4)
        ) {
            let mut out = Vec::new();
            for (topic, key, payload, headers) in &records {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
                pack(&mut out, &Message { topic, key: key.as_deref(), payload: payload.as_deref(), headers: &headers });
            }
            let expected: Vec<_> = records.into_iter()
                .map(|(topic, key, payload, headers)| StoredRecord { topic, key, payload, headers }).collect();
            prop_assert_eq!(unpack(&out).unwrap(), expected);
        }

        #[test]
        fn cut_or_random_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = unpack(&bytes);
        }
    }
}
