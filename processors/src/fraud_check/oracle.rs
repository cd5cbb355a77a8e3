//! The same decisions without partitions, batches or a database: what a run with faults is compared with.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use schemas::events::{Correction, OdometerRead, UploadDecided, Verdict};
use schemas::ids::{UploadId, UserId, VehicleId};
use schemas::reason::Reason;

use super::conduct::{Became, Conduct};
use super::corrections::correct;
use super::facts::{Before, VehicleState};
use super::input::FraudInput;
use super::judge::{Judgement, judge};
use super::rules::Rules;

/// What a decision says: verdict, reason, mileage and kilometres.
pub type Said = (Verdict, Option<Reason>, Option<Decimal>, Option<Decimal>);

/// What is kept from record to record.
#[derive(Default)]
struct Folded {
    vehicles: BTreeMap<VehicleId, VehicleState>,
    conducts: BTreeMap<UserId, Conduct>,
    decided: BTreeSet<String>,
}

impl Folded {
    fn judged(&mut self, event: &OdometerRead, rules: &Rules) -> Judgement {
        let (vehicle, user) = (event.header.vehicle_id, event.header.user_id);
        let before = Before { vehicle: self.vehicles.get(&vehicle), conduct: self.conducts.get(&user) };
        let judgement = judge(event, before, rules);
        let became = Became { event, verdict: judgement.verdict, reason: judgement.reason };
        let conduct = Conduct::after(before.conduct, &became);
        self.conducts.insert(user, conduct);
        if let Some(next) = &judgement.next_state {
            self.vehicles.insert(vehicle, next.clone());
        }
        judgement
    }
}

/// Folds [`judge`] over records in the order of their topic, one partition after another: of a vehicle that changes hands in the order of
/// its decisions. A repeated upload is decided by its first record, as the effect `verdict:UPLOAD` has it, and by the first that a person
/// has decided; others are left out.
pub fn fold<'a>(
    records: impl IntoIterator<Item = &'a OdometerRead>,
    rules: &Rules,
) -> Vec<(UploadId, Judgement)> {
    let mut folded = Folded::default();
    let mut judgements = Vec::new();
    for event in records {
        if folded.decided.insert(FraudInput::effect_of(event)) {
            judgements.push((event.header.upload_id, folded.judged(event, rules)));
        }
    }
    judgements
}

/// The same with corrections, by effect; a correction that is refused is left out.
pub fn fold_all<'a>(
    records: impl IntoIterator<Item = &'a FraudInput>,
    rules: &Rules,
) -> BTreeMap<String, Said> {
    let (mut folded, mut said) = (Folded::default(), BTreeMap::new());
    for record in records {
        let effect = record.effect();
        if !folded.decided.insert(effect.clone()) {
            continue;
        }
        match record {
            FraudInput::Read(event) => {
                let own = folded.judged(event, rules);
                said.insert(effect, (own.verdict, own.reason, own.final_mileage, own.distance_km));
            }
            FraudInput::Corrected(event) => {
                let vehicle = event.decided.header.vehicle_id;
                let Some(corrected) = correct(event, folded.vehicles.get(&vehicle)) else { continue };
                if let Some(next) = corrected.next_state {
                    folded.vehicles.insert(vehicle, next);
                }
                said.insert(effect, said_by(&corrected.decided));
            }
        }
    }
    said
}

/// What a decision that was published says.
#[must_use]
pub fn said_by(event: &UploadDecided) -> Said {
    (event.verdict, event.reason, event.final_mileage, event.distance_km)
}

/// The effect of a decision that was published, as [`FraudInput::effect`] has it.
#[must_use]
pub fn effect_of(event: &UploadDecided) -> String {
    let upload = event.header.upload_id;
    match &event.correction {
        Some(correction) => Correction::effect(upload, correction.number),
        None if event.review.is_some() => format!("review:{upload}"),
        None => format!("verdict:{upload}"),
    }
}
