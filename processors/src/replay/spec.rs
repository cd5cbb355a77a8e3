//! What is asked of a replay.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemas::events::Root;
use schemas::ids::Micros;
use serde::{Deserialize, Serialize};

/// Longest name of a replay: its schema's and topics' names hold it.
const NAME_MAX: usize = 40;

/// A replay's name: lower-case letters, digits and underscores, a letter first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(String);

impl Name {
    /// The schema that it writes to.
    #[must_use]
    pub fn schema(&self) -> String {
        format!("{SCHEMA_PREFIX}{}", self.0)
    }

    /// What stands in front of its topics' names, where `live` stands in front of the live ones.
    #[must_use]
    pub fn topic_prefix(&self, live: &str) -> String {
        format!("{live}{SCHEMA_PREFIX}{}.", self.0)
    }
}

/// In front of a replay's name, in schemas and topics.
pub const SCHEMA_PREFIX: &str = "replay_";

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase());
        if begins && text.len() <= NAME_MAX && text.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "a replay's name has at most {NAME_MAX} lower-case letters, digits and underscores, a letter first"
        ))
    }
}

/// A stage that a replay can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Verdict, reason and distance.
    FraudCheck,
    /// What the distance earns.
    RewardCalculation,
    /// What of it the budgets hold.
    LimitCheck,
}

impl Step {
    /// In the order in which they come.
    const ALL: [(Self, &'static str); 3] = [
        (Self::FraudCheck, "fraud_check"),
        (Self::RewardCalculation, "reward_calculation"),
        (Self::LimitCheck, "limit_check"),
    ];
}

/// Stages that follow one another. What stands before the first is taken as it was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Steps {
    first: Step,
    last: Step,
}

impl Default for Steps {
    fn default() -> Self {
        Self { first: Step::FraudCheck, last: Step::LimitCheck }
    }
}

impl Steps {
    /// Whether a stage is run.
    #[must_use]
    pub fn run(self, step: Step) -> bool {
        self.first <= step && step <= self.last
    }
}

impl FromStr for Steps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        for name in text.split(',').map(str::trim) {
            let found = Step::ALL.iter().find(|(_, known)| *known == name);
            let names = Step::ALL.map(|(_, name)| name).join(", ");
            steps.push(found.ok_or_else(|| format!("{name} is no stage of a replay: there are {names}"))?.0);
        }
        steps.sort();
        steps.dedup();
        let (Some(first), Some(last)) = (steps.first().copied(), steps.last().copied()) else {
            return Err("name a stage".to_owned());
        };
        let between = Step::ALL.iter().filter(|(step, _)| first <= *step && *step <= last);
        if between.count() != steps.len() {
            return Err(
                "reward_calculation stands between fraud_check and limit_check: without it the one's verdicts do not reach the other".to_owned()
            );
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = Step::ALL.iter().filter(|(step, _)| self.run(*step));
        let names: Vec<&str> = run.map(|(_, name)| *name).collect();
        names.join(",").fmt(f)
    }
}

/// What is asked for. Started again, a replay has to be asked for the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The first instant of the window.
    pub from: Micros,
    /// The first instant behind it.
    pub to: Micros,
    /// The stages that decide again.
    pub steps: Steps,
    /// The file of rules that holds for the whole window; none for the versions that were in force.
    pub rules: Option<String>,
}

/// The cut in `uploads.received`: of each partition the first offset of the window, and the first behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut(pub BTreeMap<i32, (i64, i64)>);

impl Cut {
    /// Whether an upload that stands there belongs to the window.
    #[must_use]
    pub fn holds(&self, root: Option<Root>) -> bool {
        let range = |root: Root| self.0.get(&root.partition).map(|range| (root.offset, range));
        root.and_then(range).is_some_and(|(offset, (low, high))| (*low..*high).contains(&offset))
    }
}
