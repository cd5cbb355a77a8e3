//! The tariff by examples, and what must hold for any distance.

use std::sync::LazyLock;

use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::{DriverFacts, PartName, Stamp, UploadDecided};
use schemas::ids::Micros;

use super::bonus::{Bonus, Fact, Known};
use super::tariff::{Earned, Tariff};
use crate::reward_rules::Rulebook;

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn stamp(kind: &str, level: &str) -> Stamp {
    static VERIFIED: LazyLock<Stamp> = LazyLock::new(|| {
        let example = include_str!("../../../schemas/examples/uploads.decided/normal-verified.json");
        let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
        let event: UploadDecided = serde_json::from_value(example["event"].take()).unwrap();
        event.stamp
    });
    Stamp { vehicle_kind: kind.into(), verification_level: level.into(), ..VERIFIED.clone() }
}

/// The first tariff.
fn tariff() -> Tariff {
    Rulebook::first().in_force(Micros(0)).tariff.clone()
}

fn earned(km: &str, kind: &str, level: &str) -> Earned {
    by(&tariff(), km, &stamp(kind, level)).unwrap()
}

/// What a distance earns whose driver is not known.
fn by(tariff: &Tariff, km: &str, stamp: &Stamp) -> Option<Earned> {
    tariff.earned(dec(km), &Known { stamp, accepted_at: Micros(0), driver: None })
}

#[test]
fn a_distance_earns_its_rate_and_a_level_its_per_cent() {
    for (km, kind, level, base, bonus) in [
        ("309", "petrol", "basic", "3.09", "0"),
        ("309", "petrol", "verified", "3.09", "0.1545"),
        ("309.999", "petrol", "premium", "3.0999", "0.30999"),
        ("100", "electric", "basic", "2.5", "0"),
        ("100", "hovercraft", "no level", "1", "0"),
        ("0.019", "petrol", "verified", "0.0001", "0.000005"),
        ("0.009", "petrol", "verified", "0", "0"),
        ("2500", "petrol", "verified", "20", "0"),
        ("1950", "petrol", "verified", "19.5", "0.5"),
    ] {
        let earned = earned(km, kind, level);
        assert_eq!((earned.base, earned.bonus), (dec(base), dec(bonus)), "{km} km {kind} {level}");
    }
}

#[test]
fn the_cap_takes_from_the_bonus_first_and_stands_as_a_negative_part() {
    let capped = earned("2500", "petrol", "verified");
    let parts: Vec<_> = capped.parts.iter().map(|part| (part.name, part.amount)).collect();
    let expected = [
        (PartName::Base, dec("25")),
        (PartName::VerificationLevel, dec("1.25")),
        (PartName::UploadCap, dec("-6.25")),
    ];
    assert_eq!(parts, expected);
}

#[test]
fn what_is_no_distance_earns_nothing_at_all() {
    for km in ["-0.01", "100000000", "79228162514264337593543950335"] {
        assert_eq!(by(&tariff(), km, &stamp("petrol", "basic")), None, "{km}");
    }
}

/// A bonus of ten per cent.
fn bonus(name: &str, fact: Fact, at_most: Option<&str>) -> Bonus {
    Bonus { name: name.into(), fact, percent: Decimal::TEN, at_most: at_most.map(dec) }
}

#[test]
fn bonuses_are_for_what_is_stamped_and_of_several_streaks_the_longest_that_is_reached_counts() {
    let campaign = Fact::Campaign { from: Micros(10), until: Micros(20), kinds: vec!["electric".into()] };
    let bonuses = vec![
        bonus("two weeks", Fact::Streak { weeks: 2 }, None),
        bonus("four weeks", Fact::Streak { weeks: 4 }, Some("0.05")),
        bonus("eight weeks", Fact::Streak { weeks: 8 }, None),
        bonus("first of the week", Fact::FirstOfWeek, None),
        bonus("spring", campaign, None),
    ];
    let tariff = Tariff { bonuses, ..tariff() };
    let names = |kind: &str, at: i64, driver: Option<(i32, bool)>| {
        let driver = driver.map(|(streak_weeks, first_of_week)| DriverFacts { streak_weeks, first_of_week });
        let stamp = stamp(kind, "basic");
        let known = Known { stamp: &stamp, accepted_at: Micros(at), driver: driver.as_ref() };
        let parts = tariff.earned(dec("100"), &known).unwrap().parts;
        parts.into_iter().filter_map(|part| part.label.map(|label| (label, part.amount))).collect::<Vec<_>>()
    };
    let of = |name: &str, amount: &str| (name.to_owned(), dec(amount));
    assert_eq!(names("petrol", 15, None), [], "a release before has decided it");
    assert_eq!(names("petrol", 15, Some((1, false))), []);
    assert_eq!(names("petrol", 0, Some((3, false))), [of("two weeks", "0.1")]);
    assert_eq!(
        names("petrol", 0, Some((7, true))),
        [of("four weeks", "0.05"), of("first of the week", "0.1")]
    );
    for (at, within) in [(9, false), (10, true), (19, true), (20, false)] {
        assert_eq!(names("electric", at, None).len(), usize::from(within), "{at}");
    }
}

