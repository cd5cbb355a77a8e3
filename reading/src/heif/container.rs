//! The container (ISO/IEC 23008-12, HEIF): which item is the picture, of which tiles it is made, where their bytes lie, and how
//! it is turned.
//!
//! Written here rather than left to the decoder's own parser because a file is hostile until shown otherwise: it may name the
//! same bytes a million times, and a parser that copies them is filled by it. What this one keeps are slices of the file, and
//! all tiles together have no more bytes than the file has.

use std::collections::HashMap;
use std::ops::Range;

use super::{
    HeifError,
    cursor::{Cursor, IsoBox},
    turn::Turn,
};

/// The most tiles: a picture of 25 million pixels in tiles of 256 by 256 has 381. Phones write 512 by 512.
const MOST_TILES: usize = 1024;
/// The most items, properties and extents of an item: a phone's file has about 120, 20 and 1. What is named in few bytes takes
/// many in memory, and an item may have any number of extents of no bytes.
const MOST_ITEMS: usize = 4096;
const MOST_EXTENTS: usize = 64;
/// The most bytes of a decoder's configuration: phones write about 120. Each tile is decoded with a copy of it.
const MOST_CONFIG: usize = 16 << 10;
/// Bytes of `colr` of type `nclx`: the type, three numbers of 16 bits, and the range.
const NCLX: usize = 11;
/// The most derivations (`iden`) that are followed from the primary item to its picture.
const MOST_DERIVATIONS: usize = 8;

/// Kinds of items that a picture is made of: coded ones, and those that are derived from others.
const PICTURES: [&[u8; 4]; 5] = [b"hvc1", b"grid", b"iden", b"iovl", b"tmap"];

/// One coded picture of the file: a tile of the grid, or the whole.
#[derive(Clone)]
pub(super) struct Tile<'a> {
    /// The decoder's configuration (body of `hvcC`).
    pub config: &'a [u8],
    /// Colour (body of `colr` of type `nclx`) where the container says it.
    pub colour: Option<&'a [u8]>,
    /// The coded bytes, in the order of their extents.
    pub data: Vec<&'a [u8]>,
}

/// A grid's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub columns: usize,
    pub width: u32,
    pub height: u32,
}

/// What the file shows.
pub(super) struct Container<'a> {
    /// None where one coded picture is the whole.
    pub grid: Option<Grid>,
    pub tiles: Vec<Tile<'a>>,
    pub turn: Turn,
}

/// Where an item's bytes lie.
struct Location {
    in_idat: bool,
    base: u64,
    extents: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Meta<'a> {
    primary: Option<u32>,
    kinds: HashMap<u32, [u8; 4]>,
    locations: HashMap<u32, Location>,
    properties: Vec<IsoBox<'a>>,
    associations: HashMap<u32, Vec<u16>>,
    /// Of a derived item (`dimg`), what it is made of.
    sources: HashMap<u32, Vec<u32>>,
    idat: &'a [u8],
}

impl<'a> Container<'a> {
    /// Reads the boxes up to and with `meta`, and finds the primary item's tiles.
    ///
    /// # Errors
    /// [`HeifError`]: the file ends before something that it names, is damaged, or holds another codec.
    pub fn parse(file: &'a [u8]) -> Result<Self, HeifError> {
        let mut boxes = Cursor(file);
        let body = loop {
            if boxes.is_empty() {
                return Err(HeifError::Cut);
            }
            let next = boxes.next_box()?;
            if &next.kind == b"meta" {
                break next.body;
            }
        };
        Meta::parse(body)?.picture(file)
    }
}

