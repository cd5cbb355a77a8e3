//! The grant as one pure function of the calculated reward, the user's budgets and the policy.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{LimitCharge, LimitType, RewardCalculated};
use schemas::ids::{Micros, UserId};
use schemas::reason::Reason;
use serde_json::{Value, json};

use super::policy::{OverBudget, Period, Policy};

/// Decimals of a grant: 1e-8 B3TR is 10^10 wei.
const GRID: u32 = 8;
/// First amount that its column cannot hold; more than all B3TR there will ever be.
const AMOUNT_END: Decimal = Decimal::from_parts(1_410_065_408, 2, 0, false, 0);

/// A budget: user, type, first instant of its period. In this order rows are locked.
pub type BudgetKey = (UserId, LimitType, Micros);

/// A row of `reward_limits`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// `limit_amount`: the policy's at the last charge, or the driver's own where that is lower; never below `current`.
    pub limit: Decimal,
    /// `current_amount`: what was charged and not refunded.
    pub current: Decimal,
    /// First instant of the next period.
    pub end: Micros,
    /// Whether no newer period of the user and type was ever charged.
    pub is_active: bool,
    /// When the first charge was decided.
    pub created_at: Micros,
    /// When the last charge was decided.
    pub updated_at: Micros,
}

/// Budgets by key: every row that a batch may touch, and the newest period of each user and type.
pub type Budgets = BTreeMap<BudgetKey, Budget>;

/// What becomes of a calculated reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// B3TR, on the grid of 1e-8, at most what was calculated.
    pub amount: Decimal,
    /// Set exactly where less than calculated is granted.
    pub reason: Option<Reason>,
    /// A sentence with the budget that ran out; set with `reason`.
    pub detail: Option<String>,
    /// The smallest budget that is left.
    pub remaining: Decimal,
    /// One a budget.
    pub charges: Vec<LimitCharge>,
    /// The budgets before and after: a JSON object.
    pub evidence: Value,
}

/// A budget as one reward meets it.
pub(super) struct Met {
    limit_type: LimitType,
    period: Period,
    limit: Decimal,
    pub current: Decimal,
    /// Whether the driver's own limit is the lower one.
    is_own: bool,
}

impl Met {
    pub fn room(&self) -> Decimal {
        (self.limit - self.current).max(Decimal::ZERO)
    }
}

/// Grants a reward and charges its budgets; where nothing is granted, nothing is charged and no row is touched. None for
/// an amount that is none: not positive, or beyond its column. `at` dates the rows and is no input of the grant.
pub fn grant(event: &RewardCalculated, budgets: &mut Budgets, policy: &Policy, at: Micros) -> Option<Grant> {
    let calculated = event.base.checked_add(event.bonus)?;
    if calculated <= Decimal::ZERO || calculated >= AMOUNT_END {
        return None;
    }
    let user = event.header.user_id;
    let met = meet(event, budgets, policy);
    let tightest = tightest(&met);
    let amount = match policy.over {
        OverBudget::Nothing if tightest.room() < calculated => Decimal::ZERO,
        _ => calculated.min(tightest.room()),
    };
    let amount = amount.round_dp_with_strategy(GRID, RoundingStrategy::ToZero).normalize();
    let cut = amount < calculated;
    if amount > Decimal::ZERO {
        for met in &met {
            charge(budgets, user, met, amount, at);
        }
    }
    Some(Grant {
        amount,
        reason: cut.then_some(Reason::OverLimit),
        detail: cut.then(|| sentence(tightest, calculated)),
        remaining: (tightest.room() - amount).normalize(),
        charges: met.iter().map(|met| charge_of(met, amount, met.current + amount)).collect(),
        evidence: json!({
            "policy": policy.version,
            "calculated": calculated,
            "granted": amount,
            "budgets": met.iter().map(|met| json!({
                "limit_type": met.limit_type.label(), "period_start": met.period.start, "limit": met.limit,
                "before": met.current, "after": met.current + amount,
            })).collect::<Vec<_>>(),
        }),
    })
}

/// The budgets of a reward's periods as it meets them.
pub(super) fn meet(event: &RewardCalculated, budgets: &Budgets, policy: &Policy) -> [Met; 3] {
    LimitType::ALL.map(|limit_type| {
        let period = Period::of(limit_type, event.header.accepted_at);
        let key = (event.header.user_id, limit_type, period.start);
        let current = budgets.get(&key).map_or(Decimal::ZERO, |budget| budget.current);
        let (limit, is_own) = policy.limited(limit_type, event.stamp.personal_limits);
        Met { limit_type, period, limit: limit.max(current), current, is_own }
    })
}

/// The budget with the least room; of equals the shortest.
pub(super) fn tightest(met: &[Met; 3]) -> &Met {
    let [first, others @ ..] = met;
    others.iter().fold(first, |least, met| if met.room() < least.room() { met } else { least })
}

/// Charges what was granted before, as its event says; the rest of the period's charges are these budgets' own.
pub fn recharge(budgets: &mut Budgets, user: UserId, charges: &[LimitCharge], at: Micros) {
    for LimitCharge { limit_type, period_start, period_end, limit_amount, amount, .. } in charges {
        let current =
            budgets.get(&(user, *limit_type, *period_start)).map_or(Decimal::ZERO, |budget| budget.current);
        let period = Period { start: *period_start, end: *period_end };
        // No budget is smaller than what was charged to it.
        let limit = (*limit_amount).max(current + amount);
        let met = Met { limit_type: *limit_type, period, limit, current, is_own: false };
        charge(budgets, user, &met, *amount, at);
    }
}

pub(super) fn charge_of(met: &Met, amount: Decimal, current: Decimal) -> LimitCharge {
    LimitCharge {
        limit_type: met.limit_type,
        period_start: met.period.start,
        period_end: met.period.end,
        limit_amount: met.limit.normalize(),
        amount,
        current_amount: current.normalize(),
    }
}

/// Charges one budget. A period that is newer than every other becomes the active one, and the older one is active no
/// more; one that comes late is never active.
pub(super) fn charge(budgets: &mut Budgets, user: UserId, met: &Met, amount: Decimal, at: Micros) {
    let (limit_type, start) = (met.limit_type, met.period.start);
    let of_type = (user, limit_type, Micros(i64::MIN))..=(user, limit_type, Micros(i64::MAX));
    let newest = budgets.range(of_type.clone()).all(|((.., other), _)| *other <= start);
    if newest {
        for (_, budget) in budgets.range_mut(of_type) {
            budget.is_active = false;
        }
    }
    let budget = budgets.entry((user, limit_type, start)).or_insert(Budget {
        limit: met.limit,
        current: Decimal::ZERO,
        end: met.period.end,
        is_active: false,
        created_at: at,
        updated_at: at,
    });
    budget.is_active = newest;
    budget.limit = met.limit;
    budget.current = (met.current + amount).normalize();
    budget.updated_at = budget.updated_at.max(at);
}

pub(super) fn sentence(tightest: &Met, calculated: Decimal) -> String {
    format!(
        "the {} {} of {} B3TR had {} B3TR left for the {} B3TR earned; it begins anew at {}",
        tightest.limit_type.label(),
        if tightest.is_own { "limit that the driver has set" } else { "budget" },
        tightest.limit.normalize(),
        tightest.room().normalize(),
        calculated.normalize(),
        tightest.period.end.to_utc().to_rfc3339_opts(SecondsFormat::Secs, true),
    )
}
