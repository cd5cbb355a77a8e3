//! Dashboard, alerts and compose file against the real Prometheus, PostgreSQL, promtool and binary. The parts are this
//! test's own, fetched by `devstack`; nothing comes from the environment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test a part that does not respond is a failure"
)]

mod alerts;
mod compose;
mod dashboards;
mod exporter;

use std::path::{Path, PathBuf};

/// The top of the repository.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}
