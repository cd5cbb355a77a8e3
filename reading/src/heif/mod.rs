//! Pictures in HEIF whose tiles are coded in HEVC (HEIC): what an iPhone writes where nobody told it otherwise.
//!
//! The tiles are decoded one after another by a crate, each as a file of its own, and laid into the picture: so a photo of 24
//! million pixels takes 3 bytes for each of them and one tile, where the crate alone would take 24. All work runs on as many threads as
//! there are cores, and always the same ones: an allocator keeps memory for each thread that ever decoded a tile.

mod container;
mod cursor;
mod sps;
mod turn;

use std::sync::{Mutex, PoisonError};

pub(crate) use container::metadata;
use container::{Container, Grid, Tile};
use image::{RgbImage, imageops};

/// The most samples, of luma and chroma together, of one coded picture; 16 million pixels of 4:2:0. The decoder takes 4 bytes
/// for each, and as much again where it cuts a border off.
const MOST_SAMPLES: u64 = 24_000_000;
/// A picture that is no grid is decoded while no other such one is: of 16 million pixels it takes 200 MB, where the place of a
/// worker is meant for 80. Phones write grids.
static WHOLE: Mutex<()> = Mutex::new(());

/// Why a file cannot be decoded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeifError {
    /// It ends before something that it names.
    #[error("the file ends in the middle")]
    Cut,
    /// It contradicts itself, or what it says is more than any camera writes.
    #[error("it has {0}")]
    Damaged(&'static str),
    /// Its pictures are not HEVC.
    #[error("its pictures are coded in {0}")]
    OtherCodec(&'static str),
    /// A coded picture has more samples than are decoded.
    #[error("a coded picture of it has {0} samples")]
    TooLarge(u64),
    /// The decoder's word.
    #[error(transparent)]
    Decoder(#[from] heic_decoder::HeifError),
}

/// A file whose container is read.
pub(crate) struct Heif<'a> {
    container: Container<'a>,
    size: (u32, u32),
}

impl<'a> Heif<'a> {
    /// Reads the container; decodes no pixels and copies at most one tile.
    ///
    /// # Errors
    /// [`HeifError`]
    pub fn open(file: &'a [u8]) -> Result<Self, HeifError> {
        let container = Container::parse(file)?;
        let size = match container.grid {
            Some(grid) => (grid.width, grid.height),
            None => container.tiles.first().map_or(Ok((0, 0)), coded_size)?,
        };
        Ok(Self { container, size })
    }

    /// Width and height as stored, before the turn; pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// The EXIF orientation that turns it as the container says. The EXIF data inside the file says the same once more, and is
    /// not to be heeded.
    pub fn orientation(&self) -> u8 {
        self.container.turn.exif()
    }

    /// The pixels as stored, before the turn. The size has been found small enough by who calls.
    ///
    /// # Errors
    /// [`HeifError`]
    pub fn decode(&self) -> Result<RgbImage, HeifError> {
        let Some(grid) = self.container.grid else {
            let _alone = WHOLE.lock().unwrap_or_else(PoisonError::into_inner);
            let tile = self.container.tiles.first().ok_or(HeifError::Damaged("no picture"))?;
            return rayon::scope(|_| decoded(tile));
        };
        rayon::scope(|_| self.assembled(grid))
    }

    fn assembled(&self, grid: Grid) -> Result<RgbImage, HeifError> {
        let mut picture = RgbImage::new(grid.width, grid.height);
        let mut size = None;
        for (index, tile) in self.container.tiles.iter().enumerate() {
            // Known before it is decoded: all tiles have one size, and cover the picture with less than one to spare.
            let this = coded_size(tile)?;
            if *size.get_or_insert(this) != this || !covers(grid, self.container.tiles.len(), this) {
                return Err(HeifError::Damaged("tiles that do not cover the picture"));
            }
            let (column, row) = (index % grid.columns, index / grid.columns);
            let at = (i64::from(this.0) * column as i64, i64::from(this.1) * row as i64);
            imageops::replace(&mut picture, &decoded(tile)?, at.0, at.1);
        }
        Ok(picture)
    }
}

/// Whether so many tiles of a size cover a grid's picture, and no column or row of them lies wholly outside it.
fn covers(grid: Grid, tiles: usize, (width, height): (u32, u32)) -> bool {
    let covers = |count: usize, side: u32, whole: u32| {
        let (count, side) = (count as u64, u64::from(side));
        count * side >= u64::from(whole) && (count - 1) * side < u64::from(whole)
    };
    covers(grid.columns, width, grid.width) && covers(tiles / grid.columns, height, grid.height)
}

/// Width and height of a coded picture without the border that its coding needed; pixels.
fn coded_size(tile: &Tile<'_>) -> Result<(u32, u32), HeifError> {
    let samples = sps::most_samples(tile.config)?;
    if samples > MOST_SAMPLES {
        return Err(HeifError::TooLarge(samples));
    }
    let head = Tile { data: Vec::new(), ..tile.clone() };
    let info = heic_decoder::probe(&head.file())?;
    let side = |side: usize| u32::try_from(side).map_err(|_| HeifError::TooLarge(samples));
    Ok((side(info.coded_width)?, side(info.coded_height)?))
}

fn decoded(tile: &Tile<'_>) -> Result<RgbImage, HeifError> {
    let rgb = heic_decoder::decode(&tile.file())?.to_rgb8()?;
    let size = u32::try_from(rgb.width).ok().zip(u32::try_from(rgb.height).ok());
    size.and_then(|(width, height)| RgbImage::from_raw(width, height, rgb.data))
        .ok_or(HeifError::Damaged("a tile of another size than its pixels"))
}

impl Tile<'_> {
    /// A file with this coded picture alone, in which nothing but its configuration, colour and data is of the sender's making.
    fn file(&self) -> Vec<u8> {
        let data = self.data.concat();
        let colour = self.colour.map(|colour| boxed(b"colr", &[colour])).unwrap_or_default();
        let properties: &[u8] = if self.colour.is_some() { &[2, 1, 2] } else { &[1, 1] };
        let kind = boxed(b"ftyp", &[b"heic\0\0\0\0heic"]);
        let meta = |from: usize| {
            let place = [from as u32, data.len() as u32].map(u32::to_be_bytes);
            let item = boxed(b"infe", &[&[2, 0, 0, 0, 0, 1, 0, 0], b"hvc1\0"]);
            let owned = boxed(b"ipco", &[&boxed(b"hvcC", &[self.config]), &colour]);
            let named = boxed(b"ipma", &[&[0, 0, 0, 0, 0, 0, 0, 1, 0, 1], properties]);
            boxed(
                b"meta",
                &[
                    &[0; 4],
                    &boxed(b"pitm", &[&[0, 0, 0, 0, 0, 1]]),
                    &boxed(b"iinf", &[&[0, 0, 0, 0, 0, 1], &item]),
                    &boxed(b"iloc", &[&[0, 0, 0, 0, 0x44, 0, 0, 1, 0, 1, 0, 0, 0, 1], place.as_flattened()]),
                    &boxed(b"iprp", &[&owned, &named]),
                ],
            )
        };
        // The place of the data does not change the length of what stands before it; 8 bytes are the head of its box.
        let before = kind.len() + meta(0).len();
        [kind, meta(before + 8), boxed(b"mdat", &[&data])].concat()
    }
}

/// A box. An upload has at most some 20 MB, so a length always fits.
fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let length = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut whole = Vec::with_capacity(length);
    whole.extend((length as u32).to_be_bytes());
    whole.extend(kind);
    parts.iter().for_each(|part| whole.extend(*part));
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_coded_picture_is_refused_by_its_own_size_whatever_window_of_it_is_shown() {
        let config = sps::tests::config(&sps::tests::set([16_384, 16_384]));
        let tile = Tile { config: &config, colour: None, data: Vec::new() };
        assert_eq!(coded_size(&tile), Err(HeifError::TooLarge(16_384 * 16_384 * 3 / 2)));
    }

    #[test]
    fn tiles_cover_a_picture_and_none_lies_outside() {
        let grid = Grid { columns: 8, width: 4032, height: 3024 };
        assert!(covers(grid, 48, (512, 512)));
        assert!(!covers(grid, 40, (512, 512)));
        assert!(!covers(grid, 56, (512, 512)));
        assert!(!covers(grid, 48, (1024, 512)));
    }
}
