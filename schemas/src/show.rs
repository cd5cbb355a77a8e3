//! A record of any type as JSON, by its writer's schema alone: for operators, who also look at types that this release does
//! not know. A field that the schema marks as sealed (`"doc": "sealed"`) stays so.

use std::fmt::Display;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{NamesRef, ResolvedSchema};
use apache_avro::types::Value;
use serde_json::{Map, Value as Json, json};

use crate::codec::CodecError;

/// Mark of a field whose value is encrypted with its user's key.
const SEALED: &str = "sealed";

/// The datum as JSON. Bytes are shown by their number, sealed fields as `[sealed]`, instants as the integers that they are.
///
/// # Errors
/// [`CodecError::Datum`].
pub fn json_of(schema: &Schema, schema_id: u32, datum: &[u8]) -> Result<Json, CodecError> {
    let fail = |detail: &dyn Display| CodecError::Datum { schema_id, detail: detail.to_string() };
    let names = ResolvedSchema::new(schema).map_err(|error| fail(&error))?;
    let reader = GenericDatumReader::builder(schema).build().map_err(|error| fail(&error))?;
    let value = reader.read_value(&mut &*datum).map_err(|error| fail(&error))?;
    Ok(shown(&value, schema, names.get_names()))
}

fn shown(value: &Value, schema: &Schema, names: &NamesRef<'_>) -> Json {
    match (value, schema) {
        (_, Schema::Ref { name }) => match names.get(name) {
            Some(schema) => shown(value, schema, names),
            None => Json::Null,
        },
        (Value::Record(values), Schema::Record(record)) => {
            let fields = values.iter().zip(&record.fields).map(|((name, value), field)| {
                let is_sealed = field.doc.as_deref() == Some(SEALED);
                let json = shown(value, &field.schema, names);
                (name.clone(), if is_sealed && !json.is_null() { json!("[sealed]") } else { json })
            });
            Json::Object(fields.collect::<Map<_, _>>())
        }
        (Value::Union(index, value), Schema::Union(union)) => match union.variants().get(*index as usize) {
            Some(schema) => shown(value, schema, names),
            None => Json::Null,
        },
        (Value::Array(items), Schema::Array(array)) => {
            items.iter().map(|item| shown(item, &array.items, names)).collect()
        }
        (Value::Map(items), Schema::Map(map)) => {
            let items = items.iter().map(|(key, item)| (key.clone(), shown(item, &map.types, names)));
            Json::Object(items.collect::<Map<_, _>>())
        }
        (Value::Bytes(bytes) | Value::Fixed(_, bytes), _) => json!(format!("[{} bytes]", bytes.len())),
        (other, _) => Json::try_from(other.clone()).unwrap_or_else(|_| json!("[not shown]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_no_release_knows_is_shown_and_what_is_sealed_stays_sealed() {
        let schema = Schema::parse_str(
            r#"{"type": "record", "name": "New", "fields": [
                {"name": "amount", "type": "string"},
                {"name": "file", "type": ["null", "string"], "doc": "sealed"},
                {"name": "note", "type": ["null", "string"], "doc": "sealed"},
                {"name": "hash", "type": "bytes"},
                {"name": "parts", "type": {"type": "array", "items": {"type": "record", "name": "Share", "fields": [
                    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                    {"name": "secret", "type": "string", "doc": "sealed"}]}}},
                {"name": "last", "type": "Share"}]}"#,
        )
        .unwrap();
        // "1.5"; union branch 1, "x.jpg"; union branch 0; three bytes; an array of one; a record.
        let mut datum = vec![6, b'1', b'.', b'5', 2, 10];
        datum.extend(b"x.jpg");
        datum.extend([0, 6, 1, 2, 3, 2, 2, 2, b'a', 0, 4, 2, b'b']);
        let wanted = json!({
            "amount": "1.5", "file": "[sealed]", "note": null, "hash": "[3 bytes]",
            "parts": [{"at": 1, "secret": "[sealed]"}], "last": {"at": 2, "secret": "[sealed]"},
        });
        assert_eq!(json_of(&schema, 7, &datum).unwrap(), wanted);
    }
}
