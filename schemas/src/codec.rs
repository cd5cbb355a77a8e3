//! Confluent framing and Avro without the `Value` detour: byte 0, the schema id as big-endian `u32`, the datum.
//!
//! A record is read straight into the Rust type by a plan that is made once per (writer's schema, our schema): each release
//! reads what the next one may write under the registry's rule `FULL_TRANSITIVE`.

mod de;
mod defaults;
mod input;
mod output;
mod physical;
mod plan;
mod ser;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use apache_avro::Schema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::plan::Plan;
use crate::ids::{EventId, Micros};
use crate::reason::Reason;
use crate::topic::Topic;

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

/// A record's Avro schema in one version: of this release, or of the one that wrote a record. Holds the plan by which this
/// release reads it.
#[derive(Debug)]
pub struct RecordSchema {
    avro: Schema,
    name: String,
    /// Made at the first record. Records of one name are always read as one event type, so there is one plan.
    plan: OnceLock<Result<Plan, String>>,
}

impl RecordSchema {
    /// A schema by its JSON text.
    ///
    /// # Errors
    /// Avro's own words where the text is not a schema.
    pub fn parse(text: &str) -> Result<Self, String> {
        let avro = Schema::parse_str(text).map_err(|error| error.to_string())?;
        let name = avro.name().map_or_else(|| "(unnamed)".to_owned(), |name| name.fullname(None));
        Ok(Self { avro, name, plan: OnceLock::new() })
    }

    /// The full name of a record schema; `(unnamed)` for any other.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The schema.
    #[must_use]
    pub fn avro(&self) -> &Schema {
        &self.avro
    }
}

/// The schema that this release writes for an event type, with the plan by which it is written: both made once, for the life of
/// the process.
pub struct EventSchema {
    text: String,
    record: RecordSchema,
    plan: Plan,
}

impl EventSchema {
    /// A built-in schema.
    ///
    /// # Errors
    /// Avro's own words where the text is not a schema.
    pub fn built_in(text: String) -> Result<Self, String> {
        let record = RecordSchema::parse(&text)?;
        let plan = Plan::new(&record.avro, &record.avro)?;
        Ok(Self { text, record, plan })
    }

    /// The text, as registered.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The schema, as records are read with.
    #[must_use]
    pub fn record(&self) -> &RecordSchema {
        &self.record
    }
}

/// A record type of a topic.
pub trait Event: Serialize + DeserializeOwned + Clone + Send + Sync + std::fmt::Debug + 'static {
    /// The Avro record's full name; the registry subject is `<topic>-<full name>`.
    const NAME: &'static str;
    /// The topic that it stands on.
    const TOPIC: Topic;
    /// The schema that this release writes, with its writer.
    fn event_schema() -> &'static EventSchema;
    /// The schema that this release writes.
    #[must_use]
    fn schema() -> &'static RecordSchema {
        Self::event_schema().record()
    }
    /// The schema's text, as registered.
    #[must_use]
    fn schema_text() -> &'static str {
        Self::event_schema().text()
    }
    /// The event's id: the same for every redelivery.
    fn event_id(&self) -> EventId;
    /// The record key.
    fn key(&self) -> String;
    /// When the producer made it.
    fn occurred_at(&self) -> Micros;
}

/// The framed event as bytes.
///
/// # Errors
/// [`CodecError::Encode`] when the event does not fit the schema.
pub fn encode<E: Event>(schema_id: u32, event: &E) -> Result<Vec<u8>, CodecError> {
    // Most events with a header and a stamp take 600 to 1,000 bytes.
    let mut buffer = Vec::with_capacity(1_024);
    encode_into(schema_id, event, &mut buffer)?;
    Ok(buffer)
}

/// The framed event, behind what stands in `buffer`: one that is used again costs no allocation.
///
/// # Errors
/// As [`encode`]; what was written until then stays in the buffer.
pub fn encode_into<E: Event>(schema_id: u32, event: &E, buffer: &mut Vec<u8>) -> Result<(), CodecError> {
    buffer.push(0);
    buffer.extend_from_slice(&schema_id.to_be_bytes());
    let written = ser::write(&E::event_schema().plan, event, buffer);
    written.map_err(|error| CodecError::Encode(error.to_string()))
}

/// Decodes a datum of any version of the event's schema; every byte must be used up. What a later release added is passed
/// over, what an earlier one did not write takes its default, and an unknown symbol of an enum becomes the enum's default.
///
/// # Errors
/// [`CodecError::Datum`].
pub fn decode<E: Event>(writer: &RecordSchema, schema_id: u32, datum: &[u8]) -> Result<E, CodecError> {
    let fail = |detail: String| CodecError::Datum { schema_id, detail };
    if writer.name != E::NAME {
        return Err(fail(format!("{} is not {}", writer.name, E::NAME)));
    }
    let plan = writer.plan.get_or_init(|| Plan::new(&writer.avro, E::schema().avro()));
    let plan = plan.as_ref().map_err(|why| fail(why.clone()))?;
    de::read(plan, datum).map_err(|error| fail(error.to_string()))
}

/// Schemas that [`SchemaCache`] holds: a handful of versions of each record type, far below this.
const CACHED: usize = 1_024;

/// Schemas by id, as far as they are known: ids never change their meaning, so entries are kept for good. Reading takes no
/// lock. One beyond `CACHED` is not kept.
#[derive(Debug)]
pub struct SchemaCache(Box<[Place]>);

/// An id with its schema, once there is one.
type Place = OnceLock<(u32, Arc<RecordSchema>)>;

impl Default for SchemaCache {
    fn default() -> Self {
        Self((0..CACHED).map(|_| OnceLock::new()).collect())
    }
}

impl SchemaCache {
    /// The places that a schema may stand in, the likeliest first: ids are counted up, so most stand in their own.
    fn places(&self, id: u32) -> impl Iterator<Item = &Place> {
        let (before, from) = self.0.split_at(id as usize % self.0.len());
        from.iter().chain(before)
    }

    /// The schema, if known.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&Arc<RecordSchema>> {
        let filled = self.places(id).map_while(OnceLock::get);
        filled.filter(|(known, _)| *known == id).map(|(_, schema)| schema).next()
    }

    /// Remembers a schema.
    pub fn put(&self, id: u32, schema: &Arc<RecordSchema>) {
        // None is free: the next look-up asks the registry again.
        let _ = self.places(id).find(|place| place.get_or_init(|| (id, schema.clone())).0 == id);
    }
}
