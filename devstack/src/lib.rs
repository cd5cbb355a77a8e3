//! The local parts: real Apache Kafka, a Confluent-compatible registry, PostgreSQL, a MongoDB server, Prometheus and, where
//! it is asked for, a Thor node, for `./dev up` and for every test that needs them. Blocking; knows nothing of the pipeline.
//!
//! Each part can be replaced by a URL from the environment ([`Part::variable`]). Nothing outlives its owner, not even after
//! `kill -9` of the owner: every part runs under a shell that holds a pipe to the owner and kills the part when the pipe
//! closes. more in `devstack/README.md`.

mod client;
mod error;
mod fetch;
mod foreground;
mod genesis;
mod launch;
mod part;
mod ports;
mod postgres;
mod process;
mod progress;
mod prometheus;
mod ready;
mod run_folder;
mod stack;

pub use client::FetchError;
pub use error::StackError;
pub use foreground::run_in_foreground;
pub use part::Part;
pub use ports::free as free_port;
pub use process::Supervised;
pub use stack::Stack;

/// What a test of pages needs, fetched once into `parts` below `root`: the script of axe-core, one file.
///
/// # Errors
/// [`FetchError`]: the package client failed, or what came is not what is pinned.
pub fn axe(root: &std::path::Path) -> Result<std::path::PathBuf, FetchError> {
    let (progress, _report) = progress::reported();
    fetch::Parts::at(root.join("parts"), progress).axe()
}

/// What a test of the HTTP interface needs, fetched once into `parts` below `root`: the folder of Python packages with schemathesis.
///
/// # Errors
/// As [`axe`].
pub fn schemathesis(root: &std::path::Path) -> Result<std::path::PathBuf, FetchError> {
    let (progress, _report) = progress::reported();
    fetch::Parts::at(root.join("parts"), progress).schemathesis()
}
