//! One record of a topic that is kept for good, found by what it says.

use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use runtime::registry::{Registry, SchemaSource as _};
use runtime::snapshot;
use runtime::source::RawRecord;
use schemas::codec;
use schemas::events::{Event, Root};

use crate::config::Config;

/// How much earlier than its row's time a record may stand on its topic, by the clocks of two machines.
const SKEW_MS: i64 = 10 * 60 * 1_000;

/// The first record of a type from a time on that is `wanted`, and its place; none where there is none up to the topic's present end.
pub async fn first_since<E: Event>(
    config: &Config,
    registry: &Registry,
    since: DateTime<Utc>,
    wanted: impl Fn(&E) -> bool,
) -> Result<Option<(E, Root)>> {
    let (kafka, topic) = (config.kafka_client(), format!("{}{}", config.kafka.topic_prefix, E::TOPIC.name()));
    let (sender, mut records) = tokio::sync::mpsc::channel::<RawRecord>(1_000);
    let since = since.timestamp_millis() - SKEW_MS;
    let reading = tokio::task::spawn_blocking(move || {
        let ranges = snapshot::since(&kafka, &topic, since)?;
        snapshot::each_of(&kafka, &topic, ranges, |record| match sender.blocking_send(record) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        })
    });
    while let Some(record) = records.recv().await {
        let Some(payload) = &record.payload else { continue };
        let Ok((id, datum)) = codec::unframe(payload) else { continue };
        let schema = registry.schema(id).await?;
        if schema.name() != E::NAME {
            continue;
        }
        let event: E = codec::decode(&schema, id, datum)?;
        if wanted(&event) {
            return Ok(Some((
                event,
                Root { partition: record.position.partition, offset: record.position.offset },
            )));
        }
    }
    reading.await?.with_context(|| format!("the topic {}", E::TOPIC.name()))?;
    Ok(None)
}
