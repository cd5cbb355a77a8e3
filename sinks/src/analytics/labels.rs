//! What a review says of a reading. A person sees what was in doubt alone, so that the share of right readings is lower than that of all.

use schemas::events::OdometerRead;
use schemas::reason::Reason;

/// What a person has seen beside what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// Whether a mileage was read.
    pub was_read: bool,
    /// Whether it is the one that the photo shows, in the unit that it shows where both know one.
    pub was_right: bool,
}

/// The label of a reading: where a person has read the photo, or has found no odometer where a mileage was read. Whatever else a photo is
/// turned down for says nothing of the reading, and neither does a time-out.
pub(super) fn label(event: &OdometerRead) -> Option<Label> {
    let review = event.review.as_ref().filter(|review| review.person().is_some())?;
    let best = event.reading.as_ref()?.best.as_ref();
    let Some(seen) = review.mileage else {
        let nothing_there = review.reason == Some(Reason::NoOdometer) && best.is_some();
        return nothing_there.then_some(Label { was_read: true, was_right: false });
    };
    let was_right = best.is_some_and(|best| {
        best.value == seen && best.unit.zip(review.unit).is_none_or(|(read, shown)| read == shown)
    });
    Some(Label { was_read: best.is_some(), was_right })
}

#[cfg(test)]
mod tests {
    use rust_decimal::Decimal;
    use schemas::events::{Review, Unit};
    use schemas::ids::{Micros, UserId};
    use uuid::Uuid;

    use super::*;

    /// The label of an example that was read as 50,310 km, after this review.
    fn labelled(mileage: Option<i64>, unit: Option<Unit>, reason: Option<Reason>) -> Option<(bool, bool)> {
        let example = include_str!("../../../schemas/examples/uploads.readings/normal-km.json");
        let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
        let mut event: OdometerRead = serde_json::from_value(example["event"].take()).unwrap();
        event.reading.as_mut().unwrap().best.as_mut().unwrap().value = 50_310.into();
        assert_eq!(label(&event), None, "nobody has looked at it");
        let mut review = Review {
            reviewer_id: UserId(Uuid::from_u128(7)),
            decided_at: Micros(0),
            mileage: mileage.map(Decimal::from),
            unit,
            reason,
            notes: None,
        };
        event.review = Some(review.clone());
        let found = label(&event).map(|label| (label.was_read, label.was_right));
        review.reviewer_id = Review::NOBODY;
        event.review = Some(review);
        assert_eq!(label(&event), None, "a time-out is no label");
        found
    }

    #[test]
    fn a_reading_is_right_where_a_person_has_seen_the_same_number_and_no_other_unit() {
        assert_eq!(labelled(Some(50_310), Some(Unit::Km), None), Some((true, true)));
        assert_eq!(labelled(Some(50_310), None, None), Some((true, true)));
        assert_eq!(labelled(Some(50_310), Some(Unit::Miles), None), Some((true, false)));
        assert_eq!(labelled(Some(50_319), Some(Unit::Km), None), Some((true, false)));
    }

    #[test]
    fn of_what_is_turned_down_that_there_is_no_odometer_is_a_label_alone() {
        assert_eq!(labelled(None, None, Some(Reason::NoOdometer)), Some((true, false)));
        for other in [Reason::EditedPhoto, Reason::Rollback, Reason::AnotherPhoto, Reason::ReviewRejected] {
            assert_eq!(labelled(None, None, Some(other)), None, "{other:?}");
        }
    }
}
