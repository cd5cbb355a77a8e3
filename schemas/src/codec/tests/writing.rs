//! What is written: the bytes that `apache-avro`'s own writer makes, or an error.

use std::collections::BTreeMap;

use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;

use super::super::*;
use crate::events::{EachEvent, each_event};
use crate::testing::versions;

fn theirs<T: Serialize>(schema: &Schema, value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    let writer = GenericDatumWriter::builder(schema).human_readable(true).build().unwrap();
    writer.write_ser(&mut bytes, value).unwrap();
    bytes
}

fn ours<T: Serialize>(schema: &Schema, value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let plan = Plan::new(schema, schema).unwrap();
    ser::write(&plan, value, &mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

struct Same(usize);

impl EachEvent for Same {
    fn event<E: Event>(&mut self) {
        let versions = versions::<E>();
        for version in versions.next.iter().chain(&versions.earlier) {
            let event: E = decode(E::schema(), 1, &version.today).unwrap();
            assert_eq!(encode(1, &event).unwrap()[HEADER_BYTES..], theirs(E::schema().avro(), &event));
            self.0 += 1;
        }
    }
}

#[test]
fn every_event_is_written_byte_for_byte_as_apache_avro_writes_it() {
    let mut same = Same(0);
    each_event(&mut same);
    assert!(same.0 > 100, "{} events", same.0);
}

#[derive(Serialize)]
enum Colour {
    Red,
    #[serde(rename = "green")]
    Green,
}

#[derive(Serialize)]
struct All {
    yes: bool,
    int: i32,
    long: i64,
    float: f32,
    double: f64,
    text: String,
    letter: char,
    colour: Colour,
    shade: Option<Colour>,
    nothing: Option<i64>,
    something: Option<String>,
    list: Vec<Option<i32>>,
    none: Vec<String>,
    map: BTreeMap<String, i64>,
}

const ALL: &str = r#"{"type": "record", "name": "All", "fields": [
    {"name": "yes", "type": "boolean"}, {"name": "int", "type": "int"}, {"name": "long", "type": "long"},
    {"name": "float", "type": "float"}, {"name": "double", "type": "double"}, {"name": "text", "type": "string"},
    {"name": "letter", "type": "string"},
    {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["green", "blue", "Red"]}},
    {"name": "shade", "type": ["null", "Colour"]}, {"name": "nothing", "type": ["null", "long"]},
    {"name": "something", "type": ["string", "null"]}, {"name": "list", "type": {"type": "array", "items": ["null", "int"]}},
    {"name": "none", "type": {"type": "array", "items": "string"}}, {"name": "map", "type": {"type": "map", "values": "long"}}]}"#;

fn all() -> All {
    All {
        yes: true,
        int: i32::MIN,
        long: i64::MAX,
        float: -0.5,
        double: 2.25,
        text: "grüße".into(),
        letter: 'ß',
        colour: Colour::Red,
        shade: Some(Colour::Green),
        nothing: None,
        something: Some(String::new()),
        list: vec![Some(-1), None, Some(64)],
        none: Vec::new(),
        map: [("one".to_owned(), 1)].into(),
    }
}

#[test]
fn a_value_of_every_type_is_written_as_apache_avro_writes_it() {
    let schema = Schema::parse_str(ALL).unwrap();
    assert_eq!(ours(&schema, &all()).unwrap(), theirs(&schema, &all()));
}

#[test]
fn items_whose_number_is_not_told_are_blocks_of_one_that_are_read_again() {
    struct Untold;
    impl Serialize for Untold {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((1..4).filter(|n| *n != 2))
        }
    }
    let schema = Schema::parse_str(r#"{"type": "array", "items": "long"}"#).unwrap();
    let bytes = ours(&schema, &Untold).unwrap();
    assert_eq!(bytes, [2, 2, 2, 6, 0]);
    let read: Vec<i64> = de::read(&Plan::new(&schema, &schema).unwrap(), &bytes).unwrap();
    assert_eq!(read, [1, 3]);
}

#[test]
fn what_does_not_fit_the_schema_is_an_error_that_names_it() {
    let error = |schema: &str, value: &dyn Fn(&Schema) -> Result<Vec<u8>, String>| {
        value(&Schema::parse_str(schema).unwrap()).unwrap_err()
    };
    let swapped = ALL.replacen("\"yes\"", "\"no\"", 1);
    assert_eq!(error(&swapped, &|schema| ours(schema, &all())), "field yes where the schema has no");
    let without = ALL.replacen(r#", {"name": "map", "type": {"type": "map", "values": "long"}}"#, "", 1);
    assert_eq!(error(&without, &|schema| ours(schema, &all())), "field map is not in the schema");
    let longer = r#", {"name": "more", "type": "int"}]}"#;
    let more = format!("{}{longer}", &ALL[..ALL.len() - 2]);
    assert_eq!(error(&more, &|schema| ours(schema, &all())), "field more is missing");
    let unknown = r#"{"type": "enum", "name": "Colour", "symbols": ["blue"]}"#;
    assert!(
        error(unknown, &|schema| ours(schema, &Colour::Red))
            .contains("a symbol or text where the schema has")
    );
    assert!(error(r#""int""#, &|schema| ours(schema, &i64::MAX)).contains("a whole number where"));
    assert_eq!(
        error(r#"["null", "int"]"#, &|schema| ours(schema, &"x")),
        "no branch of the union takes a symbol or text"
    );
}
