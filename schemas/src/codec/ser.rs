//! A serde serializer that writes a datum, driven by the [`Plan`] of a schema read as itself. Strict: a record's fields come in
//! the schema's order, and a value has the schema's type. Whatever breaks that is a bug of ours, which the tests of every
//! event type find.

use serde::Serialize;
use serde::ser::{
    Error as _, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, Serializer,
};

use super::input::DatumError;
use super::output::long;
use super::plan::{FieldAction, Node, NodeId, Plan};

/// Appends the datum of a value.
///
/// # Errors
/// Where the value does not fit the plan's schema.
pub(super) fn write<T: Serialize>(plan: &Plan, value: &T, out: &mut Vec<u8>) -> Result<(), DatumError> {
    value.serialize(Datum { plan, node: plan.root, out })
}

fn count(count: usize, out: &mut Vec<u8>) -> Result<(), DatumError> {
    long(i64::try_from(count).map_err(DatumError::custom)?, out);
    Ok(())
}

fn bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), DatumError> {
    count(bytes.len(), out)?;
    out.extend_from_slice(bytes);
    Ok(())
}

/// What is to be written next.
struct Datum<'r, 'o> {
    plan: &'r Plan,
    node: NodeId,
    out: &'o mut Vec<u8>,
}

impl<'r, 'o> Datum<'r, 'o> {
    /// The type that takes the value: the schema's own, or the first branch that does, whose number is written.
    fn branch(&mut self, what: &str, takes: impl Fn(&Node) -> bool) -> Result<&'r Node, DatumError> {
        let plan = self.plan;
        let found = match plan.node(self.node) {
            Node::Union(branches) => {
                let takes = |branch: &NodeId| takes(plan.node(*branch));
                match branches.iter().position(takes) {
                    Some(at) => {
                        count(at, self.out)?;
                        plan.node(branches[at])
                    }
                    None => return Err(DatumError(format!("no branch of the union takes {what}"))),
                }
            }
            node if takes(node) => node,
            node => return Err(DatumError(format!("{what} where the schema has {node:?}"))),
        };
        Ok(found)
    }

    fn integer(mut self, value: i64) -> Result<(), DatumError> {
        let is_int = i32::try_from(value).is_ok();
        self.branch("a whole number", |node| match node {
            Node::Int => is_int,
            Node::Long => true,
            _ => false,
        })?;
        long(value, self.out);
        Ok(())
    }

    fn symbol(mut self, likely: usize, symbol: &str) -> Result<(), DatumError> {
        let place = |node: &Node| match node {
            Node::Enum(symbols) => {
                let is = |known: &Result<Box<str>, _>| known.as_ref().is_ok_and(|known| **known == *symbol);
                // Most enums of ours declare their symbols in the schema's order.
                if symbols.get(likely).is_some_and(is) { Some(likely) } else { symbols.iter().position(is) }
            }
            _ => None,
        };
        let takes = |node: &Node| matches!(node, Node::String) || place(node).is_some();
        let node = self.branch("a symbol or text", takes)?;
        match place(node) {
            Some(at) => count(at, self.out),
            None => bytes(symbol.as_bytes(), self.out),
        }
    }

    /// The head of an array or map: with its items where they are known, so that they are one block.
    fn items(
        mut self,
        what: &str,
        length: Option<usize>,
        item: impl Fn(&Node) -> Option<NodeId>,
    ) -> Result<Items<'r, 'o>, DatumError> {
        let node = self.branch(what, |node| item(node).is_some())?;
        let item = item(node).unwrap_or(self.node);
        if let Some(length) = length.filter(|length| *length > 0) {
            count(length, self.out)?;
        }
        Ok(Items { plan: self.plan, item, told: length, written: 0, out: self.out })
    }
}

impl<'r, 'o> Serializer for Datum<'r, 'o> {
    type Ok = ();
    type Error = DatumError;
    type SerializeSeq = Items<'r, 'o>;
    type SerializeTuple = Items<'r, 'o>;
    type SerializeTupleStruct = Impossible<(), DatumError>;
    type SerializeTupleVariant = Impossible<(), DatumError>;
    type SerializeMap = Items<'r, 'o>;
    type SerializeStruct = Fields<'r, 'o>;
    type SerializeStructVariant = Impossible<(), DatumError>;

