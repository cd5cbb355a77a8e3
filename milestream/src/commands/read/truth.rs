//! What photos show: the truth file of a generated set, or the labels of real photos. The accuracy table compares with it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::lines;

/// The class of photos that hold a reading; all others must not be accepted.
pub const READABLE: &str = "readable";

/// What a photo shows: a line of the truth file of a generated set.
#[derive(Deserialize)]
pub struct Truth {
    pub file: String,
    pub class: String,
    pub style: String,
    /// The integer part; none where the photo has no odometer.
    pub value: Option<u64>,
    /// The digit on the wheel of tenths.
    pub tenth: Option<u64>,
    /// The vehicle's last verified reading.
    pub prior: Option<u64>,
}

/// A line of either kind of file.
#[derive(Deserialize)]
#[serde(untagged)]
enum TruthLine {
    Drawn(Truth),
    Labelled(Label),
}

/// Reads a truth file or a file of labels; by file name.
pub fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Truth>> {
    let truth = |line| match line {
        TruthLine::Drawn(truth) => truth,
        TruthLine::Labelled(label) => label.into(),
    };
    Ok(lines::<TruthLine>(path)?.into_iter().map(truth).map(|truth| (truth.file.clone(), truth)).collect())
}

/// The class of photos whose display shows another number than the total.
const TRIP_METER: &str = "trip_meter";

/// A line of a file of labels: what a person noted on a real photo.
#[derive(Deserialize)]
pub struct Label {
    file: String,
    kind: Kind,
    /// The number as it stands there without leading zeros; on drums with the wheel of tenths.
    label: String,
    /// What another person read, who knew of the wheel of tenths.
    seen: Option<Seen>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Analog,
    Digital,
}

#[derive(Deserialize)]
struct Seen {
    /// The total without tenths; none where the photo shows none.
    value: Option<u64>,
}

impl From<Label> for Truth {
    fn from(label: Label) -> Self {
        let (value, tenth) = label.value();
        let style = match label.kind {
            Kind::Analog => "analog",
            Kind::Digital => "digital",
        };
        let class = if value.is_some() { READABLE } else { TRIP_METER };
        Self { file: label.file, class: class.into(), style: style.into(), value, tenth, prior: None }
    }
}

impl Label {
    /// The total and the digit on the wheel of tenths. Drums end with such a wheel; a number with a decimal point, or of one to
    /// three digits, on a display is a trip meter.
    fn value(&self) -> (Option<u64>, Option<u64>) {
        let whole: Option<u64> = self.label.parse().ok();
        if let Some(seen) = &self.seen {
            let tenth = seen
                .value
                .zip(whole)
                .and_then(|(value, whole)| (whole / 10 == value && whole != value).then_some(whole % 10));
            return (seen.value, tenth);
        }
        match self.kind {
            Kind::Analog => (whole.map(|whole| whole / 10), whole.map(|whole| whole % 10)),
            Kind::Digital => (whole.filter(|_| self.label.len() > 3), None),
        }
    }
}
