//! `topics apply`: creates topics, makes existing ones as they are specified, and registers schemas, idempotently; refuses what
//! would break readers or order.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use schemas::events::registry_subjects;
use schemas::topic::Topic;

use crate::registry::{Registry, RegistryError, subject};

/// Longest wait for the cluster's controller.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A day.
const DAY_MS: i64 = 86_400_000;
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
    /// The partition count differs from the deployment's.
    #[error(
        "topic {topic} has {found} partitions, and kafka.partitions asks for {expected}. Keys would move to other partitions and the order per user would break: put the setting right, or recreate the topic"
    )]
    PartitionCount {
        /// The topic.
        topic: String,
        /// As configured.
        expected: i32,
        /// In the cluster.
        found: i32,
    },
    /// A partition has another number of replicas.
    #[error(
        "topic {topic} has {found} replicas per partition, and kafka.replication asks for {expected}: move the partitions with kafka-reassign-partitions.sh, or put the setting right"
    )]
    Replication {
        /// The topic.
        topic: String,
        /// As configured.
        expected: i32,
        /// In the cluster: of the partition that has fewest.
        found: i32,
    },
    /// A topic is missing (check only).
    #[error("topic {0} does not exist: run `milestream topics apply`")]
    Missing(String),
    /// Settings differ (check only).
    #[error("{}\nrun `milestream topics apply`", lines(.0))]
    Different(Vec<Difference>),
    /// The registry refuses a schema.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The thread that asks the cluster died.
    #[error("thread")]
    Thread(#[from] tokio::task::JoinError),
}

fn lines(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join("\n")
}

/// A setting of a topic that is not as specified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// Kafka's name of the setting.
    pub setting: &'static str,
    /// What it is in the cluster.
    pub found: String,
    /// What it should be.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, setting, found, wanted } = self;
        write!(f, "topic {topic}: {setting} is {found}, specified is {wanted}")
    }
}

/// How a deployment lays out its topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// In front of every topic name.
    pub prefix: String,
    /// Partitions of every topic whose specification names no number of its own. Chosen once per deployment.
    pub partitions: i32,
    /// Copies of each record. Of three, two must have a record before it counts as written.
    pub replication: i32,
}

impl Layout {
    /// Four partitions on one broker.
    #[must_use]
    pub fn local(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), partitions: 4, replication: 1 }
    }

    fn specifications(&self) -> Vec<Specification> {
        Topic::ALL.iter().map(|topic| self.specification(*topic)).collect()
    }

    pub(crate) fn specification(&self, topic: Topic) -> Specification {
        let spec = topic.spec();
        Specification {
            name: format!("{}{}", self.prefix, topic.name()),
            partitions: spec.partitions.unwrap_or(self.partitions),
            replication: self.replication,
            settings: [
                ("cleanup.policy", spec.cleanup_policy.to_owned()),
                // All but one: a broker may be away, and what was acknowledged is on another one still.
                ("min.insync.replicas", (self.replication - 1).max(1).to_string()),
                ("retention.ms", spec.retention_ms.to_string()),
            ]
            .into_iter()
            .chain(segments(spec.retention_ms))
            .collect(),
        }
    }
}

/// Of a topic whose records are kept for a time: Kafka takes away whole files, and begins a new one after a week of its own accord, so
/// that a quiet topic would keep a record twice as long as it says.
fn segments(retention_ms: i64) -> Option<(&'static str, String)> {
    (retention_ms > DAY_MS).then(|| ("segment.ms", DAY_MS.to_string()))
}

/// A topic as it should be.
pub(crate) struct Specification {
    pub(crate) name: String,
    partitions: i32,
    replication: i32,
    settings: Vec<(&'static str, String)>,
}

pub(crate) type Admin = AdminClient<DefaultClientContext>;

pub(crate) fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

/// Creates missing topics, makes the settings of the others as specified, and registers every schema. Returns what differed
/// and was set.
///
/// # Errors
/// [`TopicsError`]; what was done before stays done, and a second run goes on.
pub async fn apply(
    kafka: &ClientConfig,
    registry: &Registry,
    layout: &Layout,
) -> Result<Vec<Difference>, TopicsError> {
    let admin: Admin = kafka.create()?;
    let specifications = layout.specifications();
    for specification in &specifications {
        create(&admin, specification).await?;
    }
    wait_created(kafka, layout).await?;
    let mut set = Vec::new();
    for specification in &specifications {
        set.extend(make_as_specified(&admin, specification).await?);
    }
    for (topic, record, text) in registry_subjects() {
        let subject = subject(&layout.prefix, topic, record);
        registry.set_compatibility(&subject, topic.spec().compatibility).await?;
        registry.register(&subject, text).await?;
    }
    Ok(set)
}

pub(crate) async fn create(admin: &Admin, specification: &Specification) -> Result<(), TopicsError> {
    let replication = TopicReplication::Fixed(specification.replication);
    let mut topic = NewTopic::new(&specification.name, specification.partitions, replication);
    for (name, value) in &specification.settings {
        topic = topic.set(name, value);
    }
    for result in admin.create_topics([&topic], &options()).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(TopicsError::Refused { topic, code }),
        }
    }
    Ok(())
}

