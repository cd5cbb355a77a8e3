//! The watcher of a chain: follows a node's blocks by id and hands every step to the gateway, adopted and undone blocks alike, in
//! order and without a gap.
//!
//! It remembers nothing across a restart. The gateway keeps how far it has come, in the transaction that takes the steps, so that
//! the acknowledgement and the checkpoint are one: whatever dies between a post and its response, the next look asks and goes on
//! behind the last step that was taken. A second watcher is harmless: the slower one's steps do not fit any more, and it asks again.
//!
//! Nodes are looked at by polling. A block comes every 10 s, so a look every 2 s (the default of `watch.poll_ms`) finds it after
//! 1 s on average; a subscription would only wake the same look up.

mod balances;
mod batches;
pub mod blocks;
mod error;
mod gateway;
mod journal;
pub mod metrics;
mod retell;
mod source;
mod steps;
mod watcher;

#[cfg(test)]
mod tests;

pub use error::WatchError;
pub use gateway::{Gateway, GatewayError, HttpGateway};
pub use journal::Journal;
pub use source::{Chain, Rewind, Settings, Source, SourceError, Watching};
pub use steps::{Watched, chain_step};
pub use watcher::{Known, Watcher, WatcherConfig};
