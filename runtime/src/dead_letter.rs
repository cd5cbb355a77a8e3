//! Dead letters: the original bytes, key and headers, with the cause beside them; limited, so that a bad release
//! stops instead of emptying a topic into the dead letters.

use std::collections::VecDeque;

use schemas::ids::Micros;
use schemas::reason::Reason;

use crate::source::RawRecord;

/// Header names that the engine adds; the original's own headers stand in front of them, unchanged.
pub mod header {
    /// The role that gave up.
    pub const STAGE: &str = "dlq.stage";
    /// A label of [`schemas::reason::Reason`].
    pub const REASON: &str = "dlq.reason";
    /// A sentence.
    pub const DETAIL: &str = "dlq.detail";
    /// The original topic.
    pub const TOPIC: &str = "dlq.original_topic";
    /// The original partition.
    pub const PARTITION: &str = "dlq.original_partition";
    /// The original offset.
    pub const OFFSET: &str = "dlq.original_offset";
    /// The original record timestamp, milliseconds.
    pub const TIMESTAMP: &str = "dlq.original_timestamp_ms";
    /// When it was dead-lettered, microseconds.
    pub const AT: &str = "dlq.at_us";
    /// The release that gave up.
    pub const VERSION: &str = "dlq.stage_version";
    /// Bytes of the original, where the letter holds only the first [`super::PAYLOAD_MAX`] of them.
    pub const CUT_FROM: &str = "dlq.cut_from_bytes";
}

/// Bytes of an original that a letter holds at most: with its headers it stays under the 1,000,000 bytes that a record may have.
pub const PAYLOAD_MAX: usize = 900_000;
/// Characters of the cause that a letter holds at most.
const DETAIL_MAX: usize = 2_000;

/// The headers of a dead letter: the original's, then ours.
#[must_use]
pub fn headers(
    record: &RawRecord,
    stage: &str,
    reason: Reason,
    detail: &str,
    now: Micros,
) -> Vec<(String, Option<Vec<u8>>)> {
    let mut headers = record.headers.clone();
    let ours = [
        (header::STAGE, stage.to_owned()),
        (header::REASON, reason.label().to_owned()),
        (header::DETAIL, detail.chars().take(DETAIL_MAX).collect()),
        (header::TOPIC, record.position.topic.to_string()),
        (header::PARTITION, record.position.partition.to_string()),
        (header::OFFSET, record.position.offset.to_string()),
        (header::TIMESTAMP, record.timestamp_ms.to_string()),
        (header::AT, now.0.to_string()),
        (header::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    headers.extend(ours.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
    if let Some(bytes) = record.payload.as_ref().filter(|bytes| bytes.len() > PAYLOAD_MAX) {
        headers.push((header::CUT_FROM.to_owned(), Some(bytes.len().to_string().into_bytes())));
    }
    headers
}

/// How many dead letters a partition may make before it halts.
#[derive(Clone, Copy, Debug)]
pub struct DeadLetterLimit {
    /// In a row.
    pub consecutive: u32,
    /// Among the last [`DeadLetterLimit::WINDOW`] records, once that many were seen.
    pub share: f64,
}

impl Default for DeadLetterLimit {
    /// 100 in a row, or a tenth of the last 1,000: a client's bug makes a few, a schema gone wrong makes all.
    fn default() -> Self {
        Self { consecutive: 100, share: 0.1 }
    }
}

impl DeadLetterLimit {
    /// Records that the share is taken over.
    pub const WINDOW: usize = 1_000;
}

/// Counts one partition's dead letters against the limit.
#[derive(Debug)]
pub struct DeadLetterCount {
    limit: DeadLetterLimit,
    in_a_row: u32,
    window: VecDeque<bool>,
    in_window: usize,
}

impl DeadLetterCount {
    /// Nothing counted yet.
    #[must_use]
    pub fn new(limit: DeadLetterLimit) -> Self {
        Self { limit, in_a_row: 0, window: VecDeque::new(), in_window: 0 }
    }

    /// Counts one record; `Err` says which limit it breaks.
    ///
    /// # Errors
    /// A sentence for the log and the operator.
    pub fn count(&mut self, is_dead_letter: bool) -> Result<(), String> {
        self.in_a_row = if is_dead_letter { self.in_a_row + 1 } else { 0 };
        self.window.push_back(is_dead_letter);
        self.in_window += usize::from(is_dead_letter);
        if self.window.len() > DeadLetterLimit::WINDOW {
            self.in_window -= usize::from(self.window.pop_front().unwrap_or(false));
        }
        if self.in_a_row > self.limit.consecutive {
            return Err(format!("{} dead letters in a row", self.in_a_row));
        }
        #[allow(clippy::cast_precision_loss, reason = "at most 1,000")]
        let share = self.in_window as f64 / DeadLetterLimit::WINDOW as f64;
        if self.window.len() == DeadLetterLimit::WINDOW && share > self.limit.share {
            return Err(format!(
                "{} dead letters among the last {}",
                self.in_window,
                DeadLetterLimit::WINDOW
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_dead_letters_over_the_limit_is_refused_and_a_good_record_ends_the_row() {
        let mut count = DeadLetterCount::new(DeadLetterLimit { consecutive: 2, share: 1.0 });
        assert!(count.count(true).is_ok());
        assert!(count.count(true).is_ok());
        assert!(count.count(false).is_ok());
        assert!(count.count(true).is_ok());
        assert!(count.count(true).is_ok());
        assert_eq!(count.count(true), Err("3 dead letters in a row".into()));
    }

    #[test]
    fn a_share_over_the_limit_is_refused_only_once_the_window_is_full() {
        let mut count = DeadLetterCount::new(DeadLetterLimit { consecutive: 100, share: 0.1 });
        let results: Vec<bool> = (0..1_000).map(|n| count.count(n % 5 == 0).is_ok()).collect();
        assert!(results[..999].iter().all(|ok| *ok));
        assert!(!results[999]);
    }
}