/// The places in the file of what no picture is made of: items of other kinds, and boxes beside `meta` and the pictures' bytes, such as a
/// motion photo's film.
///
/// # Errors
/// [`HeifError`]
pub(crate) fn metadata(file: &[u8]) -> Result<Vec<Range<usize>>, HeifError> {
    let (mut boxes, mut places) = (Cursor(file), Vec::new());
    while !boxes.is_empty() {
        let rest = boxes.0;
        match boxes.next_box() {
            Ok(IsoBox { kind, .. }) if [b"ftyp", b"mdat"].contains(&&kind) => {}
            Ok(IsoBox { kind, body }) if &kind == b"meta" => {
                places.extend(Meta::parse(body)?.beside_pictures(file)?);
            }
            Ok(IsoBox { body, .. }) => places.push(place(file, body.0)),
            // The pictures' bytes may be said to go on behind the end of the file: what is needed of them is there.
            Err(_) if rest.get(4..8) == Some(b"mdat") => break,
            Err(_) => {
                places.push(place(file, rest));
                break;
            }
        }
    }
    Ok(places)
}

/// Where a part of the file lies in it.
fn place(file: &[u8], part: &[u8]) -> Range<usize> {
    let from = part.as_ptr().addr() - file.as_ptr().addr();
    from..from + part.len()
}

impl<'a> Meta<'a> {
    /// The places of items that no picture is made of.
    fn beside_pictures(&self, file: &'a [u8]) -> Result<Vec<Range<usize>>, HeifError> {
        let (mut places, mut left) = (Vec::new(), file.len());
        for (item, kind) in &self.kinds {
            if !PICTURES.contains(&kind) && self.locations.contains_key(item) {
                let parts = self.bytes(*item, file, &mut left)?;
                places.extend(parts.into_iter().map(|part| place(file, part)));
            }
        }
        Ok(places)
    }

    fn parse(mut body: Cursor<'a>) -> Result<Self, HeifError> {
        let mut meta = Self::default();
        body.full_box()?;
        while !body.is_empty() {
            let IsoBox { kind, body } = body.next_box()?;
            match &kind {
                b"pitm" => meta.primary = Some(primary(body)?),
                b"iinf" => meta.kinds = item_kinds(body)?,
                b"iloc" => meta.locations = locations(body)?,
                b"iprp" => meta.properties_of(body)?,
                b"iref" => meta.sources = sources(body)?,
                b"idat" => meta.idat = body.0,
                _ => {}
            }
        }
        Ok(meta)
    }

    fn properties_of(&mut self, mut body: Cursor<'a>) -> Result<(), HeifError> {
        while !body.is_empty() {
            let IsoBox { kind, mut body } = body.next_box()?;
            match &kind {
                b"ipco" => {
                    while !body.is_empty() {
                        self.properties.push(body.next_box()?);
                        bounded(self.properties.len())?;
                    }
                }
                b"ipma" => self.associations.extend(associations(body)?),
                _ => {}
            }
        }
        Ok(())
    }

    fn picture(&self, file: &'a [u8]) -> Result<Container<'a>, HeifError> {
        let mut item = self.primary.ok_or(HeifError::Damaged("no primary item"))?;
        // Innermost first: what an item is derived from is turned before the item is.
        let mut turns = vec![self.turn(item)?];
        for _ in 0..MOST_DERIVATIONS {
            if self.kind(item)? != *b"iden" {
                break;
            }
            let [source] = self.sources(item) else {
                return Err(HeifError::Damaged("an iden without its source"));
            };
            item = *source;
            turns.push(self.turn(item)?);
        }
        let turn = turns.into_iter().rev().fold(Turn::default(), Turn::then);
        let mut left = file.len();
        let colour = self.colour(item);
        match &self.kind(item)? {
            b"hvc1" => {
                Ok(Container { grid: None, tiles: vec![self.tile(item, colour, file, &mut left)?], turn })
            }
            b"grid" => {
                let (grid, rows) = self.grid(item, file, &mut left)?;
                let tiles = self.sources(item);
                if tiles.len() != grid.columns * rows || tiles.len() > MOST_TILES {
                    return Err(HeifError::Damaged("a grid with another number of tiles than it says"));
                }
                let tiles = tiles
                    .iter()
                    .map(|tile| self.tile(*tile, colour, file, &mut left))
                    .collect::<Result<_, _>>()?;
                Ok(Container { grid: Some(grid), tiles, turn })
            }
            b"av01" => Err(HeifError::OtherCodec("AV1")),
            b"jpeg" => Err(HeifError::OtherCodec("JPEG")),
            b"avc1" => Err(HeifError::OtherCodec("H.264")),
            _ => Err(HeifError::OtherCodec("another codec")),
        }
    }

    fn kind(&self, item: u32) -> Result<[u8; 4], HeifError> {
        self.kinds.get(&item).copied().ok_or(HeifError::Damaged("an item without its entry in iinf"))
    }

    fn sources(&self, item: u32) -> &[u32] {
        self.sources.get(&item).map(Vec::as_slice).unwrap_or_default()
    }

    fn properties(&self, item: u32) -> impl Iterator<Item = &IsoBox<'a>> {
        let indices = self.associations.get(&item).into_iter().flatten();
        // Indices count from 1; 0 is no property.
        indices.filter_map(|index| self.properties.get(usize::from(*index).checked_sub(1)?))
    }

