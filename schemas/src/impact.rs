//! What a rewarded distance saves, as the reward pool is told of it: `carbon`, whole grams of CO2e, against the same distance with an
//! average petrol car.
//!
//! grams = ⌊kilometres × (176 − grams per kilometre of the vehicle's kind)⌋, and 0 where a kind emits as much or is not known.
//!
//! Fuel is counted by the UK Government's "Greenhouse gas reporting: conversion factors 2018", passenger vehicles, average car, in whole
//! grams a kilometre: petrol 176, diesel 183, hybrid 124, plug-in hybrid 71 beside its electricity. Electricity is counted at 480 g a
//! kilowatt-hour, the world's average of 2023 (Ember, Global Electricity Review 2024), with 0.20 kWh a kilometre for an electric car and
//! 0.08 for a plug-in hybrid beside its fuel: assumptions of this project, on the high side, so that nothing is claimed that a usual driver
//! does not save. There is no factor for LPG in that list, so that it counts as petrol. Changing a number changes what later payments say,
//! never what is on the chain.

use rust_decimal::prelude::ToPrimitive as _;
use rust_decimal::{Decimal, RoundingStrategy};

/// The key of the impact in the reward pool; its unit is a gram of CO2e.
pub const CARBON: &str = "carbon";

/// Grams of CO2e a kilometre of an average petrol car: what a distance is compared with.
const REFERENCE: u32 = 176;

/// What a vehicle runs on, as events, tables and rules name it.
pub const VEHICLE_KINDS: [&str; 7] = ["petrol", "diesel", "hybrid", "plug_in", "lpg", "electric", "unknown"];

/// Grams of CO2e a kilometre by the vehicle's kind, as events and tables name it. A kind that is not known counts as the reference.
#[must_use]
pub fn grams_per_km(vehicle_kind: &str) -> u32 {
    match vehicle_kind {
        "diesel" => 183,
        "hybrid" => 124,
        // 71 of fuel and 0.08 kWh x 480 g.
        "plug_in" => 71 + 38,
        // 0.20 kWh x 480 g.
        "electric" => 96,
        _ => REFERENCE,
    }
}

/// Grams of CO2e that a distance has saved, rounded toward zero; none where it is no distance (negative, or beyond any column).
#[must_use]
pub fn carbon_saved(distance_km: Decimal, vehicle_kind: &str) -> Option<u64> {
    if distance_km < Decimal::ZERO {
        return None;
    }
    let saved = REFERENCE.saturating_sub(grams_per_km(vehicle_kind));
    let grams = distance_km.checked_mul(saved.into())?;
    grams.round_dp_with_strategy(0, RoundingStrategy::ToZero).to_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(hundredths: i64, kind: &str) -> Option<u64> {
        carbon_saved(Decimal::new(hundredths, 2), kind)
    }

    #[test]
    fn what_is_saved_follows_from_distance_and_kind() {
        assert_eq!(saved(33_300, "electric"), Some(26_640));
        assert_eq!(saved(33_300, "plug_in"), Some(22_311));
        assert_eq!(saved(33_300, "hybrid"), Some(17_316));
        for kind in ["petrol", "diesel", "lpg", "unknown", "", "of a later release"] {
            assert_eq!(saved(33_300, kind), Some(0), "{kind}");
        }
    }

    #[test]
    fn grams_are_whole_and_never_more_than_were_saved() {
        // 0.01 km x 80 g = 0.8 g.
        assert_eq!(saved(1, "electric"), Some(0));
        assert_eq!(saved(3, "electric"), Some(2));
        assert_eq!(saved(0, "electric"), Some(0));
        assert_eq!(saved(9_999_999_999, "electric"), Some(7_999_999_999));
    }

    #[test]
    fn what_is_no_distance_saves_nothing_that_could_be_said() {
        assert_eq!(saved(-1, "electric"), None);
        assert_eq!(carbon_saved(Decimal::MAX, "electric"), None);
    }
}
