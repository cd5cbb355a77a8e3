//! `milestream read`: reads photos without any server, and measures the reader against a truth file.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use cpu_time::ThreadTime;
use nix::sys::resource::{UsageWho, getrusage};
use reading::{AUTO_ACCEPT, Graded, Reader, Reading};
use rust_decimal::Decimal;
use schemas::{
    events::{Candidate, Fault},
    reason::Reason,
};
use serde::Deserialize;

mod accuracy;
mod gallery;
mod show;
mod truth;

const NO_CPU_TIME: &str = "cannot measure the CPU time";

/// What to read, and how to say it.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Photos, or folders of photos.
    #[arg(required = true)]
    photos: Vec<PathBuf>,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
    /// Read with the locator.onnx and line_reader.onnx of this folder in place of those that are built in: to measure on
    /// photos that those were trained on.
    #[arg(long, value_name = "FOLDER")]
    networks: Option<PathBuf>,
    /// The vehicle's last verified reading, or a file with one JSON object a line: {"file": …, "previous": …}. It chooses
    /// among what was read; the reading without it is printed as well.
    #[arg(long, value_name = "N|FILE")]
    previous: Option<Previous>,
    /// Draw boxes and candidates on the photo; of one photo only.
    #[arg(long, value_name = "OUT.png")]
    annotate: Option<PathBuf>,
    /// Compare with the truth file of a set made by tools/photogen, or with a file of labels of real photos ({"file": …,
    /// "kind": "analog" or "digital", "label": …} a line), and print the accuracy table.
    #[arg(long, value_name = "FILE", conflicts_with = "previous")]
    truth: Option<PathBuf>,
    /// With --truth: write a page of the photos that were not read right, with their boxes, into this folder.
    #[arg(long, value_name = "FOLDER", requires = "truth")]
    gallery: Option<PathBuf>,
    /// Read only so many of the photos, chosen by --seed.
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Chooses the photos of --sample.
    #[arg(long, value_name = "S", default_value_t = 0, requires = "sample")]
    seed: u64,
    /// How many photos are read at a time, each on one thread.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
}

/// The last verified reading of one vehicle, or of each photo's.
#[derive(Clone, Debug)]
enum Previous {
    One(Decimal),
    Each(PathBuf),
}

impl FromStr for Previous {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Decimal::from_str(text).map_or_else(|_| Self::Each(text.into()), Self::One))
    }
}

/// A line of a file of earlier readings.
#[derive(Deserialize)]
struct PreviousLine {
    file: String,
    /// A number, or a decimal string as `reading` is.
    #[serde(default)]
    previous: serde_json::Value,
}

/// What came of one photo.
struct Outcome {
    file: String,
    /// Why it was not read.
    fault: Option<Fault>,
    graded: Option<Graded>,
    reading: Option<Reading>,
    previous: Option<Decimal>,
    /// CPU time for this photo.
    cpu: Duration,
    wall: Duration,
}

impl Outcome {
    /// The reading by the photo alone.
    fn best(&self) -> Option<&Candidate> {
        self.reading.as_ref()?.best.as_ref()
    }

    /// The reading that the last verified one speaks for.
    fn chosen(&self, previous: Option<Decimal>) -> Option<&Candidate> {
        reading::choose(&self.reading.as_ref()?.candidates, previous)
    }

    /// Why a person looks at the photo, or why it is turned down; none where it is accepted.
    fn against(&self, previous: Option<Decimal>) -> Option<Reason> {
        if let Some(fault) = &self.fault {
            return Some(fault.reason);
        }
        let Some(chosen) = self.chosen(previous) else { return Some(Reason::NoOdometer) };
        if self.reading.as_ref().is_some_and(|reading| reading.several) {
            Some(Reason::SeveralReadings)
        } else {
            (chosen.confidence < AUTO_ACCEPT).then_some(Reason::LowConfidence)
        }
    }
}

/// Reads what was asked for and prints it.
///
/// # Errors
/// Files that cannot be read or written, and contradictions in the arguments.
pub fn run(args: &ReadArgs) -> anyhow::Result<()> {
    let mut files = files(&args.photos)?;
    if let Some(count) = args.sample {
        files = sample(files, count, args.seed);
    }
    if args.annotate.is_some() && files.len() != 1 {
        bail!("--annotate draws on one photo, and {} were given", files.len());
    }
    let truth = args.truth.as_deref().map(truth::read).transpose()?;
    let mut gallery = args.gallery.clone().map(gallery::Gallery::new).transpose()?;
    let previous = previous(args.previous.as_ref())?;
    let reader = reader(args)?;
    let mut table = truth.map(accuracy::Table::new);
    for together in files.chunks(usize::from(args.threads)) {
        let one = |file: &PathBuf| read(&reader, file, previous(&name(file)), args.annotate.as_deref());
        for outcome in at_a_time(together, one)? {
            match &mut table {
                Some(table) => {
                    if let (Some(said), Some(gallery)) = (table.add(&outcome)?, &mut gallery) {
                        gallery.add(&outcome, &said)?;
                    }
                }
                None if args.json => println!("{}", show::json(&outcome)),
                None => print!("{}", show::text(&outcome)),
            }
        }
    }
    if let Some(gallery) = gallery {
        gallery.finish()?;
    }
    if let Some(table) = table {
        let usage = getrusage(UsageWho::RUSAGE_SELF).context("cannot measure the memory")?;
        print!("{}", table.shown(reader.version(), usage.max_rss()));
    }
    Ok(())
}

