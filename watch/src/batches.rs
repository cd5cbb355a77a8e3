//! A batch's size: a look's steps are cut into as many batches as they need.

use std::ops::Range;

use schemas::payouts::ChainStep;

/// Steps of one batch. A look adopts 64 blocks at most, unless a fork is longer; the gateway takes 512.
const STEPS: usize = 128;
/// Bytes of one batch's steps as JSON: 4 MiB less 128 KiB for the checkpoint, which holds 400 ids of 69 bytes (27 KiB) and a
/// number for each block that was undone lately.
const BYTES: usize = (4 * 1024 - 128) * 1024;

/// Ranges of steps, in order, each of at most 128 steps and 4 MiB; a step that is longer by itself stands alone.
pub(crate) fn batches(steps: &[ChainStep]) -> Result<Vec<Range<usize>>, serde_json::Error> {
    let sizes = steps.iter().map(|step| serde_json::to_vec(step).map(|text| text.len() + 1));
    Ok(ranges(&sizes.collect::<Result<Vec<_>, _>>()?, STEPS, BYTES))
}

fn ranges(sizes: &[usize], most: usize, bytes: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut sum) = (Vec::new(), 0, 0);
    for (at, size) in sizes.iter().enumerate() {
        if at > start && (at - start == most || sum + size > bytes) {
            ranges.push(start..at);
            (start, sum) = (at, 0);
        }
        sum += size;
    }
    if start < sizes.len() {
        ranges.push(start..sizes.len());
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_has_neither_too_many_steps_nor_too_many_bytes_and_no_step_is_left_out() {
        assert_eq!(ranges(&[], 2, 10), Vec::<Range<usize>>::new());
        assert_eq!(ranges(&[1, 1, 1, 1, 1], 2, 10), [0..2, 2..4, 4..5]);
        assert_eq!(ranges(&[5, 5, 1], 9, 10), [0..2, 2..3]);
        assert_eq!(ranges(&[11, 1, 11], 9, 10), [0..1, 1..2, 2..3]);
    }
}
