//! The gateway: photos come in over HTTP, are kept durably, and go to Kafka as `uploads.received`; clients ask here what became of
//! them.
//!
//! `routes` is the table of routes: from a row follow dispatch, metrics and `/openapi.json`. A handler is an async function; what it
//! needs of the request and of the gateway are its arguments, which `http` reads in their order. `auth` says who asks, `login` makes
//! somebody who signs with a wallet one who may ask, `me` keeps what they have and prefer, `notices` shows what they were told,
//! `uploads` takes photos (its own page shows the way of one, file by file), `queries` serves the tables, `claims` takes what drivers
//! ask for, `reviews` what people decide, on the `page` made for it, and `chain` what the watcher of the chain reports. `live` is what
//! operators change meanwhile. `gateway` puts all of it together, [`serve`] serves it.

mod about;
mod accounts;
mod activity;
mod auth;
mod batches;
mod chain;
mod claims;
pub mod config;
pub mod erasure;
mod export;
mod gateway;
mod http;
mod live;
mod login;
mod me;
pub mod metrics;
mod notices;
mod ops;
mod outbox;
mod page;
mod proofs;
mod queries;
mod reviews;
mod routes;
mod schema_ids;
mod serve;
mod uploads;

pub use accounts::primary::replace_due as replace_wallets;
pub use accounts::{token, users, wallets};
pub use auth::{api_keys, keys};
pub use config::GatewayConfig;
pub use export::{Documents, PersonLogs};
pub use gateway::{Dependencies, Gateway};
pub use http::problem;
pub use keys::{KeySet, Role, SigningKey, TokenSigner};
pub use live::{LiveError, check as check_live_settings};
pub use outbox::OutboxError;
pub use reviews::{ExpireError, expire as expire_reviews};
pub use schema_ids::SchemaIds;
pub use serve::serve;
pub use uploads::check::{HeaderCheck, PhotoCheck};
pub use uploads::store;
pub use uploads::store::PhotoStore;

#[cfg(test)]
mod server_tests;
