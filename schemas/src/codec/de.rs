//! A serde deserializer over the bytes of a datum, driven by a [`Plan`]: no value tree in between.

use serde::Deserialize as _;
use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};

use super::input::{DatumError, Input};
use super::plan::{FieldAction, Node, NodeId, Plan, Record};

/// Reads a whole datum.
///
/// # Errors
/// Where the datum does not fit the plan, or bytes are left over.
pub(super) fn read<T: DeserializeOwned>(plan: &Plan, datum: &[u8]) -> Result<T, DatumError> {
    let mut input = Input::new(datum);
    let value = T::deserialize(Datum { plan, node: plan.root, input: &mut input })?;
    match input.left() {
        0 => Ok(value),
        left => Err(DatumError(format!("{left} bytes left over"))),
    }
}

/// What stands next in the input.
struct Datum<'r, 'a> {
    plan: &'r Plan,
    node: NodeId,
    input: &'r mut Input<'a>,
}

impl<'r, 'a> Datum<'r, 'a> {
    fn at(&mut self, node: NodeId) -> Datum<'_, 'a> {
        Datum { plan: self.plan, node, input: self.input }
    }

    /// The node, with the writer's branch chosen where it is a union.
    fn branch(&mut self) -> Result<&'r Node, DatumError> {
        let plan = self.plan;
        while let Node::Union(branches) = plan.node(self.node) {
            self.node = branches[self.input.index(branches.len())?];
        }
        Ok(plan.node(self.node))
    }

    fn fields<T>(
        self,
        record: &'r Record,
        visit: impl FnOnce(&mut Fields<'_, 'a>) -> Result<T, DatumError>,
    ) -> Result<T, DatumError> {
        self.input.enter()?;
        let mut fields =
            Fields { plan: self.plan, actions: record.actions.iter(), next: None, input: self.input };
        let value = visit(&mut fields)?;
        if fields.next_field()?.is_some() {
            return Err(DatumError("not every field was read".into()));
        }
        fields.input.leave();
        Ok(value)
    }
}

