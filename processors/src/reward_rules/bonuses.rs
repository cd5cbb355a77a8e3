//! The bonuses of a file.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::ids::Micros;
use serde::Deserialize;
use toml::Spanned;

use super::faults::Faults;
use crate::reward_calculation::bonus::{Bonus, Fact};

/// Verification levels, as `users.verification_level` has them.
const LEVELS: [&str; 3] = ["basic", "verified", "premium"];
/// What a bonus can be for.
const FACTS: [&str; 4] = ["level", "streak", "first_of_week", "campaign"];
/// Weeks that a driver's state holds.
pub(super) const WEEKS_MAX: i64 = 52;
/// Characters of a bonus's name.
const NAME_MAX: usize = 60;
/// Most per cents of the base, and their decimals.
const PERCENT_MAX: Decimal = Decimal::from_parts(1000, 0, 0, false, 0);
const PERCENT_DECIMALS: u32 = 4;

/// A bonus as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BonusTable {
    fact: Spanned<String>,
    name: Spanned<String>,
    percent: Spanned<String>,
    at_most: Option<Spanned<String>>,
    level: Option<Spanned<String>>,
    weeks: Option<Spanned<i64>>,
    from: Option<Spanned<String>>,
    until: Option<Spanned<String>>,
    kinds: Option<Spanned<Vec<Spanned<String>>>>,
}

/// Reads bonuses; what is wrong with them is noted.
pub(super) fn read(tables: &[BonusTable], faults: &mut Faults<'_>) -> Vec<Bonus> {
    let (mut names, mut facts) = (BTreeSet::new(), BTreeSet::new());
    let mut bonuses = Vec::with_capacity(tables.len());
    for table in tables {
        let name = table.name.get_ref();
        if name.trim().is_empty() || name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
            faults.note(table.name.span(), format!("a bonus has a name of 1 to {NAME_MAX} characters"));
        }
        if !names.insert(name.as_str()) {
            faults.note(table.name.span(), format!("there is another bonus {name:?}"));
        }
        table.refuse_foreign_keys(faults);
        let percent = faults.number("percent", &table.percent, (PERCENT_MAX, PERCENT_DECIMALS, true));
        let at_most = table.at_most.as_ref().map(|most| faults.amount("at_most", most));
        let Some(fact) = table.read_fact(faults) else { continue };
        // Campaigns may run at the same time; of the others one fact has one bonus.
        let alone = match &fact {
            Fact::Level(level) => Some(format!("level {level}")),
            Fact::Streak { weeks } => Some(format!("streak of {weeks} weeks")),
            Fact::FirstOfWeek => Some("first_of_week".to_owned()),
            Fact::Campaign { .. } => None,
        };
        if let Some(alone) = alone.filter(|alone| !facts.insert(alone.clone())) {
            faults.note(table.fact.span(), format!("the bonuses for {alone} overlap: there is one above"));
        }
        bonuses.push(Bonus { name: name.clone(), fact, percent, at_most });
    }
    bonuses
}

impl BonusTable {
    /// Refuses the keys of another fact.
    fn refuse_foreign_keys(&self, faults: &mut Faults<'_>) {
        let fact = self.fact.get_ref().as_str();
        if !FACTS.contains(&fact) {
            return;
        }
        let keys = [
            ("level", "level", self.level.as_ref().map(Spanned::span)),
            ("weeks", "streak", self.weeks.as_ref().map(Spanned::span)),
            ("from", "campaign", self.from.as_ref().map(Spanned::span)),
            ("until", "campaign", self.until.as_ref().map(Spanned::span)),
            ("kinds", "campaign", self.kinds.as_ref().map(Spanned::span)),
        ];
        for (key, of, at) in keys {
            if let Some(at) = at.filter(|_| of != fact) {
                faults.note(at, format!("{key} belongs to a bonus with fact = {of:?}, not {fact:?}"));
            }
        }
    }

    fn read_fact(&self, faults: &mut Faults<'_>) -> Option<Fact> {
        match self.fact.get_ref().as_str() {
            "level" => self.read_level(faults),
            "streak" => self.read_streak(faults),
            "first_of_week" => Some(Fact::FirstOfWeek),
            "campaign" => self.read_campaign(faults),
            other => {
                let text = format!("fact {other:?} names nothing: it is one of {}", FACTS.join(", "));
                faults.note(self.fact.span(), text);
                None
            }
        }
    }

    fn read_level(&self, faults: &mut Faults<'_>) -> Option<Fact> {
        let level = self.required("level", self.level.as_ref(), faults)?;
        if !LEVELS.contains(&level.get_ref().as_str()) {
            let text =
                format!("level {:?} names nothing: it is one of {}", level.get_ref(), LEVELS.join(", "));
            faults.note(level.span(), text);
        }
        Some(Fact::Level(level.get_ref().clone()))
    }

    fn read_streak(&self, faults: &mut Faults<'_>) -> Option<Fact> {
        let weeks = self.required("weeks", self.weeks.as_ref(), faults)?;
        let count = *weeks.get_ref();
        if !(2..=WEEKS_MAX).contains(&count) {
            faults.note(weeks.span(), format!("weeks {count} is not between 2 and {WEEKS_MAX}"));
        }
        Some(Fact::Streak { weeks: i32::try_from(count).unwrap_or(i32::MAX) })
    }

    fn read_campaign(&self, faults: &mut Faults<'_>) -> Option<Fact> {
        let from = self.required("from", self.from.as_ref(), faults);
        let until = self.required("until", self.until.as_ref(), faults);
        let (from, until) = (from?, until?);
        let [begin, end] = [from, until].map(|written| instant(written, faults));
        let (begin, end) = (begin?, end?);
        if end <= begin {
            faults.note(until.span(), "until is not after from: the window names nothing");
        }
        let kinds = self.kinds.as_ref();
        if let Some(kinds) = kinds.filter(|kinds| kinds.get_ref().is_empty()) {
            faults.note(kinds.span(), "kinds names nothing: leave it out for every kind");
        }
        let kinds = kinds.map(Spanned::get_ref).map(Vec::as_slice).unwrap_or_default();
        kinds.iter().for_each(|kind| faults.kind(kind));
        let kinds = kinds.iter().map(|kind| kind.get_ref().clone()).collect();
        Some(Fact::Campaign { from: begin, until: end, kinds })
    }

    fn required<'a, T>(
        &self,
        key: &str,
        written: Option<&'a Spanned<T>>,
        faults: &mut Faults<'_>,
    ) -> Option<&'a Spanned<T>> {
        if written.is_none() {
            let text = format!("a bonus with fact = {:?} has a key {key}", self.fact.get_ref());
            faults.note(self.fact.span(), text);
        }
        written
    }
}

fn instant(written: &Spanned<String>, faults: &mut Faults<'_>) -> Option<Micros> {
    let parsed = DateTime::parse_from_rfc3339(written.get_ref());
    if parsed.is_err() {
        let text = format!("{:?} is no instant such as \"2026-03-01T00:00:00Z\"", written.get_ref());
        faults.note(written.span(), text);
    }
    Some(Micros::from(parsed.ok()?.with_timezone(&Utc)))
}
