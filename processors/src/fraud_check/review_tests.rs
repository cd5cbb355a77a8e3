//! What a person has decided: believed where it can be true, and never paid for below what was paid for.

use super::*;
use schemas::events::Review;

/// A mileage and its unit that a person saw, or that the photo is turned down.
pub(super) fn by_a_person(seen: Option<(Decimal, Option<Unit>)>) -> Review {
    Review {
        reviewer_id: UserId(Uuid::from_u128(9)),
        decided_at: Micros(0),
        mileage: seen.map(|(mileage, _)| mileage),
        unit: seen.and_then(|(_, unit)| unit),
        reason: seen.is_none().then_some(Reason::EditedPhoto),
        notes: None,
    }
}

fn approved(mileage: &str, unit: Option<Unit>) -> OdometerRead {
    let mut event = good();
    reads(&mut event, &[("99999", None, "0.31")]);
    event.review = Some(by_a_person(Some((dec(mileage), unit))));
    event
}

#[test]
fn a_person_sees_what_the_reader_did_not_and_the_distance_is_paid() {
    let judgement = judged(&approved("50310", None), Some(&vehicle("50001", Unit::Km)));
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Verified, None));
    assert_eq!((judgement.final_mileage, judgement.distance_km), (Some(dec("50310")), Some(dec("309"))));
    // What was read stays what it was.
    assert_eq!((judgement.ai, judgement.confidence), (Some(dec("99999")), Some(dec("0.31"))));
    assert_eq!(judgement.signals["checks"]["person"]["value"], "50310");
    let mut unread = approved("50310", None);
    unread.reading = None;
    assert_eq!(judged(&unread, Some(&vehicle("50001", Unit::Km))).verdict, Verdict::Verified);
    assert!(judged(&approved("50310", None), None).baseline);
}

#[test]
fn the_unit_that_a_person_saw_counts() {
    let before = vehicle("50001", Unit::Miles);
    let miles = judged(&approved("50101", Some(Unit::Miles)), Some(&before));
    assert_eq!((miles.unit, miles.distance_km), (Unit::Miles, Some(dec("160.9344"))));
    let none = judged(&approved("50101", None), Some(&before));
    assert_eq!(none.unit, Unit::Miles, "the vehicle's photos have shown miles");
}

#[test]
fn what_a_person_turns_down_is_rejected_with_their_reason_and_moves_nothing() {
    let mut event = good();
    event.review = Some(by_a_person(None));
    let judgement = judged(&event, Some(&vehicle("50001", Unit::Km)));
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Rejected, Some(Reason::EditedPhoto)));
    assert_eq!((judgement.next_state, judgement.final_mileage), (None, None));
}

#[test]
fn what_was_given_up_after_a_person_has_approved_it_fails_and_is_not_verified_by_half() {
    let mut event = approved("50310", None);
    let detail = "the upload could not be decided, while others could".to_owned();
    event.fault = Some(schemas::events::Fault { reason: Reason::ProcessingFailed, detail });
    let judgement = judged(&event, None);
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Failed, Some(Reason::ProcessingFailed)));
    assert_eq!((judgement.next_state, judgement.baseline), (None, false));
}

#[test]
fn below_the_last_verified_reading_nothing_is_paid_and_the_vehicle_stays() {
    let before = vehicle("50001", Unit::Km);
    let judgement = judged(&approved("40000", None), Some(&before));
    assert_eq!((judgement.verdict, judgement.distance_km), (Verdict::Verified, Some(Decimal::ZERO)));
    let after = judgement.next_state.unwrap();
    assert_eq!((after.last_km, after.highest_km), (before.last_km, before.highest_km));
}

#[test]
fn a_slip_of_a_digit_is_no_distance_that_could_be_driven() {
    let judgement = judged(&approved("503100", None), Some(&vehicle("50001", Unit::Km)));
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Rejected, Some(Reason::ImpossibleSpeed)));
    let endless = judged(&approved("99999999", None), Some(&vehicle("50001", Unit::Km)));
    assert_eq!((endless.verdict, endless.reason), (Verdict::Rejected, Some(Reason::NoOdometer)));
}

