//! How a driver behaves: when the uploads of their newest day were accepted, and which of a month were turned down for fraud. It is folded
//! from decisions, each user's in the order of their topic, and looks at nobody else's.

use schemas::events::{OdometerRead, Verdict};
use schemas::ids::{Micros, UploadId};
use schemas::reason::Reason;
use serde::{Deserialize, Serialize};

/// Microseconds of a day, as far back as uploads are counted.
pub(super) const DAY_US: i64 = 86_400_000_000;
/// Microseconds of 30 days, as far back as rejections for fraud are counted.
const MONTH_US: i64 = 30 * DAY_US;
/// The most uploads that are kept, more than any rule asks for: 8 bytes each.
pub(super) const MOST_UPLOADS: usize = 128;
/// The most rejections that are kept.
pub(super) const MOST_FRAUDS: usize = 16;

/// An upload that was turned down for fraud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Fraud {
    accepted_at: Micros,
    upload_id: UploadId,
}

/// What is kept of a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conduct {
    /// When uploads that could be read were accepted, ascending.
    pub(super) uploads: Vec<Micros>,
    /// Ascending.
    pub(super) frauds: Vec<Fraud>,
}

/// What has become of an upload.
#[derive(Clone, Copy, Debug)]
pub struct Became<'a> {
    /// The upload as it was decided about.
    pub event: &'a OdometerRead,
    /// The verdict.
    pub verdict: Verdict,
    /// Its reason.
    pub reason: Option<Reason>,
}

impl Conduct {
    /// Uploads that were accepted in the span up to this instant; of an instant long past, those of them that are still kept.
    pub(super) fn uploads_within(&self, at: Micros, span_us: i64) -> usize {
        self.uploads.iter().filter(|accepted| within(**accepted, at, span_us)).count()
    }

    /// Uploads of the 30 days up to this instant that were turned down for fraud, counted to [`MOST_FRAUDS`].
    pub(super) fn frauds_before(&self, at: Micros) -> usize {
        self.frauds.iter().filter(|fraud| within(fraud.accepted_at, at, MONTH_US)).count()
    }

    /// After a decision. What a person has decided takes the place of what was decided before about the same upload. Photos that cannot be
    /// read are not counted: who sends a blurred one again does what they were told.
    #[must_use]
    pub fn after(before: Option<&Self>, became: &Became<'_>) -> Self {
        let Became { event, verdict, reason } = became;
        let mut after = before.cloned().unwrap_or_default();
        let (accepted_at, upload_id) = (event.header.accepted_at, event.header.upload_id);
        if event.review.is_none() && event.fault.is_none() && *verdict != Verdict::Failed {
            insert(&mut after.uploads, accepted_at);
            keep(&mut after.uploads, |accepted| accepted, DAY_US, MOST_UPLOADS);
        }
        after.frauds.retain(|fraud| fraud.upload_id != upload_id);
        if *verdict == Verdict::Rejected && reason.is_some_and(|reason| Reason::FRAUD.contains(&reason)) {
            insert(&mut after.frauds, Fraud { accepted_at, upload_id });
            keep(&mut after.frauds, |fraud| fraud.accepted_at, MONTH_US, MOST_FRAUDS);
        }
        after
    }
}

fn within(accepted: Micros, at: Micros, span_us: i64) -> bool {
    (0..span_us).contains(&at.0.saturating_sub(accepted.0))
}

fn insert<T: Ord + Copy>(kept: &mut Vec<T>, new: T) {
    kept.insert(kept.partition_point(|old| *old <= new), new);
}

/// Leaves what lies within the span up to the newest, and of that the newest.
fn keep<T: Copy>(kept: &mut Vec<T>, time: fn(T) -> Micros, span_us: i64, most: usize) {
    let Some(newest) = kept.last().map(|last| time(*last)) else { return };
    kept.retain(|one| within(time(*one), newest, span_us));
    kept.drain(..kept.len().saturating_sub(most));
}
