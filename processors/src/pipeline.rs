//! What a row of the table of [stages](crate::STAGES) is, and how a stage is run by its name.

use std::future::Future;

use runtime::{Decided, Decider, Processor, Sink};
use schemas::events::{Event, PayoutUpdated};
use schemas::topic::Topic;

pub use crate::dependencies::{Dependencies, RunError};
pub use crate::{STAGES, run, visit_pure};

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
    pub(crate) const fn pure<P: Processor>(meaning: &'static str) -> Self {
        let inputs = const { &[P::In::TOPIC] };
        Self { name: P::NAME, kind: Kind::Pure, inputs, output: P::Out::TOPIC, meaning }
    }

    pub(crate) const fn deciding<D: Decider>(meaning: &'static str) -> Self {
        let inputs = const { &[D::In::READS] };
        Self { name: D::NAME, kind: Kind::Deciding, inputs, output: D::Out::TOPIC, meaning }
    }

    pub(crate) const fn paying<S: Sink>(meaning: &'static str) -> Self {
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

/// Makes [`STAGES`] of its rows, and what goes through them by name. A row names kind and type, what the stage does, how it is made, and
/// what comes before its first record; the rest follows from the type.
macro_rules! stages {
    ($($kind:ident $stage:ty, $meaning:literal, |$with:ident| $make:expr $(, first $a:ident.$before:ident)?;)*) => {
        /// Every stage, in the order in which an upload passes them.
        pub const STAGES: &[$crate::pipeline::StageRow] = &[$($crate::pipeline::StageRow::$kind::<$stage>($meaning)),*];

        /// Runs a stage until the engine is stopped.
        ///
        /// # Errors
        /// [`RunError`](crate::dependencies::RunError).
        pub async fn run(
            stage: &str,
            engine: &::runtime::Engine,
            dependencies: &$crate::dependencies::Dependencies,
        ) -> Result<(), $crate::dependencies::RunError> {
            $(if stage == $crate::pipeline::StageRow::$kind::<$stage>($meaning).name {
                let $with = dependencies;
                $($with.$before(engine).await?;)?
                $crate::pipeline::run_stage!($kind, engine, $with, $make);
                return Ok(());
            })*
            Err($crate::dependencies::RunError::UnknownStage(stage.to_owned()))
        }

        /// Makes the pure stage of this name and hands it to `visitor`: for what is done with any of them without an engine.
        ///
        /// # Errors
        /// [`RunError`](crate::dependencies::RunError), also where no pure stage has this name.
        pub async fn visit_pure<V: $crate::pipeline::PureVisitor>(
            stage: &str,
            dependencies: &$crate::dependencies::Dependencies,
            visitor: V,
        ) -> Result<V::Output, $crate::dependencies::RunError> {
            $($crate::pipeline::visit_stage!($kind, $stage, stage, dependencies, visitor, |$with| $make);)*
            Err($crate::dependencies::RunError::UnknownStage(stage.to_owned()))
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
        if $name == <$stage as ::runtime::Processor>::NAME {
            let $with = $dependencies;
            return Ok($visitor.visit($make).await);
        }
    };
    ($other:ident, $stage:ty, $name:ident, $dependencies:ident, $visitor:ident, |$with:ident| $make:expr) => {};
}

pub(crate) use {run_stage, stages, visit_stage};
