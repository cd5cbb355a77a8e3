//! Amounts of B3TR, VET and VTHO: whole wei, 10^18 to a coin. Decimals and integers only; a float cannot be turned into one.

use std::fmt;
use std::str::FromStr;

use alloy_primitives::U256;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Decimal places of B3TR, VET and VTHO (`decimals()` of the B3TR token).
pub const COIN_DECIMALS: u32 = 18;

/// Decimal places that rewards are kept with: every grant is a multiple of 10^-8 B3TR = 10^10 wei.
pub const GRID_DECIMALS: u32 = 8;

/// Wei in one unit of the 8-decimals grid: 10^(18 - 8).
pub const GRID_WEI: u64 = 10_u64.pow(COIN_DECIMALS - GRID_DECIMALS);

/// Why an amount is refused. Nothing is ever rounded silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Coins are never negative.
    #[error("an amount cannot be negative")]
    Negative,
    /// The decimal has digits below the unit that was asked for.
    #[error("the amount has digits beyond {places} decimal places")]
    TooFine {
        /// Decimal places allowed.
        places: u32,
    },
    /// The amount is beyond 2^256 - 1 wei, or has more digits than a `Decimal` holds (28).
    #[error("the amount does not fit")]
    TooLarge,
    /// The text is no whole number of wei.
    #[error("not a whole number of wei")]
    NotANumber,
}

/// A number of wei, 0 to 2^256 - 1. Prints, and reads and writes JSON, as a decimal string, since JSON numbers lose digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Wei(pub U256);

impl Wei {
    /// No wei.
    pub const ZERO: Self = Self(U256::ZERO);
    /// The largest number of wei, 2^256 - 1.
    pub const MAX: Self = Self(U256::MAX);

    /// `amount` coins (B3TR, VET or VTHO) in wei, exactly.
    ///
    /// # Errors
    /// [`AmountError::Negative`]; [`AmountError::TooFine`] when a digit lies below one wei (18 decimal places).
    /// Trailing zeros do no harm, and no positive `Decimal` (at most 7.9 * 10^28) is too large.
    pub fn from_coins(amount: Decimal) -> Result<Self, AmountError> {
        if amount.is_sign_negative() && !amount.is_zero() {
            return Err(AmountError::Negative);
        }
        let exact = amount.normalize();
        let missing =
            COIN_DECIMALS.checked_sub(exact.scale()).ok_or(AmountError::TooFine { places: COIN_DECIMALS })?;
        // mantissa < 2^96 and 10^18 < 2^60: the product stays below 2^156.
        Ok(Self(U256::from(exact.mantissa().unsigned_abs()) * U256::from(10_u64.pow(missing))))
    }

    /// `amount` B3TR on the grid of rewards: a multiple of 10^-8, in wei a multiple of 10^10.
    ///
    /// # Errors
    /// [`AmountError::TooFine`] when a digit lies below the grid, else as [`Wei::from_coins`].
    pub fn from_b3tr(amount: Decimal) -> Result<Self, AmountError> {
        if amount.normalize().scale() > GRID_DECIMALS {
            return Err(AmountError::TooFine { places: GRID_DECIMALS });
        }
        Self::from_coins(amount)
    }

    /// The amount in coins, exactly, without trailing zeros.
    ///
    /// # Errors
    /// [`AmountError::TooLarge`] when it has more significant digits than a `Decimal` holds (2^96 - 1 as a whole number).
    pub fn to_coins(self) -> Result<Decimal, AmountError> {
        let (mut digits, mut scale) = (self.0, COIN_DECIMALS);
        let ten = U256::from(10);
        while scale > 0 && (digits % ten).is_zero() {
            digits /= ten;
            scale -= 1;
        }
        let mantissa = i128::try_from(u128::try_from(digits).map_err(|_| AmountError::TooLarge)?)
            .map_err(|_| AmountError::TooLarge)?;
        Decimal::try_from_i128_with_scale(mantissa, scale).map_err(|_| AmountError::TooLarge)
    }

    /// The amount as B3TR on the grid of rewards.
    ///
    /// # Errors
    /// [`AmountError::TooFine`] when it is no multiple of 10^10 wei; [`AmountError::TooLarge`] as for [`Wei::to_coins`].
    pub fn to_b3tr(self) -> Result<Decimal, AmountError> {
        if !self.is_on_grid() {
            return Err(AmountError::TooFine { places: GRID_DECIMALS });
        }
        self.to_coins()
    }

    /// The amount in coins, cut (not rounded) to 8 decimal places toward zero: for amounts that others chose.
    ///
    /// # Errors
    /// [`AmountError::TooLarge`] as for [`Wei::to_coins`].
    pub fn to_coins_cut(self) -> Result<Decimal, AmountError> {
        let unit = U256::from(GRID_WEI);
        Self(self.0 / unit * unit).to_coins()
    }

    /// True for a multiple of 10^10 wei.
    #[must_use]
    pub fn is_on_grid(self) -> bool {
        (self.0 % U256::from(GRID_WEI)).is_zero()
    }

    /// True for no wei.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The sum, or `None` beyond 2^256 - 1.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` below zero.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The product with a whole number, or `None` beyond 2^256 - 1.
    #[must_use]
    pub fn checked_mul(self, factor: u64) -> Option<Self> {
        self.0.checked_mul(U256::from(factor)).map(Self)
    }

    /// The number as `u128`, or `None` when it does not fit.
    #[must_use]
    pub fn to_u128(self) -> Option<u128> {
        u128::try_from(self.0).ok()
    }

