//! The ladder of looks at a photo: each step is climbed where those before it left doubt.

use std::cell::Cell;

use image::{RgbImage, imageops};

use crate::{
    detect::{COARSE, FINE},
    geometry::Point,
    network::{NetworkError, Thread},
    pass::{Found, Networks, Pass},
    plane::stretched,
    recognise::confidence,
    select::Read,
};

/// Candidates below this are noise.
pub(crate) const FLOOR: f64 = 0.05;
/// Below this another look is worth its time.
const DOUBT: f64 = 0.6;
/// What a turned photo must be read with, or it was not lying on its side: upside down, scales give numbers too.
const TURNED: f64 = 0.4;
/// A photo with this many lines of two or more characters, each read at least this surely, stands upright.
const LEGIBLE: (usize, f32) = (5, 0.9);
/// How many columns of strips are read on one photo; what stands on the rest is not read. A column costs about 50 us (a line
/// of 200 columns 10 ms), which makes 1.3 s, three times what a photo needs. The detector adds 0.9 s at all steps together: a
/// read stays below 3 s.
const MOST_COLUMNS: usize = 26_000;

/// A turn of a picture, and the way back from a point of the turned one, given width and height before.
type Turn = (fn(&RgbImage) -> RgbImage, fn(Point, f32, f32) -> Point);

/// The looks at one photo.
pub(crate) struct Ladder<'a> {
    networks: &'a Networks,
    thread: &'a Thread,
    columns: Cell<usize>,
}

impl<'a> Ladder<'a> {
    pub fn new(networks: &'a Networks, thread: &'a Thread) -> Self {
        Self { networks, thread, columns: Cell::new(MOST_COLUMNS) }
    }

    /// The photo as it is; where that leaves doubt, seen coarser, then with its contrast stretched; where nothing says that it
    /// stands upright, turned. Each step costs half of the first, and adds to what the others found. With what was done to
    /// the photo, by the labels of `image_quality_logs.preprocessing_applied`.
    pub fn climb(&self, picture: &RgbImage) -> (Found, Vec<&'static str>) {
        let mut steps = Vec::new();
        let mut found = self.look(picture, FINE);
        if found.sure() >= DOUBT {
            return (found, steps);
        }
        found.add(self.look(picture, COARSE));
        if found.sure() < TURNED
            && let Some(stretched) = stretched(picture)
        {
            steps.push("contrast_stretch");
            found.add(self.look(&stretched, COARSE));
        }
        if found.sure() >= TURNED || stands(&found) {
            return (found, steps);
        }
        match self.turned(picture) {
            Some(turned) => (turned, [steps, vec!["rotate"]].concat()),
            None => (found, steps),
        }
    }

    /// What is found in the first turned position in which more than noise is found, on the photo as it came.
    fn turned(&self, picture: &RgbImage) -> Option<Found> {
        let (width, height) = (picture.width() as f32, picture.height() as f32);
        let turns: [Turn; 3] = [
            (imageops::rotate90, |[x, y], _, height| [y, height - x]),
            (imageops::rotate270, |[x, y], width, _| [width - y, x]),
            (imageops::rotate180, |[x, y], width, height| [width - x, height - y]),
        ];
        turns.into_iter().find_map(|(turn, back)| {
            let picture = turn(picture);
            let mut found = self.look(&picture, COARSE);
            if found.sure() < TURNED {
                return None;
            }
            found.add(self.look(&picture, FINE));
            for line in &mut found.lines {
                line.quad = line.quad.map(|point| back(point, width, height));
            }
            Some(found)
        })
    }

    fn look(&self, picture: &RgbImage, long_side: u32) -> Found {
        let pass =
            Pass { networks: self.networks, picture, long_side, columns: &self.columns, thread: self.thread };
        let run: Result<Found, NetworkError> = pass.run();
        let mut found = run.unwrap_or_else(|error| {
            // The networks are built in and take every size: this is a fault of ours, and the photo goes to a person.
            tracing::error!(error = %error, "a network failed");
            Found::default()
        });
        found.values.retain(|value| value.confidence >= FLOOR);
        found
    }
}

/// Whether so much is legible that the photo cannot lie on its side.
fn stands(found: &Found) -> bool {
    let legible = |line: &&Read| line.glyphs.len() >= 2 && confidence(&line.glyphs) >= LEGIBLE.1;
    found.lines.iter().filter(legible).count() >= LEGIBLE.0
}
