//! What comes late: by the readings around its place in the order of acceptance.

use super::*;
use crate::fraud_check::neighbours::{Late, REMEMBERED, Verified};

/// A photo of the vehicle with this reading, accepted on this day; `upload` tells them apart.
fn photo(day: i64, value: &str) -> OdometerRead {
    let mut event = good();
    reads(&mut event, &[(value, Some(Unit::Km), "0.97")]);
    event.header.accepted_at.0 += day * DAY_US;
    event.stamp.captured_at = None;
    let id = 1_000 * u128::try_from(day).unwrap() + u128::try_from(value.len()).unwrap();
    event.header.upload_id = UploadId(Uuid::from_u128(id));
    event
}

fn fold(uploads: &[OdometerRead]) -> Vec<(Verdict, Option<Reason>, Option<Decimal>)> {
    let judgements = oracle::fold(uploads, &Rules::current());
    judgements.iter().map(|(_, j)| (j.verdict, j.reason, j.distance_km)).collect()
}

fn verified(km: &str) -> (Verdict, Option<Reason>, Option<Decimal>) {
    (Verdict::Verified, None, Some(dec(km)))
}

const REVIEW: (Verdict, Option<Reason>, Option<Decimal>) =
    (Verdict::Review, Some(Reason::LowConfidence), None);

#[test]
fn a_photo_published_after_a_newer_one_is_verified_without_distance_and_the_rest_is_paid_as_in_order() {
    let (a, b, c) = (photo(1, "50100"), photo(2, "50200"), photo(3, "50350"));
    let first = photo(0, "50000");
    let in_order = fold(&[first.clone(), a.clone(), b.clone(), c.clone()]);
    assert_eq!(in_order, [verified("0"), verified("100"), verified("100"), verified("150")]);
    let late = fold(&[first, b, a, c]);
    assert_eq!(late, [verified("0"), verified("200"), verified("0"), verified("150")]);
}

#[test]
fn outside_its_neighbours_a_late_photo_goes_to_a_person_and_is_never_rejected_as_fraud() {
    let (first, second, third) = (photo(0, "50000"), photo(2, "50200"), photo(4, "50400"));
    for (value, expected) in [
        ("49999", REVIEW),
        ("50000", verified("0")),
        ("50200", verified("0")),
        ("50201", REVIEW),
        ("99999", REVIEW),
        ("10", REVIEW),
    ] {
        let found = fold(&[first.clone(), second.clone(), third.clone(), photo(1, value)]);
        assert_eq!(found[3], expected, "{value}");
    }
    // The newest of all is judged as ever.
    let found = fold(&[first, second, third, photo(5, "50300")]);
    assert_eq!(found[3], (Verdict::Rejected, Some(Reason::Rollback), None));
}

#[test]
fn a_late_photo_is_a_neighbour_of_those_that_come_later_still() {
    let newer = [photo(0, "50000"), photo(9, "50900"), photo(5, "50500")];
    let after = |late: OdometerRead| fold(&[&newer[..], &[late]].concat())[3];
    assert_eq!(after(photo(3, "50300")), verified("0"));
    assert_eq!(after(photo(3, "50600")), REVIEW);
    assert_eq!(after(photo(7, "50400")), REVIEW);
    assert_eq!(after(photo(7, "50700")), verified("0"));
}

#[test]
fn before_the_first_verified_photo_any_lower_reading_fits_and_the_distance_stays_what_it_was() {
    let found = fold(&[photo(5, "50500"), photo(6, "50600"), photo(1, "50100"), photo(0, "50200")]);
    assert_eq!(found, [verified("0"), verified("100"), verified("0"), REVIEW]);
}

#[test]
fn what_is_older_than_all_that_a_vehicle_remembers_goes_to_a_person() {
    let days = i64::try_from(REMEMBERED).unwrap() + 2;
    let mut uploads: Vec<_> = (0..days).map(|day| photo(2 * day, &(50_000 + 10 * day).to_string())).collect();
    uploads.push(photo(1, "50005"));
    uploads.push(photo(2 * days - 3, &(50_000 + 10 * days - 15).to_string()));
    let found = fold(&uploads);
    assert_eq!(found[uploads.len() - 2..], [REVIEW, verified("0")]);
    // Of a vehicle that a release before has left, nothing before its next photo is known.
    let state = judged(&photo(2, "50310"), Some(&vehicle("50001", Unit::Km))).next_state.unwrap();
    assert_eq!(state.recent.len(), 1);
    assert_eq!(judged(&photo(1, "50200"), Some(&state)).verdict, Verdict::Review);
}

#[test]
fn the_readings_around_a_late_photo_stand_in_the_evidence() {
    let state = judged(&photo(5, "50500"), None).next_state.unwrap();
    let signals = judged(&photo(1, "50600"), Some(&state)).signals;
    assert_eq!(signals["decided_by"], "neighbours");
    assert_eq!(signals["checks"]["neighbours"]["threshold"], "the first to 50500 km");
    assert_eq!(signals["checks"]["neighbours"]["value"], "50600");
    assert_eq!(signals["checks"].get("rollback"), None);
}

proptest! {
    #![proptest_config(crate::properties::tried(2_048))]

    // Verdicts depend on what is decided when; what is paid for the vehicle, in any order, is its newest less its first verified reading,
    // and no lateness is fraud.
    #[test]
    fn in_any_order_lateness_is_no_fraud_and_an_honest_driver_is_paid_the_whole_way(
        steps in proptest::collection::vec(0_i64..400, 2..14), order in any::<u64>(),
    ) {
        let mut km = 50_000;
        let mut uploads: Vec<_> = (0..).zip(&steps).map(|(day, step)| {
            km += step;
            photo(day, &km.to_string())
        }).collect();
        let whole = Decimal::from(steps[1..].iter().sum::<i64>());
        let (first, last) = (uploads.remove(0), uploads.pop().unwrap());
        // Any order of those in between; the last one closes the way.
        let mut seed = order;
        for at in (1..uploads.len()).rev() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            uploads.swap(at, usize::try_from(seed >> 33).unwrap() % (at + 1));
        }
        let found = fold(&[vec![first], uploads, vec![last]].concat());
        let paid: Decimal = found.iter().filter_map(|(_, _, km)| *km).sum();
        prop_assert!(found.iter().all(|(verdict, ..)| *verdict == Verdict::Verified), "{:?}", found);
        prop_assert_eq!(paid, whole);
    }

    #[test]
    fn the_readings_that_a_vehicle_remembers_rise_in_the_order_of_acceptance(
        uploads in proptest::collection::vec(super::upload(), 1..60),
    ) {
        let mut before: Option<VehicleState> = None;
        for event in &uploads {
            let judgement = judged(event, before.as_ref());
            let late = before.as_ref().and_then(|state| Late::of(&state.recent, event.header.accepted_at));
            if late.is_some() {
                prop_assert!(!matches!(judgement.reason, Some(Reason::Rollback | Reason::ImpossibleSpeed)));
                prop_assert!(judgement.distance_km.is_none_or(|km| km.is_zero()));
            }
            let Some(next) = judgement.next_state else { continue };
            let ascending = |pair: &[Verified]| {
                pair[0].accepted_at <= pair[1].accepted_at && pair[0].km <= pair[1].km && !pair[1].first
            };
            prop_assert!(next.recent.windows(2).all(ascending), "{:?}", next.recent);
            prop_assert!(next.recent.len() <= REMEMBERED);
            prop_assert_eq!(next.recent.last().map(|newest| newest.km), Some(next.last_km));
            before = Some(next);
        }
    }
}