    fn property(&self, item: u32, kind: &[u8; 4]) -> Option<Cursor<'a>> {
        self.properties(item).find(|property| &property.kind == kind).map(|property| property.body)
    }

    /// How the item's own properties turn it, in their order.
    fn turn(&self, item: u32) -> Result<Turn, HeifError> {
        self.properties(item).try_fold(Turn::default(), |turn, property| {
            let mut body = property.body;
            Ok(match &property.kind {
                b"irot" => turn.then(Turn::anticlockwise(body.u8()?)),
                b"imir" => turn.then(Turn::mirrored(body.u8()?)),
                _ => turn,
            })
        })
    }

    /// What the container says of the item's colours. Where it says nothing, the coded picture does.
    fn colour(&self, item: u32) -> Option<&'a [u8]> {
        let colours = self.properties(item).filter(|property| &property.kind == b"colr");
        colours.filter_map(|property| property.body.0.get(..NCLX)).find(|body| body.starts_with(b"nclx"))
    }

    fn tile(
        &self,
        item: u32,
        colour: Option<&'a [u8]>,
        file: &'a [u8],
        left: &mut usize,
    ) -> Result<Tile<'a>, HeifError> {
        if self.kind(item)? != *b"hvc1" {
            return Err(HeifError::OtherCodec("another codec"));
        }
        let config = self.property(item, b"hvcC").ok_or(HeifError::Damaged("a tile without hvcC"))?;
        if config.0.len() > MOST_CONFIG {
            return Err(HeifError::Damaged("a configuration longer than any camera writes"));
        }
        let data = self.bytes(item, file, left)?;
        Ok(Tile { config: config.0, colour: self.colour(item).or(colour), data })
    }

    /// An item's bytes. All items together may have so many as the file has: `left` is what remains of that.
    fn bytes(&self, item: u32, file: &'a [u8], left: &mut usize) -> Result<Vec<&'a [u8]>, HeifError> {
        let location =
            self.locations.get(&item).ok_or(HeifError::Damaged("an item without its place in iloc"))?;
        let whole = if location.in_idat { self.idat } else { file };
        let mut bytes = Vec::new();
        for (offset, length) in &location.extents {
            let from = location.base.checked_add(*offset).and_then(|from| usize::try_from(from).ok());
            let to =
                from.zip(usize::try_from(*length).ok()).and_then(|(from, length)| from.checked_add(length));
            let (Some(from), Some(to)) = (from, to) else {
                return Err(HeifError::Damaged("an extent beyond all files"));
            };
            let extent = whole.get(from..to).ok_or(HeifError::Cut)?;
            *left =
                left.checked_sub(extent.len()).ok_or(HeifError::Damaged("tiles that name the same bytes"))?;
            bytes.push(extent);
        }
        Ok(bytes)
    }

    /// The grid's descriptor (clause 6.6.2.3): version, flags, rows and columns less one, width and height.
    fn grid(&self, item: u32, file: &'a [u8], left: &mut usize) -> Result<(Grid, usize), HeifError> {
        let bytes = self.bytes(item, file, left)?;
        let mut descriptor = Cursor(bytes.first().copied().unwrap_or_default());
        descriptor.u8()?;
        let wide = descriptor.u8()? & 1 == 1;
        let (rows, columns) = (usize::from(descriptor.u8()?) + 1, usize::from(descriptor.u8()?) + 1);
        let (width, height) = (descriptor.number(wide)?, descriptor.number(wide)?);
        Ok((Grid { columns, width, height }, rows))
    }
}

