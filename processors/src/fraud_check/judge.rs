//! The decision about an upload as one pure function of the event, the vehicle's state and the rules.
//!
//! No clock, no random number, no look-up: the same inputs give the same judgement, in a replay as on the day.

use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{Candidate, OdometerRead, Unit, Verdict};
use schemas::ids::{Micros, UploadId};
use schemas::reason::Reason;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rules::Rules;
use super::signals::{self, Signal};

/// Decimals of a kilometre that are kept: millimetres, the scale of `vehicle_readings`. Whole kilometres and whole
/// miles are exact; a tenth of a mile is rounded by less than half a millimetre, and differences still add up.
const KM_SCALE: u32 = 6;

/// The last verified reading of a vehicle under one owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VehicleState {
    /// Last verified reading, kilometres, to the millimetre.
    pub last_km: Decimal,
    /// Highest reading ever verified, kilometres: nothing is paid twice below it.
    pub highest_km: Decimal,
    /// The unit that it was read in.
    pub unit: Unit,
    /// When the odometer showed it: the phone's time where it was believable, else the time of acceptance.
    pub last_at: Micros,
    /// The upload that it came from.
    pub last_upload_id: UploadId,
}

/// What was decided and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// Set exactly where not verified.
    pub reason: Option<Reason>,
    /// A sentence with the values compared; set exactly where not verified.
    pub detail: Option<String>,
    /// Unit of every mileage here: the photo's, the vehicle's, the claim's or km, first known.
    pub unit: Unit,
    /// The claim in `unit`, two decimals.
    pub claimed: Option<Decimal>,
    /// The best reading without any prior, in `unit`.
    pub ai: Option<Decimal>,
    /// The accepted mileage: a candidate's own value. Set exactly where verified.
    pub final_mileage: Option<Decimal>,
    /// Confidence of the chosen candidate, cut to two decimals.
    pub confidence: Option<Decimal>,
    /// The vehicle's last verified mileage in `unit`, two decimals; null for a first reading.
    pub previous: Option<Decimal>,
    /// Kilometres to be paid: above the highest verified reading; zero for a baseline. Set exactly where verified.
    pub distance_km: Option<Decimal>,
    /// Whether this is the vehicle's first verified reading.
    pub baseline: bool,
    /// Every check with value, threshold and weight, and the vehicle before and after: a JSON object.
    pub signals: serde_json::Value,
    /// The vehicle after this upload; null where it stays as it was.
    pub next_state: Option<VehicleState>,
}

/// What the checks compare: everything converted once.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub event: &'a OdometerRead,
    pub vehicle: Option<&'a VehicleState>,
    pub rules: &'a Rules,
    pub unit: Unit,
    pub claimed: Option<Decimal>,
    pub ai: Option<&'a Candidate>,
    pub chosen: Option<Candidate>,
    pub previous: Option<Decimal>,
    /// The chosen value in kilometres, to the millimetre.
    pub final_km: Option<Decimal>,
    /// When the odometer showed it: the phone's time where it is believable, else the time of acceptance.
    pub read_at: Micros,
}

/// Decides about one upload. `vehicle` is the state before it: null until the first verified reading.
#[must_use]
pub fn judge(event: &OdometerRead, vehicle: Option<&VehicleState>, rules: &Rules) -> Judgement {
    let facts = Facts::of(event, vehicle, rules);
    let signals = signals::all(&facts);
    let decided_by = signals.iter().find(|signal| signal.against.is_some());
    let against = decided_by.and_then(|signal| signal.against.clone());
    let verified = against.is_none();
    let next_state = facts.next_state().filter(|_| verified);
    let distance_km = next_state
        .as_ref()
        .map(|next| vehicle.map_or(Decimal::ZERO, |before| next.highest_km - before.highest_km));
    Judgement {
        verdict: against.as_ref().map_or(Verdict::Verified, |against| against.verdict),
        reason: against.as_ref().map(|against| against.reason),
        detail: against.map(|against| against.detail),
        unit: facts.unit,
        claimed: facts.claimed,
        ai: facts.ai.map(|best| best.value),
        final_mileage: facts.chosen.as_ref().map(|chosen| chosen.value).filter(|_| verified),
        confidence: facts
            .chosen
            .as_ref()
            .map(|chosen| chosen.confidence.round_dp_with_strategy(2, RoundingStrategy::ToZero)),
        previous: facts.previous,
        distance_km,
        baseline: verified && vehicle.is_none(),
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

impl<'a> Facts<'a> {
    fn of(event: &'a OdometerRead, vehicle: Option<&'a VehicleState>, rules: &'a Rules) -> Self {
        let (header, stamp) = (&event.header, &event.stamp);
        let believable = |value: Decimal| value >= Decimal::ZERO && value < rules.mileage_end;
        let reading = event.reading.as_ref();
        let ai = reading.and_then(|reading| reading.best.as_ref()).filter(|best| believable(best.value));
        let unit = ai
            .and_then(|best| best.unit)
            .or(vehicle.map(|vehicle| vehicle.unit))
            .or(stamp.claimed_unit)
            .unwrap_or(Unit::Km);
        let previous = vehicle.map(|vehicle| (vehicle.last_km / unit.in_km()).round_dp(2));
        // Values seen beside another unit are another number: they are not compared with this vehicle's.
        let comparable: Vec<Candidate> = reading
            .map(|reading| reading.candidates.as_slice())
            .unwrap_or_default()
            .iter()
            .filter(|seen| believable(seen.value) && seen.unit.is_none_or(|own| own == unit))
            .cloned()
            .collect();
        let chosen = reading::choose(&comparable, previous).cloned();
        let claimed = stamp.claimed_mileage.filter(|claim| believable(*claim)).map(|claim| {
            let from = stamp.claimed_unit.unwrap_or(unit);
            if from == unit { claim } else { (claim * from.in_km() / unit.in_km()).round_dp(2) }
        });
        let age_us = |captured: Micros| header.accepted_at.0.saturating_sub(captured.0);
        let read_at = stamp
            .captured_at
            .filter(|captured| {
                (-rules.captured_ahead_us..=rules.captured_back_us).contains(&age_us(*captured))
            })
            .unwrap_or(header.accepted_at);
        let final_km = chosen.as_ref().map(|chosen| (chosen.value * unit.in_km()).round_dp(KM_SCALE));
        Self { event, vehicle, rules, unit, claimed, ai, chosen, previous, final_km, read_at }
    }

    /// The vehicle after this reading, were it verified. A display without tenths may show a little less than the last
    /// reading did: the vehicle never moves back by that.
    fn next_state(&self) -> Option<VehicleState> {
        let final_km = self.final_km?;
        Some(VehicleState {
            last_km: self.vehicle.map_or(final_km, |before| before.last_km.max(final_km)),
            highest_km: self.vehicle.map_or(final_km, |before| before.highest_km.max(final_km)),
            unit: self.unit,
            last_at: self.read_at,
            last_upload_id: self.event.header.upload_id,
        })
    }
}
