//! Reads big-endian numbers and boxes (ISO/IEC 14496-12 clause 4.2) from a slice, never past its end.

use super::HeifError;

/// What is left to be read.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(pub &'a [u8]);

/// A box: its kind and content.
pub(super) struct IsoBox<'a> {
    pub kind: [u8; 4],
    pub body: Cursor<'a>,
}

impl<'a> Cursor<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], HeifError> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(HeifError::Cut)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HeifError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(HeifError::Cut)?;
        self.0 = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, HeifError> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, HeifError> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, HeifError> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn kind(&mut self) -> Result<[u8; 4], HeifError> {
        self.array()
    }

    /// A number of 16 bits, or of 32 where the box's version or flags say so.
    pub fn number(&mut self, wide: bool) -> Result<u32, HeifError> {
        if wide { self.u32() } else { self.u16().map(u32::from) }
    }

    /// A number of so many bytes: 0 (the number is 0), 4 or 8, as `iloc` has them.
    pub fn sized(&mut self, bytes: u8) -> Result<u64, HeifError> {
        match bytes {
            0 => Ok(0),
            4 => self.u32().map(u64::from),
            8 => self.array().map(u64::from_be_bytes),
            _ => Err(HeifError::Damaged("a number of an unknown size in iloc")),
        }
    }

    /// Version and flags of a full box.
    pub fn full_box(&mut self) -> Result<(u8, u32), HeifError> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00FF_FFFF))
    }

    /// The next box. One of size 0 reaches to the end; one of size 1 has its size in 64 bits.
    pub fn next_box(&mut self) -> Result<IsoBox<'a>, HeifError> {
        let (size, kind) = (self.u32()?, self.kind()?);
        let length = match size {
            0 => self.0.len() as u64,
            1 => self.sized(8)?.checked_sub(16).ok_or(HeifError::Damaged("a box shorter than its head"))?,
            _ => u64::from(size).checked_sub(8).ok_or(HeifError::Damaged("a box shorter than its head"))?,
        };
        let body = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        Ok(IsoBox { kind, body: Cursor(body) })
    }
}
