//! Every reason by a table, and what must hold for any input.

use std::sync::LazyLock;

use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::{Candidate, Fault, FirstHolder, LookAlike, OdometerRead, PixelHolder, Unit, Verdict};
use schemas::ids::{Micros, UploadId, UserId, VehicleId};
use schemas::reason::Reason;
use uuid::Uuid;

use super::facts::VehicleState;
use super::judge::{Judgement, judge};
use super::oracle;
use super::rules::Rules;

const DAY_US: i64 = 86_400_000_000;

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// 50,310 km, sure, claimed and taken ten minutes before.
fn good() -> OdometerRead {
    // Histories are made of thousands of these.
    static GOOD: LazyLock<OdometerRead> = LazyLock::new(|| {
        let example = include_str!("../../../schemas/examples/uploads.readings/normal-km.json");
        let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
        serde_json::from_value(example["event"].take()).unwrap()
    });
    GOOD.clone()
}

fn reads(event: &mut OdometerRead, candidates: &[(&str, Option<Unit>, &str)]) {
    let reading = event.reading.as_mut().unwrap();
    reading.candidates = candidates
        .iter()
        .map(|(value, unit, confidence)| Candidate {
            value: dec(value),
            unit: *unit,
            confidence: dec(confidence),
        })
        .collect();
    reading.best = reading.candidates.first().cloned();
    event.stamp.claimed_mileage = None;
}

/// A vehicle that was at `last` ten days before the photo was taken.
fn vehicle(last: &str, unit: Unit) -> VehicleState {
    let last_km = dec(last) * unit.in_km();
    VehicleState {
        last_km,
        highest_km: last_km,
        unit,
        unit_shown: Some(unit),
        last_at: Micros(good().stamp.captured_at.unwrap().0 - 10 * DAY_US),
        last_upload_id: UploadId(Uuid::from_u128(1)),
        recent: Vec::new(),
        owner: good().header.user_id,
    }
}

fn judged(event: &OdometerRead, vehicle: Option<&VehicleState>) -> Judgement {
    judge(event, vehicle, &Rules::current())
}

type Change = fn(&mut OdometerRead);

/// The pixels of an upload that was accepted so many microseconds before this one, of this user or another and for this vehicle or another.
fn same_pixels(event: &mut OdometerRead, before_us: i64, other_user: bool, other_vehicle: bool) {
    let header = &event.header;
    event.pixel_holder = Some(PixelHolder {
        upload_id: UploadId(Uuid::nil()),
        user_id: if other_user { UserId(Uuid::nil()) } else { header.user_id },
        vehicle_id: if other_vehicle { VehicleId(Uuid::nil()) } else { header.vehicle_id },
        accepted_at: Micros(header.accepted_at.0 - before_us),
    });
}

