//! The local parts: real Apache Kafka, a Confluent-compatible registry, PostgreSQL and a MongoDB server, for `./dev up`
//! and for every test that needs them. Blocking; knows nothing of the pipeline.
//!
//! Each part can be replaced by a URL from the environment. Nothing outlives its owner, not even after `kill -9` of the
//! owner: every part runs under a shell that holds a pipe to the owner and kills the part when the pipe closes.

mod fetch;
mod process;
mod stack;

pub use fetch::FetchError;
pub use process::Supervised;
pub use stack::{Part, Stack, StackError};
