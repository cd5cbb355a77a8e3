//! The `postgres` sink: `uploads.*` and `rewards.*` become the tables that state what is known of an upload.

mod config;
mod rebuild;
mod rewards;
mod rows;
mod score;
mod service;
mod sink;
pub use {config::*, rebuild::*, rows::BadValue, service::is_retryable, sink::*};
