//! The ladder of looks at a photo: each rung is climbed where those before it left doubt.

use std::cell::Cell;

use image::{RgbImage, imageops};

use crate::{
    detect::{COARSE, FINE},
    digits::between,
    focus::Focus,
    geometry::{Point, Quad, grow, height, shared},
    locate::{Place, locate, locate_closer},
    network::{NetworkError, Thread},
    pass::{Found, Networks, Pass, SURE, Value},
    plane::stretched,
    recognise::confidence,
    select::{Read, pitch},
    weigh::CERTAIN,
};

/// Candidates below this are noise.
pub(crate) const FLOOR: f64 = 0.05;
/// Below this another look is worth its time.
const DOUBT: f64 = 0.6;
/// What a turned photo must be read with, or it was not lying on its side: upside down, scales give numbers too.
const TURNED: f64 = 0.4;
/// A photo with this many lines of two or more characters, each read at least this surely, stands upright.
const LEGIBLE: (usize, f32) = (5, 0.9);
/// How many columns of strips the recogniser reads on one photo; what stands on the rest is not read. A column costs about 50 us
/// (a line of 200 columns 10 ms), which makes 0.8 s; half of the photos need 3,100 columns, one in 200 needs more than this. The
/// detector adds 0.9 s at all rungs together, the locator 0.2 s, and the other networks 0.15 s for each of four places at most.
const MOST_COLUMNS: usize = 16_000;

/// How many places of the locator, and of the whole photo, are looked at closely.
const PLACES: usize = 2;
/// What the whole photo's reading is worth at most where no closer look speaks for it: of real photos 3 in 100 of those that it
/// is surest of are wrong by a factor of ten.
const UNSEEN: f64 = 0.75;
/// Lines that share less than this of their joint area are two.
const SAME: f32 = 0.2;
/// Confidence from which a value of the whole photo is likely the mileage.
const LIKELY: f64 = 0.4;
/// What the detector's box is taller above and below than its digits, in its heights.
const ASIDE: f32 = 0.12;

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

    /// First the places that the locator finds, looked at closely. Where that leaves doubt, the whole photo; then seen coarser,
    /// then with its contrast stretched; where nothing shows that it stands upright, turned. Each look adds to what the others
    /// found. With what was done to the photo, by the labels of `image_quality_logs.preprocessing_applied`.
    pub fn climb(&self, picture: &RgbImage) -> (Found, Vec<&'static str>) {
        let places = kept(self.places(picture));
        let totals: Vec<Place> =
            places.iter().copied().filter(|place| place.total() >= CERTAIN / 2.0).collect();
        let (mut close, looked) = kept(self.close(picture, totals.iter().take(PLACES).copied(), &[]));
        if close.is_settled() {
            return (close, Vec::new());
        }
        let upright = totals.iter().any(|place| place.total() >= CERTAIN);
        let (mut whole, steps) = self.whole(picture, upright, close.is_read() && close.is_doubted());
        let least = close.values.first().filter(|_| close.is_read()).map_or(0, |best| best.value);
        let unread = |value: &&Value| {
            value.value >= least && close.values.iter().all(|known| known.value != value.value)
        };
        let unseen: Vec<Place> = whole
            .values
            .iter()
            .filter(unread)
            .take(PLACES)
            .filter_map(|value| place_of(&whole, value, &places))
            .collect();
        close.add(kept(self.close(picture, unseen.into_iter(), &looked)).0);
        whole.without_tenths_of(&close);
        close.agree_with(&whole);
        let supported: Vec<bool> = whole.values.iter().map(|value| close.supports(&whole, value)).collect();
        for (value, supported) in whole.values.iter_mut().zip(supported) {
            value.confidence = value.confidence.min(if supported { 1.0 } else { UNSEEN });
        }
        whole.add(close);
        (whole, steps)
    }

    /// The lines of digits: around the likeliest total as they are seen closer, and then as they are seen on the whole photo.
    fn places(&self, picture: &RgbImage) -> Result<Vec<Place>, NetworkError> {
        let locator = &self.networks.locator;
        let mut places = locate(locator, picture, self.thread)?;
        places.sort_by(|a, b| b.total().total_cmp(&a.total()));
        if let Some(best) = places.first().filter(|best| best.total() >= CERTAIN / 2.0) {
            let mut closer = locate_closer(locator, picture, &best.quad, self.thread)?;
            closer.sort_by(|a, b| b.total().total_cmp(&a.total()));
            // Its ends are found better closer, its place on the whole.
            closer.retain(|place| place.total() >= CERTAIN || shared(&place.quad, &best.quad) < SAME);
            places.splice(0..0, closer);
        }
        Ok(places)
    }

    /// What stands at the likeliest places of the total, and the lines that were found there; those `before` are left out.
    fn close(
        &self,
        picture: &RgbImage,
        places: impl Iterator<Item = Place>,
        before: &[Place],
    ) -> Result<(Found, Vec<Place>), NetworkError> {
        let (networks, columns, thread) = (self.networks, &self.columns, self.thread);
        let focus = Focus { networks, picture, columns, thread };
        let (mut found, mut looked) = (Found::default(), Vec::new());
        for place in places {
            let Some((line, read, mut values)) = focus.look(&place, before)? else { continue };
            looked.push(line);
            values.retain(|value| value.confidence >= FLOOR);
            found.add(Found { lines: vec![read], values });
            // The same line in another box is often surer.
            if found.is_plain(SURE) {
                break;
            }
        }
        Ok((found, looked))
    }

    /// The photo without the locator, coarser first; `upright` where that has seen how it stands, `read` where its line
    /// was read and no other look can make it surer.
    fn whole(&self, picture: &RgbImage, upright: bool, read: bool) -> (Found, Vec<&'static str>) {
        let mut steps = Vec::new();
        let mut found = self.look(picture, COARSE);
        if found.sure() >= DOUBT || read {
            return (found, steps);
        }
        found.add(self.look(picture, FINE));
        if found.sure() < TURNED
            && !upright
            && let Some(stretched) = stretched(picture)
        {
            steps.push("contrast_stretch");
            found.add(self.look(&stretched, COARSE));
        }
        if found.sure() >= TURNED || upright || stands(&found) {
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
        let mut found: Found = kept(pass.run());
        found.values.retain(|value| value.confidence >= FLOOR);
        found
    }
}

