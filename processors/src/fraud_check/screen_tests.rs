//! What a photo's pixels say of where it was taken: a screen's grid is looked at by a person, and never refused for.

use super::*;
use rust_decimal::prelude::ToPrimitive;

/// A good photo of which the grid of a screen covers this share.
fn covered(grid: Option<f64>) -> OdometerRead {
    let mut event = good();
    event.quality.as_mut().unwrap().grid = grid;
    event
}

fn said(event: &OdometerRead, last_km: &str) -> (Verdict, Option<Reason>) {
    let judgement = judged(event, Some(&vehicle(last_km, Unit::Km)));
    (judgement.verdict, judgement.reason)
}

const GOOD: (Verdict, Option<Reason>) = (Verdict::Verified, None);
const DOUBTED: (Verdict, Option<Reason>) = (Verdict::Review, Some(Reason::PhotoOfScreen));

#[test]
fn a_screens_grid_from_the_bar_on_goes_to_a_person_and_below_it_does_not() {
    let bar = Rules::current().screen_grid.to_f64().unwrap();
    assert_eq!([0.0, bar - 0.001].map(|grid| said(&covered(Some(grid)), "50001")), [GOOD; 2]);
    assert_eq!([bar, 1.0].map(|grid| said(&covered(Some(grid)), "50001")), [DOUBTED; 2]);
}

#[test]
fn the_reviewer_reads_how_much_of_the_photo_the_grid_covers_and_how_much_is_doubted() {
    let judgement = judged(&covered(Some(0.75)), Some(&vehicle("50001", Unit::Km)));
    let detail = judgement.detail.unwrap();
    assert!(detail.contains("covers 75 % of the photo"), "{detail}");
    let check = &judgement.signals["checks"]["screen_grid"];
    let bar = Rules::current().screen_grid.to_string();
    assert_eq!((&check["value"], &check["threshold"]), (&"0.75".into(), &bar.into()));
    assert_eq!((&check["weight"], &check["against"]), (&0.5.into(), &true.into()));
}

#[test]
fn a_frame_in_which_no_grid_was_looked_for_has_no_such_check() {
    for grid in [None, Some(f64::NAN)] {
        let judgement = judged(&covered(grid), Some(&vehicle("50001", Unit::Km)));
        assert_eq!((judgement.verdict, judgement.reason), GOOD);
        assert!(!judgement.signals["checks"].as_object().unwrap().contains_key("screen_grid"));
    }
}

#[test]
fn a_sure_refusal_goes_before_the_grid_and_a_person_has_looked_past_it() {
    let mut event = covered(Some(1.0));
    assert_eq!(said(&event, "60000"), (Verdict::Rejected, Some(Reason::Rollback)));
    event.review = Some(review::by_a_person(Some((dec("50310"), None))));
    assert_eq!(said(&event, "50001"), GOOD);
}
