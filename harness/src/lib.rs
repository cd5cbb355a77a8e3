//! The whole system on one machine: the local parts and one process a role, driven over HTTP as a client would.
//!
//! `./dev up`, the fault test and the benches stand on it. Blocking where processes are concerned, like [`devstack`];
//! knows the binary by its command line only, as an orchestrator does.

pub mod books_bench;
pub mod client;
pub mod decide_bench;
pub mod deployment;
pub mod dice;
pub mod flow_bench;
pub mod gateway_bench;
pub mod idle_bench;
pub mod local_chain;
pub mod login_bench;
pub mod measure;
pub mod memory_bench;
pub mod memory_soak;
pub mod payments;
pub mod payout_bench;
pub mod photos;
pub mod progress;
pub mod reading_bench;
pub mod rebuild_bench;
pub mod relay;
pub mod runtime_bench;
pub mod sample_wallets;
pub mod scenario;
pub mod sign_in;
pub mod table;
pub mod topics;
pub mod varied;

pub use client::{Client, Posted, UploadView};
pub use deployment::{Deployment, DeploymentConfig, RoleSpec};
