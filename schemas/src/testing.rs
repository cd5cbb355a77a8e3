//! What the next release may write: today's schemas with a field or a symbol more, as `FULL_TRANSITIVE` allows, and records of
//! them. For tests.

use std::collections::{BTreeMap, HashMap};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{NamesRef, RecordField, ResolvedSchema};
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use serde_json::{Value as Json, json};

use crate::codec::Event;
use crate::uploads::UploadReceived;

/// A symbol that today's enums do not have.
const NEXT_SYMBOL: &str = "from_the_next_release";

/// A version of a record's schema, with a record of it.
#[derive(Debug)]
pub struct Version {
    /// What differs from today's.
    pub change: String,
    /// The schema.
    pub schema: String,
    /// A record of it, as a datum.
    pub datum: Vec<u8>,
    /// The record that today's release would write in its place, as a datum of today's schema.
    pub today: Vec<u8>,
}

/// Every type of Avro that a field may have, with a default; `name` makes the names of named types.
#[must_use]
pub fn added_types(name: &str) -> Vec<(&'static str, Json, Json)> {
    let symbols = |suffix: &str| json!({"type": "enum", "name": format!("{name}{suffix}"), "symbols": ["a", "b"], "default": "a"});
    let record = |suffix: &str, inner: Json, default: Json| {
        let fields = json!([{"name": "inner", "type": inner, "default": default}, {"name": "count", "type": "long", "default": 0}]);
        json!({"type": "record", "name": format!("{name}{suffix}"), "fields": fields})
    };
    let plain = |suffix: &str| record(suffix, json!("string"), json!(""));
    let tree = format!("{name}Tree");
    let branches = json!({"type": "array", "items": tree});
    vec![
        ("null", json!("null"), Json::Null),
        ("boolean", json!("boolean"), json!(false)),
        ("int", json!("int"), json!(-1)),
        ("long", json!("long"), json!(1)),
        ("float", json!("float"), json!(0.5)),
        ("double", json!("double"), json!(0.25)),
        ("bytes", json!("bytes"), json!("")),
        ("string", json!("string"), json!("text")),
        ("enum", symbols("Enum"), json!("b")),
        ("fixed", json!({"type": "fixed", "name": format!("{name}Fixed"), "size": 3}), json!("abc")),
        ("array of string", json!({"type": "array", "items": "string"}), json!([])),
        ("array of enum", json!({"type": "array", "items": symbols("Items")}), json!([])),
        ("array of record", json!({"type": "array", "items": plain("Rows")}), json!([])),
        ("map of long", json!({"type": "map", "values": "long"}), json!({})),
        ("map of record", json!({"type": "map", "values": plain("Values")}), json!({})),
        ("record", plain("Record"), json!({})),
        ("record with enum", record("Outer", symbols("Inner"), json!("a")), json!({})),
        ("record in itself", record("Tree", branches, json!([])), json!({})),
        ("null or string", json!(["null", "string"]), Json::Null),
        ("null or enum", json!(["null", symbols("Maybe")]), Json::Null),
        ("null or record", json!(["null", plain("Perhaps")]), Json::Null),
        ("null, long or string", json!(["null", "long", "string"]), Json::Null),
        ("instant", json!({"type": "long", "logicalType": "timestamp-micros"}), json!(0)),
        (
            "decimal",
            json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
            json!("\u{0}"),
        ),
    ]
}

/// Versions that the next release may write, and those that an earlier one may have written.
#[derive(Debug, Default)]
pub struct Versions {
    /// One for each type as a field of the record itself, one with all of them in every record inside it, and one for each
    /// enum that has a default.
    pub next: Vec<Version>,
    /// One without each field that has a default.
    pub earlier: Vec<Version>,
    /// Enums without a default: the registry refuses a new symbol of theirs.
    pub closed: Vec<(String, String)>,
}

/// The versions of an event's schema.
///
/// # Panics
/// Where a schema is not one: it is for tests.
#[must_use]
pub fn versions<E: Event>() -> Versions {
    let today: Json = serde_json::from_str(E::schema_text()).unwrap_or_default();
    let mut versions = Versions::default();
    for (at, (label, kind, default)) in added_types("Added").into_iter().enumerate() {
        let mut schema = today.clone();
        add(&mut schema, &format!("added{at}"), &kind, &default);
        versions.next.push(version::<E>(format!("a field of type {label}"), &schema));
    }
    let mut schema = today.clone();
    let records = add_everywhere(&mut schema);
    versions.next.push(version::<E>(format!("fields of all types in {records} records"), &schema));
    let mut enums = Vec::new();
    each(&mut today.clone(), &mut |declared| {
        if declared["type"] == "enum" {
            enums.push((text(&declared["name"]), declared["default"].is_null()));
        }
    });
    for (name, closed) in enums {
        let mut schema = today.clone();
        each(&mut schema, &mut |declared| {
            if declared["type"] == "enum" && declared["name"] == name.as_str() {
                add_symbol(declared);
            }
        });
        if closed {
            versions.closed.push((name, schema.to_string()));
        } else {
            versions.next.push(version::<E>(format!("a symbol of {name}"), &schema));
        }
    }
    versions.earlier = earlier::<E>(&today);
    versions
}