/// What is changed on a good upload of a vehicle that stood at 50,001 km ten days before, and what it is decided then.
const TABLE: &[(&str, Change, Verdict, Option<Reason>)] = &[
    ("nothing wrong", |_| {}, Verdict::Verified, None),
    (
        "locked, and all else",
        |e| {
            e.stamp.account_active = false;
            e.fault = Some(Fault { reason: Reason::TooDark, detail: "d".into() });
        },
        Verdict::Rejected,
        Some(Reason::AccountStanding),
    ),
    (
        "a fault, and a photo of another user",
        |e| {
            e.fault = Some(Fault { reason: Reason::TooDark, detail: "d".into() });
            e.stamp.first_holder =
                Some(FirstHolder { upload_id: UploadId(Uuid::nil()), user_id: UserId(Uuid::nil()) });
        },
        Verdict::Rejected,
        Some(Reason::TooDark),
    ),
    (
        "our fault",
        |e| e.fault = Some(Fault { reason: Reason::ProcessingFailed, detail: "d".into() }),
        Verdict::Failed,
        Some(Reason::ProcessingFailed),
    ),
    (
        "ended by an operator",
        |e| e.fault = Some(Fault { reason: Reason::Abandoned, detail: "d".into() }),
        Verdict::Failed,
        Some(Reason::Abandoned),
    ),
    (
        "a photo of another user",
        |e| {
            e.stamp.first_holder =
                Some(FirstHolder { upload_id: UploadId(Uuid::nil()), user_id: UserId(Uuid::nil()) });
        },
        Verdict::Rejected,
        Some(Reason::DuplicatePhoto),
    ),
    (
        "the own photo of a failed upload",
        |e| {
            e.stamp.first_holder =
                Some(FirstHolder { upload_id: UploadId(Uuid::nil()), user_id: e.header.user_id });
        },
        Verdict::Verified,
        None,
    ),
    (
        "the picture of another user in another file",
        |e| same_pixels(e, 1, true, true),
        Verdict::Rejected,
        Some(Reason::DuplicatePhoto),
    ),
    (
        "the picture of another user in a file that came later",
        |e| same_pixels(e, -1, true, true),
        Verdict::Review,
        Some(Reason::DuplicatePhoto),
    ),
    (
        "the picture of another vehicle of the user",
        |e| same_pixels(e, 1, false, true),
        Verdict::Review,
        Some(Reason::DuplicatePhoto),
    ),
    (
        "a photo that looks like that of another account",
        |e| {
            let (upload_id, user_id, vehicle_id) =
                (UploadId(Uuid::nil()), UserId(Uuid::nil()), VehicleId(Uuid::nil()));
            e.look_alike = Some(LookAlike { upload_id, user_id, vehicle_id, likeness: Decimal::new(93, 2) });
        },
        Verdict::Review,
        Some(Reason::DuplicatePhoto),
    ),
    ("the own picture again", |e| same_pixels(e, 1, false, false), Verdict::Verified, None),
    ("unread", |e| e.reading = None, Verdict::Rejected, Some(Reason::NoOdometer)),
    ("no candidate", |e| reads(e, &[]), Verdict::Rejected, Some(Reason::NoOdometer)),
    (
        "a number that no odometer shows",
        |e| reads(e, &[("10000000", Some(Unit::Km), "0.99")]),
        Verdict::Rejected,
        Some(Reason::NoOdometer),
    ),
    (
        "another unit than the vehicle's",
        |e| reads(e, &[("31261", Some(Unit::Miles), "0.97")]),
        Verdict::Review,
        Some(Reason::LowConfidence),
    ),
    (
        "a claim in another unit",
        |e| e.stamp.claimed_unit = Some(Unit::Miles),
        Verdict::Review,
        Some(Reason::ClaimMismatch),
    ),
    (
        "surely back",
        |e| reads(e, &[("50000", Some(Unit::Km), "0.97")]),
        Verdict::Rejected,
        Some(Reason::Rollback),
    ),
    (
        "perhaps back",
        |e| reads(e, &[("50000", Some(Unit::Km), "0.60")]),
        Verdict::Review,
        Some(Reason::LowConfidence),
    ),
    ("not moved", |e| reads(e, &[("50001", Some(Unit::Km), "0.97")]), Verdict::Verified, None),
    // Ten days at 200 km/h are 48,000 km, and 20.
    (
        "just possible",
        |e| reads(e, &[("98021", Some(Unit::Km), "0.97")]),
        Verdict::Review,
        Some(Reason::ImpossibleSpeed),
    ),
    ("1,500 km a day", |e| reads(e, &[("65001", Some(Unit::Km), "0.97")]), Verdict::Verified, None),
    (
        "impossible",
        |e| reads(e, &[("98022", Some(Unit::Km), "0.97")]),
        Verdict::Rejected,
        Some(Reason::ImpossibleSpeed),
    ),
    (
        "before the last photo",
        |e| e.stamp.captured_at = e.stamp.captured_at.map(|at| Micros(at.0 - 11 * DAY_US)),
        Verdict::Review,
        Some(Reason::StalePhoto),
    ),
    (
        "15 days old",
        |e| e.stamp.captured_at = Some(Micros(e.header.accepted_at.0 - 15 * DAY_US)),
        Verdict::Review,
        Some(Reason::StalePhoto),
    ),
    (
        "claim within half a per cent",
        |e| e.stamp.claimed_mileage = Some(dec("50561.55")),
        Verdict::Verified,
        None,
    ),
    (
        "claim beyond",
        |e| e.stamp.claimed_mileage = Some(dec("50561.56")),
        Verdict::Review,
        Some(Reason::ClaimMismatch),
    ),
    (
        "several",
        |e| e.reading.as_mut().unwrap().several_readings = true,
        Verdict::Review,
        Some(Reason::SeveralReadings),
    ),
    (
        "unsure",
        |e| reads(e, &[("50310", Some(Unit::Km), "0.79")]),
        Verdict::Review,
        Some(Reason::LowConfidence),
    ),
    ("just sure", |e| reads(e, &[("50310", Some(Unit::Km), "0.80")]), Verdict::Verified, None),
    (
        "every verdict to a person",
        |e| e.stamp.auto_accept = false,
        Verdict::Review,
        Some(Reason::LowConfidence),
    ),
];

