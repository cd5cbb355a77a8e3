//! The rules of rewards: tariff, bonuses and budgets, in versions. A version is a file that an operator applies from an instant; it holds
//! for what is accepted from then on, and is never changed.

pub mod apply;
mod bonuses;
mod faults;
mod file;
mod source;
#[cfg(test)]
mod tests;

use schemas::ids::Micros;

pub use self::faults::Fault;
pub use self::file::parse;
pub use self::source::{RuleSource, pools_at};
use crate::limit_check::policy::Policy;
use crate::reward_calculation::tariff::Tariff;

/// The rules that hold until an operator applies others, as a file.
pub const FIRST: &str = include_str!("first.toml");

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewardRules {
    /// What an upload earns.
    pub tariff: Tariff,
    /// What of it is granted.
    pub policy: Policy,
}

impl RewardRules {
    /// Names this version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.tariff.version
    }
}

/// Every version, in the order in which they are in force. The first holds from the beginning of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rulebook {
    first: RewardRules,
    later: Vec<(Micros, RewardRules)>,
}

impl Rulebook {
    /// The first rules alone.
    #[must_use]
    pub fn first() -> Self {
        Self { first: file::first(), later: Vec::new() }
    }

    /// The first rules and what was applied since, each from its instant.
    #[must_use]
    pub fn with(mut later: Vec<(Micros, RewardRules)>) -> Self {
        later.sort_by_key(|(from, _)| *from);
        Self { first: file::first(), later }
    }

    /// The version in force at an acceptance.
    #[must_use]
    pub fn in_force(&self, accepted_at: Micros) -> &RewardRules {
        let begun = self.later.iter().rev().find(|(from, _)| *from <= accepted_at);
        begun.map_or(&self.first, |(_, rules)| rules)
    }

    /// Versions that were applied.
    #[must_use]
    pub fn applied(&self) -> usize {
        self.later.len()
    }
}
