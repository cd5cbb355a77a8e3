//! Integration tests on real parts: start them with `devstack cargo test -p sinks --test main`.

#![allow(clippy::unwrap_used, reason = "in a test a part that does not answer is a failure")]

mod data_map;
mod mongo;
mod postgres;
mod rebuild;
mod stories;
mod support;
