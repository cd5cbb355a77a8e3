//! The bytes of a datum that are still to be read. Lengths in a datum are never trusted: nothing is allocated or skipped
//! before it is known that so many bytes are there.

use std::fmt;

/// Deepest nesting of records: more than any schema here has, and far less than the stack holds.
const DEEPEST: u32 = 64;

/// Most items of arrays that take no bytes (nulls, empty records) in a datum: their number alone would be work without end.
const MOST_EMPTY_ITEMS: u32 = 65_536;

/// Why a datum cannot be read or written.
#[derive(Debug)]
pub(super) struct DatumError(pub(super) String);

impl fmt::Display for DatumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DatumError {}

impl serde::de::Error for DatumError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl serde::ser::Error for DatumError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

fn error<T>(message: impl Into<String>) -> Result<T, DatumError> {
    Err(DatumError(message.into()))
}

/// A cursor over a datum.
pub(super) struct Input<'a> {
    rest: &'a [u8],
    depth: u32,
    empty_items: u32,
}

impl<'a> Input<'a> {
    pub(super) fn new(datum: &'a [u8]) -> Self {
        Self { rest: datum, depth: 0, empty_items: 0 }
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Enters a record; [`Input::leave`] leaves it.
    pub(super) fn enter(&mut self) -> Result<(), DatumError> {
        self.depth += 1;
        if self.depth > DEEPEST { error(format!("records nest deeper than {DEEPEST}")) } else { Ok(()) }
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Notes an item that was read while so many bytes were left before it.
    pub(super) fn item_read(&mut self, left_before: usize) -> Result<(), DatumError> {
        if left_before == self.left() {
            self.empty_items += 1;
            if self.empty_items > MOST_EMPTY_ITEMS {
                return error(format!("more than {MOST_EMPTY_ITEMS} items without bytes"));
            }
        }
        Ok(())
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DatumError> {
        match self.rest.split_at_checked(length) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => error(format!("{length} bytes expected, {} left", self.rest.len())),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DatumError> {
        match self.rest.split_first_chunk() {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(*taken)
            }
            None => error(format!("{N} bytes expected, {} left", self.rest.len())),
        }
    }

    pub(super) fn boolean(&mut self) -> Result<bool, DatumError> {
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => error(format!("{other} is no boolean")),
        }
    }

    pub(super) fn float(&mut self) -> Result<f32, DatumError> {
        self.array().map(f32::from_le_bytes)
    }

    pub(super) fn double(&mut self) -> Result<f64, DatumError> {
        self.array().map(f64::from_le_bytes)
    }

    /// A zig-zag number: 7 bits per byte, at most 10 bytes, of which the last holds one bit.
    pub(super) fn long(&mut self) -> Result<i64, DatumError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
        }
        error("a number is longer than 64 bits")
    }

    pub(super) fn int(&mut self) -> Result<i32, DatumError> {
        let value = self.long()?;
        i32::try_from(value).or_else(|_| error(format!("{value} is no int")))
    }

    /// An index below a bound: of a branch or a symbol.
    pub(super) fn index(&mut self, bound: usize) -> Result<usize, DatumError> {
        let value = self.long()?;
        match usize::try_from(value) {
            Ok(index) if index < bound => Ok(index),
            _ => error(format!("index {value} of {bound}")),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DatumError> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => error(format!("a length of {length}")),
        }
    }

    pub(super) fn string(&mut self) -> Result<&'a str, DatumError> {
        std::str::from_utf8(self.bytes()?).or_else(|bad| error(bad.to_string()))
    }

    /// The head of a block of an array or map: its items, 0 at the end, and its bytes where they are given.
    pub(super) fn block(&mut self) -> Result<(u64, Option<usize>), DatumError> {
        let items = self.long()?;
        if items >= 0 {
            return Ok((items.unsigned_abs(), None));
        }
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(bytes) if bytes <= self.rest.len() => Ok((items.unsigned_abs(), Some(bytes))),
            _ => error(format!("a block of {length} bytes, {} left", self.rest.len())),
        }
    }
}
