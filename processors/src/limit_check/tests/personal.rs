//! What a driver wants to earn at most lowers budgets, and never raises a grant.

use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::{LimitType, PersonalLimits, RewardCalculated};
use schemas::reason::Reason;

use super::super::grant::Budgets;
use super::{DAY, HOUR, MONDAY, dec, granted, policy, reward, rewards};

fn limited(mut event: RewardCalculated, limits: PersonalLimits) -> RewardCalculated {
    event.stamp.personal_limits = Some(limits);
    event
}

#[test]
fn a_limit_of_the_drivers_own_cuts_a_reward_and_says_whose_it_is() {
    let own = PersonalLimits { weekly: Some(dec("5")), ..PersonalLimits::default() };
    let mut budgets = Budgets::new();
    let cut = granted(&limited(reward(1, MONDAY, dec("7")), own), &mut budgets);
    assert_eq!((cut.amount, cut.reason), (dec("5"), Some(Reason::OverLimit)));
    assert_eq!(
        cut.detail.unwrap(),
        "the weekly limit that the driver has set of 5 B3TR had 5 B3TR left for the 7 B3TR earned; it begins anew at \
         2026-03-09T00:00:00Z"
    );
    let limits: Vec<Decimal> = cut.charges.iter().map(|charge| charge.limit_amount).collect();
    assert_eq!(limits, [dec("30"), dec("5"), dec("300")]);
    let none = granted(&limited(reward(2, MONDAY + DAY, dec("1")), own), &mut budgets);
    assert_eq!(none.amount, dec("0"));
    // Stamped at acceptance: a photo that was accepted without it has what the budget holds.
    let free = granted(&reward(3, MONDAY + DAY, dec("1")), &mut budgets);
    assert_eq!((free.amount, free.charges[1].limit_amount), (dec("1"), dec("100")));
}

#[test]
fn a_limit_above_the_budget_is_none_and_one_of_nothing_grants_nothing() {
    let high = PersonalLimits { daily: Some(dec("1000")), weekly: None, monthly: Some(dec("1000")) };
    let cut = granted(&limited(reward(1, MONDAY, dec("31")), high), &mut Budgets::new());
    assert_eq!(cut.amount, dec("30"));
    assert!(cut.detail.unwrap().starts_with("the daily budget of 30 B3TR"));
    let nothing = PersonalLimits { daily: Some(dec("0")), ..PersonalLimits::default() };
    let mut budgets = Budgets::new();
    let none = granted(&limited(reward(1, MONDAY + HOUR, dec("1")), nothing), &mut budgets);
    assert_eq!((none.amount, none.reason), (dec("0"), Some(Reason::OverLimit)));
    assert!(budgets.is_empty());
}

fn limits() -> impl Strategy<Value = Option<PersonalLimits>> {
    let amount =
        || proptest::option::of((0_i64..40_000_000_000).prop_map(|nano| Decimal::new(nano, 9).round_dp(8)));
    let limits = (amount(), amount(), amount());
    proptest::option::of(limits.prop_map(|(daily, weekly, monthly)| PersonalLimits {
        daily,
        weekly,
        monthly,
    }))
}

proptest! {
    #![proptest_config(crate::properties::tried(384))]

    #[test]
    fn with_limits_of_the_drivers_own_no_reward_is_granted_more_than_without_and_none_is_exceeded_by_it(
        rewards in rewards(),
        own in proptest::collection::vec(limits(), 60),
    ) {
        let mut budgets = Budgets::new();
        for (mut event, own) in rewards.into_iter().zip(own) {
            let without = granted(&event, &mut budgets.clone());
            event.stamp.personal_limits = own;
            let before = budgets.clone();
            let with = granted(&event, &mut budgets);
            prop_assert!(with.amount <= without.amount, "{} > {}", with.amount, without.amount);
            for charge in &with.charges {
                let key = (event.header.user_id, charge.limit_type, charge.period_start);
                let held = before.get(&key).map_or(Decimal::ZERO, |budget| budget.current);
                let (limit, _) = policy().limited(charge.limit_type, own);
                prop_assert!(charge.current_amount <= limit.max(held));
                prop_assert!(charge.current_amount <= policy().limit(charge.limit_type));
            }
        }
        for limit_type in LimitType::ALL {
            for ((.., start), budget) in budgets.iter().filter(|((_, of, _), _)| *of == limit_type) {
                prop_assert!(budget.current <= policy().limit(limit_type), "{start:?}");
            }
        }
    }
}
