//! The `mongo` sink: `activity.logs` become the documents of the log collections.

mod config;
mod document;
mod service;
mod sink;
pub use {config::MongoConfig, service::is_retryable, sink::MongoSink};
