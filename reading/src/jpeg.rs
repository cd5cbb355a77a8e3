//! The segments of a JPEG file (ITU-T T.81, B.1.1).

/// End of the picture.
pub(crate) const EOI: u8 = 0xD9;
/// Start of a scan.
pub(crate) const SOS: u8 = 0xDA;

/// A marker with all that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment<'a> {
    /// The marker's second byte.
    pub code: u8,
    /// Length and content; empty for markers that have none.
    pub body: &'a [u8],
    /// What follows a start of scan: entropy-coded data with restart markers.
    pub scan: &'a [u8],
}

impl Segment<'_> {
    /// The segment as it stands in a file, without fill bytes.
    pub fn write(&self, file: &mut Vec<u8>) {
        file.extend([0xFF, self.code]);
        file.extend(self.body);
        file.extend(self.scan);
    }
}

/// A file that ends within a segment, or has none where one must begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut;

/// The segments behind the start of the picture, up to and with [`EOI`] or to the end of the file.
pub(crate) struct Segments<'a> {
    rest: &'a [u8],
    ended: bool,
}

impl<'a> Segments<'a> {
    /// Those of a file that begins as a JPEG.
    pub fn of(file: &'a [u8]) -> Self {
        Self { rest: file.get(2..).unwrap_or_default(), ended: false }
    }

    fn segment(&mut self) -> Result<Segment<'a>, Cut> {
        // Any number of fill bytes 0xFF may precede a marker. Without one there is no marker where one must be: damaged.
        let fill = self.rest.iter().position(|byte| *byte != 0xFF).filter(|fill| *fill > 0).ok_or(Cut)?;
        let code = self.rest[fill];
        self.rest = &self.rest[fill + 1..];
        if matches!(code, EOI | 0x01 | 0xD0..=0xD8) {
            self.ended = code == EOI;
            return Ok(Segment { code, body: &[], scan: &[] });
        }
        let length = self.rest.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length)));
        let body = self.take(length.ok_or(Cut)?.max(2)).ok_or(Cut)?;
        let scan = if code == SOS {
            let length = entropy_coded(self.rest).ok_or(Cut)?;
            self.take(length).ok_or(Cut)?
        } else {
            &[]
        };
        Ok(Segment { code, body, scan })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(length)?;
        self.rest = tail;
        Some(head)
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Result<Segment<'a>, Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.rest.is_empty() {
            return None;
        }
        let segment = self.segment();
        self.ended |= segment.is_err();
        Some(segment)
    }
}

/// The length of entropy-coded data: up to a 0xFF that is neither stuffed (0xFF00) nor a restart marker.
fn entropy_coded(data: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        at += memchr::memchr(0xFF, data.get(at..)?)?;
        if !matches!(data.get(at + 1)?, 0x00 | 0xD0..=0xD7 | 0xFF) {
            return Some(at);
        }
        at += 1;
    }
}
