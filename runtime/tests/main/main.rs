//! Topics and schemas on a real broker, registry and database.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod planner;
mod topics;
mod versions;

use rdkafka::config::ClientConfig;
use runtime::registry::{Registry, RegistryConfig};
use uuid::Uuid;

fn address(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run under `devstack`"))
}

fn kafka() -> ClientConfig {
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", address("KAFKA_BROKERS"));
    kafka
}

fn registry() -> Registry {
    Registry::new(&RegistryConfig::open(&address("SCHEMA_REGISTRY_URL"))).unwrap()
}

fn unique_prefix() -> String {
    format!("runtime-{}.", Uuid::now_v7().simple())
}
