//! How a record that was written with one schema is read as another: worked out once per pair of schemas, after "Schema
//! Resolution" in Avro's specification. A field that the reader does not know is skipped whatever its type, a field that
//! the writer does not know takes the reader's default, and an enum's unknown symbol becomes the reader's default symbol.

use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, NamesRef, RecordSchema, ResolvedSchema};

use super::defaults;
use super::physical::{Physical, physical};

/// Place of a node in [`Plan`].
pub(super) type NodeId = usize;

/// What stands next in the datum, and as what the reader takes it.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    /// A number of the writer (the node) where the reader has a floating-point one.
    Real(NodeId),
    Bytes,
    String,
    /// So many bytes.
    Fixed(usize),
    /// The reader's symbol for each of the writer's; none for one that the reader neither knows nor has a default for.
    Enum(Vec<Result<Box<str>, Box<str>>>),
    Array(NodeId),
    /// Keys are strings.
    Map(NodeId),
    /// The writer's branches.
    Union(Vec<NodeId>),
    Record(Record),
    /// What stands here cannot be read by this reader: an error once such a value is met.
    Never(String),
}

/// The fields of a record.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) actions: Vec<FieldAction>,
    /// Where the list of the first struct's fields lies that was read by these actions, if the actions give them in its order.
    straight: OnceLock<Option<usize>>,
}

impl Record {
    /// Whether the actions give the fields of a struct, each and in its order: then they need not be told by name. Worked out
    /// for the first struct, by its list of fields; a record is always read as one.
    pub(super) fn gives(&self, fields: &'static [&'static str]) -> bool {
        let place = fields.as_ptr().addr();
        let straight = self.straight.get_or_init(|| {
            let names = self.actions.iter().filter_map(FieldAction::field);
            names.eq(fields.iter().copied()).then_some(place)
        });
        *straight == Some(place)
    }
}

/// What is done for a field of a record.
#[derive(Debug)]
pub(super) enum FieldAction {
    /// Both sides have it.
    Read { field: Box<str>, node: NodeId },
    /// Only the writer has it.
    Skip(NodeId),
    /// Only the reader has it: its default as a datum.
    Default { field: Box<str>, node: NodeId, datum: Vec<u8> },
}

impl FieldAction {
    /// The reader's name of the field that it gives.
    fn field(&self) -> Option<&str> {
        match self {
            Self::Read { field, .. } | Self::Default { field, .. } => Some(field),
            Self::Skip(_) => None,
        }
    }
}

/// How records of a writer's schema are read by a reader's.
#[derive(Debug)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    pub(super) root: NodeId,
}

impl Plan {
    /// Works out the plan.
    ///
    /// # Errors
    /// A sentence that says which part of the writer's schema the reader cannot read.
    pub(super) fn new(writer: &Schema, reader: &Schema) -> Result<Self, String> {
        let resolved = |schema| ResolvedSchema::new(schema).map_err(|error| error.to_string());
        let (writer_names, reader_names) = (resolved(writer)?, resolved(reader)?);
        let mut resolver = Resolver {
            writer: writer_names.get_names(),
            reader: reader_names.get_names(),
            nodes: Vec::new(),
            records: HashMap::new(),
        };
        let root = resolver.resolve(writer, reader)?;
        Ok(Self { nodes: resolver.nodes, root })
    }

    /// The plan of a text: of a map's keys.
    pub(super) fn text() -> &'static Self {
        static TEXT: LazyLock<Plan> = LazyLock::new(|| Plan { nodes: vec![Node::String], root: 0 });
        &TEXT
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        // Ids come from the resolver alone; one past the end would be a fault of it, and reads as what cannot be read.
        static NONE: Node = Node::Never(String::new());
        self.nodes.get(id).unwrap_or(&NONE)
    }
}

struct Resolver<'s, 'n> {
    writer: &'n NamesRef<'s>,
    reader: &'n NamesRef<'s>,
    nodes: Vec<Node>,
    /// Nodes of records by the places of both schemas: a record may contain itself.
    records: HashMap<(*const RecordSchema, *const RecordSchema), NodeId>,
}