    /// The form of a Thor node: `0x` and hex digits without leading zeros, `0x0` for none.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:#x}", self.0)
    }

    /// Reads the form of a Thor node: `0x` and hex digits. An empty number (`0x`) is refused.
    ///
    /// # Errors
    /// [`AmountError::NotANumber`], or [`AmountError::TooLarge`] beyond 256 bits.
    pub fn from_hex(text: &str) -> Result<Self, AmountError> {
        let digits = text.strip_prefix("0x").ok_or(AmountError::NotANumber)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(AmountError::NotANumber);
        }
        U256::from_str_radix(digits, 16).map(Self).map_err(|_| AmountError::TooLarge)
    }
}

impl From<u128> for Wei {
    fn from(wei: u128) -> Self {
        Self(U256::from(wei))
    }
}

impl fmt::Display for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Wei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wei", self.0)
    }
}

impl FromStr for Wei {
    type Err = AmountError;

    /// Decimal digits and nothing else: no sign, no blanks, no fraction, no exponent.
    fn from_str(text: &str) -> Result<Self, AmountError> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AmountError::NotANumber);
        }
        U256::from_str_radix(text, 10).map(Self).map_err(|_| AmountError::TooLarge)
    }
}

impl Serialize for Wei {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wei {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn coins_become_wei_exactly() {
        let cases = [
            ("0", "0"),
            ("-0", "0"),
            ("1", "1000000000000000000"),
            ("0.5", "500000000000000000"),
            ("0.00000001", "10000000000"),
            ("0.000000000000000001", "1"),
            ("12.340000000000000000000", "12340000000000000000"),
            ("79228162514264337593543950335", "79228162514264337593543950335000000000000000000"),
        ];
        for (coins, wei) in cases {
            assert_eq!(Wei::from_coins(decimal(coins)).unwrap().to_string(), wei, "{coins}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_never_rounded() {
        assert_eq!(Wei::from_coins(decimal("-0.1")), Err(AmountError::Negative));
        assert_eq!(
            Wei::from_coins(decimal("0.0000000000000000001")),
            Err(AmountError::TooFine { places: 18 })
        );
        assert_eq!(Wei::from_b3tr(decimal("0.000000001")), Err(AmountError::TooFine { places: 8 }));
        assert_eq!(Wei::from_b3tr(decimal("0.0000000010")), Err(AmountError::TooFine { places: 8 }));
        assert!(Wei::from_b3tr(decimal("1.0000000100")).is_ok());
        assert_eq!(Wei(U256::MAX).to_coins(), Err(AmountError::TooLarge));
        assert_eq!(Wei::from(1).to_b3tr(), Err(AmountError::TooFine { places: 8 }));
    }

    #[test]
    fn the_largest_supply_of_b3tr_is_exact_in_both_directions() {
        // B3TR.sol: B3TR_CAP = 1000243154 tokens.
        let cap = decimal("1000243154");
        assert_eq!(Wei::from_b3tr(cap).unwrap().to_b3tr(), Ok(cap));
        let last_wei = Wei::from_coins(cap).unwrap().checked_sub(Wei::from(1)).unwrap();
        assert_eq!(last_wei.to_coins(), Ok(decimal("1000243153.999999999999999999")));
        assert_eq!(last_wei.to_coins_cut(), Ok(decimal("1000243153.99999999")));
    }

    #[test]
    fn texts_that_are_no_number_are_refused() {
        for text in ["", "-1", "+1", "1.0", "1e3", " 1", "0x1", "1_000"] {
            assert_eq!(text.parse::<Wei>(), Err(AmountError::NotANumber), "{text}");
        }
        for text in ["", "1", "0x", "0xg", "0x+1", "0x-1", "0x_1"] {
            assert_eq!(Wei::from_hex(text), Err(AmountError::NotANumber), "{text}");
        }
        assert_eq!("9".repeat(79).parse::<Wei>(), Err(AmountError::TooLarge));
        assert_eq!(Wei::from_hex(&format!("0x1{}", "0".repeat(64))), Err(AmountError::TooLarge));
        assert!(serde_json::from_str::<Wei>("1").is_err(), "a JSON number may already have lost digits");
    }

    proptest! {
        #[test]
        fn any_amount_on_the_grid_survives_both_directions(units in 0_u64..) {
            let b3tr = Decimal::from_i128_with_scale(i128::from(units), GRID_DECIMALS);
            let wei = Wei::from_b3tr(b3tr).unwrap();
            prop_assert!(wei.is_on_grid());
            prop_assert_eq!(wei.to_b3tr().unwrap(), b3tr);
            prop_assert_eq!(wei.to_u128().unwrap(), u128::from(units) * u128::from(GRID_WEI));
        }

        #[test]
        fn the_conversion_is_additive(a in 0_u64.., b in 0_u64..) {
            let coins = |n: u64| Decimal::from_i128_with_scale(i128::from(n), COIN_DECIMALS);
            let sum = Wei::from_coins(coins(a) + coins(b)).unwrap();
            prop_assert_eq!(Some(sum), Wei::from_coins(coins(a)).unwrap().checked_add(Wei::from_coins(coins(b)).unwrap()));
        }

        #[test]
        fn cutting_loses_less_than_one_unit_and_never_gains(wei in 0_u128..(1 << 95)) {
            let cut = Wei::from_coins(Wei::from(wei).to_coins_cut().unwrap()).unwrap().to_u128().unwrap();
            prop_assert!(cut <= wei && wei - cut < u128::from(GRID_WEI));
        }

        #[test]
        fn texts_and_json_roundtrip(limbs: [u64; 4]) {
            let wei = Wei(U256::from_limbs(limbs));
            prop_assert_eq!(wei.to_string().parse::<Wei>().unwrap(), wei);
            prop_assert_eq!(Wei::from_hex(&wei.to_hex()).unwrap(), wei);
            prop_assert_eq!(serde_json::from_str::<Wei>(&serde_json::to_string(&wei).unwrap()).unwrap(), wei);
        }
    }
}