impl<'de> Deserializer<'de> for Datum<'_, '_> {
    type Error = DatumError;

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DatumError> {
        match self.branch()? {
            Node::Null => visitor.visit_unit(),
            Node::Boolean => visitor.visit_bool(self.input.boolean()?),
            Node::Int => visitor.visit_i32(self.input.int()?),
            Node::Long => visitor.visit_i64(self.input.long()?),
            Node::Float => visitor.visit_f32(self.input.float()?),
            Node::Double => visitor.visit_f64(self.input.double()?),
            Node::Real(number) => visitor.visit_f64(f64::deserialize(self.at(*number))?),
            Node::Bytes => visitor.visit_bytes(self.input.bytes()?),
            Node::String => visitor.visit_str(self.input.string()?),
            Node::Fixed(size) => visitor.visit_bytes(self.input.take(*size)?),
            Node::Enum(symbols) => visitor.visit_str(symbol(symbols, self.input)?),
            Node::Array(item) => {
                let mut items = Items { datum: self.at(*item), block: Block::default() };
                let value = visitor.visit_seq(&mut items)?;
                if items.block.ended { Ok(value) } else { Err(DatumError("too many items".into())) }
            }
            Node::Map(item) => {
                let mut items = Items { datum: self.at(*item), block: Block::default() };
                let value = visitor.visit_map(&mut items)?;
                if items.block.ended { Ok(value) } else { Err(DatumError("too many entries".into())) }
            }
            Node::Record(record) => self.fields(record, |fields| visitor.visit_map(fields)),
            Node::Never(why) => Err(DatumError(why.clone())),
            Node::Union(_) => Err(DatumError("a union in a union".into())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, DatumError> {
        match self.branch()? {
            Node::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DatumError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DatumError> {
        match self.branch()? {
            Node::Record(record) if record.gives(fields) => {
                self.fields(record, |fields| visitor.visit_seq(fields))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DatumError> {
        let symbol = match self.branch()? {
            Node::Enum(symbols) => symbol(symbols, self.input)?,
            Node::String => self.input.string()?,
            _ => return Err(DatumError("neither a symbol nor a text".into())),
        };
        visitor.visit_enum(symbol.into_deserializer())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DatumError> {
        skip(self.plan, self.node, self.input)?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

fn symbol<'p>(
    symbols: &'p [Result<Box<str>, Box<str>>],
    input: &mut Input<'_>,
) -> Result<&'p str, DatumError> {
    match &symbols[input.index(symbols.len())?] {
        Ok(symbol) => Ok(symbol),
        Err(why) => Err(DatumError(why.to_string())),
    }
}

/// The fields of a record: those that the reader has.
struct Fields<'r, 'a> {
    plan: &'r Plan,
    actions: std::slice::Iter<'r, FieldAction>,
    next: Option<(NodeId, Option<&'r [u8]>)>,
    input: &'r mut Input<'a>,
}

/// A field that the reader has: its name, its node, and its default where the writer has none.
type Field<'r> = (&'r str, (NodeId, Option<&'r [u8]>));

impl<'r> Fields<'r, '_> {
    /// The next field that the reader has; what it has not is passed over.
    fn next_field(&mut self) -> Result<Option<Field<'r>>, DatumError> {
        for action in self.actions.by_ref() {
            match action {
                FieldAction::Skip(node) => skip(self.plan, *node, self.input)?,
                FieldAction::Read { field, node } => return Ok(Some((field, (*node, None)))),
                FieldAction::Default { field, node, datum } => {
                    return Ok(Some((field, (*node, Some(datum)))));
                }
            }
        }
        Ok(None)
    }

    fn value<'de, S: DeserializeSeed<'de>>(
        &mut self,
        (node, default): (NodeId, Option<&[u8]>),
        seed: S,
    ) -> Result<S::Value, DatumError> {
        match default {
            None => seed.deserialize(Datum { plan: self.plan, node, input: self.input }),
            Some(datum) => seed.deserialize(Datum { plan: self.plan, node, input: &mut Input::new(datum) }),
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = DatumError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DatumError> {
        let Some((field, next)) = self.next_field()? else { return Ok(None) };
        self.next = Some(next);
        seed.deserialize(StrDeserializer::new(field)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DatumError> {
        let next = self.next.take().ok_or_else(|| DatumError("a value without its key".into()))?;
        self.value(next, seed)
    }
}

impl<'de> SeqAccess<'de> for Fields<'_, '_> {
    type Error = DatumError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DatumError> {
        match self.next_field()? {
            Some((_, next)) => self.value(next, seed).map(Some),
            None => Ok(None),
        }
    }
}

/// Where an array or map stands.
#[derive(Default)]
struct Block {
    left: u64,
    ended: bool,
}

impl Block {
    /// Whether another item stands in the input.
    fn next(&mut self, input: &mut Input<'_>) -> Result<bool, DatumError> {
        if self.left == 0 && !self.ended {
            self.left = input.block()?.0;
            self.ended = self.left == 0;
        }
        self.left = self.left.saturating_sub(1);
        Ok(!self.ended)
    }

    /// At least this many follow; never more than there are bytes.
    fn hint(&self, input: &Input<'_>) -> Option<usize> {
        Some(usize::try_from(self.left).unwrap_or(usize::MAX).min(input.left()))
    }
}

/// The items of an array, or the entries of a map.
struct Items<'r, 'a> {
    datum: Datum<'r, 'a>,
    block: Block,
}

impl Items<'_, '_> {
    fn value<'de, S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, DatumError> {
        let (node, left) = (self.datum.node, self.datum.input.left());
        let value = seed.deserialize(self.datum.at(node))?;
        self.datum.input.item_read(left)?;
        Ok(value)
    }
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = DatumError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, DatumError> {
        if self.block.next(self.datum.input)? { self.value(seed).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        self.block.hint(self.datum.input)
    }
}

impl<'de> MapAccess<'de> for Items<'_, '_> {
    type Error = DatumError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DatumError> {
        if !self.block.next(self.datum.input)? {
            return Ok(None);
        }
        seed.deserialize(StrDeserializer::new(self.datum.input.string()?)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DatumError> {
        self.value(seed)
    }
}

/// Passes over a value.
fn skip(plan: &Plan, node: NodeId, input: &mut Input<'_>) -> Result<(), DatumError> {
    match plan.node(node) {
        Node::Null => {}
        Node::Boolean => {
            input.boolean()?;
        }
        Node::Int => {
            input.int()?;
        }
        Node::Long => {
            input.long()?;
        }
        Node::Float => {
            input.float()?;
        }
        Node::Double => {
            input.double()?;
        }
        Node::Real(number) => skip(plan, *number, input)?,
        Node::Bytes | Node::String => {
            input.bytes()?;
        }
        Node::Fixed(size) => {
            input.take(*size)?;
        }
        Node::Enum(symbols) => {
            input.index(symbols.len())?;
        }
        Node::Array(item) => skip_items(plan, *item, false, input)?,
        Node::Map(item) => skip_items(plan, *item, true, input)?,
        Node::Union(branches) => skip(plan, branches[input.index(branches.len())?], input)?,
        Node::Record(record) => {
            input.enter()?;
            for action in &record.actions {
                match action {
                    FieldAction::Read { node, .. } | FieldAction::Skip(node) => skip(plan, *node, input)?,
                    FieldAction::Default { .. } => {}
                }
            }
            input.leave();
        }
        Node::Never(why) => return Err(DatumError(why.clone())),
    }
    Ok(())
}

fn skip_items(plan: &Plan, item: NodeId, keyed: bool, input: &mut Input<'_>) -> Result<(), DatumError> {
    loop {
        match input.block()? {
            (0, _) => return Ok(()),
            (_, Some(bytes)) => {
                input.take(bytes)?;
            }
            (items, None) => {
                for _ in 0..items {
                    let left = input.left();
                    if keyed {
                        input.bytes()?;
                    }
                    skip(plan, item, input)?;
                    input.item_read(left)?;
                }
            }
        }
    }
}
