//! Grants by examples, and what must hold for any rewards in any order.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use rust_decimal::Decimal;
use schemas::events::{LimitType, RewardCalculated, RewardCancelled};
use schemas::ids::{Micros, RewardId, UploadId};
use schemas::reason::Reason;
use uuid::Uuid;

use super::books::Books;
use super::grant::{Budgets, Grant, grant};
use super::oracle::fold;
use super::policy::{OverBudget, Period, Policy};
use super::state::keys_of;
use crate::examples;
use crate::reward_rules::Rulebook;

mod personal;

/// 2026-03-02T00:00:00Z: a Monday, so that its day, week and the day's month begin within two days.
const MONDAY: i64 = 1_772_409_600_000_000;
const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// The `n`-th reward of one user, accepted at an instant.
fn reward(n: u128, at: i64, amount: Decimal) -> RewardCalculated {
    let mut event = examples::reward();
    event.header.upload_id = UploadId(Uuid::from_u128(n));
    event.reward_id = RewardId::of(event.header.upload_id);
    event.header.accepted_at = Micros(at);
    (event.base, event.bonus) = (amount, Decimal::ZERO);
    event
}

fn policy() -> Policy {
    Rulebook::first().in_force(Micros(0)).policy.clone()
}

fn granted(event: &RewardCalculated, budgets: &mut Budgets) -> Grant {
    grant(event, budgets, &policy(), Micros(7)).unwrap()
}

#[test]
fn periods_are_days_iso_weeks_and_months_of_utc() {
    let of = |limit_type, at: &str| {
        let at = Micros::from(at.parse::<chrono::DateTime<chrono::Utc>>().unwrap());
        let period = Period::of(limit_type, at);
        [period.start, period.end].map(|at| at.to_utc().format("%F %T").to_string())
    };
    for (limit_type, at, start, end) in [
        (LimitType::Daily, "2026-03-02T23:59:59.999999Z", "2026-03-02", "2026-03-03"),
        (LimitType::Daily, "2026-03-03T00:30:00+01:00", "2026-03-02", "2026-03-03"),
        (LimitType::Weekly, "2026-03-01T23:59:59Z", "2026-02-23", "2026-03-02"),
        (LimitType::Weekly, "2026-03-02T00:00:00Z", "2026-03-02", "2026-03-09"),
        (LimitType::Weekly, "2027-01-01T12:00:00Z", "2026-12-28", "2027-01-04"),
        (LimitType::Monthly, "2028-02-29T12:00:00Z", "2028-02-01", "2028-03-01"),
        (LimitType::Monthly, "2026-12-31T23:59:59Z", "2026-12-01", "2027-01-01"),
    ] {
        assert_eq!(of(limit_type, at), [format!("{start} 00:00:00"), format!("{end} 00:00:00")], "{at}");
    }
}

#[test]
fn an_instant_that_no_calendar_holds_has_a_period_all_the_same() {
    for at in [i64::MIN, i64::MAX] {
        for limit_type in LimitType::ALL {
            let period = Period::of(limit_type, Micros(at));
            assert!(period.start <= period.end, "{at}");
        }
    }
}

#[test]
fn a_reward_over_the_day_is_cut_to_what_is_left_and_the_next_gets_nothing_until_tomorrow() {
    let mut budgets = Budgets::new();
    let whole = granted(&reward(1, MONDAY, dec("28")), &mut budgets);
    assert_eq!((whole.amount, whole.reason, whole.remaining), (dec("28"), None, dec("2")));
    let cut = granted(&reward(2, MONDAY + HOUR, dec("3.2445")), &mut budgets);
    assert_eq!((cut.amount, cut.reason, cut.remaining), (dec("2"), Some(Reason::OverLimit), dec("0")));
    assert_eq!(
        cut.detail.unwrap(),
        "the daily budget of 30 B3TR had 2 B3TR left for the 3.2445 B3TR earned; it begins anew at 2026-03-03T00:00:00Z"
    );
    let before = budgets.clone();
    let none = granted(&reward(3, MONDAY + 2 * HOUR, dec("1")), &mut budgets);
    assert_eq!((none.amount, none.reason), (dec("0"), Some(Reason::OverLimit)));
    assert_eq!(budgets, before, "nothing granted, nothing charged");
    let next = granted(&reward(4, MONDAY + DAY, dec("1")), &mut budgets);
    assert_eq!((next.amount, next.reason), (dec("1"), None));
    let current: Vec<_> = next.charges.iter().map(|charge| charge.current_amount).collect();
    assert_eq!(current, [dec("1"), dec("31"), dec("31")]);
}

