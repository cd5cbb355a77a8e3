//! Wei in the tables, and the shares of a transaction's clauses.

use chain::Wei;
use rust_decimal::Decimal;

/// Wei as the tables hold them; none beyond 28 digits, more than all B3TR there will ever be.
#[must_use]
pub fn decimal(wei: Wei) -> Option<Decimal> {
    Decimal::try_from_i128_with_scale(i128::try_from(wei.to_u128()?).ok()?, 0).ok()
}

/// Wei of the tables.
#[must_use]
pub fn wei(amount: Decimal) -> Option<Wei> {
    amount.normalize().to_string().parse().ok()
}

/// The share of `total` that falls to the clause with index `at`, by the gas that each was simulated with:
/// floor(T·Cᵢ/C) − floor(T·Cᵢ₋₁/C) with C cumulated. The shares sum to `total`.
#[must_use]
pub fn share(total: u128, weights: &[i64], at: usize) -> u128 {
    let weight = |weight: &i64| u128::from(weight.unsigned_abs());
    let all: u128 = weights.iter().map(weight).sum::<u128>().max(1);
    let upto = |count: usize| {
        let cumulated: u128 = weights.iter().take(count).map(weight).sum();
        // A fee of 10^27 wei in units of 10^10 is below 2^60, gas below 2^26: the product stays below 2^128.
        total.saturating_mul(cumulated) / all
    };
    upto(at + 1) - upto(at)
}
