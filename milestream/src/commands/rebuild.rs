//! `milestream rebuild`: the materialized tables, again from the topics.

use anyhow::Result;
use sinks::rebuild::Progress;

use crate::config::Config;
use crate::database;

/// Empties the materialized tables and fills them again.
pub async fn run(config: &Config) -> Result<()> {
    let (pool, kafka, registry) = (database::pool(config)?, config.kafka_client(), config.registry_client());
    let prefix = &config.kafka.topic_prefix;
    let report = |progress: Progress| {
        let Progress { topic, done, total, .. } = progress;
        let remaining =
            progress.remaining.map_or(String::new(), |time| format!(", {} s remaining", time.as_secs()));
        eprintln!("{}: {done} of {total}{remaining}", topic.name());
    };
    let mut counts = sinks::postgres::rebuild(&pool, &kafka, &registry, prefix, &report).await?;
    eprintln!("aggregates");
    counts.extend(sinks::analytics::rebuild(&pool, &kafka, &registry, prefix, &report).await?);
    for count in counts {
        let skipped: u64 = count.skipped.values().sum();
        println!("{}: {} read, {} written, {skipped} skipped", count.topic.name(), count.read, count.written);
    }
    Ok(())
}
