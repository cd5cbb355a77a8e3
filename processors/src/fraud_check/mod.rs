//! `fraud_check`: the one place where an upload is decided. [`judge`](judge::judge) is the decision, the rest carries
//! vehicles in and decisions out.

pub mod drivers;
mod event;
pub mod facts;
pub mod judge;
pub mod neighbours;
pub mod oracle;
mod reviews;
pub mod rules;
mod signals;
pub mod state;

use std::sync::Arc;

use runtime::{Clock, Decider, Decision, Envelope, StageError};
use schemas::events::{DriverFacts, OdometerRead, UploadDecided};
use schemas::ids::Micros;
use sqlx::PgConnection;

use self::drivers::Drivers;
use self::judge::{Judgement, judge};
use self::reviews::Opened;
use self::rules::Rules;
use self::state::{Vehicles, key_of};
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
    type In = OdometerRead;
    type Out = UploadDecided;

    fn effect_of(&self, event: &OdometerRead) -> Option<String> {
        // One verdict, and where that was doubt, one of a person.
        let effect = if event.review.is_some() { "review" } else { "verdict" };
        Some(format!("{effect}:{}", event.header.upload_id))
    }

    async fn decide(
        &self,
        tx: &mut PgConnection,
        batch: &[Envelope<OdometerRead>],
    ) -> Result<Vec<Decision<UploadDecided>>, StageError> {
        let keys = batch.iter().map(|record| key_of(&record.payload)).collect();
        let mut vehicles = Vehicles::load(tx, &keys).await?;
        let users = batch.iter().map(|record| record.payload.header.user_id).collect();
        let mut drivers = Drivers::load(tx, &users).await?;
        let (mut decisions, mut opened) = (Vec::with_capacity(batch.len()), Opened::default());
        for record in batch {
            let (started, key) = (self.clock.now(), key_of(&record.payload));
            let mut judgement = judge(&record.payload, vehicles.get(&key), &self.rules);
            if let Some(next) = judgement.next_state.take() {
                vehicles.set(key, next);
            }
            opened.add(&record.payload, &judgement, started);
            let driver = drivers.note(&record.payload.header, &judgement);
            decisions.push(self.decision(record, judgement, driver, started));
        }
        vehicles.store(tx).await?;
        drivers.store(tx).await?;
        opened.store(tx).await?;
        Ok(decisions)
    }

    fn give_up(&self, record: &Envelope<OdometerRead>, _: &StageError) -> Option<Decision<UploadDecided>> {
        let mut record = record.clone();
        record.payload.fault = Some(processing_failed("the upload could not be decided, while others could"));
        let judgement = judge(&record.payload, None, &self.rules);
        Some(self.decision(&record, judgement, None, self.clock.now()))
    }
}

impl FraudCheck {
    fn decision(
        &self,
        record: &Envelope<OdometerRead>,
        judgement: Judgement,
        driver: Option<DriverFacts>,
        started: Micros,
    ) -> Decision<UploadDecided> {
        let decided = event::decided(record, &judgement, driver, self.clock.now());
        Decision {
            effect_id: self.effect_of(&record.payload),
            rules_version: self.rules.version.to_owned(),
            reason: judgement.reason,
            logs: event::logs(record, &decided, self.rules.version, started),
            evidence: judgement.signals,
            outcome: Ok(decided),
        }
    }
}

#[cfg(test)]
mod tests;
