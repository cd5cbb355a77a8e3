//! Exact sums: whole numbers of 10^-18, as many decimals as `exact_value` has. Adding them up rounds nothing, so that any order and
//! any split into batches gives the same sum. `Decimal` would round beyond 28 digits.

use rust_decimal::Decimal;

/// Decimals of `exact_value`; also those of wei.
const DECIMALS: u32 = 18;
/// 10^11: the first amount that `metric_value numeric(15,4)` cannot hold.
const LIMIT: i128 = 10_i128.pow(11 + DECIMALS);

/// An amount in units of 10^-18.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Exact(i128);

impl Exact {
    /// 0.
    pub const ZERO: Self = Self(0);
    /// 1.
    pub const ONE: Self = Self(10_i128.pow(DECIMALS));

    /// A decimal, cut after 18 places toward zero; none from 10^11 on, whatever the sign.
    #[must_use]
    pub fn of(value: Decimal) -> Option<Self> {
        let (mantissa, scale) = (value.mantissa(), value.scale());
        let units = match DECIMALS.checked_sub(scale) {
            Some(missing) => mantissa.checked_mul(10_i128.pow(missing))?,
            None => mantissa / 10_i128.pow(scale - DECIMALS),
        };
        Self::of_units(units)
    }

    /// So many units of 10^-18, e.g. wei; none from 10^11 on, whatever the sign.
    #[must_use]
    pub fn of_units(units: i128) -> Option<Self> {
        (units.unsigned_abs() < LIMIT.unsigned_abs()).then_some(Self(units))
    }

    /// Units of 10^-18.
    #[must_use]
    pub fn units(self) -> i128 {
        self.0
    }

    /// The sum. A batch adds at most a few hundred amounts below 10^29 units to a number, far from the 1.7 * 10^38 where this
    /// would stop.
    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The opposite.
    pub(super) fn negated(self) -> Self {
        Self(-self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_cut_after_eighteen_places_toward_zero() {
        assert_eq!(Exact::of(Decimal::new(15, 1)).unwrap().units(), 1_500_000_000_000_000_000);
        assert_eq!(Exact::of("0.0000000000000000019".parse().unwrap()).unwrap().units(), 1);
        assert_eq!(Exact::of("-0.0000000000000000019".parse().unwrap()).unwrap().units(), -1);
        assert_eq!(Exact::of(Decimal::ONE), Some(Exact::ONE));
    }

    #[test]
    fn what_its_column_cannot_hold_is_no_amount() {
        assert!(Exact::of("99999999999.9999".parse().unwrap()).is_some());
        for text in ["100000000000", "-100000000000", "79228162514264337593543950335"] {
            assert_eq!(Exact::of(text.parse().unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_sum_keeps_the_digits_that_a_decimal_would_round() {
        let (large, least) =
            (Exact::of(Decimal::from(90_000_000_000_u64)).unwrap(), Exact::of_units(1).unwrap());
        assert_eq!(large.plus(least).plus(large.negated()), least);
    }
}
