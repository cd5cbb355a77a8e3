//! What is added to one number.

use chrono::{DateTime, Utc};

use super::exact::Exact;
use super::metrics::{Dimension, Metric};

/// What an event says cannot be added up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{entity}: {what} {why}")]
pub struct BadCount {
    /// What the event is about, e.g. `upload UUID`.
    pub entity: String,
    /// What is wrong.
    pub what: &'static str,
    /// How.
    pub why: &'static str,
}

/// What is added to one number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// To which metric.
    pub metric: Metric,
    /// Of which part.
    pub dimension: Dimension,
    /// At which instant: in every window that holds it.
    pub at: DateTime<Utc>,
    /// How much; negative where it is taken back.
    pub value: Exact,
    /// Of how many samples; negative where they are taken back.
    pub samples: i64,
}
