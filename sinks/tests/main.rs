//! Integration tests on real parts: start them with `devstack cargo test -p sinks --test main`.

#![allow(clippy::unwrap_used, reason = "in a test a part that does not respond is a failure")]

mod analytics;
mod analytics_oracle;
mod analytics_rebuild;
mod analytics_stories;
mod balances;
mod data_map;
mod erased;
mod logs;
mod migrations;
mod model_hours;
mod models;
mod mongo;
mod notices;
mod payments;
mod payouts;
mod payouts_at_once;
mod plans;
mod postgres;
mod rebuild;
mod services;
mod stories;
mod support;
mod topics;
