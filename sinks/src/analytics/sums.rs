//! What a batch adds to each number.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::count::Count;
use super::exact::Exact;
use super::metrics::{Dimension, Metric};
use super::windows::{Period, Window};

/// Which number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub metric: Metric,
    pub dimension: Dimension,
    pub window: Window,
}

/// What is added to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub value: Exact,
    pub samples: i64,
    /// The earliest event that adds to it; none where it is only taken from.
    pub first_event_at: Option<DateTime<Utc>>,
}

/// Sums by number.
#[derive(Debug, Default)]
pub(super) struct Sums(pub BTreeMap<Key, Sum>);

/// No calendar has this instant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfCalendar;

impl Sums {
    /// Adds a count to every window that holds it. One user's number by the hour is not kept: it would say when that user drives.
    pub fn add(&mut self, count: &Count, first_event_at: Option<DateTime<Utc>>) -> Result<(), OutOfCalendar> {
        for period in Period::ALL {
            if period == Period::Hour && count.dimension.user().is_some() {
                continue;
            }
            let window = Window::of(period, count.at).ok_or(OutOfCalendar)?;
            let key = Key { metric: count.metric, dimension: count.dimension.clone(), window };
            let sum = self.0.entry(key).or_default();
            sum.value = sum.value.plus(count.value);
            sum.samples += count.samples;
            sum.first_event_at = sum.first_event_at.into_iter().chain(first_event_at).min();
        }
        Ok(())
    }
}
