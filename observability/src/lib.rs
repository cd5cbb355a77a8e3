//! What watches the pipeline, held to what it watches: the Grafana dashboard, Prometheus's rules and the compose file are
//! read here, and no name in them that the code does not have passes.
//!
//! The library reads dashboards and PromQL; everything else is in the tests.

pub mod dashboard;
pub mod lint;
pub mod promql;
pub mod variables;

pub use dashboard::{Dashboard, Query};
