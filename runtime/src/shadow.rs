//! Topics of a shadow: made beside the live ones under a prefix of their own, for what a replay decides, and taken away with it.

use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use schemas::topic::Topic;

use crate::topics::{Admin, Layout, TopicsError, create, options};

/// Creates those of a shadow's topics that are missing.
///
/// # Errors
/// [`TopicsError`].
pub async fn create_topics(
    kafka: &ClientConfig,
    layout: &Layout,
    topics: &[Topic],
) -> Result<(), TopicsError> {
    let admin: Admin = kafka.create()?;
    for topic in topics {
        create(&admin, &layout.specification(*topic)).await?;
    }
    Ok(())
}

/// Takes a shadow's topics away; one that is gone already is no error.
///
/// # Errors
/// [`TopicsError`].
pub async fn drop_topics(kafka: &ClientConfig, layout: &Layout, topics: &[Topic]) -> Result<(), TopicsError> {
    let admin: Admin = kafka.create()?;
    let names: Vec<String> = topics.iter().map(|topic| layout.specification(*topic).name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for result in admin.delete_topics(&names, &options()).await? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => {}
            Err((topic, code)) => return Err(TopicsError::Refused { topic, code }),
        }
    }
    Ok(())
}
