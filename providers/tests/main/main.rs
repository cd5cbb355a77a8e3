//! Every client against a local server that speaks its service's protocol, and the cascade of them. No paid account is used.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cascade;
mod clients;
mod support;
