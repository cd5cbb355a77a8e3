//! Base fee of the next block (Thor `consensus/upgrade/galactica`, `CalcBaseFee`).

use alloy_primitives::U256;

use crate::amount::Wei;

/// Lowest base fee, and that of the first block with dynamic fees: 10^13 wei of VTHO per gas (`thor.InitialBaseFee`).
pub const BASE_FEE_FLOOR: u64 = 10_000_000_000_000;

/// Part of a block's gas limit that leaves the fee as it is, in percent (`thor.GasTargetPercentage`).
const TARGET_PERCENT: u64 = 75;
/// A block without gas lowers the fee by 1/8, a full one raises it by a third of that (`thor.BaseFeeChangeDenominator`).
const CHANGE_DENOMINATOR: u64 = 8;

/// The base fee of the block after one with `base_fee`, `gas_limit` and `gas_used`. It rises by at most 1/24 per block: what is
/// signed with twice the present fee stays acceptable for 17 full blocks (ln 2 / ln(25/24) = 16.98).
#[must_use]
pub fn next_base_fee(base_fee: Wei, gas_limit: u64, gas_used: u64) -> Wei {
    // gas limits are far below 2^64 / 75.
    let target = gas_limit.saturating_mul(TARGET_PERCENT) / 100;
    if target == 0 || gas_used == target {
        return base_fee;
    }
    let distance = U256::from(gas_used.abs_diff(target));
    // A base fee would have to exceed 2^192 for this product to saturate.
    let change = base_fee.0.saturating_mul(distance) / U256::from(target) / U256::from(CHANGE_DENOMINATOR);
    if gas_used > target {
        Wei(base_fee.0.saturating_add(change.max(U256::from(1))))
    } else {
        Wei(base_fee.0.saturating_sub(change).max(U256::from(BASE_FEE_FLOOR)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEN_FLOORS: u128 = 100_000_000_000_000;

    #[test]
    fn the_next_fee_equals_thors_vectors() {
        // galactica_test.go, TestCalcBaseFee.
        let cases = [
            (15_000_000, TEN_FLOORS),
            (14_000_000, 99_166_666_666_667),
            (16_000_000, 100_833_333_333_333),
            (0, 87_500_000_000_000),
        ];
        for (used, expected) in cases {
            assert_eq!(next_base_fee(Wei::from(TEN_FLOORS), 20_000_000, used), Wei::from(expected), "{used}");
        }
    }

    proptest! {
        #[test]
        fn a_fee_never_falls_below_the_floor_and_rises_by_at_most_a_24th(
            base in u128::from(BASE_FEE_FLOOR)..1 << 100, limit in 1_000_000_u64..1 << 40, used: prop::sample::Index,
        ) {
            let used = used.index(usize::try_from(limit).unwrap()) as u64;
            let next = next_base_fee(Wei::from(base), limit, used).to_u128().unwrap();
            prop_assert!(next >= u128::from(BASE_FEE_FLOOR));
            // The target is cut to whole gas, so the bound is met up to that rounding.
            prop_assert!(next <= base + base / 24 + base / u128::from(limit) + 1);
        }
    }
}
