//! How far a service outside is believed.

use rust_decimal::Decimal;

/// Most that one service's answer is worth, whatever it claims. A general OCR engine is right in 84 of 100 of our photos, and in
/// 93 of 100 where it is sure of itself (0.8 and more): it reads a wheel of tenths as a digit and does not miss a digit that its box cut
/// off. [`reading::AUTO_ACCEPT`] stands for 99 of 100, so no such answer is accepted without a person.
pub const CEILING: Decimal = Decimal::from_parts(75, 0, 0, false, 2);

/// Most that an answer is worth that another engine gives as well. Both errors above depend on the engine; two that make the same
/// one on the same photo are rare, but both may be shown the same trip meter: what its form says against a number still counts.
pub const AGREED: Decimal = Decimal::from_parts(85, 0, 0, false, 2);

/// From which confidence on another engine's answer agrees: below it that engine saw little more than noise.
pub const AGREES_FROM: Decimal = Decimal::from_parts(40, 0, 0, false, 2);

/// [`CEILING`] as the selector takes it.
pub(crate) const CEILING_SHARE: f64 = 0.75;

/// A confidence under [`CEILING`] as it stands under [`AGREED`], two decimals, rounded down.
pub(crate) fn raised(confidence: Decimal) -> Decimal {
    let raised = confidence * AGREED / CEILING;
    raised.min(AGREED).round_dp_with_strategy(2, rust_decimal::RoundingStrategy::ToZero)
}

#[cfg(test)]
mod tests {
    use reading::AUTO_ACCEPT;
    use rust_decimal::prelude::ToPrimitive as _;

    use super::*;

    #[test]
    fn one_service_alone_is_never_accepted_without_a_person_and_two_that_agree_may_be() {
        assert!(CEILING < AUTO_ACCEPT && AGREED > AUTO_ACCEPT);
        assert_eq!(CEILING.to_f64(), Some(CEILING_SHARE));
    }

    #[test]
    fn agreement_raises_a_sure_answer_over_the_bar_and_leaves_a_doubtful_one_below_it() {
        assert_eq!(raised(CEILING), AGREED);
        assert_eq!(raised(Decimal::ONE), AGREED);
        assert_eq!(raised(Decimal::new(60, 2)), Decimal::new(68, 2));
    }
}
