//! The stages between the accepted photo and the paid reward. [`STAGES`], below, is the table of all of them; each stage is one file or
//! folder under its name.
//!
//! A stage says what it makes of an event and nothing else: consuming, publishing, retrying, counting and committing are
//! `runtime`'s. Knows no HTTP and no sink.

pub mod chain_submission;
pub mod dependencies;
mod documents;
#[cfg(test)]
mod examples;
pub mod fraud_check;
#[cfg(test)]
mod histories;
pub mod limit_check;
pub mod models;
pub mod odometer_reading;
mod photos;
pub mod pipeline;
#[cfg(test)]
mod properties;
pub mod quality_check;
pub mod replay;
pub mod reward_calculation;
pub mod reward_rules;
mod workers;

use crate::chain_submission::consume::PayoutConsumer;
use crate::fraud_check::FraudCheck;
use crate::limit_check::LimitCheck;
use crate::odometer_reading::{OdometerReading, PostgresAnswers};
use crate::quality_check::QualityCheck;
use crate::reward_calculation::RewardCalculation;

pipeline::stages! {
    pure     QualityCheck, "decodes the photo and measures its quality", |with| with.quality_check();
    pure     OdometerReading<PostgresAnswers>, "reads the mileage, with all candidates", |with| with.odometer_reading().await?, first with.announce_models;
    deciding FraudCheck, "decides whether to believe the reading", |with| with.fraud_check();
    pure     RewardCalculation, "works out what a verified distance earns", |with| with.reward_calculation();
    deciding LimitCheck, "grants what the budgets of day, week and month hold", |with| with.limit_check();
    paying   PayoutConsumer, "pays on VeChain and follows each payment to its end", |with| with.chain_submission()?;
}

/// This release, as it stands in every event and document.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
