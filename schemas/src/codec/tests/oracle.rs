//! Random pairs of a writer's and a reader's schema: our plan reads the same as `apache-avro`'s own resolution of values.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Value as Json, json};

use super::super::de;
use super::super::plan::Plan;

/// A type of the writer's; the number decides how the reader's differs from it.
#[derive(Clone, Debug)]
enum Type {
    Plain(&'static str),
    Fixed(u8),
    Enum(u8),
    Array(Box<Node>),
    Map(Box<Node>),
    Record(Vec<Node>),
    Optional(Box<Node>),
}

#[derive(Clone, Debug)]
struct Node {
    of: Type,
    change: u8,
}

fn node() -> impl Strategy<Value = Node> {
    let plain =
        prop::sample::select(vec!["null", "boolean", "int", "long", "float", "double", "bytes", "string"]);
    let leaf = prop_oneof![
        4 => plain.prop_map(Type::Plain),
        1 => (0u8..5).prop_map(Type::Fixed),
        1 => (1u8..5).prop_map(Type::Enum),
    ];
    let node = |of: BoxedStrategy<Type>| (of, any::<u8>()).prop_map(|(of, change)| Node { of, change });
    let leaf = node(leaf.boxed());
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let boxed = inner.clone().prop_map(Box::new);
        let types = prop_oneof![
            1 => boxed.clone().prop_map(Type::Array),
            1 => boxed.clone().prop_map(Type::Map),
            3 => prop::collection::vec(inner, 0..5).prop_map(Type::Record),
            1 => boxed
                .prop_filter("null or a union in a union", |inner| {
                    !matches!(inner.of, Type::Optional(_) | Type::Plain("null"))
                })
                .prop_map(Type::Optional),
        ];
        (types, any::<u8>()).prop_map(|(of, change)| Node { of, change })
    })
}

/// What a reader's record has that the writer's has not, with its default.
fn added(change: u8, name: &str) -> Json {
    let (kind, default) = match change % 10 {
        0 => (json!("int"), json!(-7)),
        1 => (json!("string"), json!("grüße")),
        // apache-avro takes the UTF-8 of a default of bytes, where the specification takes its code points: alike below 128.
        2 => (json!("bytes"), json!("\u{0}a")),
        3 => (json!("double"), json!(2.5)),
        4 => (json!({"type": "array", "items": "long"}), json!([1, -300])),
        5 => (json!({"type": "map", "values": "boolean"}), json!({"on": true})),
        6 => (json!({"type": "enum", "name": name, "symbols": ["a", "b"]}), json!("b")),
        7 => (json!({"type": "fixed", "name": name, "size": 2}), json!("ab")),
        8 => (json!(["null", "string"]), Json::Null),
        _ => {
            let fields = json!([{"name": "x", "type": "float"}, {"name": "y", "type": ["null", "int"], "default": null}]);
            (json!({"type": "record", "name": name, "fields": fields}), json!({"x": 0.5}))
        }
    };
    json!({"name": "added", "type": kind, "default": default})
}

impl Node {
    /// The schema; `path` names what needs a name, so that both sides give it the same.
    fn schema(&self, path: &str, reader: bool) -> Json {
        // 4 changes no plain type.
        let change = if reader { self.change } else { 4 };
        match &self.of {
            Type::Plain("int") if change % 5 == 0 => json!("long"),
            Type::Plain("int" | "long" | "float") if change % 5 == 1 => json!("double"),
            Type::Plain("int" | "long") if change % 5 == 2 => json!("float"),
            Type::Plain("string") if change % 5 == 0 => json!("bytes"),
            Type::Plain(name) => json!(name),
            Type::Fixed(size) => json!({"type": "fixed", "name": path, "size": size}),
            Type::Enum(symbols) => {
                let known = if reader { 1 + self.change % symbols } else { *symbols };
                let symbols: Vec<_> = (0..known).map(|n| format!("s{n}")).collect();
                json!({"type": "enum", "name": path, "symbols": symbols, "default": "s0"})
            }
            Type::Array(items) => {
                json!({"type": "array", "items": items.schema(&format!("{path}a"), reader)})
            }
            Type::Map(values) => json!({"type": "map", "values": values.schema(&format!("{path}m"), reader)}),
            Type::Optional(inner) => json!(["null", inner.schema(&format!("{path}o"), reader)]),
            Type::Record(fields) => {
                let mut fields: Vec<Json> = fields
                    .iter()
                    .enumerate()
                    .filter_map(|(n, field)| {
                        let schema = field.schema(&format!("{path}r{n}"), reader);
                        let optional = matches!(field.of, Type::Optional(_) | Type::Plain("null"));
                        match field.change % 8 {
                            6 if reader => None,
                            7 if reader && !optional => {
                                Some(json!({"name": format!("f{n}"), "type": ["null", schema]}))
                            }
                            _ => Some(json!({"name": format!("f{n}"), "type": schema})),
                        }
                    })
                    .collect();
                if reader && change.is_multiple_of(3) {
                    fields.insert(fields.len() / 2, added(change, &format!("{path}added")));
                }
                if reader && change.is_multiple_of(2) {
                    fields.reverse();
                }
                json!({"type": "record", "name": path, "fields": fields})
            }
        }
    }

