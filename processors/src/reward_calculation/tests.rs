//! The tariff by examples, and what must hold for any distance.

use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::{PartName, Stamp, UploadDecided};
use schemas::ids::Micros;

use super::tariff::{Earned, TARIFFS, Tariff};

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn stamp(kind: &str, level: &str) -> Stamp {
    let example = include_str!("../../../schemas/examples/uploads.decided/normal-verified.json");
    let mut example: serde_json::Value = serde_json::from_str(example).unwrap();
    let event: UploadDecided = serde_json::from_value(example["event"].take()).unwrap();
    Stamp { vehicle_kind: kind.into(), verification_level: level.into(), ..event.stamp }
}

fn earned(km: &str, kind: &str, level: &str) -> Earned {
    TARIFFS[0].earned(dec(km), &stamp(kind, level)).unwrap()
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
        assert_eq!(TARIFFS[0].earned(dec(km), &stamp("petrol", "basic")), None, "{km}");
    }
}

#[test]
fn the_tariff_of_the_day_of_acceptance_holds_and_versions_are_unique_and_in_order() {
    assert_eq!(Tariff::in_force(Micros(i64::MIN)).version, "1");
    for pair in TARIFFS.windows(2) {
        assert!(pair[0].from < pair[1].from && pair[0].version != pair[1].version);
    }
    for tariff in TARIFFS {
        assert_eq!(Tariff::in_force(tariff.from), tariff);
        assert!(tariff.rates.iter().all(|(_, rate)| rate.per_km().scale() <= 4));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parts_add_up_to_the_total_which_is_on_the_grid_never_negative_and_never_above_the_cap(
        mantissa in 0_i64..100_000_000_000_000_i64,
        scale in 0_u32..10,
        kind in prop_oneof![Just("petrol"), Just("lpg"), Just("electric"), Just("unknown")],
        level in prop_oneof![Just("basic"), Just("verified"), Just("premium")],
    ) {
        let km = Decimal::new(mantissa, scale);
        let Some(earned) = TARIFFS[0].earned(km, &stamp(kind, level)) else {
            prop_assert!(km >= dec("100000000"));
            return Ok(());
        };
        let sum: Decimal = earned.parts.iter().map(|part| part.amount).sum();
        prop_assert_eq!(sum, earned.total());
        prop_assert!(earned.base >= Decimal::ZERO && earned.bonus >= Decimal::ZERO);
        prop_assert!(earned.total() <= TARIFFS[0].upload_cap);
        for amount in earned.parts.iter().map(|part| part.amount).chain([earned.base, earned.bonus]) {
            prop_assert!(amount.scale() <= 8, "{}", amount);
        }
        prop_assert!(earned.distance_km <= km && earned.distance_km.scale() <= 2);
        // The cap touches the base only when the bonus is gone.
        prop_assert!(earned.bonus.is_zero() || earned.base == earned.distance_km * earned.rate);
    }
}
