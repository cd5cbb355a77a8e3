//! `topics apply`: creates topics and registers schemas, idempotently; refuses what would break readers or order.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use schemas::events::registry_subjects;
use schemas::topic::{Topic, TopicSpec};

use crate::registry::{Registry, RegistryError, subject};

/// Longest wait for the cluster's controller.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between two looks at topics that were just made.
const SETTLE: Duration = Duration::from_millis(100);

/// Why topics were not applied.
#[derive(Debug, thiserror::Error)]
pub enum TopicsError {
    /// Kafka does not do it.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// Kafka refuses one topic.
    #[error("topic {topic}: {code}")]
    Refused {
        /// The topic.
        topic: String,
        /// Kafka's code.
        code: RDKafkaErrorCode,
    },
    /// The partition count differs from the specification.
    #[error(
        "topic {topic} has {found} partitions, its specification says {expected}. Keys would move to other partitions and the order per user would break: recreate the topic, or put the specification right"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// As specified.
        expected: i32,
        /// In the cluster.
        found: i32,
    },
    /// A topic is missing (check only).
    #[error("topic {0} does not exist: run `milestream topics apply`")]
    Missing(String),
    /// The registry refuses a schema.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A built-in specification does not parse.
    #[error("specification: {0}")]
    Specification(String),
}

/// Creates missing topics, checks the others, and registers every schema.
///
/// # Errors
/// [`TopicsError`]; what was done before stays done, and a second run goes on.
pub async fn apply(
    kafka: &ClientConfig,
    registry: &Registry,
    prefix: &str,
    replication: i32,
) -> Result<(), TopicsError> {
    let admin: AdminClient<DefaultClientContext> = kafka.create()?;
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
    for (name, spec) in specifications(prefix)? {
        let retention = spec.retention_ms.to_string();
        let topic = NewTopic::new(&name, spec.partitions, TopicReplication::Fixed(replication))
            .set("cleanup.policy", &spec.cleanup_policy)
            .set("retention.ms", &retention);
        for result in admin.create_topics([&topic], &options).await? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => return Err(TopicsError::Refused { topic, code }),
            }
        }
    }
    for (topic, record, text) in registry_subjects() {
        let subject = subject(prefix, topic, record);
        let rule = topic.spec().map_err(|error| TopicsError::Specification(error.to_string()))?.compatibility;
        registry.set_compatibility(&subject, &rule).await?;
        registry.register(&subject, text).await?;
    }
    let (kafka, prefix) = (kafka.clone(), prefix.to_owned());
    let checked = tokio::task::spawn_blocking(move || check_created(&kafka, &prefix)).await;
    checked.map_err(|error| TopicsError::Specification(error.to_string()))?
}

/// [`check`] behind the creation: for a moment a broker may still answer with what it knew before.
fn check_created(kafka: &ClientConfig, prefix: &str) -> Result<(), TopicsError> {
    let until = Instant::now() + TIMEOUT;
    loop {
        match check(kafka, prefix) {
            Err(TopicsError::Missing(_)) if Instant::now() < until => std::thread::sleep(SETTLE),
            checked => return checked,
        }
    }
}

/// Holds the cluster's partition counts against the specification. Blocks.
///
/// # Errors
/// [`TopicsError::PartitionCount`] and [`TopicsError::Missing`].
pub fn check(kafka: &ClientConfig, prefix: &str) -> Result<(), TopicsError> {
    let admin: AdminClient<DefaultClientContext> = kafka.create()?;
    let metadata = admin.inner().fetch_metadata(None, TIMEOUT)?;
    for (name, spec) in specifications(prefix)? {
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let found = topic.map_or(0, |topic| i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX));
        if found == 0 {
            return Err(TopicsError::Missing(name));
        }
        if found != spec.partitions {
            return Err(TopicsError::PartitionCount { topic: name, expected: spec.partitions, found });
        }
    }
    Ok(())
}

fn specifications(prefix: &str) -> Result<Vec<(String, TopicSpec)>, TopicsError> {
    Topic::ALL
        .iter()
        .map(|topic| {
            let spec = topic.spec().map_err(|error| TopicsError::Specification(error.to_string()))?;
            Ok((format!("{prefix}{}", spec.name), spec))
        })
        .collect()
}