    /// A value of the writer's; `random` gives numbers below its argument.
    fn value(&self, random: &mut dyn FnMut(u64) -> u64) -> Value {
        let many = |of: &Node, random: &mut dyn FnMut(u64) -> u64| -> Vec<Value> {
            (0..random(4)).map(|_| of.value(random)).collect()
        };
        match &self.of {
            Type::Plain("null") => Value::Null,
            Type::Plain("boolean") => Value::Boolean(random(2) == 1),
            Type::Plain("int") => Value::Int(i32::try_from(random(1 << 24)).unwrap() - (1 << 23)),
            Type::Plain("long") => Value::Long((random(1 << 24) as i64 - (1 << 23)) << random(30)),
            Type::Plain("float") => Value::Float(random(1000) as f32 / 7.0),
            Type::Plain("double") => Value::Double(random(1000) as f64 / 7.0),
            Type::Plain("bytes") => Value::Bytes((0..random(200)).map(|n| n as u8).collect()),
            Type::Plain(_) => Value::String("é".repeat(random(80) as usize)),
            Type::Fixed(size) => Value::Fixed(usize::from(*size), vec![9; usize::from(*size)]),
            Type::Enum(symbols) => {
                let symbol = random(u64::from(*symbols));
                Value::Enum(u32::try_from(symbol).unwrap(), format!("s{symbol}"))
            }
            Type::Array(items) => Value::Array(many(items, random)),
            Type::Map(values) => {
                let values = many(values, random);
                Value::Map(values.into_iter().enumerate().map(|(n, v)| (format!("k{n}"), v)).collect())
            }
            Type::Optional(inner) => match random(2) {
                0 => Value::Union(0, Box::new(Value::Null)),
                _ => Value::Union(1, Box::new(inner.value(random))),
            },
            Type::Record(fields) => Value::Record(
                fields.iter().enumerate().map(|(n, field)| (format!("f{n}"), field.value(random))).collect(),
            ),
        }
    }
}

/// What a reader was shown.
#[derive(Debug, PartialEq)]
enum Seen {
    Null,
    Boolean(bool),
    Whole(i64),
    Real(f64),
    Bytes(Vec<u8>),
    Text(String),
    Items(Vec<Seen>),
    Entries(BTreeMap<String, Seen>),
}

impl From<Value> for Seen {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => Self::Boolean(value),
            Value::Int(value) => Self::Whole(value.into()),
            Value::Long(value) => Self::Whole(value),
            Value::Float(value) => Self::Real(value.into()),
            Value::Double(value) => Self::Real(value),
            Value::Bytes(value) | Value::Fixed(_, value) => Self::Bytes(value),
            Value::String(value) | Value::Enum(_, value) => Self::Text(value),
            Value::Union(_, value) => (*value).into(),
            Value::Array(values) => Self::Items(values.into_iter().map(Self::from).collect()),
            Value::Map(values) => Self::Entries(values.into_iter().map(|(k, v)| (k, v.into())).collect()),
            Value::Record(values) => Self::Entries(values.into_iter().map(|(k, v)| (k, v.into())).collect()),
            other => panic!("no such type here: {other:?}"),
        }
    }
}

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Seen;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("anything")
            }
            fn visit_unit<E>(self) -> Result<Seen, E> {
                Ok(Seen::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Seen, E> {
                Ok(Seen::Boolean(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Seen, E> {
                Ok(Seen::Whole(value))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Seen, E> {
                Ok(Seen::Real(value))
            }
            fn visit_bytes<E>(self, value: &[u8]) -> Result<Seen, E> {
                Ok(Seen::Bytes(value.to_vec()))
            }
            fn visit_str<E>(self, value: &str) -> Result<Seen, E> {
                Ok(Seen::Text(value.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Seen, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Seen::Items(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry()? {
                    entries.insert(key, value);
                }
                Ok(Seen::Entries(entries))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn a_plan_reads_what_apache_avro_resolves(of in node(), seed in any::<u64>()) {
        let record = Node { of: Type::Record(vec![of]), change: (seed % 256) as u8 };
        let [writer, reader] =
            [false, true].map(|reader| Schema::parse(&record.schema("top", reader)).unwrap());
        let mut state = seed | 1;
        let mut random = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let written = record.value(&mut random);
        let datum = GenericDatumWriter::builder(&writer).build().unwrap().write_value_to_vec(written).unwrap();

        let oracle = GenericDatumReader::builder(&writer).reader_schema(&reader).build().unwrap();
        let expected = Seen::from(oracle.read_value(&mut &*datum).unwrap());
        let plan = Plan::new(&writer, &reader).unwrap();
        prop_assert_eq!(de::read::<Seen>(&plan, &datum).unwrap(), expected);

        // Passing over it takes exactly the same bytes.
        de::read::<serde::de::IgnoredAny>(&plan, &datum).unwrap();
    }
}
