//! The gateway: photos come in over HTTP, are kept durably, and go to Kafka as `uploads.received`; what became of them goes
//! out again.
//!
//! An upload's way, file by file: [`server`] accepts the connection and cuts slow ones; `routes` finds the handler; `gateway`
//! admits the caller (rates, token, account); `body` and `form` stream the multipart body; [`store`] hashes and keeps the
//! photo; [`check`] looks at its bytes; `reserve` decides in one transaction what the event says; `publish` sends it and lets
//! the sweeper send what a crash left behind; `accept` ties them together. `status`, `list`, `rewards` and `live` answer
//! questions; `claims` takes what drivers ask for, `batch` and `chain_events` what the watcher of the chain tells.

#![allow(clippy::result_large_err, reason = "an ApiError is made once a request and never on a hot path")]

mod accept;
mod activity;
mod batch;
mod body;
mod chain_events;
pub mod check;
mod claims;
pub mod config;
pub mod error;
mod fields;
mod form;
pub mod gateway;
pub mod keys;
mod list;
mod live;
pub mod metrics;
pub mod openapi;
mod outbox;
mod payout;
mod publish;
mod rate;
mod reserve;
mod rewards;
mod routes;
pub mod server;
mod stall;
mod status;
pub mod store;
pub mod token;
pub mod wallets;

pub use check::{HeaderCheck, PhotoCheck};
pub use config::GatewayConfig;
pub use gateway::{Gateway, Parts};
pub use keys::{KeySet, Role, SigningKey};
pub use routes::ROUTES;
pub use server::serve;
pub use store::PhotoStore;

#[cfg(test)]
mod server_tests;