fn bounded(count: usize) -> Result<(), HeifError> {
    if count > MOST_ITEMS {
        return Err(HeifError::Damaged("more items or properties than any camera writes"));
    }
    Ok(())
}

fn primary(mut body: Cursor<'_>) -> Result<u32, HeifError> {
    let (version, _) = body.full_box()?;
    body.number(version > 0)
}

/// `infe` boxes: of items before version 2 there are no picture kinds.
fn item_kinds(mut body: Cursor<'_>) -> Result<HashMap<u32, [u8; 4]>, HeifError> {
    let (version, _) = body.full_box()?;
    body.number(version > 0)?;
    let mut kinds = HashMap::new();
    while !body.is_empty() {
        let IsoBox { kind, mut body } = body.next_box()?;
        let (version, _) = body.full_box()?;
        if &kind == b"infe" && version >= 2 {
            let item = body.number(version > 2)?;
            body.u16()?; // Protection.
            kinds.insert(item, body.kind()?);
            bounded(kinds.len())?;
        }
    }
    Ok(kinds)
}

fn locations(mut body: Cursor<'_>) -> Result<HashMap<u32, Location>, HeifError> {
    let (version, _) = body.full_box()?;
    let (first, second) = (body.u8()?, body.u8()?);
    let (offset_size, length_size, base_size) = (first >> 4, first & 15, second >> 4);
    let index_size = if version == 0 { 0 } else { second & 15 };
    let mut locations = HashMap::new();
    for _ in 0..body.number(version > 1)? {
        let item = body.number(version > 1)?;
        let method = if version == 0 { 0 } else { body.u16()? & 15 };
        body.u16()?; // Data reference: always this file.
        let base = body.sized(base_size)?;
        let count = usize::from(body.u16()?);
        if count > MOST_EXTENTS {
            return Err(HeifError::Damaged("an item in more pieces than any camera writes"));
        }
        let mut extents = Vec::with_capacity(count);
        for _ in 0..count {
            body.sized(index_size)?;
            extents.push((body.sized(offset_size)?, body.sized(length_size)?));
        }
        // Method 2 is a place within another item, which no picture of a camera uses: such an item is as if it had none.
        if method < 2 {
            locations.insert(item, Location { in_idat: method == 1, base, extents });
            bounded(locations.len())?;
        }
    }
    Ok(locations)
}

fn associations(mut body: Cursor<'_>) -> Result<HashMap<u32, Vec<u16>>, HeifError> {
    let (version, flags) = body.full_box()?;
    let mut associations = HashMap::new();
    for _ in 0..body.u32()? {
        let item = body.number(version > 0)?;
        let count = body.u8()?;
        // The highest bit says whether a reader must know the property.
        let index = |body: &mut Cursor<'_>| {
            if flags & 1 == 1 {
                body.u16().map(|index| index & 0x7FFF)
            } else {
                body.u8().map(|index| u16::from(index & 0x7F))
            }
        };
        let indices = (0..count).map(|_| index(&mut body)).collect::<Result<Vec<_>, _>>()?;
        associations.insert(item, indices);
        bounded(associations.len())?;
    }
    Ok(associations)
}

fn sources(mut body: Cursor<'_>) -> Result<HashMap<u32, Vec<u32>>, HeifError> {
    let (version, _) = body.full_box()?;
    let mut sources = HashMap::new();
    while !body.is_empty() {
        let IsoBox { kind, mut body } = body.next_box()?;
        if &kind == b"dimg" {
            let item = body.number(version > 0)?;
            let count = body.u16()?;
            let of = (0..count).map(|_| body.number(version > 0)).collect::<Result<Vec<_>, _>>()?;
            sources.insert(item, of);
            bounded(sources.len())?;
        }
    }
    Ok(sources)
}