    fn serialize_bool(mut self, value: bool) -> Result<(), DatumError> {
        self.branch("a boolean", |node| matches!(node, Node::Boolean))?;
        self.out.push(u8::from(value));
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), DatumError> {
        self.integer(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), DatumError> {
        self.integer(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), DatumError> {
        self.integer(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), DatumError> {
        self.integer(value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), DatumError> {
        self.integer(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), DatumError> {
        self.integer(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), DatumError> {
        self.integer(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), DatumError> {
        self.integer(i64::try_from(value).map_err(DatumError::custom)?)
    }

    fn serialize_f32(mut self, value: f32) -> Result<(), DatumError> {
        match self.branch("a float", |node| matches!(node, Node::Float | Node::Double))? {
            Node::Float => self.out.extend_from_slice(&value.to_le_bytes()),
            _ => self.out.extend_from_slice(&f64::from(value).to_le_bytes()),
        }
        Ok(())
    }

    fn serialize_f64(mut self, value: f64) -> Result<(), DatumError> {
        self.branch("a double", |node| matches!(node, Node::Double))?;
        self.out.extend_from_slice(&value.to_le_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), DatumError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), DatumError> {
        self.symbol(0, value)
    }

    fn serialize_bytes(mut self, value: &[u8]) -> Result<(), DatumError> {
        let takes = |node: &Node| match node {
            Node::Bytes => true,
            Node::Fixed(size) => *size == value.len(),
            _ => false,
        };
        match self.branch("bytes", takes)? {
            Node::Bytes => bytes(value, self.out),
            _ => {
                self.out.extend_from_slice(value);
                Ok(())
            }
        }
    }

    fn serialize_none(self) -> Result<(), DatumError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), DatumError> {
        value.serialize(self)
    }

    fn serialize_unit(mut self) -> Result<(), DatumError> {
        self.branch("null", |node| matches!(node, Node::Null)).map(|_| ())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), DatumError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<(), DatumError> {
        self.symbol(index as usize, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<(), DatumError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _value: &T,
    ) -> Result<(), DatumError> {
        Err(with_content(name, variant))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items<'r, 'o>, DatumError> {
        self.items("a list", length, |node| if let Node::Array(item) = node { Some(*item) } else { None })
    }

    fn serialize_tuple(self, length: usize) -> Result<Items<'r, 'o>, DatumError> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleStruct, DatumError> {
        Err(DatumError(format!("{name} has fields without names")))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeTupleVariant, DatumError> {
        Err(with_content(name, variant))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Items<'r, 'o>, DatumError> {
        self.items("a map", length, |node| if let Node::Map(item) = node { Some(*item) } else { None })
    }

    fn serialize_struct(mut self, name: &'static str, _length: usize) -> Result<Fields<'r, 'o>, DatumError> {
        match self.branch("a record", |node| matches!(node, Node::Record(_)))? {
            Node::Record(record) => {
                Ok(Fields { plan: self.plan, actions: record.actions.iter(), out: self.out })
            }
            _ => Err(DatumError(format!("{name} is no record"))),
        }
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Self::SerializeStructVariant, DatumError> {
        Err(with_content(name, variant))
    }
}

fn with_content(name: &str, variant: &str) -> DatumError {
    DatumError(format!("{name}::{variant} has content: Avro's enums have none"))
}

/// The fields of a record that are still to be written.
struct Fields<'r, 'o> {
    plan: &'r Plan,
    actions: std::slice::Iter<'r, FieldAction>,
    out: &'o mut Vec<u8>,
}

impl SerializeStruct for Fields<'_, '_> {
    type Ok = ();
    type Error = DatumError;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), DatumError> {
        match self.actions.next() {
            Some(FieldAction::Read { field, node }) if **field == *name => {
                value.serialize(Datum { plan: self.plan, node: *node, out: self.out })
            }
            Some(FieldAction::Read { field, .. }) => {
                Err(DatumError(format!("field {name} where the schema has {field}")))
            }
            _ => Err(DatumError(format!("field {name} is not in the schema"))),
        }
    }

    fn end(mut self) -> Result<(), DatumError> {
        match self.actions.next() {
            Some(FieldAction::Read { field, .. }) => Err(DatumError(format!("field {field} is missing"))),
            _ => Ok(()),
        }
    }
}

/// The items of an array, or the entries of a map.
struct Items<'r, 'o> {
    plan: &'r Plan,
    item: NodeId,
    told: Option<usize>,
    written: usize,
    out: &'o mut Vec<u8>,
}

impl Items<'_, '_> {
    fn next(&mut self) -> Result<(), DatumError> {
        self.written += 1;
        // Without a number in front every item is a block of its own.
        if self.told.is_none() { count(1, self.out) } else { Ok(()) }
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), DatumError> {
        value.serialize(Datum { plan: self.plan, node: self.item, out: self.out })
    }

    fn finish(self) -> Result<(), DatumError> {
        if self.told.is_some_and(|told| told != self.written) {
            return Err(DatumError(format!("{} items, {:?} were told", self.written, self.told)));
        }
        self.out.push(0);
        Ok(())
    }
}

impl SerializeSeq for Items<'_, '_> {
    type Ok = ();
    type Error = DatumError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), DatumError> {
        self.next()?;
        self.value(value)
    }

    fn end(self) -> Result<(), DatumError> {
        self.finish()
    }
}

impl SerializeTuple for Items<'_, '_> {
    type Ok = ();
    type Error = DatumError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), DatumError> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), DatumError> {
        self.finish()
    }
}

impl SerializeMap for Items<'_, '_> {
    type Ok = ();
    type Error = DatumError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), DatumError> {
        self.next()?;
        let text = Plan::text();
        key.serialize(Datum { plan: text, node: text.root, out: self.out })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), DatumError> {
        self.value(value)
    }

    fn end(self) -> Result<(), DatumError> {
        self.finish()
    }
}
