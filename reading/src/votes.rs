//! What the copies of one number say, and how sure that makes each value.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    crop::Strip,
    recognise::Glyph,
    select::{DIGITS, Number},
    tenths::last_is_tenths,
};

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

    /// Adds the opinions of the digit reader, each with how sure it is. One that a wider cut has with more digits says nothing:
    /// its ends were cut off. The reader sees no colours: what ends in a wheel of tenths, the copies must tell it. Digits that
    /// no copy read become a value of their own. `decimals` stand behind the number's point.
    pub fn opinions(&mut self, all: &[(String, f32)], decimals: usize) {
        for (text, sure) in all {
            self.asked.1 += 1;
            if !all.iter().any(|(other, _)| is_part(text, other)) {
                self.opinion(&text[..text.len().saturating_sub(decimals)], *sure);
            }
        }
    }

    fn opinion(&mut self, text: &str, sure: f32) {
        let known = self.values.values_mut().find(|vote| vote.texts.contains(text));
        let vote = match (known, value(text, false)) {
            (Some(vote), _) => vote,
            (None, Some(value)) if DIGITS.contains(&text.len()) => self.values.entry(value).or_default(),
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

/// Whether digits are others without some at one end.
fn is_part(short: &str, long: &str) -> bool {
    !short.is_empty() && short.len() < long.len() && (long.starts_with(short) || long.ends_with(short))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The agreement after copies that read these texts, and the digit reader's opinions, all quite sure.
    fn agreement(copies: &[&str], opinions: &[&str]) -> Vec<(u64, f64)> {
        let mut votes = Votes::default();
        for text in copies {
            votes.asked.0 += 1;
            let vote = votes.values.entry(text.parse().unwrap()).or_default();
            vote.copies += 1.0;
            vote.texts.insert((*text).to_owned());
        }
        votes.opinions(&opinions.iter().map(|text| ((*text).to_owned(), 1.0)).collect::<Vec<_>>(), 0);
        votes.agreement().map(|(value, agreement)| (value, (agreement * 100.0).round() / 100.0)).collect()
    }

    #[test]
    fn both_readers_make_a_value_sure_and_neither_alone_does() {
        assert_eq!(agreement(&["123456"; 6], &["123456"; 3]), [(123_456, 1.0)]);
        assert_eq!(agreement(&["123456"; 6], &["723456"; 3]), [(123_456, 0.6), (723_456, 0.4)]);
        assert_eq!(agreement(&["123456"; 6], &["", "", ""]), [(123_456, 0.6)]);
    }

    #[test]
    fn an_opinion_that_a_wider_cut_has_with_more_digits_says_nothing() {
        assert_eq!(agreement(&["22778"; 6], &["22778", "22778", "227786"]), [(22_778, 0.6), (227_786, 0.13)]);
    }

    #[test]
    fn leading_zeros_are_one_value_and_what_is_too_short_or_too_long_for_a_mileage_is_none() {
        assert_eq!(agreement(&["000123", "000123"], &["000123", "123", "1234567890123"]), [(123, 0.73)]);
    }
}