#[test]
fn each_reason_has_an_upload_that_is_decided_by_it_and_an_earlier_check_goes_first() {
    let km = Some(Unit::Km);
    assert_eq!(km, good().reading.unwrap().best.unwrap().unit);
    let last = vehicle("50001", Unit::Km);
    for (name, change, verdict, reason) in TABLE {
        let mut event = good();
        change(&mut event);
        let judgement = judged(&event, Some(&last));
        assert_eq!((judgement.verdict, judgement.reason), (*verdict, *reason), "{name}: {judgement:?}");
        assert_eq!(judgement.detail.is_some(), judgement.reason.is_some(), "{name}");
        assert_eq!(judgement.next_state.is_some(), *verdict == Verdict::Verified, "{name}");
    }
}

#[test]
fn the_first_verified_reading_is_a_baseline_of_no_distance_and_the_next_pays_the_difference_exactly() {
    let mut first = good();
    reads(&mut first, &[("31261", Some(Unit::Miles), "0.97")]);
    first.stamp.claimed_unit = Some(Unit::Miles);
    let baseline = judged(&first, None);
    assert!(baseline.baseline);
    assert_eq!((baseline.distance_km, baseline.previous), (Some(Decimal::ZERO), None));
    let state = baseline.next_state.unwrap();
    let mut second = good();
    reads(&mut second, &[("31270", Some(Unit::Miles), "0.97")]);
    second.stamp.claimed_unit = None;
    second.header.upload_id = UploadId(Uuid::from_u128(2));
    let judgement = judged(&second, Some(&state));
    assert!(!judgement.baseline);
    assert_eq!(judgement.previous, Some(dec("31261")));
    assert_eq!(judgement.distance_km, Some(dec("14.484096")), "9 x 1.609344");
}

#[test]
fn a_display_without_tenths_is_no_rollback_and_the_vehicle_stays_where_it_was() {
    let mut event = good();
    reads(&mut event, &[("50001", Some(Unit::Km), "0.97")]);
    let judgement = judged(&event, Some(&vehicle("50001.9", Unit::Km)));
    assert_eq!((judgement.verdict, judgement.distance_km), (Verdict::Verified, Some(Decimal::ZERO)));
    assert_eq!(judgement.next_state.unwrap().last_km, dec("50001.9"));
    reads(&mut event, &[("50001.8", Some(Unit::Km), "0.97")]);
    assert_eq!(judged(&event, Some(&vehicle("50001.9", Unit::Km))).reason, Some(Reason::Rollback));
}

#[test]
fn nothing_is_paid_twice_below_the_highest_reading_ever_verified() {
    let mut corrected = vehicle("49000", Unit::Km);
    corrected.highest_km = dec("50300");
    let judgement = judged(&good(), Some(&corrected));
    assert_eq!((judgement.verdict, judgement.distance_km), (Verdict::Verified, Some(dec("10"))));
    corrected.highest_km = dec("60000");
    assert_eq!(judged(&good(), Some(&corrected)).distance_km, Some(Decimal::ZERO));
}

#[test]
fn the_last_verified_value_ranks_what_was_read_and_both_answers_are_kept() {
    let mut event = good();
    reads(&mut event, &[("5031", None, "0.90"), ("50310", None, "0.85")]);
    let judgement = judged(&event, Some(&vehicle("50001", Unit::Km)));
    assert_eq!((judgement.ai, judgement.final_mileage), (Some(dec("5031")), Some(dec("50310"))));
    assert_eq!(judgement.confidence, Some(dec("0.85")));
}

#[path = "abandoned_tests.rs"]
mod abandoned;
#[path = "camera_tests.rs"]
mod camera;
#[path = "conduct_tests.rs"]
mod conduct;
#[path = "corpus_tests.rs"]
mod corpus;
#[path = "corrections_tests.rs"]
mod corrections;
#[path = "late_tests.rs"]
mod late;
#[path = "origin_tests.rs"]
mod origin;
#[path = "owner_tests.rs"]
mod owner;
#[path = "review_tests.rs"]
mod review;
#[path = "screen_tests.rs"]
mod screen;
#[path = "unit_tests.rs"]
mod unit;

