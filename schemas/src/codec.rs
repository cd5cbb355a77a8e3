//! Confluent framing and Avro without the `Value` detour: byte 0, the schema id as big-endian `u32`, the datum.
//!
//! A record is read with its *writer's* schema straight into the Rust type; fields added later have serde defaults.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::events::Event;
use crate::reason::Reason;

/// Magic byte and schema id in front of the datum.
pub const HEADER_BYTES: usize = 5;

/// Why bytes could not become an event, or an event bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Shorter than the framing, or another magic byte.
    #[error("not Confluent framing: {0}")]
    Framing(String),
    /// The datum does not fit its schema, or bytes are left over.
    #[error("datum of schema {schema_id} does not decode: {detail}")]
    Datum {
        /// The schema id in the framing.
        schema_id: u32,
        /// Avro's own words.
        detail: String,
    },
    /// The event does not fit the schema that this release writes: a bug of ours.
    #[error("event does not encode: {0}")]
    Encode(String),
}

impl CodecError {
    /// The reason for a dead letter.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Framing(_) => Reason::BadFraming,
            Self::Datum { .. } | Self::Encode(_) => Reason::BadDatum,
        }
    }
}

/// Splits a record into its schema id and datum.
///
/// # Errors
/// [`CodecError::Framing`].
pub fn unframe(bytes: &[u8]) -> Result<(u32, &[u8]), CodecError> {
    match bytes {
        [0, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [magic, ..] if *magic != 0 => Err(CodecError::Framing(format!("magic byte {magic}, expected 0"))),
        _ => Err(CodecError::Framing(format!("{} bytes, expected at least {HEADER_BYTES}", bytes.len()))),
    }
}

/// Appends the framed event to `buffer`.
///
/// # Errors
/// [`CodecError::Encode`] when the event does not fit the schema.
pub fn encode_with<T: Serialize>(
    schema: &Schema,
    schema_id: u32,
    event: &T,
    buffer: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let encode = |error: apache_avro::Error| CodecError::Encode(error.to_string());
    buffer.push(0);
    buffer.extend_from_slice(&schema_id.to_be_bytes());
    GenericDatumWriter::builder(schema)
        .human_readable(true)
        .build()
        .map_err(encode)?
        .write_ser(buffer, event)
        .map_err(encode)?;
    Ok(())
}

/// The framed event as bytes.
///
/// # Errors
/// [`CodecError::Encode`] when the event does not fit the schema.
pub fn encode<E: Event>(schema_id: u32, event: &E) -> Result<Vec<u8>, CodecError> {
    let mut buffer = Vec::with_capacity(512);
    encode_with(E::schema(), schema_id, event, &mut buffer)?;
    Ok(buffer)
}

/// Decodes a datum with its writer's schema; every byte must be used up.
///
/// # Errors
/// [`CodecError::Datum`].
pub fn decode<T: DeserializeOwned>(writer: &Schema, schema_id: u32, datum: &[u8]) -> Result<T, CodecError> {
    let fail = |detail: String| CodecError::Datum { schema_id, detail };
    let mut rest = datum;
    let reader = GenericDatumReader::builder(writer)
        .human_readable(true)
        .build()
        .map_err(|error| fail(error.to_string()))?;
    let event = reader.read_deser(&mut rest).map_err(|error| fail(error.to_string()))?;
    if !rest.is_empty() {
        return Err(fail(format!("{} bytes left over", rest.len())));
    }
    Ok(event)
}

/// The full name of a record schema; the type's name for any other.
#[must_use]
pub fn full_name(schema: &Schema) -> String {
    schema.name().map_or_else(|| "(unnamed)".to_owned(), |name| name.fullname(None))
}

/// Schemas by id, as far as they are known: ids never change their meaning, so entries are kept for good.
/// Bounded by the registry itself: a handful of versions of each record type.
#[derive(Debug, Default)]
pub struct SchemaCache(RwLock<HashMap<u32, Arc<Schema>>>);

impl SchemaCache {
    /// The schema, if known.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<Arc<Schema>> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).cloned()
    }

    /// Remembers a schema.
    pub fn put(&self, id: u32, schema: Arc<Schema>) {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(id, schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{ActivityLogged, registry_subjects};
    use crate::ids::{EventId, Micros};
    use uuid::Uuid;

    fn event() -> ActivityLogged {
        ActivityLogged {
            event_id: EventId(Uuid::from_u128(5)),
            collection: "error_logs".into(),
            ordinal: 0,
            occurred_at: Micros(1_700_000_000_000_000),
            document: "{}".into(),
        }
    }

    #[test]
    fn every_built_in_schema_parses_under_its_name() {
        for (_, name, text) in registry_subjects() {
            assert_eq!(full_name(&Schema::parse_str(text).unwrap()), name);
        }
    }

    #[test]
    fn an_event_survives_framing_and_back() {
        let bytes = encode(9, &event()).unwrap();
        let (id, datum) = unframe(&bytes).unwrap();
        assert_eq!(id, 9);
        assert_eq!(decode::<ActivityLogged>(ActivityLogged::schema(), id, datum).unwrap(), event());
    }

    #[test]
    fn a_wrong_magic_byte_a_short_record_and_left_over_bytes_are_told_apart() {
        assert!(
            matches!(unframe(&[1, 0, 0, 0, 9, 1]), Err(CodecError::Framing(text)) if text.contains("magic byte 1"))
        );
        assert!(matches!(unframe(&[0, 0]), Err(CodecError::Framing(text)) if text.contains("2 bytes")));
        let mut bytes = encode(9, &event()).unwrap();
        bytes.push(0);
        let left_over = decode::<ActivityLogged>(ActivityLogged::schema(), 9, &bytes[HEADER_BYTES..]);
        assert!(left_over.unwrap_err().to_string().contains("1 bytes left over"));
        let cut = decode::<ActivityLogged>(ActivityLogged::schema(), 9, &bytes[HEADER_BYTES..20]);
        assert!(matches!(cut, Err(CodecError::Datum { schema_id: 9, .. })));
    }
}
