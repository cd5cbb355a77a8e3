//! The document of `reward_calculation_logs`: one a verified upload, also where nothing was earned.

use schemas::events::{ActivityLogged, Stamp, UploadHeader};
use schemas::ids::{Micros, RewardId};
use schemas::logs::RewardCalculationLog;
use serde_json::{Value, json};

use super::tariff::{Earned, Tariff};
use crate::documents::Documents;

/// How a reward was worked out, step by step.
pub(super) fn documents(
    header: &UploadHeader,
    stamp: &Stamp,
    tariff: &Tariff,
    earned: &Earned,
    started: Micros,
) -> Vec<ActivityLogged> {
    let parts: Vec<Value> = earned
        .parts
        .iter()
        .map(|part| {
            json!({"name": part.name.label(), "kind": part.kind.label(), "factor": part.factor, "amount": part.amount})
        })
        .collect();
    let rewarded = !earned.total().is_zero();
    let log = RewardCalculationLog {
        reward_id: rewarded.then(|| RewardId::of(header.upload_id).to_string()),
        user_id: header.user_id.to_string(),
        upload_id: header.upload_id.to_string(),
        calculation_input: json!({
            "distance_km": earned.distance_km,
            "rate": earned.rate,
            "vehicle_kind": stamp.vehicle_kind,
            "tariff_version": tariff.version,
            "bonuses": earned.parts.iter().filter_map(|part| part.label.as_deref()).collect::<Vec<_>>(),
            "verification_level": stamp.verification_level,
            "cap": tariff.upload_cap,
        }),
        calculation_steps: steps(earned),
        calculation_result: Some(json!({
            "base": earned.base, "bonus": earned.bonus, "total": earned.total(), "parts": parts,
        })),
        calculation_duration: started.milliseconds_to(header.occurred_at),
        success: true,
        error_message: None,
    };
    let mut documents = Documents::about(header.event_id, header.occurred_at);
    documents.add(0, &log);
    documents.into_records()
}

/// One step for each part, with the sum after it as its result.
fn steps(earned: &Earned) -> Vec<Value> {
    let mut sum = rust_decimal::Decimal::ZERO;
    (1..)
        .zip(&earned.parts)
        .map(|(step, part)| {
            let before = sum;
            sum += part.amount;
            json!({
                "step": step,
                "name": part.name.label(),
                "operation": part.kind.label(),
                "inputs": {
                    "before": before, "factor": part.factor, "amount": part.amount, "distance_km": earned.distance_km,
                },
                "result": sum.to_string(),
            })
        })
        .collect()
}