#[test]
fn a_phones_time_counts_only_from_fourteen_days_before_to_five_minutes_after_acceptance() {
    let at = |captured: Option<i64>| {
        let mut event = good();
        let accepted = event.header.accepted_at.0;
        event.stamp.captured_at = captured.map(|offset| Micros(accepted + offset));
        judged(&event, None).next_state.map(|state| state.last_at.0 - accepted)
    };
    assert_eq!(at(Some(-14 * DAY_US)), Some(-14 * DAY_US));
    assert_eq!(at(Some(300_000_000)), Some(300_000_000));
    assert_eq!(at(Some(300_000_001)), Some(0));
    assert_eq!(at(None), Some(0));
}

#[test]
fn every_check_is_recorded_with_value_threshold_and_weight_also_where_it_was_fine() {
    let signals = judged(&good(), Some(&vehicle("50001", Unit::Km))).signals;
    let checks = signals["checks"].as_object().unwrap();
    for name in [
        "account_active",
        "something_read",
        "rollback",
        "distance_for_time",
        "claim_difference",
        "confidence",
    ] {
        let check = &checks[name];
        assert_eq!(check["against"], false, "{name}");
        assert!(
            check["weight"].is_number() && !check["value"].is_null() && !check["threshold"].is_null(),
            "{name}"
        );
    }
    assert_eq!(signals["decided_by"], serde_json::Value::Null);
    assert_eq!(signals["vehicle_before"]["last_km"], "50001");
    assert_eq!(signals["vehicle_after"]["last_km"], "50310");
}

#[test]
fn a_vehicle_that_drives_more_than_1500_km_a_day_on_average_is_looked_at() {
    let after = |hours: i64, km: i64| {
        let mut event = good();
        event.header.accepted_at.0 += hours * DAY_US / 24;
        let value = (50_001 + km).to_string();
        reads(&mut event, &[(&value, Some(Unit::Km), "0.96")]);
        event.stamp.claimed_mileage = None;
        event.stamp.captured_at = None;
        event
    };
    let mut before = vehicle("50001", Unit::Km);
    before.last_at = good().header.accepted_at;
    let verdict = |event: &OdometerRead| {
        let judgement = judged(event, Some(&before));
        (judgement.verdict, judgement.reason)
    };
    let looked_at = (Verdict::Review, Some(Reason::ImpossibleSpeed));
    assert_eq!(verdict(&after(24, 1_500)), (Verdict::Verified, None));
    assert_eq!(verdict(&after(24, 1_501)), looked_at);
    assert_eq!(verdict(&after(12, 1_600)), looked_at, "a day's worth in half a day");
    assert_eq!(verdict(&after(48, 3_000)), (Verdict::Verified, None));
    // Photos of each day that were sent together are no day's drive.
    let mut together = after(0, 0);
    let mut state = before.clone();
    for day in 0..5 {
        together = after(9 * 24, 900 * (day + 1));
        together.header.accepted_at.0 += day;
        together.stamp.captured_at = Some(Micros(good().header.accepted_at.0 + (day + 1) * DAY_US));
        let judgement = judged(&together, Some(&state));
        assert_eq!((day, judgement.verdict), (day, Verdict::Verified));
        state = judgement.next_state.unwrap();
    }
    // What is split into photos of a few hours each comes to the same.
    let mut split = before.clone();
    let verdicts: Vec<Verdict> = (1..=9)
        .map(|photo| {
            let judgement = judged(&after(5 * photo, 400 * photo), Some(&split));
            if let Some(next) = judgement.next_state.clone() {
                split = next;
            }
            judgement.verdict
        })
        .collect();
    assert!(verdicts.contains(&Verdict::Review), "{verdicts:?} of {together:?}");
}

prop_compose! {
    /// A driver's upload: any reading near 50,000, any time within some weeks, sure or not.
    fn upload()(
        n in 0_u128..12, tenths in 495_000_i64..515_000, scale in 0_u32..2, miles in any::<bool>(),
        unit_seen in any::<bool>(), confidence in 50_i64..100, hours in -400_i64..2_000, other in 0_i64..9_999_999,
        claim in proptest::option::of(495_000_i64..515_000), captured in proptest::option::of(-500_i64..10),
        claimed_unit in prop_oneof![4 => Just(None), 1 => Just(Some(Unit::Km)), 1 => Just(Some(Unit::Miles))],
    ) -> OdometerRead {
        let mut event = good();
        event.header.upload_id = UploadId(Uuid::from_u128(n));
        event.header.accepted_at = Micros(event.header.accepted_at.0 + hours * DAY_US / 24);
        let accepted = event.header.accepted_at.0;
        let value = if scale == 0 { Decimal::from(tenths / 10) } else { Decimal::new(tenths, 1) };
        let unit = unit_seen.then_some(if miles { Unit::Miles } else { Unit::Km });
        reads(&mut event, &[]);
        let reading = event.reading.as_mut().unwrap();
        reading.candidates = vec![
            Candidate { value, unit, confidence: Decimal::new(confidence, 2) },
            Candidate { value: Decimal::new(other, 1), unit: None, confidence: Decimal::new(confidence / 3, 2) },
        ];
        reading.best = reading.candidates.first().cloned();
        event.stamp.claimed_mileage = claim.map(|tenths| Decimal::new(tenths, 1));
        event.stamp.captured_at = captured.map(|hours| Micros(accepted + hours * DAY_US / 24));
        event.stamp.claimed_unit = claimed_unit;
        event
    }
}

