//! JSON documents in which an object is written as an object. What serde derives takes a list in the place of each object as well, its
//! fields in the order of the code: `[null, null]` would be a body without any of its optional fields.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// What a body holds.
///
/// # Errors
/// What is wrong with it, with the place.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    // The first reading knows lines, columns and fields that are there twice, the second one what is a list.
    let document = serde_json::from_slice::<T>(body)?;
    T::deserialize(Strict(serde_json::from_slice(body)?)).map(|_| document)
}

/// A value whose objects are objects.
struct Strict(Value);

impl<'de> IntoDeserializer<'de, Error> for Strict {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Strict {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Strict))),
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| (name, Strict(value)));
                visitor.visit_map(MapDeserializer::new(fields))
            }
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.0.is_array() {
            return Err(Error::custom("a list where an object is expected"));
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        city: Option<String>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Outer {
        name: Option<String>,
        inner: Option<Inner>,
        tags: Vec<String>,
    }

    #[test]
    fn a_list_in_the_place_of_an_object_is_refused_at_any_depth() {
        let good = r#"{"name": null, "inner": {"city": "Graz"}, "tags": ["a", "b"]}"#;
        let read_well: Outer = read(good.as_bytes()).unwrap();
        assert_eq!(read_well.inner, Some(Inner { city: Some("Graz".to_owned()) }));
        assert_eq!(read_well.tags, ["a", "b"]);
        for bad in [r"[null, null, []]", r#"{"inner": ["Graz"]}"#] {
            assert!(serde_json::from_str::<Outer>(bad).is_ok(), "serde takes it: {bad}");
            let error = read::<Outer>(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("a list where an object is expected"), "{bad}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_document_is_told_with_its_place() {
        let error = read::<Outer>(b"{\"name\": \"a\",\n \"name\": \"b\"}").unwrap_err().to_string();
        assert!(error.contains("duplicate field `name` at line 2"), "{error}");
    }
}
