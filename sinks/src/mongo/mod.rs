//! The `mongo` sink: `activity.logs` become the documents of the log collections.

mod config;
mod document;
mod findings;
mod logs;
mod service;
mod sink;
pub use {
    config::MongoConfig,
    findings::{Finding, ResolutionError},
    logs::MongoLogs,
    service::is_retryable,
    sink::MongoSink,
};
