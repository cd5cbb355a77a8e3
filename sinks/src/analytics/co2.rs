//! CO2 of a kilometre, in versions. A changed figure is a new version with the instant from which it holds, so that what was added
//! up before stays, and a rebuild gives it again.

use rust_decimal::Decimal;
use schemas::ids::Micros;

use crate::postgres::GRAMS_PER_KM;

/// A version of the factors.
#[derive(Clone, Copy, Debug)]
pub struct Factors {
    /// Names this version.
    pub version: &'static str,
    /// The first acceptance that it holds for.
    pub from: Micros,
    /// g CO2e per km by what the vehicle runs on; the first is the reference that is saved against, also for kinds not listed.
    pub grams: &'static [(&'static str, Decimal)],
}

/// Every version, oldest first; the first holds from the beginning of time. UK DESNZ greenhouse gas conversion factors 2026,
/// average car, electric by the UK grid. The figures are second-hand: hold them against the published sheet before they are quoted.
pub const FACTORS: &[Factors] =
    &[Factors { version: "desnz-2026", from: Micros(i64::MIN), grams: &GRAMS_PER_KM }];

impl Factors {
    /// The version in force at an acceptance.
    #[must_use]
    pub fn in_force(accepted_at: Micros) -> &'static Self {
        FACTORS.iter().rev().find(|factors| factors.from <= accepted_at).unwrap_or(&FACTORS[0])
    }

    /// g CO2e per km that a vehicle emits, and those that it saves against the reference, at least 0.
    #[must_use]
    pub fn of(&self, vehicle_kind: &str) -> (Decimal, Decimal) {
        let reference = self.grams.first().map_or(Decimal::ZERO, |(_, grams)| *grams);
        let known = self.grams.iter().find(|(kind, _)| *kind == vehicle_kind);
        let own = known.map_or(reference, |(_, grams)| *grams);
        (own, (reference - own).max(Decimal::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_electric_car_saves_the_difference_and_a_diesel_saves_nothing() {
        let factors = Factors::in_force(Micros(0));
        assert_eq!(factors.of("electric"), (Decimal::new(2_686, 2), Decimal::new(13_466, 2)));
        assert_eq!(factors.of("diesel"), (Decimal::new(17_265, 2), Decimal::ZERO));
        assert_eq!(factors.of("plug_in"), factors.of("hybrid"));
        for reference in ["petrol", "unknown", "a rocket"] {
            assert_eq!(factors.of(reference), (Decimal::new(16_152, 2), Decimal::ZERO));
        }
    }

    #[test]
    fn versions_are_in_order_and_the_first_holds_from_the_beginning() {
        assert_eq!(FACTORS[0].from, Micros(i64::MIN));
        assert!(FACTORS.is_sorted_by(|older, newer| older.from < newer.from));
    }
}