#[test]
fn where_the_policy_says_so_a_reward_is_granted_whole_or_not_at_all() {
    let policy = Policy { over: OverBudget::Nothing, ..policy() };
    let mut budgets = Budgets::new();
    let first = grant(&reward(1, MONDAY, dec("28")), &mut budgets, &policy, Micros(0)).unwrap();
    let second = grant(&reward(2, MONDAY, dec("2.00000001")), &mut budgets, &policy, Micros(0)).unwrap();
    let third = grant(&reward(3, MONDAY, dec("2")), &mut budgets, &policy, Micros(0)).unwrap();
    assert_eq!([first.amount, second.amount, third.amount], [dec("28"), dec("0"), dec("2")]);
    assert_eq!((second.reason, second.remaining), (Some(Reason::OverLimit), dec("2")));
}

#[test]
fn the_newest_period_is_active_and_a_late_older_one_is_charged_but_never_active() {
    let mut budgets = Budgets::new();
    let active = |budgets: &Budgets, limit_type| -> Vec<Micros> {
        let of = budgets.iter().filter(|((_, of, _), budget)| *of == limit_type && budget.is_active);
        of.map(|((.., start), _)| *start).collect()
    };
    granted(&reward(1, MONDAY, dec("1")), &mut budgets);
    assert_eq!(active(&budgets, LimitType::Daily), [Micros(MONDAY)]);
    granted(&reward(2, MONDAY + DAY, dec("1")), &mut budgets);
    assert_eq!(active(&budgets, LimitType::Daily), [Micros(MONDAY + DAY)]);
    assert_eq!(active(&budgets, LimitType::Weekly), [Micros(MONDAY)]);
    // Sunday: an older day and week, in the same month.
    granted(&reward(3, MONDAY - HOUR, dec("1")), &mut budgets);
    assert_eq!(active(&budgets, LimitType::Daily), [Micros(MONDAY + DAY)]);
    assert_eq!(active(&budgets, LimitType::Weekly), [Micros(MONDAY)]);
    let late =
        budgets.iter().find(|((_, of, start), _)| *of == LimitType::Daily && start.0 < MONDAY).unwrap();
    assert_eq!((late.1.current, late.1.is_active), (dec("1"), false));
    // Once more into an inactive period: it stays inactive.
    granted(&reward(4, MONDAY - HOUR, dec("1")), &mut budgets);
    assert_eq!(active(&budgets, LimitType::Daily), [Micros(MONDAY + DAY)]);
}

#[test]
fn a_budget_that_was_lowered_below_what_is_charged_grants_nothing_and_stays_consistent() {
    let mut budgets = Budgets::new();
    granted(&reward(1, MONDAY, dec("20")), &mut budgets);
    let lower = Policy { daily: dec("10"), ..policy() };
    let none = grant(&reward(2, MONDAY, dec("1")), &mut budgets, &lower, Micros(0)).unwrap();
    assert_eq!((none.amount, none.remaining), (dec("0"), dec("0")));
    assert_eq!(none.charges[0].limit_amount, dec("20"));
}

#[test]
fn what_is_no_amount_is_no_grant() {
    let mut budgets = Budgets::new();
    for amount in ["0", "-1", "10000000000"] {
        let event = reward(1, MONDAY, dec(amount));
        assert_eq!(grant(&event, &mut budgets, &policy(), Micros(0)), None, "{amount}");
    }
    assert!(budgets.is_empty());
}

