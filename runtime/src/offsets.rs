//! The offsets of consumer groups, for operators: shown, set back, and aligned with what a deciding stage has decided.
//!
//! Kafka takes an offset from outside only while a group has no member, so a running stage is never moved under itself.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use sqlx::PgPool;

use crate::deciding::BATCH;
use crate::snapshot;
use crate::stage::StageError;

/// Longest wait for the group's coordinator.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a group's offsets were not read or set.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// Postgres does not respond.
    #[error(transparent)]
    Postgres(#[from] StageError),
    /// The stage has decided nothing yet.
    #[error("stage {0} has no stage_offsets rows: it has never run on this database, nothing to align")]
    NothingDecided(String),
    /// Kafka does not respond.
    #[error("group {group}: {source}")]
    Read {
        /// The group.
        group: String,
        /// Its response.
        source: KafkaError,
    },
    /// Kafka refuses, most likely because the stage still runs.
    #[error("group {group}: {source}. Stop every instance of the stage and wait for its session timeout")]
    Kafka {
        /// The group.
        group: String,
        /// Its response.
        source: KafkaError,
    },
}

/// Where a group stands on a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupOffset {
    /// Topic, with its prefix.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The next record to process; `None` where the group has none stored.
    pub committed: Option<i64>,
    /// The oldest record that is kept.
    pub low: i64,
    /// Where the next record will be written.
    pub end: i64,
}

impl GroupOffset {
    /// Records that wait.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.end - self.committed.unwrap_or(self.low).max(self.low)
    }
}

/// A target: topic, partition, offset.
pub type Target = (String, i32, i64);

/// Where `group` stands on every partition of `topics` (with their prefix).
///
/// # Errors
/// [`OffsetsError::Read`].
pub async fn show(
    kafka: &ClientConfig,
    group: &str,
    topics: Vec<String>,
) -> Result<Vec<GroupOffset>, OffsetsError> {
    let client = client(kafka, group);
    blocking(move || {
        let consumer: BaseConsumer = client.create()?;
        let mut shown = Vec::new();
        for topic in topics {
            let extents = snapshot::extents(&consumer, &topic)?;
            let mut list = TopicPartitionList::new();
            for partition in extents.keys() {
                list.add_partition(&topic, *partition);
            }
            let committed = consumer.committed_offsets(list, TIMEOUT)?;
            for (partition, (low, end)) in extents {
                let found = committed.find_partition(&topic, partition).map(|found| found.offset());
                let committed = match found {
                    Some(Offset::Offset(offset)) => Some(offset),
                    _ => None,
                };
                shown.push(GroupOffset { topic: topic.clone(), partition, committed, low, end });
            }
        }
        Ok(shown)
    })
    .await?
    .map_err(|source| OffsetsError::Read { group: group.to_owned(), source })
}

/// Sets the group's offsets.
///
/// # Errors
/// [`OffsetsError::Kafka`] while the group has a member; nothing is set then.
pub async fn set(kafka: &ClientConfig, group: &str, targets: Vec<Target>) -> Result<(), OffsetsError> {
    let client = client(kafka, group);
    blocking(move || commit(&client, &targets))
        .await?
        .map_err(|source| OffsetsError::Kafka { group: group.to_owned(), source })
}

/// The offsets that a deciding stage's group must be given so that it starts; partitions that start anyway are left out.
///
/// * The group is ahead of the decisions (the database was restored): `decided_upto`. The records in between are decided
///   again: from the restored state, in the same order, by the same rules, with the same event ids, so consumers drop the
///   repeats.
/// * The group has no offset (it expired): the first of the last two hundred decided records. They are one transaction at
///   most, of which the outputs may never have been published; a start publishes them again from their stored bytes.
/// * The group is behind the decisions: left alone, for a start publishes the stored outputs in between; but not behind what
///   `milestream prune` has left of them. What it took away was published: the group had passed it.
///
/// # Errors
/// [`OffsetsError`].
pub async fn misaligned(
    kafka: &ClientConfig,
    pool: &PgPool,
    prefix: &str,
    stage: &str,
) -> Result<Vec<Target>, OffsetsError> {
    let decided = sqlx::query_as::<_, (String, i32, i64, i64, i64)>(
        "select o.topic, o.partition, o.decided_upto, o.outputs_from, coalesce(
            (select min(record_offset) from (
                select record_offset from decisions d
                where d.stage = o.stage and d.topic = o.topic and d.partition = o.partition
                    and d.record_offset < o.decided_upto
                order by record_offset desc limit $2) as newest), o.decided_upto)
         from stage_offsets o where o.stage = $1 order by o.topic, o.partition",
    )
    .bind(stage)
    .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await
    .map_err(StageError::from)?;
    if decided.is_empty() {
        return Err(OffsetsError::NothingDecided(stage.to_owned()));
    }
    let mut topics: Vec<String> = decided.iter().map(|(topic, ..)| topic.clone()).collect();
    topics.dedup();
    let groups = show(kafka, &format!("{prefix}{stage}"), topics).await?;
    let target =
        |(topic, partition, decided_upto, outputs_from, republished): (String, i32, i64, i64, i64)| {
            let place = groups.iter().find(|place| place.topic == topic && place.partition == partition);
            match place.and_then(|place| place.committed) {
                None => Some((topic, partition, republished)),
                Some(committed) if committed > decided_upto => Some((topic, partition, decided_upto)),
                Some(committed) if committed < outputs_from => Some((topic, partition, outputs_from)),
                Some(_) => None,
            }
        };
    Ok(decided.into_iter().filter_map(target).collect())
}

fn client(kafka: &ClientConfig, group: &str) -> ClientConfig {
    let mut client = kafka.clone();
    client.set("group.id", group).set("enable.auto.commit", "false");
    client
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KafkaError> + Send + 'static,
) -> Result<Result<T, KafkaError>, OffsetsError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| StageError::new("offset thread", error).into())
}

fn commit(client: &ClientConfig, targets: &[Target]) -> Result<(), KafkaError> {
    let consumer: BaseConsumer = client.create()?;
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in targets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    // Reaching the coordinator first gives a clearer error than the commit's own.
    consumer.committed_offsets(list.clone(), TIMEOUT)?;
    consumer.commit(&list, CommitMode::Sync)
}
