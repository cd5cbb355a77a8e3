//! The sinks: what becomes of the topics in databases that people query. All of one shape: `config.rs` (settings and
//! the check at start), `service.rs` (talks to the server, and knows which errors pass), `sink.rs` (takes batches).
//!
//! A sink writes a batch whole or not at all, and writing it again changes nothing, so that a redelivery, a rebuild or two
//! owners of one partition leave the same rows.

pub mod analytics;
pub mod database;
pub mod mongo;
pub mod notices;
pub mod postgres;
pub mod rebuild;
