//! The same decisions without partitions, batches or a database: what a run with faults is compared with.

use std::collections::{BTreeMap, BTreeSet};

use schemas::events::OdometerRead;
use schemas::ids::UploadId;

use super::judge::{Judgement, judge};
use super::rules::Rules;

/// Folds [`judge`] over records in the order of their topic, one partition after another: of a vehicle that changes hands in the order of
/// its decisions. A repeated upload is decided by its first record, as the effect `verdict:UPLOAD` has it, and by the first that a person
/// has decided; others are left out.
pub fn fold<'a>(
    records: impl IntoIterator<Item = &'a OdometerRead>,
    rules: &Rules,
) -> Vec<(UploadId, Judgement)> {
    let (mut vehicles, mut decided) = (BTreeMap::new(), BTreeSet::new());
    let mut judgements = Vec::new();
    for event in records {
        if !decided.insert((event.header.upload_id, event.review.is_some())) {
            continue;
        }
        let judgement = judge(event, vehicles.get(&event.header.vehicle_id), rules);
        if let Some(next) = &judgement.next_state {
            vehicles.insert(event.header.vehicle_id, next.clone());
        }
        judgements.push((event.header.upload_id, judgement));
    }
    judgements
}
