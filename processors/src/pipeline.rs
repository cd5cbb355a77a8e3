//! THE table: stage → what it reads → what it writes → how it is made. Read this first.

use std::future::Future;

use runtime::{Decider, Engine, Processor, Sink};
use schemas::events::{Event, PayoutUpdated};
use schemas::topic::Topic;

use crate::chain_submission::consumer::PayoutConsumer;
pub use crate::dependencies::{Dependencies, RunError};
use crate::fraud_check::FraudCheck;
use crate::limit_check::LimitCheck;
use crate::odometer_reading::{OdometerReading, PostgresAnswers};
use crate::quality_check::QualityCheck;
use crate::reward_calculation::RewardCalculation;

/// How a stage treats what it must remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Remembers nothing that a decision needs.
    Pure,
    /// Decides under the fence, one Postgres transaction per batch.
    Deciding,
    /// Pays: a consumer that repeats do not harm, and a loop under a lease.
    Paying,
}

impl Kind {
    /// The word in tables.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pure => "pure",
            Self::Deciding => "deciding",
            Self::Paying => "paying",
        }
    }
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

impl StageRow {
    const fn pure<P: Processor>(meaning: &'static str) -> Self {
        let inputs = const { &[P::In::TOPIC] };
        Self { name: P::NAME, kind: Kind::Pure, inputs, output: P::Out::TOPIC, meaning }
    }

    const fn deciding<D: Decider>(meaning: &'static str) -> Self {
        let inputs = const { &[D::In::TOPIC] };
        Self { name: D::NAME, kind: Kind::Deciding, inputs, output: D::Out::TOPIC, meaning }
    }

    const fn paying<S: Sink>(meaning: &'static str) -> Self {
        Self { name: S::NAME, kind: Kind::Paying, inputs: S::TOPICS, output: PayoutUpdated::TOPIC, meaning }
    }
}

/// What is done with a pure stage of any type.
pub trait PureVisitor {
    /// What comes of it.
    type Output;
    /// Does it.
    fn visit<P: Processor>(self, stage: P) -> impl Future<Output = Self::Output>;
}

/// Makes [`STAGES`] and what goes through them by name.
macro_rules! stages {
    ($($kind:ident $stage:ty, $meaning:literal, |$with:ident| $make:expr $(, first $a:ident.$before:ident)?;)*) => {
        /// Every stage, in the order in which an upload passes them.
        pub const STAGES: &[StageRow] = &[$(StageRow::$kind::<$stage>($meaning)),*];

        /// Runs a stage until the engine is stopped.
        ///
        /// # Errors
        /// [`RunError`].
        pub async fn run(stage: &str, engine: &Engine, dependencies: &Dependencies) -> Result<(), RunError> {
            $(if stage == StageRow::$kind::<$stage>($meaning).name {
                let $with = dependencies;
                $($with.$before(engine).await?;)?
                run_stage!($kind, engine, $with, $make);
                return Ok(());
            })*
            Err(RunError::UnknownStage(stage.to_owned()))
        }

        /// Makes the pure stage of this name and hands it to `visitor`: for what is done with any of them without an engine.
        ///
        /// # Errors
        /// [`RunError`], also where no pure stage has this name.
        pub async fn visit_pure<V: PureVisitor>(
            stage: &str,
            dependencies: &Dependencies,
            visitor: V,
        ) -> Result<V::Output, RunError> {
            $(visit_stage!($kind, $stage, stage, dependencies, visitor, |$with| $make);)*
            Err(RunError::UnknownStage(stage.to_owned()))
        }
    };
}

macro_rules! run_stage {
    (pure, $engine:ident, $with:ident, $make:expr) => {
        $engine.run_processor($make).await?
    };
    (deciding, $engine:ident, $with:ident, $make:expr) => {
        $engine.run_decider($make, $with.pool.clone()).await?
    };
    (paying, $engine:ident, $with:ident, $make:expr) => {
        $make.run($engine).await?
    };
}

macro_rules! visit_stage {
    (pure, $stage:ty, $name:ident, $dependencies:ident, $visitor:ident, |$with:ident| $make:expr) => {
        if $name == <$stage as Processor>::NAME {
            let $with = $dependencies;
            return Ok($visitor.visit($make).await);
        }
    };
    ($other:ident, $stage:ty, $name:ident, $dependencies:ident, $visitor:ident, |$with:ident| $make:expr) => {};
}

// Kind and type, what it does, how it is made, and what comes before its first record; the rest of a row follows from the type.
stages! {
    pure     QualityCheck, "decodes the photo and measures its quality", |with| with.quality_check();
    pure     OdometerReading<PostgresAnswers>, "reads the mileage, with all candidates", |with| with.odometer_reading().await?, first with.announce_models;
    deciding FraudCheck, "decides whether to believe the reading", |with| with.fraud_check();
    pure     RewardCalculation, "works out what a verified distance earns", |with| with.reward_calculation();
    deciding LimitCheck, "grants what the budgets of day, week and month hold", |with| with.limit_check();
    paying   PayoutConsumer, "pays on VeChain and follows each payment to its end", |with| with.chain_submission()?;
}