fn earlier<E: Event>(today: &Json) -> Vec<Version> {
    let mut fields = Vec::new();
    each(&mut today.clone(), &mut |declared| {
        let optional = declared["fields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|field| field.get("default").is_some());
        fields.extend(optional.map(|field| (text(&declared["name"]), text(&field["name"]))));
    });
    let mut versions = Vec::new();
    for (record, name) in fields {
        let mut schema = today.clone();
        each(&mut schema, &mut |declared| {
            if declared["name"] == record.as_str() && declared["type"] == "record" {
                declared["fields"]
                    .as_array_mut()
                    .into_iter()
                    .for_each(|fields| fields.retain(|f| f["name"] != name.as_str()));
            }
        });
        // A field that declares a type which others name cannot have been added alone.
        if Schema::parse(&schema).is_ok() {
            versions.push(version::<E>(format!("without {record}.{name}"), &schema));
        }
    }
    versions
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn add(record: &mut Json, name: &str, kind: &Json, default: &Json) {
    let fields = record["fields"].as_array_mut();
    // Not at the end: a reader that stops at what it knows would not be seen there.
    fields
        .into_iter()
        .for_each(|fields| fields.insert(1, json!({"name": name, "type": kind, "default": default})));
}

/// Adds fields of all types to every record; returns how many records there are.
fn add_everywhere(schema: &mut Json) -> usize {
    let mut records = 0;
    each(schema, &mut |declared| {
        if declared["type"] == "record" {
            records += 1;
            for (at, (_, kind, default)) in added_types(&format!("Nested{records}")).into_iter().enumerate() {
                add(declared, &format!("nested{at}"), &kind, &default);
            }
        }
    });
    records
}

fn add_symbol(declared: &mut Json) {
    let symbols = declared["symbols"].as_array_mut();
    symbols.into_iter().for_each(|symbols| symbols.push(json!(NEXT_SYMBOL)));
}

/// Visits every declaration of a record or enum, the innermost first.
fn each(schema: &mut Json, visit: &mut dyn FnMut(&mut Json)) {
    match schema {
        Json::Array(branches) => branches.iter_mut().for_each(|branch| each(branch, visit)),
        Json::Object(object) => {
            for key in ["type", "items", "values"] {
                object.get_mut(key).into_iter().for_each(|inner| each(inner, visit));
            }
            let fields = object.get_mut("fields").and_then(Json::as_array_mut);
            fields.into_iter().flatten().for_each(|field| each(field, visit));
            if object.contains_key("fields") || object.contains_key("symbols") {
                visit(schema);
            }
        }
        _ => {}
    }
}

#[allow(clippy::expect_used, reason = "for tests")]
fn version<E: Event>(change: String, schema: &Json) -> Version {
    let parsed = Schema::parse(schema).expect("a version's schema parses");
    Version { change, schema: schema.to_string(), datum: datum(&parsed), today: datum(E::schema().avro()) }
}

/// A record as the next release writes it: fields of every type in every record, and a symbol that today's release does not
/// know wherever a default stood. Today's release reads the same event in it.
///
/// # Panics
/// Where the datum is not one of today's: it is for tests.
#[must_use]
#[allow(clippy::expect_used, reason = "for tests")]
pub fn as_next_release<E: Event>(datum: &[u8]) -> (String, Vec<u8>) {
    let mut next = serde_json::from_str(E::schema_text()).expect("a schema");
    add_everywhere(&mut next);
    each(&mut next, &mut |declared| {
        // Of the added enums too.
        if declared["type"] == "enum" && !declared["default"].is_null() {
            add_symbol(declared);
        }
    });
    let schema = Schema::parse(&next).expect("the next release's schema parses");
    let today = GenericDatumReader::builder(E::schema().avro()).build().expect("a reader");
    let value = today.read_value(&mut &*datum).expect("today's datum");
    let names = ResolvedSchema::new(&schema).expect("names resolve");
    let writer = GenericDatumWriter::builder(&schema).build().expect("a writer");
    let datum = writer.write_value_to_vec(written_by_next(names.get_names(), value, &schema));
    (next.to_string(), datum.expect("the next release's value fits"))
}

fn written_by_next(names: &NamesRef<'_>, value: Value, schema: &Schema) -> Value {
    match (value, schema) {
        (value, Schema::Ref { name }) => written_by_next(names, value, names[name]),
        (Value::Record(fields), Schema::Record(record)) => {
            let mut fields: BTreeMap<String, Value> = fields.into_iter().collect();
            let next = |field: &RecordField| {
                let value = match fields.remove(&field.name) {
                    Some(value) => written_by_next(names, value, &field.schema),
                    None => sample(names, &field.schema, &field.name, 0),
                };
                (field.name.clone(), value)
            };
            Value::Record(record.fields.iter().map(next).collect())
        }
        (Value::Array(items), Schema::Array(array)) => {
            Value::Array(items.into_iter().map(|item| written_by_next(names, item, &array.items)).collect())
        }
        (Value::Union(at, value), Schema::Union(union)) => {
            Value::Union(at, Box::new(written_by_next(names, *value, &union.variants()[at as usize])))
        }
        (Value::Enum(_, symbol), Schema::Enum(symbols)) if Some(&symbol) == symbols.default.as_ref() => {
            sample(names, schema, "", 0)
        }
        (value, _) => value,
    }
}

/// The event of an example: what fixtures are made of, so that a new field stands in no fixture that does not look at it.
///
/// # Panics
/// Where there is no such example of this type.
#[must_use]
#[allow(clippy::expect_used, reason = "for tests")]
pub fn example<E: Event>(name: &str) -> E {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(E::TOPIC.name());
    let example = std::fs::read_to_string(folder.join(format!("{name}.json"))).expect("an example");
    let mut example: Json = serde_json::from_str(&example).expect("JSON");
    assert_eq!(example["record"], E::NAME, "{name}");
    serde_json::from_value(example["event"].take()).expect("an event")
}

/// The plainest example of what the gateway publishes: a header and a stamp for fixtures.
#[must_use]
pub fn received_example() -> UploadReceived {
    example("normal-bare")
}

/// A record of a schema, as a datum: every optional field set, one item in every array and map.
///
/// # Panics
/// Where the schema is none: it is for tests.
#[must_use]
#[allow(clippy::expect_used, reason = "for tests")]
pub fn datum(schema: &Schema) -> Vec<u8> {
    let names = ResolvedSchema::new(schema).expect("names resolve");
    let value = sample(names.get_names(), schema, "", 0);
    let writer = GenericDatumWriter::builder(schema).build().expect("a writer");
    writer.write_value_to_vec(value).expect("the sample fits")
}

/// A value of a schema. Our types want UUIDs and decimals in some of their strings.
fn sample(names: &NamesRef<'_>, schema: &Schema, field: &str, depth: u8) -> Value {
    let uuid = field.ends_with("_id") || field.starts_with("beneficiary_");
    match schema {
        Schema::Null => Value::Null,
        Schema::Boolean => Value::Boolean(true),
        Schema::Int => Value::Int(-300),
        Schema::Long => Value::Long(1 << 40),
        Schema::TimestampMicros => Value::TimestampMicros(1_700_000_000_000_000),
        Schema::Float => Value::Float(1.5),
        Schema::Double => Value::Double(2.25),
        Schema::Bytes => Value::Bytes(vec![0, 255]),
        Schema::Decimal(_) => Value::Decimal(vec![1, 2].into()),
        Schema::String if uuid => Value::String("0190b1e4-5a3c-7def-8123-456789abcdef".into()),
        Schema::String => Value::String("7".into()),
        Schema::Fixed(fixed) => Value::Fixed(fixed.size, vec![1; fixed.size]),
        Schema::Enum(symbols) => {
            let next = symbols.symbols.iter().position(|symbol| symbol == NEXT_SYMBOL);
            let default = symbols.symbols.iter().position(|symbol| Some(symbol) == symbols.default.as_ref());
            let at = next.or(default).unwrap_or(0);
            Value::Enum(u32::try_from(at).unwrap_or(0), symbols.symbols[at].clone())
        }
        Schema::Array(_) | Schema::Map(_) if depth > 3 => match schema {
            Schema::Array(_) => Value::Array(Vec::new()),
            _ => Value::Map(HashMap::new()),
        },
        Schema::Array(array) => Value::Array(vec![sample(names, &array.items, field, depth + 1)]),
        Schema::Map(map) => Value::Map([("key".into(), sample(names, &map.types, field, depth + 1))].into()),
        Schema::Union(union) => {
            let at = union.variants().len() - 1;
            Value::Union(
                u32::try_from(at).unwrap_or(0),
                Box::new(sample(names, &union.variants()[at], field, depth)),
            )
        }
        Schema::Record(record) => {
            let value =
                |field: &RecordField| (field.name.clone(), sample(names, &field.schema, &field.name, depth));
            Value::Record(record.fields.iter().map(value).collect())
        }
        Schema::Ref { name } => sample(names, names[name], field, depth),
        other => unreachable!("no schema here has a {other:?}"),
    }
}
