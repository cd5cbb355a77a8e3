//! `users.sustainability_score`: how clean, how regular and how honest the last 90 days were.
//!
//! floor(100 (0.45 C + 0.30 A + 0.25 H)) over the 90 days up to the last verified upload, by acceptance time, so it does not
//! decay by itself and a rebuild gives the same number:
//! C = 1 - mean g/km / the average petrol car's, A = ISO weeks with a verified reading / 13 (90 days are 12.9 weeks),
//! H = verified / (verified + rejected for fraud), each clamped to 0..1. Null before the second verified reading.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

/// g CO2e per km of an average car by what it runs on: UK DESNZ greenhouse gas conversion factors 2026, electric by the UK
/// grid. A plug-in counts as a hybrid; an unknown vehicle as the reference, so it saves nothing.
pub(crate) const GRAMS_PER_KM: [(&str, Decimal); 7] = [
    ("petrol", REFERENCE),
    ("diesel", hundredths(17_265)),
    ("hybrid", hundredths(12_961)),
    ("plug_in", hundredths(12_961)),
    ("lpg", hundredths(19_553)),
    ("electric", hundredths(2_686)),
    ("unknown", REFERENCE),
];

/// The average petrol car: 161.52 g/km.
const REFERENCE: Decimal = hundredths(16_152);

/// ISO weeks of 90 days.
const WEEKS: u32 = 13;

/// The window's length in hours: 90 days. Hours, because a day of a session's time zone may have 23 or 25.
pub(super) const WINDOW_HOURS: i32 = 90 * 24;

const fn hundredths(value: u32) -> Decimal {
    Decimal::from_parts(value, 0, 0, false, 2)
}

/// What the tables say of a user.
#[derive(Clone, Copy, Debug)]
pub(super) struct History {
    /// Verified readings of all time, counted to 2.
    pub readings: i64,
    /// Verified readings in the window.
    pub verified: i64,
    /// Rejections for fraud in the window.
    pub fraud: i64,
    /// ISO weeks with a verified reading in the window.
    pub weeks: i64,
    /// Kilometres in the window.
    pub km: Decimal,
    /// Grams in the window: kilometres times the vehicle's factor.
    pub grams: Decimal,
}

/// The score, 0 to 100; none before the second verified reading.
pub(super) fn score(history: &History) -> Option<i32> {
    if history.readings < 2 {
        return None;
    }
    let ratio = |part: Decimal, whole: Decimal| part.checked_div(whole).unwrap_or(Decimal::ZERO);
    let share = |value: Decimal| value.clamp(Decimal::ZERO, Decimal::ONE);
    // Without a kilometre (the baselines of two vehicles) nothing was saved.
    let clean = if history.km > Decimal::ZERO {
        share(Decimal::ONE - ratio(ratio(history.grams, history.km), REFERENCE))
    } else {
        Decimal::ZERO
    };
    let active = share(ratio(history.weeks.into(), WEEKS.into()));
    let honest = share(ratio(history.verified.into(), (history.verified + history.fraud).into()));
    (Decimal::from(45) * clean + Decimal::from(30) * active + Decimal::from(25) * honest).floor().to_i32()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEADY: History = History {
        readings: 14,
        verified: 13,
        fraud: 0,
        weeks: 13,
        km: Decimal::ONE_HUNDRED,
        grams: Decimal::ZERO,
    };

    #[test]
    fn a_first_reading_has_no_score() {
        assert_eq!(score(&History { readings: 1, ..STEADY }), None);
    }

    #[test]
    fn an_electric_driver_of_every_week_misses_only_what_the_grid_emits() {
        // 45 (1 - 26.86 / 161.52) + 30 + 25 = 92.5
        let grams = Decimal::ONE_HUNDRED * hundredths(2_686);
        assert_eq!(score(&History { grams, ..STEADY }), Some(92));
    }

    #[test]
    fn a_car_above_the_reference_saves_nothing_and_loses_nothing() {
        let grams = Decimal::ONE_HUNDRED * hundredths(17_265);
        assert_eq!(score(&History { grams, ..STEADY }), Some(55));
        assert_eq!(score(&History { km: Decimal::ZERO, ..STEADY }), Some(55));
    }

    #[test]
    fn fraud_and_idle_weeks_cost_their_share() {
        // 30 * 1/13 + 25 * 1/2 = 14.8
        let history = History { weeks: 1, verified: 1, fraud: 1, km: Decimal::ZERO, ..STEADY };
        assert_eq!(score(&history), Some(14));
        // Fourteen ISO weeks can touch 90 days; more than all does not count.
        assert_eq!(score(&History { weeks: 14, ..STEADY }), Some(100));
    }
}