/// The reader that was asked for.
fn reader(args: &ReadArgs) -> anyhow::Result<Reader> {
    let Some(folder) = &args.networks else {
        return Ok(Reader::embedded()?);
    };
    // They are used until the program ends.
    let network = |name: &str| -> anyhow::Result<&'static [u8]> {
        let file = folder.join(name);
        Ok(Vec::leak(fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?))
    };
    Ok(Reader::with(network("locator.onnx")?, network("line_reader.onnx")?)?)
}

/// The outcomes of a few photos that are read at the same time, in order.
fn at_a_time(
    files: &[PathBuf],
    read: impl Fn(&PathBuf) -> anyhow::Result<Outcome> + Sync,
) -> anyhow::Result<Vec<Outcome>> {
    if let [file] = files {
        return Ok(vec![read(file)?]);
    }
    std::thread::scope(|scope| {
        let started: Vec<_> = files.iter().map(|file| scope.spawn(|| read(file))).collect();
        let ended = |thread: std::thread::ScopedJoinHandle<'_, anyhow::Result<Outcome>>| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that read a photo panicked")))
        };
        started.into_iter().map(ended).collect()
    })
}

/// `count` of the files in their order: the same for the same names and seed, wherever they lie.
fn sample(files: Vec<PathBuf>, count: usize, seed: u64) -> Vec<PathBuf> {
    // FNV-1a (64 bits), begun with the seed; its high bits are mixed better than its low ones.
    let key = |file: &PathBuf| {
        name(file)
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325 ^ seed.wrapping_mul(0x9E37_79B9_7F4A_7C15), |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
            })
            >> 16
    };
    let mut keys: Vec<u64> = files.iter().map(key).collect();
    keys.sort_unstable();
    match keys.get(count) {
        Some(limit) => files.into_iter().filter(|file| key(file) < *limit).collect(),
        None => files,
    }
}

/// One photo, from its bytes to the reading. As in the pipeline, one whose frame is hopeless is not read.
fn read(
    reader: &Reader,
    file: &Path,
    previous: Option<Decimal>,
    annotated: Option<&Path>,
) -> anyhow::Result<Outcome> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let (start, before) = (Instant::now(), ThreadTime::try_now().context(NO_CPU_TIME)?);
    let (mut graded, mut reading) = (None, None);
    let decoded = reading::decode(&bytes);
    let mut fault = decoded.as_ref().err().cloned();
    if let Ok(photo) = &decoded {
        let grades = reading::grade(photo);
        fault.clone_from(&grades.fault);
        if fault.is_none() {
            reading = Some(reader.read(photo, &grades.quality));
        }
        graded = Some(grades);
    }
    // Decoding and measuring happen on this thread, reading on one of the reader's.
    let reading_cpu = reading.as_ref().and_then(|reading: &Reading| reading.cpu).unwrap_or_default();
    let (cpu, wall) = (before.try_elapsed().context(NO_CPU_TIME)? + reading_cpu, start.elapsed());
    if let (Some(out), Ok(photo), Some(reading)) = (annotated, &decoded, &reading) {
        fs::write(out, reading::annotate(photo, reading)?)
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    Ok(Outcome { file: file.display().to_string(), fault, graded, reading, previous, cpu, wall })
}

/// The files, folders replaced by the pictures in them, in order of their names.
fn files(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        let mut inside =
            entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
        inside.retain(|file| is_picture(file));
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}

/// Whether a folder's file is meant as a photo; named alone, every file is.
fn is_picture(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
    ["jpg", "jpeg", "png", "webp", "heic", "gif"].contains(&ending.as_str())
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The last verified reading for a file's name.
fn previous(given: Option<&Previous>) -> anyhow::Result<impl Fn(&str) -> Option<Decimal> + use<>> {
    let (mut one, mut each) = (None, BTreeMap::new());
    match given {
        None => {}
        Some(Previous::One(value)) => one = Some(*value),
        Some(Previous::Each(path)) => {
            for line in lines::<PreviousLine>(path)? {
                let text = match &line.previous {
                    serde_json::Value::Null => continue,
                    serde_json::Value::String(text) => text.clone(),
                    number => number.to_string(),
                };
                let value = Decimal::from_str(&text)
                    .with_context(|| format!("{}: {text} is no reading of {}", path.display(), line.file))?;
                each.insert(name(Path::new(&line.file)), value);
            }
        }
    }
    Ok(move |file: &str| one.or_else(|| each.get(file).copied()))
}

/// A file of one JSON object a line.
fn lines<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let parsed = |(index, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), index + 1))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(parsed).collect()
}

#[cfg(test)]
mod tests;
