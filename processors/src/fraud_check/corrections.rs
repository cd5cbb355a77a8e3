//! A verified reading that was wrong is lowered: what later readings are compared with goes down, and what was paid for stays paid for,
//! because nothing is paid again below the highest reading ever verified.

use rust_decimal::Decimal;
use schemas::events::{ReadingCorrected, UploadDecided, Verdict};
use serde_json::{Value, json};

use super::facts::{KM_SCALE, VehicleState, last_digit};

/// What a correction comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Corrected {
    /// The decision as it is from now on.
    pub decided: UploadDecided,
    /// What was seen: the vehicle before and after.
    pub evidence: Value,
    /// The vehicle after it; null where it stays as it was, because newer readings are verified.
    pub next_state: Option<VehicleState>,
}

/// Lowers a verified reading. `vehicle` is the state before. None where it is refused: the decision verified nothing, the reading would not
/// fall, or it would fall below the verified one that was accepted before it, which is corrected first then.
#[must_use]
pub fn correct(event: &ReadingCorrected, vehicle: Option<&VehicleState>) -> Option<Corrected> {
    let (decided, correction) = (&event.decided, &event.correction);
    let in_km = |mileage: Decimal| (mileage * decided.unit.in_km()).round_dp(KM_SCALE);
    let falls = correction.mileage >= Decimal::ZERO && correction.mileage < correction.mileage_before;
    let is_its_own =
        decided.verdict == Verdict::Verified && decided.final_mileage == Some(correction.mileage_before);
    if !falls || !is_its_own {
        return None;
    }
    let km = in_km(correction.mileage);
    let digit_km = last_digit(correction.mileage) * decided.unit.in_km();
    let next_state = match vehicle {
        Some(before) => lowered(before, decided, (km, in_km(correction.mileage_before)), digit_km)?,
        None => return None,
    };
    let previous_km = decided.previous_mileage.map(in_km);
    let distance = previous_km.map_or(Decimal::ZERO, |previous| (km - previous).max(Decimal::ZERO));
    let evidence = json!({
        "correction": correction.number, "vehicle_before": vehicle, "vehicle_after": next_state.as_ref().or(vehicle),
    });
    let decided = UploadDecided {
        final_mileage: Some(correction.mileage),
        distance_km: decided.distance_km.map(|paid| paid.min(distance)),
        signals: evidence.to_string(),
        driver: None,
        correction: Some(correction.clone()),
        ..decided.clone()
    };
    Some(Corrected { decided, evidence, next_state })
}

/// The vehicle with a reading lowered from `was` to `km`; itself where that changes nothing, none where it falls below the older one.
#[allow(clippy::option_option, reason = "refused, or allowed with or without a change")]
fn lowered(
    before: &VehicleState,
    decided: &UploadDecided,
    (km, was): (Decimal, Decimal),
    digit_km: Decimal,
) -> Option<Option<VehicleState>> {
    let header = &decided.header;
    let place = before.recent.iter().rposition(|verified| verified.accepted_at == header.accepted_at);
    let Some(place) = place else {
        // Verified before readings were remembered: what is compared is its own, or a newer one's.
        let is_last = before.recent.is_empty() && before.last_upload_id == header.upload_id;
        return Some(is_last.then(|| VehicleState { last_km: before.last_km.min(km), ..before.clone() }));
    };
    let older = place.checked_sub(1).map(|older| before.recent[older].km);
    let is_below = |km: Decimal| older.is_some_and(|older| km + digit_km <= older);
    if is_below(km) && !is_below(was) {
        return None;
    }
    let mut after = before.clone();
    let verified = &mut after.recent[place];
    verified.km = verified.km.min(older.map_or(km, |older| km.max(older)));
    if place + 1 == before.recent.len() {
        after.last_km = verified.km;
    }
    Some((after != *before).then_some(after))
}