/// [`check`] behind the creation: for a moment a broker may still respond with what it knew before.
async fn wait_created(kafka: &ClientConfig, layout: &Layout) -> Result<(), TopicsError> {
    let until = Instant::now() + TIMEOUT;
    loop {
        match check(kafka, layout).await {
            Err(TopicsError::Missing(_)) if Instant::now() < until => tokio::time::sleep(SETTLE).await,
            checked => return checked,
        }
    }
}

/// Sets what differs. `alter_configs` resets whatever it does not name, so what operators have set besides goes along.
async fn make_as_specified(
    admin: &Admin,
    specification: &Specification,
) -> Result<Vec<Difference>, TopicsError> {
    let entries = settings(admin, &specification.name).await?;
    let different = compare(specification, &entries);
    if different.is_empty() {
        return Ok(different);
    }
    let own = |entry: &&ConfigEntry| entry.source == ConfigSource::DynamicTopic && !entry.is_read_only;
    let mut wanted: BTreeMap<&str, &str> = entries
        .iter()
        .filter(own)
        .filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)))
        .collect();
    wanted.extend(specification.settings.iter().map(|(name, value)| (*name, value.as_str())));
    let mut config = AlterConfig::new(ResourceSpecifier::Topic(&specification.name));
    config.entries.extend(wanted);
    for result in admin.alter_configs([&config], &options()).await? {
        result.map_err(|(_, code)| TopicsError::Refused { topic: specification.name.clone(), code })?;
    }
    Ok(different)
}

async fn settings(admin: &Admin, topic: &str) -> Result<Vec<ConfigEntry>, TopicsError> {
    let asked = ResourceSpecifier::Topic(topic);
    let mut described = admin.describe_configs([&asked], &options()).await?;
    match described.pop() {
        Some(Ok(resource)) => Ok(resource.entries),
        Some(Err(code)) => Err(TopicsError::Refused { topic: topic.to_owned(), code }),
        None => Err(TopicsError::Missing(topic.to_owned())),
    }
}

fn compare(specification: &Specification, entries: &[ConfigEntry]) -> Vec<Difference> {
    let differs = |(name, wanted): &(&'static str, String)| {
        let entry = entries.iter().find(|entry| entry.name == *name);
        let found = entry.and_then(|entry| entry.value.clone()).unwrap_or_default();
        let topic = specification.name.clone();
        (found != *wanted).then(|| Difference { topic, setting: name, found, wanted: wanted.clone() })
    };
    specification.settings.iter().filter_map(differs).collect()
}

/// Holds the cluster's partition and replica counts against the deployment's: what every role does before it starts.
///
/// # Errors
/// [`TopicsError::PartitionCount`], [`TopicsError::Replication`] and [`TopicsError::Missing`].
pub async fn check(kafka: &ClientConfig, layout: &Layout) -> Result<(), TopicsError> {
    let (kafka, specifications) = (kafka.clone(), layout.specifications());
    let checked = tokio::task::spawn_blocking(move || check_counts(&kafka, specifications)).await;
    checked?
}

fn check_counts(kafka: &ClientConfig, specifications: Vec<Specification>) -> Result<(), TopicsError> {
    let admin: Admin = kafka.create()?;
    let metadata = admin.inner().fetch_metadata(None, TIMEOUT)?;
    let count = |length: usize| i32::try_from(length).unwrap_or(i32::MAX);
    let mut missing = None;
    for Specification { name, partitions, replication, .. } in specifications {
        let topic = metadata.topics().iter().find(|topic| topic.name() == name);
        let found = topic.map_or(&[][..], |topic| topic.partitions());
        let Some(replicas) = found.iter().map(|partition| count(partition.replicas().len())).min() else {
            missing.get_or_insert(name);
            continue;
        };
        if count(found.len()) != partitions {
            let found = count(found.len());
            return Err(TopicsError::PartitionCount { topic: name, expected: partitions, found });
        }
        if replicas < replication {
            return Err(TopicsError::Replication { topic: name, expected: replication, found: replicas });
        }
    }
    // What is wrong for good counts before what can be created.
    missing.map_or(Ok(()), |name| Err(TopicsError::Missing(name)))
}

/// Holds the topics' settings against their specification too, and changes nothing.
///
/// # Errors
/// As [`check`], and [`TopicsError::Different`] with everything that differs.
pub async fn compare_all(kafka: &ClientConfig, layout: &Layout) -> Result<(), TopicsError> {
    check(kafka, layout).await?;
    let admin: Admin = kafka.create()?;
    let mut different = Vec::new();
    for specification in layout.specifications() {
        different.extend(compare(&specification, &settings(&admin, &specification.name).await?));
    }
    if different.is_empty() { Ok(()) } else { Err(TopicsError::Different(different)) }
}
