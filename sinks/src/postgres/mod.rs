//! The `postgres` sink: `uploads.*` become the tables that state what is known of an upload.

mod config;
mod rebuild;
mod rows;
mod score;
mod service;
mod sink;
pub use {config::*, rebuild::*, rows::BadValue, service::is_retryable, sink::*};
