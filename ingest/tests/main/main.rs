//! The gateway on a real Postgres, over real sockets, with Kafka in memory. Reads `DATABASE_URL`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail the test that calls them")]

mod account;
mod api_keys;
mod appeals;
mod bad_input;
mod chain;
mod claims;
mod contract_wallets;
mod development;
mod email;
mod half_open;
mod kafka;
mod limits;
mod live;
mod logins;
mod notices;
mod origins;
mod page;
mod privacy;
mod proofs;
mod queue;
mod recovery;
mod registered;
mod reviews;
mod rewards;
mod roles;
mod signing_in;
mod statements;
mod support;
mod timers;
mod together;
mod tokens;
mod transfers;
mod uploads;
mod wallet_changes;
mod wallets;