fn any_bonus() -> impl Strategy<Value = Bonus> {
    let fact = prop_oneof![
        Just(Fact::Level("verified".into())),
        (1_i32..60).prop_map(|weeks| Fact::Streak { weeks }),
        Just(Fact::FirstOfWeek),
        (-5_i64..5, 0_i64..5).prop_map(|(from, long)| Fact::Campaign {
            from: Micros(from),
            until: Micros(from + long),
            kinds: Vec::new()
        }),
    ];
    let at_most = prop::option::of((1_i64..1_000_000_000_000).prop_map(|units| Decimal::new(units, 8)));
    (fact, 1_i64..10_000_000, at_most, any::<u32>()).prop_map(|(fact, percent, at_most, n)| Bonus {
        name: format!("bonus {n}"),
        fact,
        percent: Decimal::new(percent, 4),
        at_most,
    })
}

proptest! {
    #![proptest_config(crate::properties::tried(16_384))]

    #[test]
    fn parts_add_up_to_the_total_which_is_on_the_grid_never_negative_and_never_above_the_cap(
        mantissa in 0_i64..100_000_000_000_000_i64,
        scale in 0_u32..10,
        kind in prop_oneof![Just("petrol"), Just("lpg"), Just("electric"), Just("unknown")],
        level in prop_oneof![Just("basic"), Just("verified"), Just("premium")],
        bonuses in prop::collection::vec(any_bonus(), 0..6),
        (streak_weeks, first_of_week, at) in (0_i32..60, any::<bool>(), -6_i64..6),
    ) {
        let km = Decimal::new(mantissa, scale);
        let tariff = Tariff { bonuses: bonuses.clone(), ..tariff() };
        let (stamp, driver) = (stamp(kind, level), DriverFacts { streak_weeks, first_of_week });
        let known = Known { stamp: &stamp, accepted_at: Micros(at), driver: Some(&driver) };
        let Some(earned) = tariff.earned(km, &known) else {
            prop_assert!(km >= dec("100000000"));
            return Ok(());
        };
        let sum: Decimal = earned.parts.iter().map(|part| part.amount).sum();
        prop_assert_eq!(sum, earned.total());
        prop_assert!(earned.base >= Decimal::ZERO && earned.bonus >= Decimal::ZERO);
        prop_assert!(earned.total() <= tariff.upload_cap);
        for amount in earned.parts.iter().map(|part| part.amount).chain([earned.base, earned.bonus]) {
            prop_assert!(amount.scale() <= 8, "{}", amount);
        }
        prop_assert!(earned.distance_km <= km && earned.distance_km.scale() <= 2);
        // The cap touches the base only when the bonus is gone.
        let whole = earned.distance_km * earned.rate;
        prop_assert!(earned.bonus.is_zero() || earned.base == whole);
        // No bonus is above its most, or above its share of the base.
        for part in earned.parts.iter().filter(|part| part.label.is_some()) {
            let of = bonuses.iter().find(|bonus| Some(&bonus.name) == part.label.as_ref()).unwrap();
            prop_assert!(part.amount > Decimal::ZERO && part.amount <= whole * of.percent / dec("100"));
            prop_assert!(of.at_most.is_none_or(|most| part.amount <= most));
        }
        // The order in which bonuses are written changes nothing.
        let turned = Tariff { bonuses: bonuses.into_iter().rev().collect(), ..tariff };
        let again = turned.earned(km, &known).unwrap();
        prop_assert_eq!((again.base, again.bonus), (earned.base, earned.bonus));
    }
}
