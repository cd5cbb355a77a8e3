//! The accuracy table: readings against the truth file of a generated set, or the labels of real photos.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, time::Duration};

use anyhow::Context as _;
use rust_decimal::Decimal;

use super::truth::{READABLE, Truth};
use super::{Outcome, name};

/// Lower ends of the rows that show how often a confidence was right.
const CONFIDENCES: [Decimal; 7] = [
    Decimal::ZERO,
    hundredths(40),
    hundredths(60),
    hundredths(70),
    hundredths(80),
    hundredths(90),
    hundredths(97),
];

const fn hundredths(count: u32) -> Decimal {
    Decimal::from_parts(count, 0, 0, false, 2)
}

/// How often what happened.
#[derive(Clone, Copy, Default)]
struct Tally {
    photos: u32,
    exact: u32,
    forgiven: u32,
    exact_with_prior: u32,
    forgiven_with_prior: u32,
    accepted: u32,
    wrong: u32,
    /// Turned down before they were read.
    refused: u32,
}

/// The table while it is filled.
pub struct Table {
    truth: BTreeMap<String, Truth>,
    readable: BTreeMap<String, Tally>,
    others: BTreeMap<String, Tally>,
    cpu_readable: Vec<Duration>,
    cpu: Vec<Duration>,
    /// Photos read with a confidence, and those of them read right; by lower end.
    calibration: BTreeMap<Decimal, (u32, u32)>,
    /// Confidence of each readable photo that a bar decides on, and whether it was read right.
    decided: Vec<(Decimal, bool)>,
    misses: String,
}

impl Table {
    pub fn new(truth: BTreeMap<String, Truth>) -> Self {
        Self {
            truth,
            readable: BTreeMap::new(),
            others: BTreeMap::new(),
            cpu_readable: Vec::new(),
            cpu: Vec::new(),
            calibration: BTreeMap::new(),
            decided: Vec::new(),
            misses: String::new(),
        }
    }

    /// Counts one photo. What is to be said of it, where it was not read right or accepted when it must not be.
    ///
    /// # Errors
    /// Where the truth file does not know it.
    pub fn add(&mut self, outcome: &Outcome) -> anyhow::Result<Option<String>> {
        let name = name(Path::new(&outcome.file));
        let truth = self.truth.get(&name).with_context(|| format!("the truth file has no {name}"))?;
        let one = tally(outcome, truth);
        let readable = truth.class == READABLE;
        let (groups, group) =
            if readable { (&mut self.readable, &truth.style) } else { (&mut self.others, &truth.class) };
        for group in [group.as_str(), "all"] {
            groups.entry(group.to_owned()).or_default().add(one);
        }
        self.cpu.push(outcome.cpu);
        if let Some(best) = outcome.best().filter(|_| readable) {
            let end = CONFIDENCES.into_iter().rev().find(|end| best.confidence >= *end).unwrap_or_default();
            let (photos, right) = self.calibration.entry(end).or_default();
            (*photos, *right) = (*photos + 1, *right + one.exact);
            if !outcome.reading.as_ref().is_some_and(|reading| reading.several) {
                self.decided.push((best.confidence, one.exact > 0));
            }
        }
        if readable {
            self.cpu_readable.push(outcome.cpu);
        }
        let missed = one.wrong > 0 || (readable && one.exact == 0);
        let said = missed.then(|| miss(&name, outcome, truth, one));
        self.misses.extend(said.iter().map(|said| format!("{said}\n")));
        Ok(said)
    }

    /// The table. `peak` is the process's largest resident set; KiB, as Linux counts `ru_maxrss` (getrusage(2)).
    pub fn shown(mut self, version: &str, peak: i64) -> String {
        let mut out = std::mem::take(&mut self.misses);
        let head = [
            "photos",
            "exact",
            "forgiven",
            "exact+prior",
            "forgiven+prior",
            "accepted",
            "wrong of them",
            "refused",
        ];
        for (title, groups) in [(READABLE, &self.readable), ("not readable", &self.others)] {
            if groups.is_empty() {
                continue;
            }
            let columns: String = head.iter().map(|name| format!("{name:>16}")).collect();
            let _ = writeln!(out, "{title:<16}{columns}");
            let in_order = groups.iter().filter(|(name, _)| *name != "all");
            for (name, tally) in in_order.chain(groups.get_key_value("all")) {
                let _ = writeln!(out, "{name:<16}{}", tally.shown());
            }
        }
        for (end, (photos, right)) in &self.calibration {
            let _ =
                writeln!(out, "confidence from {end:.2}: {photos} readable photos, {right} of them right");
        }
        out.push_str(&self.bars());
        for (what, times) in [(READABLE, &mut self.cpu_readable), ("all", &mut self.cpu)] {
            times.sort();
            if let (Some(median), Some(p95)) = (rank(times, 50), rank(times, 95)) {
                let (median, p95) = (median.as_millis(), p95.as_millis());
                let _ = writeln!(
                    out,
                    "CPU per photo, {what}: median {median} ms, 95th percentile {p95} ms, one thread"
                );
            }
        }
        let _ = writeln!(out, "peak memory {} MiB, reader {version}", peak / 1024);
        out
    }
}

