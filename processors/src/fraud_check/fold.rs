//! The state of `fraud_check` after decisions that were taken before: by what they say, not by deciding again, which another release might
//! do otherwise.

use runtime::refold::{Recorded, Refolds};
use runtime::{Decision, StageError};
use schemas::events::{OdometerRead, UploadDecided, Verdict};
use schemas::reason::Reason;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::FraudCheck;
use super::conduct::Became;
use super::corrections::correct;
use super::drivers::Drivers;
use super::facts::{KM_SCALE, VehicleState, last_digit};
use super::input::FraudInput;
use super::neighbours::{Late, Verified};
use super::reviews::{Opened, Told};
use super::state::State;

/// The vehicle after a decision, from what the decision says of it; as it was where nothing was verified. The records of two owners of a
/// vehicle stand in two partitions, and come here in any order: what was accepted later leads, and the highest reading never falls.
///
/// # Errors
/// [`StageError`] where the decision does not hold the state that it led to.
pub fn after(
    vehicle: Option<&VehicleState>,
    decided: &UploadDecided,
    signals: &Value,
) -> Result<Option<VehicleState>, StageError> {
    let Some(mileage) = decided.final_mileage.filter(|_| decided.verdict == Verdict::Verified) else {
        return Ok(None);
    };
    let after: VehicleState = serde_json::from_value(signals["vehicle_after"].clone())
        .map_err(|error| StageError::new("the vehicle after a decision", error))?;
    let accepted_at = decided.header.accepted_at;
    let mut recent = vehicle.map(|vehicle| vehicle.recent.clone()).unwrap_or_default();
    let highest_km = vehicle.map_or(after.highest_km, |vehicle| vehicle.highest_km.max(after.highest_km));
    if let (Some(late), Some(vehicle)) = (Late::of(&recent, accepted_at), vehicle) {
        let km = (mileage * decided.unit.in_km()).round_dp(KM_SCALE);
        if late.holds(km, last_digit(mileage) * decided.unit.in_km()) {
            late.insert(&mut recent, accepted_at, km);
        }
        let unit_shown = after.unit_shown.or(vehicle.unit_shown);
        return Ok(Some(VehicleState { highest_km, unit_shown, recent, ..vehicle.clone() }));
    }
    Verified::newest(&mut recent, accepted_at, after.last_km, signals["vehicle_before"].is_null());
    let owner = decided.header.user_id;
    Ok(Some(VehicleState { highest_km, recent, owner, ..after }))
}

fn signals(decided: &UploadDecided) -> Result<Value, StageError> {
    serde_json::from_str(&decided.signals)
        .map_err(|error| StageError::new("the signals of a decision", error))
}

impl Refolds for FraudCheck {
    async fn refold(
        &self,
        tx: &mut PgConnection,
        batch: &[Recorded<FraudInput, UploadDecided>],
    ) -> Result<Vec<Option<Decision<UploadDecided>>>, StageError> {
        let vehicles = batch.iter().map(|one| one.record.payload.header().vehicle_id).collect();
        let users = batch.iter().map(|one| one.record.payload.header().user_id).collect();
        let mut state = State::load(tx, &vehicles, &users).await?;
        let State { vehicles, drivers } = &mut state;
        let (mut decisions, mut opened) = (Vec::with_capacity(batch.len()), Opened::default());
        for Recorded { record, output } in batch {
            let key = record.payload.header().vehicle_id;
            let (next, reason) = match (&record.payload, output) {
                (FraudInput::Read(event), Some(decided)) => {
                    let evidence = signals(decided)?;
                    note(&mut opened, drivers, event, (decided, &evidence));
                    (after(vehicles.get(&key), decided, &evidence)?, decided.reason)
                }
                (FraudInput::Corrected(event), Some(_)) => {
                    let corrected = correct(event, vehicles.get(&key));
                    (corrected.and_then(|corrected| corrected.next_state), None)
                }
                // One that is refused is dropped, and anything else is published.
                (FraudInput::Corrected(event), None) if correct(event, vehicles.get(&key)).is_none() => {
                    (None, Some(Reason::CorrectionRefused))
                }
                (FraudInput::Read(_) | FraudInput::Corrected(_), None) => {
                    decisions.push(None);
                    continue;
                }
            };
            if let Some(next) = next {
                vehicles.set(key, next);
            }
            let evidence = match (output, &record.payload) {
                (Some(decided), _) => signals(decided)?,
                (None, FraudInput::Corrected(event)) => json!(event.correction),
                (None, FraudInput::Read(_)) => Value::Null,
            };
            let rules_version = evidence["rules"].as_str().unwrap_or(self.rules.version).to_owned();
            decisions.push(Some(Decision {
                effect_id: Some(record.payload.effect()),
                rules_version,
                reason,
                evidence,
                logs: Vec::new(),
                outcome: output.clone().ok_or(Reason::CorrectionRefused),
            }));
        }
        state.store(tx).await?;
        opened.store(tx).await?;
        Ok(decisions)
    }
}

/// The review that a decision opens or ends, and what it says of the driver.
fn note(
    opened: &mut Opened,
    drivers: &mut Drivers,
    event: &OdometerRead,
    (decided, evidence): (&UploadDecided, &Value),
) {
    let told = Told {
        verdict: decided.verdict,
        reason: decided.reason,
        detail: decided.detail.as_deref(),
        signals: evidence,
    };
    opened.add(event, told, decided.header.occurred_at);
    if let Some(review) = &event.review {
        opened.settle(event.header.upload_id, review);
    }
    let became = Became { event, verdict: decided.verdict, reason: decided.reason };
    drivers.note(&became, decided.distance_km);
}
