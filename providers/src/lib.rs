//! Reading services: clients of those outside, and the cascade in which they are called.
//!
//! [`Cascade::read`] asks the services of `ai_service_configs` in their order until one answers at its threshold. The embedded
//! reader is one of them. Whatever a service answers goes through the selector of [`reading`], and what it claims of its own
//! confidence is cut to what [`trust`] allows. Knows no Kafka and no database; the clock is passed in.

mod attempt;
mod call;
mod cascade;
mod config;
mod error;
mod google;
mod guard;
mod openai;
mod rekognition;
mod remote;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trust;
pub mod vault;

pub use attempt::{Attempt, Failure};
pub use call::Sent;
pub use cascade::{Cascade, Found, Now, Photo};
pub use config::{ConfigError, Credentials, Limits, Protocol, ServiceConfig};
pub use error::CallError;
