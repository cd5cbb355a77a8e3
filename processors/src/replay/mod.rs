//! What would have become of a stretch of time: the stages' own code decides its uploads again, from the state that was recorded before
//! them, into a schema and topics of its own; what differs is reported. Nothing that is live is written.
//!
//! [`copy`] takes what was recorded of the drivers concerned, [`drive`] goes through it in order, [`report`] tells what differs.

pub mod copy;
pub mod drive;
mod items;
pub mod outcome;
pub mod pace;
pub mod promote;
pub mod publish;
pub mod report;
pub mod sheets;
pub mod spec;
pub mod tables;
#[cfg(test)]
mod tests;

use runtime::StageError;
use runtime::registry::RegistryError;
use runtime::snapshot::SnapshotError;
use runtime::window::WindowError;

/// Why a replay came to no end. What is done stays; started again under its name it goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The database, or a stage.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// What was recorded.
    #[error(transparent)]
    Window(#[from] WindowError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<sqlx::Error> for ReplayError {
    fn from(error: sqlx::Error) -> Self {
        Self::Stage(error.into())
    }
}

impl From<SnapshotError> for ReplayError {
    fn from(error: SnapshotError) -> Self {
        Self::Window(error.into())
    }
}
