//! Reads odometers: checks and decodes a photo, measures its quality, finds its lines of text, reads them, and says
//! which number is the mileage and how sure that is.
//!
//! In the order of work: [`inspect`] (header only), [`decode`], [`grade`], [`Reader::read`], and later [`choose`].
//! Five neural networks are embedded in the program; nothing is fetched.
//! Knows no Kafka, no database, no clock and nothing of earlier readings.

mod agree;
mod annotate;
mod around;
mod boxes;
mod camera;
mod choose;
mod chunks;
mod crop;
mod decode;
mod detect;
mod digits;
mod enough;
mod focus;
mod format;
mod geometry;
mod grid;
#[cfg(feature = "heic")]
mod heif;
mod inspect;
mod jpeg;
mod ladder;
mod line_reader;
mod lines;
mod locate;
mod metadata;
mod models;
mod network;
mod pass;
mod plane;
mod quality;
mod reader;
mod reading;
mod recognise;
mod seen;
mod select;
mod sequence;
mod spectrum;
mod surroundings;
mod tenths;
mod votes;
mod weigh;

pub use annotate::annotate;
pub use boxes::BoxMetrics;
pub use camera::camera;
pub use choose::choose;
pub use decode::{Jpeg, Photo, decode};
pub use format::Format;
pub use grid::SCREEN_GRID;
pub use inspect::{FileInfo, inspect};
pub use lines::from_lines;
pub use metadata::without_metadata;
pub use models::{Model, models};
pub use quality::{Graded, grade};
pub use reader::{AUTO_ACCEPT, Reader, ReaderError};
pub use reading::{Evidence, Line, Reading, Role};
pub use seen::Seen;
pub use surroundings::{COPY, Surroundings};
