//! A default in a schema (JSON) as the bytes that a writer would have written.

use apache_avro::Schema;
use apache_avro::schema::NamesRef;
use serde_json::Value;

use super::output::long;
use super::physical::{Physical, physical};

/// Appends the datum of a JSON default.
///
/// # Errors
/// A sentence that says why the value does not fit the schema.
pub(super) fn encode(
    names: &NamesRef<'_>,
    schema: &Schema,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match (physical(names, schema)?, value) {
        (Physical::Null, Value::Null) => {}
        (Physical::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
        (Physical::Int | Physical::Long, Value::Number(number)) => {
            long(number.as_i64().ok_or("not a whole number")?, out);
        }
        #[allow(clippy::cast_possible_truncation, reason = "the schema says that a float is enough")]
        (Physical::Float, Value::Number(number)) => {
            out.extend((number.as_f64().unwrap_or_default() as f32).to_le_bytes());
        }
        (Physical::Double, Value::Number(number)) => {
            out.extend(number.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Physical::String, Value::String(text)) => bytes(text.as_bytes(), out)?,
        // Bytes are written as a text whose code points are the bytes.
        (Physical::Bytes, Value::String(text)) => bytes(&code_points(text)?, out)?,
        (Physical::Fixed(fixed), Value::String(text)) => {
            let bytes = code_points(text)?;
            if bytes.len() != fixed.size {
                return Err(format!("{} bytes for a fixed of {}", bytes.len(), fixed.size));
            }
            out.extend(bytes);
        }
        (Physical::Enum(symbols), Value::String(symbol)) => {
            let index = symbols.symbols.iter().position(|known| known == symbol).ok_or("not a symbol")?;
            count(index, out)?;
        }
        (Physical::Array(items), Value::Array(values)) => {
            block(values.len(), out)?;
            values.iter().try_for_each(|value| encode(names, items, value, out))?;
            out.push(0);
        }
        (Physical::Map(items), Value::Object(values)) => {
            block(values.len(), out)?;
            for (key, value) in values {
                bytes(key.as_bytes(), out)?;
                encode(names, items, value, out)?;
            }
            out.push(0);
        }
        (Physical::Record(record), Value::Object(values)) => {
            for field in &record.fields {
                let value = values.get(&field.name).or(field.default.as_ref());
                encode(names, &field.schema, value.ok_or("a field is missing")?, out)?;
            }
        }
        (Physical::Union(branches), value) => return union(names, branches, value, out),
        _ => return Err(format!("{value} does not fit its type")),
    }
    Ok(())
}

/// The first branch that takes the value.
fn union(names: &NamesRef<'_>, branches: &[Schema], value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    for (index, branch) in branches.iter().enumerate() {
        count(index, out)?;
        if encode(names, branch, value, out).is_ok() {
            return Ok(());
        }
        out.truncate(start);
    }
    Err(format!("{value} fits no branch of the union"))
}

fn code_points(text: &str) -> Result<Vec<u8>, String> {
    text.chars().map(|c| u8::try_from(c).map_err(|_| format!("{c:?} is not a byte"))).collect()
}

/// The head of the only block of an array or map; an empty one has none. A zero ends them.
fn block(items: usize, out: &mut Vec<u8>) -> Result<(), String> {
    if items == 0 { Ok(()) } else { count(items, out) }
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    count(bytes.len(), out)?;
    out.extend(bytes);
    Ok(())
}

fn count(count: usize, out: &mut Vec<u8>) -> Result<(), String> {
    long(i64::try_from(count).map_err(|error| error.to_string())?, out);
    Ok(())
}