/// Rewards of one user over five weeks, in any order of acceptance: 1e-9 steps, so that the grid is seen.
fn rewards() -> impl Strategy<Value = Vec<RewardCalculated>> {
    proptest::collection::vec((0_i64..35 * 24, 1_i64..20_000_000_000), 1..60).prop_map(|drawn| {
        (1..)
            .zip(drawn)
            .map(|(n, (hour, nano))| reward(n, MONDAY + hour * HOUR, Decimal::new(nano, 9)))
            .collect()
    })
}

proptest! {
    #![proptest_config(crate::properties::tried(384))]

    #[test]
    fn on_every_prefix_no_budget_is_exceeded_and_each_holds_the_sum_of_its_charges(rewards in rewards()) {
        let mut budgets = Budgets::new();
        let mut charged: BTreeMap<(LimitType, Micros), Decimal> = BTreeMap::new();
        for event in &rewards {
            let grant = granted(event, &mut budgets);
            prop_assert!(grant.amount >= Decimal::ZERO && grant.amount <= event.total());
            prop_assert!(grant.amount.scale() <= 8, "{}", grant.amount);
            for charge in &grant.charges {
                *charged.entry((charge.limit_type, charge.period_start)).or_default() += charge.amount;
                prop_assert!(charge.current_amount <= charge.limit_amount);
                prop_assert_eq!(charge.current_amount, charged[&(charge.limit_type, charge.period_start)]);
            }
            for ((_, limit_type, start), budget) in &budgets {
                prop_assert_eq!(budget.current, charged[&(*limit_type, *start)]);
                prop_assert!(budget.current <= policy().limit(*limit_type));
            }
            for limit_type in LimitType::ALL {
                let newest = budgets.keys().filter(|(_, of, _)| *of == limit_type).max();
                let active: Vec<_> =
                    budgets.iter().filter(|((_, of, _), budget)| *of == limit_type && budget.is_active).collect();
                prop_assert_eq!(active.iter().map(|(key, _)| *key).collect::<Vec<_>>(), newest.into_iter().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_rewards_of_one_day_sum_to_the_same_in_any_order(
        (given, shuffled) in proptest::collection::vec(1_i64..2_000_000_000, 1..20).prop_flat_map(|amounts| {
            let given: Vec<_> =
                (1..).zip(amounts).map(|(n, amount)| reward(n, MONDAY, Decimal::new(amount, 8))).collect();
            (Just(given.clone()), Just(given).prop_shuffle())
        })
    ) {
        let sum = |rewards: &[RewardCalculated]| -> Decimal { fold(rewards).values().map(|grant| grant.amount).sum() };
        let calculated: Decimal = given.iter().map(RewardCalculated::total).sum();
        prop_assert_eq!(sum(&given), calculated.min(policy().daily));
        prop_assert_eq!(sum(&given), sum(&shuffled));
    }

    #[test]
    fn a_repeat_is_granted_once_and_no_amount_makes_the_grant_panic(
        rewards in rewards(), mantissa in any::<i64>(), scale in 0_u32..28, at in any::<i64>(),
    ) {
        let twice: Vec<_> = rewards.iter().chain(&rewards).cloned().collect();
        prop_assert_eq!(fold(&twice), fold(&rewards));
        let _ = grant(&reward(1, at, Decimal::new(mantissa, scale)), &mut Budgets::new(), &policy(), Micros(0));
    }
}

/// The cancellation of a reward.
fn cancelled(event: &RewardCalculated) -> RewardCancelled {
    RewardCancelled {
        header: event.header.clone(),
        reward_id: event.reward_id,
        granted: event.total(),
        reason: "a person says so".to_owned(),
    }
}

#[test]
fn a_refund_goes_to_the_periods_that_were_charged_and_the_room_is_granted_anew() {
    let (mut budgets, mut books) = (Budgets::new(), Books::default());
    let first = reward(1, MONDAY, dec("28"));
    let amount = granted(&first, &mut budgets).amount;
    books.charge(first.reward_id, keys_of(&first), amount, &mut budgets);
    let next = reward(2, MONDAY + DAY, dec("5"));
    let amount = granted(&next, &mut budgets).amount;
    books.charge(next.reward_id, keys_of(&next), amount, &mut budgets);
    assert_eq!(books.cancel(&cancelled(&first), &mut budgets), dec("28"));
    assert_eq!(books.cancel(&cancelled(&first), &mut budgets), dec("0"), "once");
    let current = |limit_type| -> Vec<Decimal> {
        let of = budgets.iter().filter(|((_, of, _), _)| *of == limit_type);
        of.map(|(_, budget)| budget.current).collect()
    };
    assert_eq!(current(LimitType::Daily), [dec("0"), dec("5")], "Monday has it back, Tuesday keeps its own");
    assert_eq!((current(LimitType::Weekly), current(LimitType::Monthly)), (vec![dec("5")], vec![dec("5")]));
    let late = granted(&reward(3, MONDAY + HOUR, dec("30")), &mut budgets);
    assert_eq!((late.amount, late.reason), (dec("30"), None));
}

#[test]
fn a_cancellation_before_its_grant_is_kept_and_the_grant_refunded_at_once() {
    let (mut budgets, mut books) = (Budgets::new(), Books::default());
    let event = reward(1, MONDAY, dec("12"));
    assert_eq!(books.cancel(&cancelled(&event), &mut budgets), dec("0"));
    let amount = granted(&event, &mut budgets).amount;
    books.charge(event.reward_id, keys_of(&event), amount, &mut budgets);
    assert!(budgets.values().all(|budget| budget.current.is_zero()));
    assert!(books.all().all(|charge| charge.refunded));
}

proptest! {
    #![proptest_config(crate::properties::tried(384))]

    /// Each reward is granted and perhaps cancelled, in any order, and every record comes as often as it likes: the engine drops what has
    /// had its effect.
    #[test]
    fn what_was_granted_is_what_is_owed_and_what_was_cancelled_and_budgets_hold_what_is_owed(
        rewards in rewards(),
        steps in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..200),
    ) {
        let (mut budgets, mut books) = (Budgets::new(), Books::default());
        let (mut grants, mut gone) = (BTreeMap::<RewardId, Decimal>::new(), BTreeSet::<RewardId>::new());
        for (index, cancel) in steps {
            let event = index.get(&rewards);
            if cancel {
                if gone.insert(event.reward_id) {
                    books.cancel(&cancelled(event), &mut budgets);
                }
            } else if let Entry::Vacant(first) = grants.entry(event.reward_id) {
                let grant = granted(event, &mut budgets);
                if !grant.amount.is_zero() {
                    books.charge(event.reward_id, keys_of(event), grant.amount, &mut budgets);
                }
                first.insert(grant.amount);
            }
            let sum = |cancelled: bool| -> Decimal {
                grants.iter().filter(|(reward, _)| gone.contains(reward) == cancelled).map(|(_, amount)| *amount).sum()
            };
            let (owed, given_back) = (sum(false), sum(true));
            prop_assert_eq!(grants.values().sum::<Decimal>(), owed + given_back);
            for limit_type in LimitType::ALL {
                let held: Decimal =
                    budgets.iter().filter(|((_, of, _), _)| *of == limit_type).map(|(_, budget)| budget.current).sum();
                prop_assert_eq!(held, owed);
            }
            for (key, budget) in &budgets {
                let charged: Decimal = books
                    .all()
                    .filter(|charge| charge.key == *key && !charge.refunded)
                    .map(|charge| charge.amount)
                    .sum();
                prop_assert_eq!(budget.current, charged);
                prop_assert!(budget.current >= Decimal::ZERO && budget.current <= budget.limit);
            }
        }
    }
}
