//! The decision about an upload as one pure function of the event, the vehicle's state and the rules.
//!
//! No clock, no random number, no look-up: the same inputs give the same judgement, in a replay as on the day.

use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{OdometerRead, Unit, Verdict};
use schemas::reason::Reason;
use serde_json::json;

use super::facts::{Before, Facts, VehicleState};
use super::rules::Rules;
use super::signals::{self, Signal};

/// What was decided and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Set exactly where not verified.
    pub reason: Option<Reason>,
    /// A sentence with the values compared; set exactly where not verified.
    pub detail: Option<String>,
    /// Unit of every mileage here: the photo's, else the one that the vehicle's photos have shown, else km.
    pub unit: Unit,
    /// The claim in `unit`, two decimals.
    pub claimed: Option<Decimal>,
    /// The best reading without any prior, in `unit`.
    pub ai: Option<Decimal>,
    /// The accepted mileage: a candidate's own value, or that of a person. Set exactly where verified.
    pub final_mileage: Option<Decimal>,
    /// Confidence of the chosen candidate, cut to two decimals; a person leaves it.
    pub confidence: Option<Decimal>,
    /// The vehicle's verified mileage before it in the order of acceptance, whoever owned it then, in `unit`, two decimals; null for a
    /// first reading.
    pub previous: Option<Decimal>,
    /// Kilometres to be paid: above the highest verified reading; zero for a baseline and for what comes late. Set exactly where
    /// verified.
    pub distance_km: Option<Decimal>,
    /// Whether this is the first verified reading of the vehicle, or of the vehicle under this owner.
    pub baseline: bool,
    /// Every check with value, threshold and weight, and the vehicle before and after: a JSON object.
    pub signals: serde_json::Value,
    /// The vehicle after this upload; null where it stays as it was.
    pub next_state: Option<VehicleState>,
}

/// Decides about one upload.
#[must_use]
pub fn judge<'a>(event: &OdometerRead, before: impl Into<Before<'a>>, rules: &Rules) -> Judgement {
    let before: Before<'_> = before.into();
    let (facts, vehicle) = (Facts::of(event, before, rules), before.vehicle);
    let signals = signals::all(&facts);
    let decided_by = signals.iter().find(|signal| signal.against.is_some());
    let against = decided_by.and_then(|signal| signal.against.clone());
    let verified = against.is_none();
    let next_state = facts.next_state().filter(|_| verified);
    let paid_from = vehicle.filter(|_| !facts.is_baseline());
    let distance_km = next_state
        .as_ref()
        .map(|next| paid_from.map_or(Decimal::ZERO, |before| next.highest_km - before.highest_km));
    Judgement {
        verdict: against.as_ref().map_or(Verdict::Verified, |against| against.verdict),
        reason: against.as_ref().map(|against| against.reason),
        detail: against.map(|against| against.detail),
        unit: facts.unit,
        claimed: facts.claimed,
        ai: facts.ai.map(|best| best.value),
        final_mileage: facts.chosen.as_ref().map(|chosen| chosen.value).filter(|_| verified),
        confidence: facts
            .confidence
            .map(|confidence| confidence.round_dp_with_strategy(2, RoundingStrategy::ToZero)),
        previous: facts.previous,
        distance_km,
        baseline: verified && facts.is_baseline(),
        signals: json!({
            "rules": rules.version,
            "decided_by": decided_by.map(|signal| signal.name),
            "checks": signals.iter().map(Signal::entry).collect::<serde_json::Map<_, _>>(),
            "vehicle_before": vehicle,
            "vehicle_after": next_state.as_ref().or(vehicle),
        }),
        next_state,
    }
}
