//! `reward_calculation`: what a verified upload earns by the [`tariff`] in force when it was accepted.

pub mod bonus;
mod document;
pub mod tariff;

use std::sync::Arc;

use runtime::{Clock, Envelope, Processor, StageError, Verdict};
use schemas::events::{RewardCalculated, Root, UploadDecided, Verdict as Decided};
use schemas::reason::Reason;

use self::bonus::Known;
use crate::reward_rules::RuleSource;

/// Works rewards out.
pub struct RewardCalculation {
    clock: Arc<dyn Clock>,
    rules: Arc<RuleSource>,
}

impl RewardCalculation {
    /// By these rules. The clock stamps `occurred_at` and is no input of a reward.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, rules: Arc<RuleSource>) -> Self {
        Self { clock, rules }
    }
}

impl Processor for RewardCalculation {
    const NAME: &'static str = "reward_calculation";
    type In = UploadDecided;
    type Out = RewardCalculated;

    async fn process(&self, record: &Envelope<Self::In>) -> Result<Verdict<Self::Out>, StageError> {
        let (started, event) = (self.clock.now(), &record.payload);
        if event.verdict != Decided::Verified {
            return Ok(Verdict::Drop(Reason::NotVerified));
        }
        if event.correction.is_some() {
            // The decision before it has earned what there was to earn, and a correction takes no second reward out of it.
            return Ok(Verdict::Drop(Reason::NoDistance));
        }
        let book = self.rules.current().await?;
        let tariff = &book.in_force(event.header.accepted_at).tariff;
        let Some(earned) = event.distance_km.and_then(|km| tariff.earned(km, &Known::of(event))) else {
            return Ok(Verdict::Reject(Reason::BadDatum));
        };
        let root = Root { partition: record.position.partition, offset: record.position.offset };
        let header = event.header.next(Self::NAME, crate::VERSION, self.clock.now(), root);
        let documents = document::documents(&header, &event.stamp, tariff, &earned, started);
        if earned.total().is_zero() {
            return Ok(Verdict::DropWith(Reason::NoDistance, documents));
        }
        Ok(Verdict::EmitWith(earned.into_event(header, event.stamp.clone(), tariff), documents))
    }
}

#[cfg(test)]
mod tests;
