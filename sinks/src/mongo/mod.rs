//! The `mongo` sink: `activity.logs` become the documents of the log collections.

mod config;
mod document;
mod logs;
mod service;
mod sink;
pub use {config::MongoConfig, logs::MongoLogs, service::is_retryable, sink::MongoSink};