#[test]
fn of_an_upload_that_a_newer_one_has_overtaken_nothing_is_paid_a_second_time() {
    let at = |hours: i64, event: OdometerRead| {
        let mut event = event;
        event.header.accepted_at.0 += hours * DAY_US / 24;
        event.stamp.captured_at = None;
        event.header.upload_id = UploadId(Uuid::from_u128(u128::try_from(hours).unwrap()));
        event
    };
    let sure = |km: &str| {
        let mut event = good();
        reads(&mut event, &[(km, Some(Unit::Km), "0.97")]);
        event
    };
    for (seen, place) in [("50350", "between"), ("49000", "below"), ("50900", "above")] {
        let events =
            [at(0, sure("50310")), at(10, sure("50400")), at(5, approved(seen, None)), at(20, sure("50500"))];
        let judgements = oracle::fold(&events, &Rules::current());
        let paid: Vec<_> = judgements.iter().map(|(_, judgement)| judgement.distance_km.unwrap()).collect();
        assert_eq!(paid, [dec("0"), dec("90"), dec("0"), dec("100")], "{place} its neighbours");
    }
}

prop_compose! {
    /// An upload that a person may have decided, now and then to a reading that cannot be true.
    fn upload_or_review()(
        event in upload(), person in proptest::option::weighted(0.4, proptest::option::weighted(0.8, 480_000_i64..530_000)),
        unit in proptest::option::of(prop_oneof![3 => Just(Unit::Km), 1 => Just(Unit::Miles)]),
    ) -> OdometerRead {
        let seen = |tenths| (Decimal::new(tenths, 1), unit);
        OdometerRead { review: person.map(|mileage| by_a_person(mileage.map(seen))), ..event }
    }
}

proptest! {
    #![proptest_config(crate::properties::tried(1_536))]

    #[test]
    fn with_what_people_decide_a_vehicle_is_still_paid_for_newest_minus_first_verified_reading_and_no_more(
        uploads in proptest::collection::vec(upload_or_review(), 1..40),
    ) {
        let judgements = oracle::fold(&uploads, &Rules::current());
        let states: Vec<_> = judgements.iter().filter_map(|(_, judgement)| judgement.next_state.clone()).collect();
        let paid: Decimal = judgements.iter().filter_map(|(_, judgement)| judgement.distance_km).sum();
        let driven = states.first().zip(states.last()).map(|(first, last)| last.highest_km - first.highest_km);
        prop_assert_eq!(paid, driven.unwrap_or_default());
        for (before, after) in states.iter().zip(states.iter().skip(1)) {
            prop_assert!(after.last_km >= before.last_km && after.last_at >= before.last_at);
            prop_assert!(after.recent.windows(2).all(|pair| pair[0].km <= pair[1].km));
        }
    }

    #[test]
    fn the_vehicle_that_decisions_say_is_the_one_that_they_were_decided_by(
        uploads in proptest::collection::vec(upload_or_review(), 1..40),
    ) {
        let mut vehicle: Option<VehicleState> = None;
        for event in &uploads {
            let judgement = judge(event, vehicle.as_ref(), &Rules::current());
            let at = runtime::Position { topic: "uploads.readings".into(), partition: 0, offset: 0 };
            let decided = crate::fraud_check::event::decided((event, &at), &judgement, None, Micros(0));
            let signals = serde_json::from_str(&decided.signals).unwrap();
            prop_assert_eq!(&signals, &judgement.signals);
            let folded = crate::fraud_check::fold::after(vehicle.as_ref(), &decided, &signals).unwrap();
            prop_assert_eq!(&folded, &judgement.next_state);
            vehicle = folded.or(vehicle);
        }
    }
}
