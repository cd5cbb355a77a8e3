//! Records that several events carry: each stands once, in `avro/shared/`, and is put into the schemas that name it. The enum of
//! reasons is made of [`Reason::ALL`]. What is registered and written is as if it had stood in every file.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::reason::Reason;

macro_rules! shared {
    ($($name:literal),* $(,)?) => {
        fn text(name: &str) -> Option<&'static str> {
            match name {
                $(concat!("milestream.", $name) => Some(include_str!(concat!("../avro/shared/", $name, ".avsc"))),)*
                _ => None,
            }
        }
    };
}

shared![
    "UploadHeader",
    "Stamp",
    "ImageSize",
    "FrameQuality",
    "Fault",
    "Review",
    "Correction",
    "Adjustment",
    "BlockPlace"
];

/// An event that another one carries whole.
const UPLOAD_DECIDED: &str = include_str!("../avro/UploadDecided.avsc");

/// An event's schema with everything that it shares put in where it is first named; later on Avro knows it by its name.
///
/// # Errors
/// Where a text is not JSON.
pub(crate) fn composed(text: &str) -> Result<String, String> {
    let mut schema = parsed(text)?;
    put_in(&mut schema, &mut HashSet::new())?;
    Ok(schema.to_string())
}

fn parsed(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn named(name: &str) -> Result<Option<Value>, String> {
    if name == "milestream.Reason" {
        return Ok(Some(reasons()));
    }
    if name == "milestream.UploadDecided" {
        return parsed(UPLOAD_DECIDED).map(Some);
    }
    text(name).map(parsed).transpose()
}

fn put_in(schema: &mut Value, known: &mut HashSet<String>) -> Result<(), String> {
    match schema {
        Value::String(name) => {
            if !known.contains(name.as_str())
                && let Some(mut found) = named(name)?
            {
                known.insert(name.clone());
                put_in(&mut found, known)?;
                *schema = found;
            }
        }
        Value::Array(branches) => branches.iter_mut().try_for_each(|branch| put_in(branch, known))?,
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("type" | "items" | "values", inner) => put_in(inner, known)?,
                    ("fields", Value::Array(fields)) => {
                        fields.iter_mut().try_for_each(|field| put_in(field, known))?;
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn reasons() -> Value {
    json!({
        "type": "enum", "name": "Reason", "namespace": "milestream",
        "doc": "The closed set of reasons; a reader that does not know one sees processing_failed.",
        "symbols": Reason::ALL.iter().map(|reason| reason.label()).collect::<Vec<_>>(),
        "default": Reason::ProcessingFailed.label(),
    })
}
