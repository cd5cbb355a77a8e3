//! `fraud_check`: the one place where an upload is decided. [`judge`](judge::judge) is the decision, the rest carries
//! vehicles in and decisions out.

pub mod conduct;
pub mod corrections;
mod drivers;
mod event;
pub mod facts;
pub mod fold;
pub mod input;
pub mod judge;
pub mod kept;
pub mod neighbours;
pub mod oracle;
mod reviews;
pub mod rules;
mod signals;
pub mod state;
pub mod weeks;

use std::sync::Arc;

use runtime::{Clock, Decider, Decision, Envelope, StageError};
use schemas::events::{DriverFacts, OdometerRead, ReadingCorrected, UploadDecided};
use schemas::ids::Micros;
use schemas::reason::Reason;
use serde_json::json;
use sqlx::PgConnection;

use self::conduct::Became;
use self::corrections::{Corrected, correct};
use self::facts::Before;
use self::input::FraudInput;
use self::judge::{Judgement, judge};
use self::reviews::{Opened, Told};
use self::rules::Rules;
use self::state::State;
use crate::photos::processing_failed;

/// Decides about uploads.
pub struct FraudCheck {
    rules: Rules,
    clock: Arc<dyn Clock>,
}

impl FraudCheck {
    /// Decides by these rules. The clock stamps `occurred_at` and is no input of a decision.
    #[must_use]
    pub fn new(rules: Rules, clock: Arc<dyn Clock>) -> Self {
        Self { rules, clock }
    }
}

impl Decider for FraudCheck {
    const NAME: &'static str = "fraud_check";
    type In = FraudInput;
    type Out = UploadDecided;

    fn effect_of(&self, event: &FraudInput) -> Option<String> {
        Some(event.effect())
    }

    async fn decide(
        &self,
        tx: &mut PgConnection,
        batch: &[Envelope<FraudInput>],
    ) -> Result<Vec<Decision<UploadDecided>>, StageError> {
        let vehicles = batch.iter().map(|record| record.payload.header().vehicle_id).collect();
        let users = batch.iter().map(|record| record.payload.header().user_id).collect();
        let mut state = State::load(tx, &vehicles, &users).await?;
        let State { vehicles, drivers } = &mut state;
        let (mut decisions, mut opened) = (Vec::with_capacity(batch.len()), Opened::default());
        for record in batch {
            let (started, key) = (self.clock.now(), record.payload.header().vehicle_id);
            let event = match &record.payload {
                FraudInput::Read(event) => event,
                FraudInput::Corrected(event) => {
                    let corrected = correct(event, vehicles.get(&key));
                    if let Some(next) = corrected.as_ref().and_then(|corrected| corrected.next_state.clone())
                    {
                        vehicles.set(key, next);
                    }
                    decisions.push(self.correction(record, event, corrected));
                    continue;
                }
            };
            let conduct = drivers.conduct.get(&event.header.user_id);
            let mut judgement = judge(event, Before { vehicle: vehicles.get(&key), conduct }, &self.rules);
            if let Some(next) = judgement.next_state.take() {
                vehicles.set(key, next);
            }
            let became = Became { event, verdict: judgement.verdict, reason: judgement.reason };
            let driver = drivers.note(&became, judgement.distance_km);
            let decision = self.decision(record, event, (judgement, driver), started);
            if let Decision { outcome: Ok(decided), evidence: signals, .. } = &decision {
                let UploadDecided { verdict, reason, detail, .. } = decided;
                let told = Told { verdict: *verdict, reason: *reason, detail: detail.as_deref(), signals };
                opened.add(event, told, decided.header.occurred_at);
            }
            decisions.push(decision);
        }
        state.store(tx).await?;
        opened.store(tx).await?;
        Ok(decisions)
    }

    fn give_up(&self, record: &Envelope<FraudInput>, _: &StageError) -> Option<Decision<UploadDecided>> {
        // Of a correction nothing is published that could be read as a verdict: it becomes a dead letter.
        let FraudInput::Read(event) = &record.payload else { return None };
        let fault = Some(processing_failed("the upload could not be decided, while others could"));
        let event = OdometerRead { fault, ..event.as_ref().clone() };
        let judgement = judge(&event, None, &self.rules);
        Some(self.decision(record, &event, (judgement, None), self.clock.now()))
    }
}

impl FraudCheck {
    fn decision(
        &self,
        record: &Envelope<FraudInput>,
        event: &OdometerRead,
        (judgement, driver): (Judgement, Option<DriverFacts>),
        started: Micros,
    ) -> Decision<UploadDecided> {
        let decided = event::decided((event, &record.position), &judgement, driver, self.clock.now());
        Decision {
            effect_id: Some(record.payload.effect()),
            rules_version: self.rules.version.to_owned(),
            reason: judgement.reason,
            logs: event::logs((record, event), &decided, self.rules.version, started),
            evidence: judgement.signals,
            outcome: Ok(decided),
        }
    }

    /// A correction that is refused is dropped: the decision before it stands.
    fn correction(
        &self,
        record: &Envelope<FraudInput>,
        event: &ReadingCorrected,
        corrected: Option<Corrected>,
    ) -> Decision<UploadDecided> {
        let refused = corrected.is_none().then_some(Reason::CorrectionRefused);
        let evidence =
            corrected.as_ref().map_or(json!(event.correction), |corrected| corrected.evidence.clone());
        let outcome = corrected.map(|corrected| event::corrected(event, corrected.decided, self.clock.now()));
        Decision {
            effect_id: Some(record.payload.effect()),
            rules_version: self.rules.version.to_owned(),
            reason: refused,
            evidence,
            logs: Vec::new(),
            outcome: outcome.ok_or(Reason::CorrectionRefused),
        }
    }
}

#[cfg(test)]
mod tests;