impl Table {
    /// What each bar would accept of the readable photos, and how much of that would be right.
    fn bars(&self) -> String {
        let mut out = String::new();
        for bar in CONFIDENCES.into_iter().skip(1) {
            let above = || self.decided.iter().filter(|(confidence, _)| *confidence >= bar);
            let (accepted, right) = (above().count(), above().filter(|(_, right)| *right).count());
            let share = |count: usize, whole: usize| 100.0 * count as f64 / whole.max(1) as f64;
            let (of_all, of_accepted) = (share(accepted, self.cpu_readable.len()), share(right, accepted));
            let _ = writeln!(
                out,
                "bar {bar:.2}: accepts {accepted} readable photos, {of_all:.1} %; {right} of them right, {of_accepted:.1} %"
            );
        }
        out
    }
}

impl Tally {
    fn add(&mut self, one: Self) {
        self.photos += one.photos;
        self.exact += one.exact;
        self.forgiven += one.forgiven;
        self.exact_with_prior += one.exact_with_prior;
        self.forgiven_with_prior += one.forgiven_with_prior;
        self.accepted += one.accepted;
        self.wrong += one.wrong;
        self.refused += one.refused;
    }

    fn shown(&self) -> String {
        let share = |count: u32, whole: u32| {
            let percent = 100.0 * f64::from(count) / f64::from(whole.max(1));
            format!("{:>16}", format!("{count} {percent:.1} %"))
        };
        let of_all =
            [self.exact, self.forgiven, self.exact_with_prior, self.forgiven_with_prior, self.accepted];
        let shares: String = of_all.iter().map(|count| share(*count, self.photos)).collect();
        let wrong = share(self.wrong, self.accepted);
        format!("{:>16}{shares}{wrong}{}", self.photos, share(self.refused, self.photos))
    }
}

/// What one photo adds to the tally. Exact is the integer part, strictly; forgiven is also one that ends with the wheel of
/// tenths. Accepted is without the prior, as a vehicle's first photo is.
fn tally(outcome: &Outcome, truth: &Truth) -> Tally {
    let right = |value: Option<Decimal>| value == truth.value.map(Decimal::from);
    let with_tenths = truth.value.zip(truth.tenth).map(|(value, tenth)| Decimal::from(value * 10 + tenth));
    let forgiven = |value: Option<Decimal>| right(value) || (value.is_some() && value == with_tenths);
    let alone = outcome.best().map(|best| best.value);
    let known = outcome.chosen(truth.prior.map(Decimal::from)).map(|chosen| chosen.value);
    let accepted = outcome.against(None).is_none();
    Tally {
        photos: 1,
        exact: right(alone).into(),
        forgiven: forgiven(alone).into(),
        exact_with_prior: right(known).into(),
        forgiven_with_prior: forgiven(known).into(),
        accepted: accepted.into(),
        // Nothing that hides its reading may be accepted, even if the guess is right.
        wrong: (accepted && !(truth.class == READABLE && right(alone))).into(),
        refused: outcome.fault.is_some().into(),
    }
}

/// A line on a photo that was not read right, or accepted when it must not be.
fn miss(name: &str, outcome: &Outcome, truth: &Truth, one: Tally) -> String {
    let value = truth.value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
    let tenth = truth.tenth.map(|tenth| format!(" and {tenth} tenths")).unwrap_or_default();
    let candidates = outcome.reading.iter().flat_map(|reading| reading.candidates.iter().take(4));
    let seen: Vec<String> = candidates.map(|one| format!("{} ({})", one.value, one.confidence)).collect();
    let seen = if seen.is_empty() { "nothing".to_owned() } else { seen.join(", ") };
    let why = outcome.fault.as_ref().map(|fault| format!("; {}", fault.reason.label())).unwrap_or_default();
    let accepted = if one.accepted > 0 { "; ACCEPTED" } else { "" };
    format!("{name}: shows {value}{tenth}, read {seen}{why}{accepted}")
}

/// The nearest rank; of sorted times.
fn rank(times: &[Duration], percent: usize) -> Option<Duration> {
    times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied()
}
