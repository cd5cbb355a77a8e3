//! The stages between the accepted photo and the granted reward. [`pipeline`] is the table of all of them; each stage is one
//! file or folder under its name.
//!
//! A stage says what it makes of an event and nothing else: consuming, publishing, retrying, counting and committing are
//! `runtime`'s. Knows no HTTP and no sink.

pub mod chain_submission;
pub mod dependencies;
mod documents;
pub mod fraud_check;
pub mod limit_check;
pub mod models;
pub mod odometer_reading;
mod photos;
pub mod pipeline;
pub mod quality_check;
pub mod reward_calculation;
mod workers;

/// The old name of [`dependencies`], until its last user has the new one.
pub mod parts {
    pub use crate::dependencies::Dependencies as Parts;
    pub use crate::models::SERVICE;
}

/// This release, as it stands in every event and document.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