proptest! {
    #![proptest_config(crate::properties::tried(1_536))]

    #[test]
    fn what_a_vehicle_is_paid_for_never_exceeds_newest_minus_first_verified_reading(
        uploads in proptest::collection::vec(upload(), 1..40),
    ) {
        let judgements = oracle::fold(&uploads, &Rules::current());
        let verified: Vec<_> = judgements.iter().map(|(_, j)| j).filter(|j| j.verdict == Verdict::Verified).collect();
        let paid: Decimal = verified.iter().filter_map(|j| j.distance_km).sum();
        if let (Some(first), Some(last)) = (verified.first(), verified.last()) {
            let (first, last) = (first.next_state.clone().unwrap(), last.next_state.clone().unwrap());
            prop_assert_eq!(paid, last.last_km - first.last_km);
        } else {
            prop_assert_eq!(paid, Decimal::ZERO);
        }
        prop_assert_eq!(verified.iter().filter(|j| j.baseline).count(), usize::from(!verified.is_empty()));
    }

    #[test]
    fn a_verified_mileage_was_really_read_is_sure_and_lies_not_below_the_last_one(
        uploads in proptest::collection::vec(upload(), 1..40),
    ) {
        let rules = Rules::current();
        let mut before: Option<VehicleState> = None;
        for event in &uploads {
            let judgement = judge(event, before.as_ref(), &rules);
            if let Some(value) = judgement.final_mileage {
                let read = event.reading.as_ref().unwrap();
                let candidate = read.candidates.iter().find(|seen| seen.value == value).unwrap();
                prop_assert!(candidate.confidence >= rules.auto_accept);
                // Below only by what a display without tenths does not show.
                let digit = Decimal::new(1, value.scale());
                prop_assert!(judgement.previous.is_none_or(|previous| value + digit > previous));
                prop_assert!(judgement.distance_km.unwrap() >= Decimal::ZERO);
            }
            if let Some(next) = judgement.next_state {
                prop_assert!(before.is_none_or(|before| next.last_km >= before.last_km && next.last_at >= before.last_at));
                before = Some(next);
            } else {
                prop_assert_ne!(judgement.verdict, Verdict::Verified);
            }
        }
    }

    #[test]
    fn the_same_event_and_vehicle_give_the_same_judgement_whenever_and_wherever_they_are_judged(
        event in upload(), last in upload(), offset in 0_i64..1_000_000, occurred in any::<i64>(),
    ) {
        let rules = Rules::current();
        let state = judge(&last, None, &rules).next_state;
        let mut later = event.clone();
        later.header.occurred_at = Micros(occurred);
        later.header.root = Some(schemas::events::Root { partition: 3, offset });
        later.header.stage_version = "another".into();
        prop_assert_eq!(judge(&event, state.as_ref(), &rules), judge(&later, state.as_ref(), &rules));
    }

    #[test]
    fn no_numbers_and_times_make_the_judge_panic(
        value in any::<i128>(), scale in 0_u32..28, claim in any::<i64>(), accepted in any::<i64>(),
        captured in any::<i64>(), last_at in any::<i64>(),
    ) {
        let mut event = good();
        let value = Decimal::try_from_i128_with_scale(value % (1 << 95), scale).unwrap();
        reads(&mut event, &[]);
        let reading = event.reading.as_mut().unwrap();
        reading.candidates = vec![Candidate { value, unit: None, confidence: Decimal::ONE }];
        event.stamp.claimed_mileage = Some(Decimal::new(claim, scale));
        event.header.accepted_at = Micros(accepted);
        event.stamp.captured_at = Some(Micros(captured));
        let state = VehicleState { last_at: Micros(last_at), ..vehicle("50001", Unit::Miles) };
        let _ = judged(&event, Some(&state));
    }
}
