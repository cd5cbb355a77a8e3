//! Stores that several roles open.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use ingest::{Documents, PersonLogs, PhotoStore};
use schemas::ids::UserId;
use sinks::mongo::MongoConfig;
use uuid::Uuid;

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

/// The log documents about people, for exports. The server is contacted by each anew: there are few, and the gateway starts without it.
struct ExportedLogs(MongoConfig);

impl PersonLogs for ExportedLogs {
    fn about(&self, user: UserId, uploads: Vec<Uuid>, wallets: Vec<String>) -> Documents {
        let config = self.0.clone();
        let found = async move { config.logs().await.map(|logs| logs.about(user, &uploads, &wallets)) };
        stream::once(found).try_flatten().map_err(Into::into).boxed()
    }
}

/// The log documents about people.
pub fn exported_logs(config: &Config) -> Arc<dyn PersonLogs> {
    Arc::new(ExportedLogs(logs(config)))
}
