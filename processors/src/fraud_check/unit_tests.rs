//! The unit: golden cases, and what no claim can do.

use super::*;
use crate::fraud_check::facts::unit_of;

/// Photos of one vehicle a day apart: value, the unit shown beside it, the claimed unit; verdict, reason, unit and kilometres paid.
type Case = (&'static str, Option<Unit>, Option<Unit>, Verdict, Option<Reason>, Unit, Option<&'static str>);

const KM: Option<Unit> = Some(Unit::Km);
const MILES: Option<Unit> = Some(Unit::Miles);
const DOUBT: Option<Reason> = Some(Reason::LowConfidence);
const CLAIM: Option<Reason> = Some(Reason::ClaimMismatch);

const GOLDEN: &[(&str, &[Case])] = &[
    (
        "a claim of miles multiplies nothing",
        &[
            ("31261", None, MILES, Verdict::Review, CLAIM, Unit::Km, None),
            ("31261", None, None, Verdict::Verified, None, Unit::Km, Some("0")),
            ("31361", None, MILES, Verdict::Review, CLAIM, Unit::Km, None),
            ("31361", None, KM, Verdict::Verified, None, Unit::Km, Some("100")),
        ],
    ),
    (
        "photos that show miles, and a later one that shows none",
        &[
            ("31261", MILES, MILES, Verdict::Verified, None, Unit::Miles, Some("0")),
            ("31271", None, None, Verdict::Verified, None, Unit::Miles, Some("16.09344")),
            ("31281", None, MILES, Verdict::Verified, None, Unit::Miles, Some("16.09344")),
            ("31291", None, KM, Verdict::Review, CLAIM, Unit::Miles, None),
            ("31291", MILES, None, Verdict::Verified, None, Unit::Miles, Some("16.09344")),
        ],
    ),
    (
        "km to miles",
        &[
            ("50310", KM, None, Verdict::Verified, None, Unit::Km, Some("0")),
            ("31271", MILES, None, Verdict::Review, DOUBT, Unit::Miles, None),
            ("50410", None, None, Verdict::Verified, None, Unit::Km, Some("100")),
        ],
    ),
    (
        "miles shown after a baseline that showed none and counted as kilometres",
        &[
            ("31261", None, None, Verdict::Verified, None, Unit::Km, Some("0")),
            ("31271", MILES, None, Verdict::Review, DOUBT, Unit::Miles, None),
            ("31271", KM, None, Verdict::Verified, None, Unit::Km, Some("10")),
            ("31281", MILES, None, Verdict::Review, DOUBT, Unit::Miles, None),
        ],
    ),
];

fn upload(n: usize, (value, shown, claimed, ..): &Case) -> OdometerRead {
    let mut event = good();
    reads(&mut event, &[(*value, *shown, "0.97")]);
    event.stamp.claimed_unit = *claimed;
    event.header.upload_id = UploadId(Uuid::from_u128(n as u128));
    let days = i64::try_from(n).unwrap() * DAY_US;
    event.header.accepted_at.0 += days;
    event.stamp.captured_at = event.stamp.captured_at.map(|at| Micros(at.0 + days));
    event
}

#[test]
fn the_unit_is_what_photos_have_shown_and_a_claim_or_a_photo_in_another_goes_to_a_person() {
    for (name, cases) in GOLDEN {
        let uploads: Vec<_> = cases.iter().enumerate().map(|(n, case)| upload(n, case)).collect();
        for ((_, judgement), case) in oracle::fold(&uploads, &Rules::current()).iter().zip(*cases) {
            let (value, _, _, verdict, reason, unit, km) = case;
            let found = (judgement.verdict, judgement.reason, judgement.unit, judgement.distance_km);
            assert_eq!(found, (*verdict, *reason, *unit, km.map(dec)), "{name}: {value}");
        }
    }
}

#[test]
fn a_vehicle_that_a_release_before_counted_in_miles_by_a_claim_earns_nothing_until_a_photo_shows_them() {
    let before = VehicleState { unit_shown: None, ..vehicle("31261", Unit::Miles) };
    let judge = |value, shown, claimed| {
        let case = (value, shown, claimed, Verdict::Verified, None, Unit::Km, None);
        judged(&upload(0, &case), Some(&before))
    };
    for claimed in [None, KM, MILES] {
        let judgement = judge("31271", None, claimed);
        assert_eq!((judgement.verdict, judgement.reason), (Verdict::Review, DOUBT), "claimed {claimed:?}");
    }
    let judgement = judge("31271", MILES, MILES);
    assert_eq!((judgement.verdict, judgement.distance_km), (Verdict::Verified, Some(dec("16.09344"))));
    assert_eq!(judgement.next_state.unwrap().unit_shown, MILES);
}

#[test]
fn the_unit_is_the_photos_then_the_one_that_the_vehicles_photos_have_shown_then_km() {
    let (shown, unknown) =
        (vehicle("1", Unit::Miles), VehicleState { unit_shown: None, ..vehicle("1", Unit::Miles) });
    assert_eq!(unit_of(KM, Some(&shown)), Unit::Km);
    assert_eq!(unit_of(None, Some(&shown)), Unit::Miles);
    assert_eq!(unit_of(None, Some(&unknown)), Unit::Km);
    assert_eq!(unit_of(None, None), Unit::Km);
    assert_eq!(unit_of(MILES, None), Unit::Miles);
}

proptest! {
    #![proptest_config(crate::properties::tried(1_536))]

    #[test]
    fn what_drivers_claim_never_moves_what_is_paid(
        uploads in proptest::collection::vec(super::upload(), 1..40),
    ) {
        let paid = |uploads: &[OdometerRead]| {
            let judgements = oracle::fold(uploads, &Rules::current());
            let units: Vec<Unit> = judgements.iter().map(|(_, judgement)| judgement.unit).collect();
            let verified = judgements.iter().filter(|(_, judgement)| judgement.verdict == Verdict::Verified);
            (units, verified.map(|(id, judgement)| (*id, judgement.distance_km)).collect::<Vec<_>>())
        };
        let mut silent = uploads.clone();
        let (_, verified) = paid(&uploads);
        // Those that the claims have kept from being verified are left out.
        silent.retain(|event| verified.iter().any(|(id, _)| *id == event.header.upload_id));
        silent.iter_mut().for_each(|event| (event.stamp.claimed_unit, event.stamp.claimed_mileage) = (None, None));
        prop_assert_eq!(paid(&silent).1, verified);
    }

    #[test]
    fn a_vehicle_whose_photos_show_no_unit_is_paid_the_difference_of_what_they_show(
        uploads in proptest::collection::vec(super::upload(), 1..40),
    ) {
        let mut uploads = uploads;
        for event in &mut uploads {
            let reading = event.reading.as_mut().unwrap();
            reading.candidates.iter_mut().for_each(|candidate| candidate.unit = None);
            reading.best = reading.candidates.first().cloned();
        }
        let judgements = oracle::fold(&uploads, &Rules::current());
        let values: Vec<Decimal> = judgements.iter().filter_map(|(_, judgement)| judgement.final_mileage).collect();
        let paid: Decimal = judgements.iter().filter_map(|(_, judgement)| judgement.distance_km).sum();
        let highest = values.iter().max().copied().unwrap_or_default();
        prop_assert_eq!(paid, highest - values.first().copied().unwrap_or_default());
    }
}
