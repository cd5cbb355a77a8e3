//! Puts a deciding stage's consumer group where its decisions end: the remedy for a fence that refuses to start.
//!
//! After a restore the database is older than the group's offset. The records in between are decided again: from the
//! restored state, in the same order, by the same rules, with the same event ids, so consumers drop the repeats.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use sqlx::PgPool;

use crate::stage::StageError;

/// Longest wait for the group's coordinator.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a group's offsets were not set.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsError {
    /// Postgres does not answer.
    #[error(transparent)]
    Postgres(#[from] StageError),
    /// The stage has decided nothing yet.
    #[error("stage {0} has no stage_offsets rows: it has never run on this database, nothing to align")]
    NothingDecided(String),
    /// Kafka refuses, most likely because the stage still runs.
    #[error("group {group}: {source}. Stop every instance of the stage and wait for its session timeout")]
    Kafka {
        /// The group.
        group: String,
        /// Its answer.
        source: KafkaError,
    },
}

/// Sets the group of `stage` to `decided_upto` on every partition; returns (topic, partition, offset) as set.
///
/// # Errors
/// [`OffsetsError`]; nothing is set then.
pub async fn align(
    kafka: &ClientConfig,
    pool: &PgPool,
    prefix: &str,
    stage: &str,
) -> Result<Vec<(String, i32, i64)>, OffsetsError> {
    let rows = sqlx::query_as::<_, (String, i32, i64)>(
        "select topic, partition, decided_upto from stage_offsets where stage = $1 order by topic, partition",
    )
    .bind(stage)
    .fetch_all(pool)
    .await
    .map_err(StageError::from)?;
    if rows.is_empty() {
        return Err(OffsetsError::NothingDecided(stage.to_owned()));
    }
    let group = format!("{prefix}{stage}");
    let mut client = kafka.clone();
    client.set("group.id", &group).set("enable.auto.commit", "false");
    let targets = rows.clone();
    let set = tokio::task::spawn_blocking(move || commit(&client, &targets)).await;
    match set {
        Ok(Ok(())) => Ok(rows),
        Ok(Err(source)) => Err(OffsetsError::Kafka { group, source }),
        Err(error) => Err(StageError::new("offset thread", error).into()),
    }
}

fn commit(client: &ClientConfig, rows: &[(String, i32, i64)]) -> Result<(), KafkaError> {
    let consumer: BaseConsumer = client.create()?;
    let mut list = TopicPartitionList::new();
    for (topic, partition, offset) in rows {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
    }
    // Reaching the coordinator first gives a clearer error than the commit's own.
    consumer.committed_offsets(list.clone(), TIMEOUT)?;
    consumer.commit(&list, CommitMode::Sync)
}
