//! What the copies of one number say, and how sure that makes each value.

use std::collections::{BTreeMap, BTreeSet};

use crate::{crop::Strip, recognise::Glyph, select::Number, tenths::last_is_tenths};

/// Fewest digits in front of a wheel of tenths: four wheels and one of tenths, or fewer, are a trip meter.
const FEWEST_BEFORE_TENTHS: usize = 5;
/// What the recogniser's copies and the digit reader's opinions weigh. Neither alone is enough to be accepted.
const WEIGHTS: (f64, f64) = (0.6, 0.4);

/// The votes for one value.
#[derive(Default)]
struct Vote {
    /// The recogniser's copies that read it, each weighed by its least sure digit.
    copies: f64,
    /// The digit reader's opinions that are the same, weighed in the same way.
    opinions: f64,
    /// What the copies read, the wheel of tenths included.
    texts: BTreeSet<String>,
}

/// The votes for the values of one number.
#[derive(Default)]
pub(crate) struct Votes {
    values: BTreeMap<u64, Vote>,
    /// How many copies and opinions were asked.
    asked: (u32, u32),
}

impl Votes {
    /// Adds what one copy reads: the value without its wheel of tenths.
    pub fn copy(&mut self, strip: &Strip, glyphs: &[Glyph], number: &Number) {
        self.asked.0 += 1;
        let tenths = number.plain && last_is_tenths(strip, glyphs, &number.digits);
        let sure = number.digits.iter().map(|index| glyphs[*index].probability).fold(1.0, f32::min);
        if let Some(value) = value(&number.text, tenths) {
            let vote = self.values.entry(value).or_default();
            vote.copies += f64::from(sure);
            vote.texts.insert(number.text.clone());
        }
    }

    /// Counts a copy that reads no number.
    pub fn silent(&mut self) {
        self.asked.0 += 1;
    }

    /// Adds an opinion of the digit reader. It sees no colours: what ends in a wheel of tenths, the copies must tell it.
    /// Digits that no copy read become a value of their own. `decimals` stand behind the number's point.
    pub fn opinion(&mut self, text: &str, sure: f32, decimals: usize) {
        self.asked.1 += 1;
        let whole = &text[..text.len().saturating_sub(decimals)];
        let known = self.values.values_mut().find(|vote| vote.texts.contains(whole));
        let vote = match (known, value(whole, false)) {
            (Some(vote), _) => vote,
            (None, Some(value)) if crate::select::DIGITS.contains(&whole.len()) => {
                self.values.entry(value).or_default()
            }
            (None, _) => return,
        };
        vote.opinions += f64::from(sure);
    }

    /// Every value with its agreement, 0-1.
    pub fn agreement(&self) -> impl Iterator<Item = (u64, f64)> {
        let share = |votes: f64, asked: u32| votes / f64::from(asked.max(1));
        self.values.iter().map(move |(value, vote)| {
            let agreement =
                WEIGHTS.0 * share(vote.copies, self.asked.0) + WEIGHTS.1 * share(vote.opinions, self.asked.1);
            (*value, agreement)
        })
    }
}

/// The value of digits, the last of which may be tenths.
fn value(text: &str, tenths: bool) -> Option<u64> {
    let value: u64 = text.parse().ok()?;
    match tenths {
        true if text.len() <= FEWEST_BEFORE_TENTHS => None,
        true => Some(value / 10),
        false => Some(value),
    }
}
