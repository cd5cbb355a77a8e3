//! `milestream topics`: what Kafka and the registry must have before a role starts.

use anyhow::Result;
use clap::Subcommand;
use runtime::registry::Registry;
use runtime::topics::TopicsError;

use crate::config::Config;
use crate::database;

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum Topics {
    /// Create missing topics, make the settings of the others as specified, and register schemas; refuse an incompatible schema
    /// and another partition count.
    Apply,
    /// Say what differs from the specification, and change nothing.
    Check,
}

impl Topics {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Apply => apply(config).await,
            Self::Check => compare(config).await,
        }
    }
}

/// Creates topics, registers schemas.
async fn apply(config: &Config) -> Result<()> {
    let registry = Registry::new(&config.registry_client())?;
    let kafka = config.kafka_client();
    match runtime::topics::check(&kafka, &config.layout()).await {
        // A wrong count is not chosen for good.
        Ok(()) | Err(TopicsError::Missing(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let pool = database::pool(config)?;
    runtime::settings::choose(&pool, "kafka.partitions", config.kafka.partitions.to_string()).await?;
    for difference in runtime::topics::apply(&kafka, &registry, &config.layout()).await? {
        println!("{difference}: set");
    }
    println!("topics and schemas are as specified");
    Ok(())
}

/// Compares topics with their specification, and says everything that differs.
async fn compare(config: &Config) -> Result<()> {
    runtime::topics::compare_all(&config.kafka_client(), &config.layout()).await?;
    println!("topics are as specified");
    Ok(())
}

/// Compares partition and replica counts: what every role does before it starts.
///
/// # Errors
/// When the broker does not respond, or a topic is missing or has another count.
pub async fn check(config: &Config) -> Result<()> {
    Ok(runtime::topics::check(&config.kafka_client(), &config.layout()).await?)
}

/// Whether waiting can help: the broker does not respond. A missing topic or a wrong count needs an operator.
pub fn is_retryable(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<TopicsError>(), Some(TopicsError::Kafka(_)))
}
