//! A vehicle that changes hands: its readings stay with it, and no distance is paid to two owners.

use super::*;
use crate::fraud_check::event;
use crate::fraud_check::fold::after;

/// A photo of the vehicle with this reading, accepted on this day, of its first, second or third owner.
fn photo(owner: u128, day: i64, value: &str) -> OdometerRead {
    let mut event = good();
    reads(&mut event, &[(value, Some(Unit::Km), "0.97")]);
    event.header.user_id = UserId(Uuid::from_u128(owner));
    event.header.accepted_at.0 += day * DAY_US;
    event.stamp.captured_at = None;
    event.header.upload_id = UploadId(Uuid::from_u128(1_000 * owner + u128::try_from(day).unwrap()));
    event
}

fn fold(uploads: &[OdometerRead]) -> Vec<(Verdict, Option<Reason>, Option<Decimal>, bool)> {
    let judgements = oracle::fold(uploads, &Rules::current());
    judgements.iter().map(|(_, j)| (j.verdict, j.reason, j.distance_km, j.baseline)).collect()
}

fn verified(km: &str, baseline: bool) -> (Verdict, Option<Reason>, Option<Decimal>, bool) {
    (Verdict::Verified, None, Some(dec(km)), baseline)
}

#[test]
fn the_first_photo_of_the_next_owner_is_a_baseline_and_what_the_first_was_paid_for_is_not_paid_again() {
    let found = fold(&[
        photo(1, 0, "50000"),
        photo(1, 5, "50300"),
        photo(2, 8, "50450"),
        photo(2, 10, "50500"),
        photo(1, 20, "50900"),
        photo(1, 21, "50950"),
    ]);
    let expected = [
        verified("0", true),
        verified("300", false),
        verified("0", true),
        verified("50", false),
        // It comes back to its first owner.
        verified("0", true),
        verified("50", false),
    ];
    assert_eq!(found, expected);
}

#[test]
fn the_next_owner_does_not_begin_below_the_last_verified_reading_nor_faster_than_it_can_be_driven() {
    let before = [photo(1, 0, "50000"), photo(1, 5, "50300")];
    let next = |value: &str| fold(&[&before[..], &[photo(2, 6, value)]].concat())[2];
    assert_eq!(next("50299"), (Verdict::Rejected, Some(Reason::Rollback), None, false));
    assert_eq!(next("50300"), verified("0", true));
    assert_eq!(next("90000"), (Verdict::Rejected, Some(Reason::ImpossibleSpeed), None, false));
}

#[test]
fn a_photo_of_the_first_owner_that_is_decided_after_the_next_owners_earns_nothing_and_moves_nothing() {
    let uploads = [photo(1, 0, "50000"), photo(2, 8, "50450"), photo(1, 5, "50300"), photo(2, 10, "50500")];
    let expected = [verified("0", true), verified("0", true), verified("0", false), verified("50", false)];
    assert_eq!(fold(&uploads), expected);
    // One that lies above what the next owner has shown goes to a person.
    let uploads = [photo(1, 0, "50000"), photo(2, 8, "50450"), photo(1, 5, "50451")];
    assert_eq!(fold(&uploads)[2], (Verdict::Review, Some(Reason::LowConfidence), None, false));
}

#[test]
fn the_evidence_of_the_next_owner_names_nobody_else() {
    let before = judged(&photo(1, 5, "50300"), None).next_state.unwrap();
    let signals = judged(&photo(2, 8, "50450"), Some(&before)).signals;
    assert_eq!(signals["vehicle_before"]["last_km"], "50300");
    assert!(!signals.to_string().contains(&UserId(Uuid::from_u128(1)).to_string()), "{signals}");
}

#[test]
fn in_whichever_order_two_partitions_are_folded_the_newest_owner_and_the_highest_reading_stay() {
    let uploads = [photo(1, 0, "50000"), photo(1, 5, "50300"), photo(2, 8, "50450"), photo(2, 10, "50500")];
    let (mut vehicle, mut decided) = (None, Vec::new());
    for upload in &uploads {
        let judgement = judged(upload, vehicle.as_ref());
        let position = runtime::Position { topic: "uploads.readings".into(), partition: 0, offset: 0 };
        let event = event::decided((upload, &position), &judgement, None, upload.header.accepted_at);
        decided.push((event, judgement.signals.clone()));
        vehicle = judgement.next_state;
    }
    let straight = vehicle.unwrap();
    let folded = |order: [usize; 4]| {
        let fold = |vehicle: Option<VehicleState>, n: usize| {
            let (event, signals) = &decided[n];
            after(vehicle.as_ref(), event, signals).unwrap()
        };
        order.into_iter().fold(None, fold).unwrap()
    };
    assert_eq!(folded([0, 1, 2, 3]), straight);
    for order in [[2, 3, 0, 1], [2, 0, 3, 1], [0, 2, 1, 3]] {
        let state = folded(order);
        assert_eq!(VehicleState { recent: straight.recent.clone(), ..state }, straight, "{order:?}");
    }
}

proptest! {
    #![proptest_config(crate::properties::tried(1_024))]

    #[test]
    fn over_all_owners_a_vehicle_is_paid_for_no_more_than_newest_minus_first_verified_reading(
        uploads in proptest::collection::vec((super::upload(), 1_u128..4), 1..40),
    ) {
        let uploads: Vec<_> = uploads.into_iter().map(|(mut event, owner)| {
            event.header.user_id = UserId(Uuid::from_u128(owner));
            event
        }).collect();
        let judgements = oracle::fold(&uploads, &Rules::current());
        let verified: Vec<_> = judgements.iter().map(|(_, j)| j).filter(|j| j.verdict == Verdict::Verified).collect();
        let paid: Decimal = verified.iter().filter_map(|j| j.distance_km).sum();
        let ends = verified.first().zip(verified.last());
        let way = ends.map_or(Decimal::ZERO, |(first, last)| {
            let km = |j: &Judgement| j.next_state.as_ref().map(|state| state.highest_km).unwrap();
            km(last) - km(first)
        });
        prop_assert!(paid <= way, "{paid} km of {way}");
        prop_assert!(verified.iter().all(|j| !j.baseline || j.distance_km == Some(Decimal::ZERO)));
    }
}
