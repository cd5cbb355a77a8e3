//! Who decides: one person, or two where the distance is large, and an operator where the two differ.

use rust_decimal::Decimal;
use schemas::events::{Review, Unit};
use schemas::ids::UserId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::auth::keys::Role;

/// What a person has said who does not decide alone.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Opinion {
    #[schema(value_type = String, format = Uuid)]
    pub(super) reviewer_id: UserId,
    /// The decision as it was sent, without notes
    #[schema(value_type = Object)]
    pub(super) decision: Value,
    /// As it would have gone out; its notes are sealed.
    #[schema(ignore)]
    pub(super) review: Review,
}

/// Whose decision a review waits for
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Needs {
    /// Of anybody who may review
    Reviewer,
    /// Of another person than the first: the distance is large
    SecondPerson,
    /// Of an operator: two people have seen different things
    Operator,
}

impl Needs {
    pub(super) fn after(opinions: &[Opinion]) -> Self {
        match opinions {
            [] => Self::Reviewer,
            [_] => Self::SecondPerson,
            _ => Self::Operator,
        }
    }
}

/// What a decision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It ends the review.
    Decides,
    /// It is kept until another person has looked.
    Waits,
}

/// The vehicle as it was when the upload was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    last_km: Decimal,
    unit_shown: Option<Unit>,
}

impl Before {
    /// From the evidence of the doubt; none before the vehicle's first verified reading.
    pub(super) fn of(signals: &Value) -> Option<Self> {
        let before = &signals["vehicle_before"];
        let last_km = before["last_km"].as_str()?.parse().ok()?;
        let shown = before["unit_shown"].as_str();
        let unit_shown = [Unit::Km, Unit::Miles].into_iter().find(|unit| Some(unit.label()) == shown);
        Some(Self { last_km, unit_shown })
    }
}

/// A reading in kilometres; one without a unit counts in the one that the vehicle's photos have shown, as `fraud_check` counts it.
fn km(review: &Review, before: Option<Before>) -> Option<Decimal> {
    let unit = review.unit.or_else(|| before.and_then(|before| before.unit_shown)).unwrap_or(Unit::Km);
    Some(review.mileage? * unit.in_km())
}

/// Whether a decision ends the review. `above_km` is the distance since the vehicle's last verified reading beyond which nobody approves
/// alone; a first reading has none, and what is turned down pays nothing.
pub(super) fn effect(
    (role, review): (Role, &Review),
    earlier: &[Opinion],
    before: Option<Before>,
    above_km: Decimal,
) -> Effect {
    let own = km(review, before);
    let decides = match earlier {
        [] => own.zip(before).is_none_or(|(own, before)| own - before.last_km <= above_km),
        [first] => role == Role::Operator || (own.is_some() && own == km(&first.review, before)),
        _ => true,
    };
    if decides { Effect::Decides } else { Effect::Waits }
}

#[cfg(test)]
mod tests {
    use schemas::ids::Micros;
    use schemas::reason::Reason;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn review(mileage: Option<i64>, unit: Option<Unit>) -> Review {
        Review {
            reviewer_id: UserId(Uuid::from_u128(1)),
            decided_at: Micros(0),
            mileage: mileage.map(Decimal::from),
            unit,
            reason: mileage.is_none().then_some(Reason::AnotherPhoto),
            notes: None,
        }
    }

    fn first(mileage: i64, unit: Option<Unit>) -> Opinion {
        let review = review(Some(mileage), unit);
        Opinion { reviewer_id: review.reviewer_id, decision: json!({}), review }
    }

    fn before(unit: &str) -> Option<Before> {
        Before::of(&json!({ "vehicle_before": { "last_km": "50000", "unit_shown": unit } }))
    }

    const THOUSAND: Decimal = Decimal::from_parts(1000, 0, 0, false, 0);

    #[test]
    fn one_person_decides_up_to_a_distance_and_two_beyond_it() {
        let alone =
            |mileage, unit, before| effect((Role::Operator, &review(mileage, unit)), &[], before, THOUSAND);
        assert_eq!(alone(Some(51_000), None, before("km")), Effect::Decides);
        assert_eq!(alone(Some(51_001), None, before("km")), Effect::Waits, "an operator is one person too");
        assert_eq!(alone(Some(31_700), Some(Unit::Miles), before("km")), Effect::Waits);
        assert_eq!(alone(Some(31_700), None, before("miles")), Effect::Waits);
        assert_eq!(alone(Some(31_000), Some(Unit::Miles), before("km")), Effect::Decides, "below the last");
        assert_eq!(alone(Some(900_000), None, None), Effect::Decides, "a first reading pays nothing");
        assert_eq!(alone(None, None, before("km")), Effect::Decides, "what is turned down pays nothing");
        assert_eq!(Before::of(&json!({ "vehicle_before": null })), None);
    }

    #[test]
    fn the_second_person_decides_where_they_have_seen_the_same_and_an_operator_in_any_case() {
        let second = |role, mileage, unit| {
            effect((role, &review(mileage, unit)), &[first(60_000, None)], before("km"), THOUSAND)
        };
        assert_eq!(second(Role::Reviewer, Some(60_000), Some(Unit::Km)), Effect::Decides, "km either way");
        assert_eq!(second(Role::Reviewer, Some(60_001), None), Effect::Waits);
        assert_eq!(second(Role::Reviewer, Some(60_000), Some(Unit::Miles)), Effect::Waits);
        assert_eq!(second(Role::Reviewer, None, None), Effect::Waits);
        assert_eq!(second(Role::Operator, None, None), Effect::Decides);
        let two = [first(60_000, None), first(60_001, None)];
        assert_eq!(Needs::after(&two), Needs::Operator);
        let third = effect((Role::Operator, &review(None, None)), &two, before("km"), THOUSAND);
        assert_eq!(third, Effect::Decides);
    }

    #[test]
    fn nobody_below_an_operator_brings_about_a_large_distance_alone_and_the_third_person_decides() {
        let seen = &[None, Some(49_000), Some(50_500), Some(51_001), Some(59_000)];
        let orders =
            seen.iter().flat_map(move |a| seen.iter().flat_map(move |b| seen.iter().map(move |c| [a, b, c])));
        for order in orders {
            let mut opinions: Vec<Opinion> = Vec::new();
            let decided = order.into_iter().find_map(|mileage| {
                let said = review(*mileage, None);
                let role = if opinions.len() < 2 { Role::Reviewer } else { Role::Operator };
                if effect((role, &said), &opinions, before("km"), THOUSAND) == Effect::Decides {
                    let agreed = opinions.iter().any(|one| one.review.mileage == said.mileage);
                    return Some((*mileage, role, agreed));
                }
                opinions.push(Opinion { reviewer_id: said.reviewer_id, decision: json!({}), review: said });
                None
            });
            let (mileage, role, agreed) = decided.expect("the third decides");
            let large = mileage.is_some_and(|mileage| mileage > 51_000);
            assert!(!large || agreed || role == Role::Operator, "{order:?}");
        }
    }
}
