//! THE table: stage → what it reads → what it writes → how it is made. Read this first.

use runtime::{Engine, EngineError};
use schemas::topic::Topic::{
    self, ChainEvents, PayoutsUpdated, RewardsCalculated, RewardsGranted, UploadsDecided, UploadsGraded,
    UploadsReadings, UploadsReceived,
};

use crate::{
    chain_submission, fraud_check::FraudCheck, limit_check::LimitCheck, odometer_reading::OdometerReading,
    parts::Parts, quality_check::QualityCheck, reward_calculation::RewardCalculation,
};

/// How a stage treats what it must remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Remembers nothing that a decision needs.
    Pure,
    /// Decides under the fence, one Postgres transaction a batch.
    Deciding,
    /// Pays: a consumer that repeats do not harm, and a loop under a lease.
    Paying,
}

/// One stage.
#[derive(Clone, Copy, Debug)]
pub struct StageRow {
    /// File name, metric label, consumer group suffix.
    pub name: &'static str,
    /// How it is run.
    pub kind: Kind,
    /// What it consumes.
    pub inputs: &'static [Topic],
    /// What it publishes.
    pub output: Topic,
    /// What it does, in a line.
    pub meaning: &'static str,
}
use Kind::{Deciding, Paying, Pure};

/// Every stage, in the order in which an upload passes them.
#[rustfmt::skip]
pub const STAGES: &[StageRow] = &[
    StageRow { name: "quality_check",      kind: Pure,     inputs: &[UploadsReceived],   output: UploadsGraded,     meaning: "decodes the photo and measures its quality" },
    StageRow { name: "odometer_reading",   kind: Pure,     inputs: &[UploadsGraded],     output: UploadsReadings,   meaning: "reads the mileage, with all candidates" },
    StageRow { name: "fraud_check",        kind: Deciding, inputs: &[UploadsReadings],   output: UploadsDecided,    meaning: "decides whether to believe the reading" },
    StageRow { name: "reward_calculation", kind: Pure,     inputs: &[UploadsDecided],    output: RewardsCalculated, meaning: "works out what a verified distance earns" },
    StageRow { name: "limit_check",        kind: Deciding, inputs: &[RewardsCalculated], output: RewardsGranted,    meaning: "grants what the budgets of day, week and month hold" },
    StageRow { name: "chain_submission",   kind: Paying,   inputs: &[RewardsGranted, ChainEvents], output: PayoutsUpdated, meaning: "pays on VeChain and follows each payment to its end" },
];

/// Why a stage could not be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No row of the table has this name.
    #[error("there is no stage {0}: see `processors::pipeline::STAGES`")]
    UnknownStage(String),
    /// The embedded models do not load.
    #[error("the reader")]
    Reader(#[from] reading::ReaderError),
    /// Paying is not configured.
    #[error(
        "chain.genesis_id is empty: name the network to pay on, or run the stages without chain_submission"
    )]
    NoNetwork,
    /// The engine ended before it was told to.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Runs a stage until the engine is stopped.
///
/// # Errors
/// [`RunError`].
pub async fn run(stage: &str, engine: &Engine, parts: &Parts) -> Result<(), RunError> {
    match stage {
        "quality_check" => engine.run_processor(QualityCheck::new(parts)).await?,
        "odometer_reading" => {
            crate::models::announce(engine, parts).await?;
            engine.run_processor(OdometerReading::new(parts, parts.answers()).await?).await?
        }
        "fraud_check" => engine.run_decider(FraudCheck::new(parts), parts.pool.clone()).await?,
        "reward_calculation" => engine.run_processor(RewardCalculation::new(parts)).await?,
        "limit_check" => engine.run_decider(LimitCheck::new(parts), parts.pool.clone()).await?,
        "chain_submission" => chain_submission::run(engine, parts).await?,
        unknown => return Err(RunError::UnknownStage(unknown.to_owned())),
    }
    Ok(())
}
