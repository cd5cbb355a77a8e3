//! What becomes of a reward that is worked out anew, as one function of the record, the budgets and what was charged before. What is
//! lowered was won in the payouts before, and its budgets get the difference back; what is raised is charged whole or not at all.

use rust_decimal::Decimal;
use schemas::events::{Adjustment, LimitType, RewardCalculated};
use schemas::ids::Micros;
use schemas::reason::Reason;
use serde_json::json;

use super::books::Books;
use super::grant::{Budgets, Grant, Met, charge, charge_of, meet, sentence, tightest};
use super::policy::Policy;
use super::state::keys_of;

/// Adjusts a reward: the amount is what is owed from now on, which is what was owed until now where a raise is refused.
pub fn adjust(
    (event, adjustment): (&RewardCalculated, &Adjustment),
    budgets: &mut Budgets,
    books: &mut Books,
    policy: &Policy,
    at: Micros,
) -> Grant {
    let met = meet(event, budgets, policy);
    let before = books.charged(event.reward_id);
    let charged = before.unwrap_or_default();
    let difference = adjustment.granted - charged;
    let refused =
        adjustment.raises().then(|| refusal((event, adjustment), books, &met, difference)).flatten();
    if refused.is_none() {
        if adjustment.raises() {
            for met in &met {
                charge(budgets, event.header.user_id, met, difference, at);
            }
        }
        note(event, adjustment, budgets, books);
    }
    // What is refused leaves what was charged, whatever the replay has met.
    let unmoved = before.unwrap_or(adjustment.granted_before).normalize();
    let amount = if refused.is_some() { unmoved } else { adjustment.granted };
    let cut = (amount < event.total()).then_some(Reason::OverLimit);
    let (reason, detail) = match refused {
        Some((reason, detail)) => (Some(reason), Some(detail)),
        None => {
            (cut, cut.and(adjustment.detail.clone().or_else(|| Some(Reason::OverLimit.advice().to_owned()))))
        }
    };
    let after = meet(event, budgets, policy);
    Grant {
        amount,
        reason,
        detail,
        remaining: tightest(&after).room().normalize(),
        charges: after.iter().map(|met| charge_of(met, amount, met.current)).collect(),
        evidence: json!({
            "policy": policy.version,
            "calculated": event.total(),
            "granted": amount,
            "adjustment": adjustment,
            "charged_before": charged,
            "charged": books.charged(event.reward_id),
            "budgets": LimitType::ALL.iter().zip(met.iter().zip(&after)).map(|(limit_type, (before, after))| json!({
                "limit_type": limit_type.label(), "before": before.current, "after": after.current,
            })).collect::<Vec<_>>(),
        }),
    }
}

/// Why a raise is refused: the reward is cancelled, was charged something else than the replay has met, or a budget does not hold the whole
/// difference.
fn refusal(
    (event, adjustment): (&RewardCalculated, &Adjustment),
    books: &Books,
    met: &[Met; 3],
    difference: Decimal,
) -> Option<(Reason, String)> {
    if books.is_cancelled(event.reward_id) {
        return Some((Reason::Cancelled, "the reward is cancelled".to_owned()));
    }
    if adjustment.granted - difference != adjustment.granted_before {
        let charged = (adjustment.granted - difference).normalize();
        let met = adjustment.granted_before.normalize();
        let detail =
            format!("the budgets were charged {charged} B3TR for the reward, and the replay has met {met}");
        return Some((Reason::OverLimit, detail));
    }
    let tightest = tightest(met);
    (tightest.room() < difference).then(|| (Reason::OverLimit, sentence(tightest, difference)))
}

/// Notes what the reward is charged from now on; what is lowered is given back in the same step.
fn note(event: &RewardCalculated, adjustment: &Adjustment, budgets: &mut Budgets, books: &mut Books) {
    let (reward, amount) = (event.reward_id, adjustment.granted);
    match books.charged(reward) {
        // The budgets are charged for the difference already.
        Some(_) if adjustment.raises() => books.rewrite(reward, amount),
        Some(charged) => books.recharge(reward, amount.min(charged), budgets),
        None if adjustment.raises() => books.charge(reward, keys_of(event), amount, budgets),
        // Granted before charges were noted: there is nothing to give back.
        None => {}
    }
}