/// Where a value of the whole photo stands, tight around its digits, with what the locator knows of the place.
fn place_of(whole: &Found, value: &Value, places: &[Place]) -> Option<Place> {
    let quad = digits_of(&whole.lines[value.line], value.value)?;
    let known = places.iter().find(|place| shared(&place.quad, &quad) > SAME);
    // What reads like a mileage is as good as a total that the locator sees.
    let display = if value.confidence >= LIKELY { CERTAIN } else { CERTAIN / 2.0 };
    let unknown = Place { quad, display, drum: 0.0, other: 0.0 };
    Some(known.map_or(unknown, |known| Place { quad, display: known.display.max(display), ..*known }))
}

/// The quad of a line's digits that give a value, or of all its digits; none where it has fewer than three.
fn digits_of(line: &Read, value: u64) -> Option<Quad> {
    let digits: Vec<usize> =
        (0..line.glyphs.len()).filter(|index| line.glyphs[*index].character.is_ascii_digit()).collect();
    let text: String = digits.iter().map(|index| line.glyphs[*index].character).collect();
    let value = value.to_string();
    let wanted = text.find(&value).map_or(digits.as_slice(), |at| &digits[at..at + value.len()]);
    let half = pitch(&line.glyphs, wanted) / 2.0;
    let (first, last) = (line.glyphs[*wanted.first()?].at, line.glyphs[*wanted.last()?].at);
    let quad = between(&line.quad, first - half, last + half);
    (wanted.len() >= 3).then(|| grow(&quad, 0.0, 0.0, -ASIDE * height(&quad)))
}

/// What a network gave. They are built in and take every size: an error is a fault of ours, and the photo goes to a person.
fn kept<T: Default>(run: Result<T, NetworkError>) -> T {
    run.unwrap_or_else(|error| {
        tracing::error!(error = %error, "a network failed");
        T::default()
    })
}

/// Whether so much is legible that the photo cannot lie on its side.
fn stands(found: &Found) -> bool {
    let legible = |line: &&Read| line.glyphs.len() >= 2 && confidence(&line.glyphs) >= LEGIBLE.1;
    found.lines.iter().filter(legible).count() >= LEGIBLE.0
}