impl<'s> Resolver<'s, '_> {
    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn resolve(&mut self, writer: &'s Schema, reader: &'s Schema) -> Result<NodeId, String> {
        let (writer, reader) = (physical(self.writer, writer)?, physical(self.reader, reader)?);
        self.resolve_types(writer, reader)
    }

    fn resolve_types(&mut self, writer: Physical<'s>, reader: Physical<'s>) -> Result<NodeId, String> {
        use Physical as P;
        let node = match (writer, reader) {
            (P::Union(branches), _) => {
                let branches = branches.iter().map(|branch| self.branch(branch, reader)).collect();
                Node::Union(branches)
            }
            (_, P::Union(branches)) => return self.choose(writer, branches),
            (P::Null, P::Null) => Node::Null,
            (P::Boolean, P::Boolean) => Node::Boolean,
            (P::Int, P::Int | P::Long) => Node::Int,
            (P::Long, P::Long) => Node::Long,
            (P::Int, P::Float | P::Double) => Node::Real(self.push(Node::Int)),
            (P::Long, P::Float | P::Double) => Node::Real(self.push(Node::Long)),
            (P::Float, P::Float | P::Double) => Node::Float,
            (P::Double, P::Double) => Node::Double,
            (P::Bytes | P::String, P::String) => Node::String,
            (P::Bytes | P::String, P::Bytes) => Node::Bytes,
            (P::Fixed(fixed), P::Fixed(_)) if writer.is_like(reader) => Node::Fixed(fixed.size),
            (P::Enum(written), P::Enum(read)) if writer.is_like(reader) => Node::Enum(symbols(written, read)),
            (P::Array(written), P::Array(read)) => Node::Array(self.resolve(written, read)?),
            (P::Map(written), P::Map(read)) => Node::Map(self.resolve(written, read)?),
            (P::Record(written), P::Record(read)) if writer.is_like(reader) => {
                return self.record(written, read);
            }
            _ => return Err(format!("{} cannot be read as {}", writer.label(), reader.label())),
        };
        Ok(self.push(node))
    }

    /// A branch of the writer's union: one that the reader cannot read is an error only once it is met.
    fn branch(&mut self, branch: &'s Schema, reader: Physical<'s>) -> NodeId {
        let resolved = physical(self.writer, branch).and_then(|branch| self.resolve_types(branch, reader));
        resolved.unwrap_or_else(|why| self.push(Node::Never(why)))
    }

    /// The branch of the reader's union that takes the writer's type: the one like it, or the first that it is promoted to.
    fn choose(&mut self, writer: Physical<'s>, branches: &'s [Schema]) -> Result<NodeId, String> {
        let types: Vec<_> =
            branches.iter().map(|branch| physical(self.reader, branch)).collect::<Result<_, _>>()?;
        let (like, other): (Vec<_>, Vec<_>) = types.into_iter().partition(|branch| writer.is_like(*branch));
        let mut why = format!("no branch of the union takes {}", writer.label());
        for branch in like.into_iter().chain(other) {
            match self.resolve_types(writer, branch) {
                Ok(node) => return Ok(node),
                Err(error) if writer.is_like(branch) => why = error,
                Err(_) => {}
            }
        }
        Err(why)
    }

    fn record(&mut self, writer: &'s RecordSchema, reader: &'s RecordSchema) -> Result<NodeId, String> {
        let key = (std::ptr::from_ref(writer), std::ptr::from_ref(reader));
        if let Some(node) = self.records.get(&key) {
            return Ok(*node);
        }
        let id = self.push(Node::Never(format!("record {} cannot be read", reader.name.name())));
        self.records.insert(key, id);
        match self.actions(writer, reader) {
            Ok(actions) => {
                self.nodes[id] = Node::Record(Record { actions, straight: OnceLock::new() });
                Ok(id)
            }
            Err(why) => {
                self.records.remove(&key);
                Err(why)
            }
        }
    }

    fn actions(
        &mut self,
        writer: &'s RecordSchema,
        reader: &'s RecordSchema,
    ) -> Result<Vec<FieldAction>, String> {
        let mut actions = Vec::with_capacity(writer.fields.len());
        let mut read = vec![false; reader.fields.len()];
        for field in &writer.fields {
            let same = |known: &apache_avro::schema::RecordField| {
                known.name == field.name || known.aliases.contains(&field.name)
            };
            actions.push(match reader.fields.iter().position(same) {
                Some(at) if !std::mem::replace(&mut read[at], true) => {
                    let known = &reader.fields[at];
                    let node = self
                        .resolve(&field.schema, &known.schema)
                        .map_err(|why| format!("{}.{}: {why}", reader.name.name(), known.name))?;
                    FieldAction::Read { field: known.name.as_str().into(), node }
                }
                _ => FieldAction::Skip(self.skip(&field.schema)?),
            });
        }
        for (field, _) in reader.fields.iter().zip(&read).filter(|(_, read)| !**read) {
            let place = || format!("{}.{}", reader.name.name(), field.name);
            let default = field
                .default
                .as_ref()
                .ok_or_else(|| format!("{} is not written and has no default", place()))?;
            let mut datum = Vec::new();
            defaults::encode(self.reader, &field.schema, default, &mut datum)
                .map_err(|why| format!("default of {}: {why}", place()))?;
            let writer = std::mem::replace(&mut self.writer, self.reader);
            let node = self.resolve(&field.schema, &field.schema);
            self.writer = writer;
            actions.push(FieldAction::Default { field: field.name.as_str().into(), node: node?, datum });
        }
        Ok(actions)
    }

    /// The node of what is passed over: the writer's schema read as itself.
    fn skip(&mut self, schema: &'s Schema) -> Result<NodeId, String> {
        let reader = std::mem::replace(&mut self.reader, self.writer);
        let node = self.resolve(schema, schema);
        self.reader = reader;
        node
    }
}

fn symbols(writer: &EnumSchema, reader: &EnumSchema) -> Vec<Result<Box<str>, Box<str>>> {
    let known = |symbol: &String| match &reader.default {
        _ if reader.symbols.contains(symbol) => Ok(symbol.as_str().into()),
        Some(default) => Ok(default.as_str().into()),
        None => Err(format!("{} has no symbol {symbol} and no default", reader.name.name()).into()),
    };
    writer.symbols.iter().map(known).collect()
}
