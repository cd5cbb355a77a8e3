//! What a schema is on the wire.

use apache_avro::Schema;
use apache_avro::schema::{EnumSchema, FixedSchema, InnerDecimalSchema, NamesRef, RecordSchema, UuidSchema};

/// A schema without its logical type, which does not change the bytes.
#[derive(Clone, Copy)]
pub(super) enum Physical<'s> {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(&'s FixedSchema),
    Enum(&'s EnumSchema),
    Array(&'s Schema),
    Map(&'s Schema),
    Record(&'s RecordSchema),
    Union(&'s [Schema]),
}

/// The physical type of a schema, with a reference to a named type followed.
///
/// # Errors
/// A reference to a name that is not declared.
pub(super) fn physical<'s>(names: &NamesRef<'s>, schema: &'s Schema) -> Result<Physical<'s>, String> {
    Ok(match schema {
        Schema::Null => Physical::Null,
        Schema::Boolean => Physical::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Physical::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Physical::Long,
        Schema::Float => Physical::Float,
        Schema::Double => Physical::Double,
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Physical::Bytes,
        Schema::String | Schema::Uuid(UuidSchema::String) => Physical::String,
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => Physical::Bytes,
            InnerDecimalSchema::Fixed(fixed) => Physical::Fixed(fixed),
        },
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Physical::Fixed(fixed)
        }
        Schema::Enum(symbols) => Physical::Enum(symbols),
        Schema::Array(array) => Physical::Array(&array.items),
        Schema::Map(map) => Physical::Map(&map.types),
        Schema::Record(record) => Physical::Record(record),
        Schema::Union(union) => Physical::Union(union.variants()),
        Schema::Ref { name } => match names.get(name) {
            Some(Schema::Ref { .. }) | None => return Err(format!("{} is not declared", name.name())),
            Some(declared) => physical(names, declared)?,
        },
    })
}

impl Physical<'_> {
    /// Whether two types are the same but for what stands inside them: same kind and, where they have one, same name.
    pub(super) fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Fixed(one), Self::Fixed(two)) => {
                one.name.name() == two.name.name() && one.size == two.size
            }
            (Self::Enum(one), Self::Enum(two)) => one.name.name() == two.name.name(),
            (Self::Record(one), Self::Record(two)) => one.name.name() == two.name.name(),
            _ => std::mem::discriminant(&self) == std::mem::discriminant(&other),
        }
    }

    pub(super) fn label(self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Boolean => "boolean".into(),
            Self::Int => "int".into(),
            Self::Long => "long".into(),
            Self::Float => "float".into(),
            Self::Double => "double".into(),
            Self::Bytes => "bytes".into(),
            Self::String => "string".into(),
            Self::Fixed(fixed) => format!("fixed {} of {} bytes", fixed.name.name(), fixed.size),
            Self::Enum(symbols) => format!("enum {}", symbols.name.name()),
            Self::Array(_) => "array".into(),
            Self::Map(_) => "map".into(),
            Self::Record(record) => format!("record {}", record.name.name()),
            Self::Union(_) => "union".into(),
        }
    }
}
