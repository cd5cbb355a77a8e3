//! From a log event to its BSON document: the kinds of the collection's fields decide the types, nothing is guessed.

use std::str::FromStr as _;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Decimal128, Document, doc};
use schemas::events::ActivityLogged;
use schemas::logs::{self, Collection, Kind};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Most bytes of an object (as JSON) and of the fields of a document together; more becomes its size and hash.
const OBJECT_BYTES: usize = 16 * 1024;
/// Most bytes of a text; more is cut.
const TEXT_BYTES: usize = 2 * 1024;
/// What stands at the end of a text that was cut.
const CUT: &str = "…";
/// Fields that any document may carry beside its collection's own.
const EXTRAS: [&str; 2] = ["user_id", "upload_id"];

/// Why an event is no document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadDocument {
    #[error("collection {0} is not known")]
    Collection(String),
    #[error("{collection}: the document is not a JSON object")]
    NotAnObject { collection: &'static str },
    #[error("{collection}.{field} is not a field of the collection")]
    Field { collection: &'static str, field: String },
    #[error("{collection}.{field} should be of kind {kind:?}")]
    Kind { collection: &'static str, field: String, kind: Kind },
}

/// The collection and the document. `_id` is derived from the event, so a repeated event makes a repeated id.
pub(super) fn document(event: &ActivityLogged) -> Result<(&'static Collection, Document), BadDocument> {
    let collection = logs::collection(&event.collection)
        .ok_or_else(|| BadDocument::Collection(event.collection.chars().take(64).collect()))?;
    let not_an_object = BadDocument::NotAnObject { collection: collection.name };
    let Ok(Value::Object(mut fields)) = serde_json::from_str(&event.document) else {
        return Err(not_an_object);
    };
    fields.retain(|_, value| !value.is_null());
    bound(collection, &mut fields);
    let mut document = doc! {
        "_id": ObjectId::from_bytes(logs::document_id(event.event_id, collection.name, event.ordinal)),
        "timestamp": DateTime::from_millis(event.occurred_at.0.div_euclid(1000)),
        "event_id": event.event_id.to_string(),
    };
    for (field, value) in fields {
        let kind = kind_of(collection, &field)
            .ok_or_else(|| BadDocument::Field { collection: collection.name, field: short(&field) })?;
        let value = convert(kind, value).ok_or_else(|| BadDocument::Kind {
            collection: collection.name,
            field: short(&field),
            kind,
        })?;
        document.insert(field, value);
    }
    Ok((collection, document))
}

/// A field's name as far as it is shown: it comes from the event.
fn short(field: &str) -> String {
    field.chars().take(64).collect()
}

fn kind_of(collection: &Collection, field: &str) -> Option<Kind> {
    let own = collection.fields.iter().find(|(name, _)| *name == field).map(|(_, kind)| *kind);
    own.or_else(|| EXTRAS.contains(&field).then_some(Kind::Text))
}

/// Cuts what is too large: single objects and arrays first, then the largest until the document fits.
fn bound(collection: &Collection, fields: &mut Map<String, Value>) {
    let mut sizes: Vec<(usize, String)> = fields
        .iter()
        .filter(|(field, value)| {
            matches!(kind_of(collection, field), Some(Kind::Object | Kind::Array | Kind::History))
                && (value.is_object() || value.is_array())
        })
        .map(|(field, value)| (value.to_string().len(), field.clone()))
        .collect();
    sizes.sort_unstable();
    let mut whole = Value::Object(fields.clone()).to_string().len();
    while let Some((size, field)) = sizes.pop() {
        if size <= OBJECT_BYTES && whole <= OBJECT_BYTES {
            return;
        }
        if let Some(value) = fields.get_mut(&field) {
            let marker = truncated(&value.to_string());
            // What is left of an array is an array.
            *value = if value.is_array() { Value::Array(vec![marker]) } else { marker };
            whole = whole.saturating_sub(size) + value.to_string().len();
        }
    }
}

fn truncated(json: &str) -> Value {
    let sha256 = hex::encode(Sha256::digest(json));
    serde_json::json!({ "truncated": true, "bytes": json.len(), "sha256": sha256 })
}

fn convert(kind: Kind, value: Value) -> Option<Bson> {
    match (kind, value) {
        (Kind::Text, Value::String(text)) => Some(Bson::String(cut(text))),
        (Kind::Integer, Value::Number(number)) => number.as_i64().map(Bson::Int64),
        (Kind::Double, Value::Number(number)) => number.as_f64().map(Bson::Double),
        (Kind::Decimal, Value::String(text)) => Decimal128::from_str(&text).ok().map(Bson::Decimal128),
        (Kind::Boolean, Value::Bool(value)) => Some(Bson::Boolean(value)),
        (Kind::Object, value @ Value::Object(_)) | (Kind::Array, value @ Value::Array(_)) => {
            Some(plain(value))
        }
        (Kind::History, Value::Array(entries)) => Some(Bson::Array(entries.into_iter().map(dated).collect())),
        _ => None,
    }
}

/// An entry of a history: its `at` as an instant, where it is one.
fn dated(entry: Value) -> Bson {
    let mut entry = plain(entry);
    if let Bson::Document(fields) = &mut entry
        && let Some(at) = fields.get_str("at").ok().and_then(|at| DateTime::parse_rfc3339_str(at).ok())
    {
        fields.insert("at", at);
    }
    entry
}

/// JSON inside an object as it is: whole numbers as Int64, other numbers as doubles, decimals stay strings.
fn plain(value: Value) -> Bson {
    match value {
        Value::Null => Bson::Null,
        Value::Bool(value) => Bson::Boolean(value),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Bson::Int64(whole),
            None => number.as_f64().map_or(Bson::Null, Bson::Double),
        },
        Value::String(text) => Bson::String(text),
        Value::Array(values) => Bson::Array(values.into_iter().map(plain).collect()),
        Value::Object(fields) => {
            Bson::Document(fields.into_iter().map(|(field, value)| (field, plain(value))).collect())
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES {
        text.truncate(text.floor_char_boundary(TEXT_BYTES - CUT.len()));
        text.push_str(CUT);
    }
    text
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
