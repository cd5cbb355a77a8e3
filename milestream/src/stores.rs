//! Stores that several roles open.

use std::time::Duration;

use anyhow::{Context as _, Result};
use ingest::PhotoStore;
use sinks::mongo::MongoConfig;

use crate::config::Config;

/// The photo store.
///
/// # Errors
/// When its URL is not usable.
pub fn photos(config: &Config) -> Result<PhotoStore> {
    // Settings of a bucket come from its provider's own variables, e.g. AWS_REGION.
    let options = std::env::vars().map(|(key, value)| (key.to_lowercase(), value));
    PhotoStore::open(&config.photos.url, true, options).context("photos.url")
}

/// The log collections' settings.
pub fn logs(config: &Config) -> MongoConfig {
    MongoConfig {
        uri: config.mongodb.uri.clone(),
        database: config.mongodb.database.clone(),
        timeout: Duration::from_secs(5),
    }
}
