//! The parts of the stack, by name.

use std::fmt;

/// A part of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Apache Kafka, one broker, KRaft.
    Kafka,
    /// Apicurio with its Confluent-compatible interface, stored in PostgreSQL.
    Registry,
    /// PostgreSQL.
    Postgres,
    /// A MongoDB server.
    Mongodb,
    /// Prometheus.
    Prometheus,
    /// A VeChain Thor node that is its whole network (`thor solo`).
    Thor,
}

impl Part {
    /// Every part, in the order of their errors: one that needs another comes after it.
    pub const ALL: [Self; 6] =
        [Self::Postgres, Self::Mongodb, Self::Kafka, Self::Registry, Self::Prometheus, Self::Thor];

    /// What [`Stack::start`](crate::Stack::start) starts. Thor is for those who ask for it: building it takes two processor minutes.
    pub const USUAL: [Self; 5] =
        [Self::Postgres, Self::Mongodb, Self::Kafka, Self::Registry, Self::Prometheus];

    /// Its short name: that of its log, and what `devstack --with` takes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Registry => "registry",
            Self::Postgres => "postgres",
            Self::Mongodb => "mongodb",
            Self::Prometheus => "prometheus",
            Self::Thor => "thor",
        }
    }

    /// The environment variable that replaces it by a server that runs elsewhere.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Self::Kafka => "KAFKA_BROKERS",
            Self::Registry => "SCHEMA_REGISTRY_URL",
            Self::Postgres => "DATABASE_URL",
            Self::Mongodb => "MONGODB_URI",
            Self::Prometheus => "PROMETHEUS_URL",
            Self::Thor => "THOR_URL",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Kafka => "Apache Kafka",
            Self::Registry => "the schema registry",
            Self::Postgres => "PostgreSQL",
            Self::Mongodb => "the MongoDB server",
            Self::Prometheus => "Prometheus",
            Self::Thor => "the Thor node",
        })
    }
}
