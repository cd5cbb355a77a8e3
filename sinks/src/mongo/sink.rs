//! Takes batches: one insert a collection, but for documents that are resolved later.

use std::collections::BTreeMap;

use mongodb::Database;
use mongodb::bson::{Document, doc};
use runtime::{Envelope, Sink, SinkError};
use schemas::events::ActivityLogged;
use schemas::logs::Collection;
use schemas::topic::Topic;

use super::document::document;
use super::service;

/// Writes the log collections.
#[derive(Clone, Debug)]
pub struct MongoSink {
    database: Database,
}

impl MongoSink {
    /// A sink on a database that has its collections; [`super::MongoConfig::build`] sees to that.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }
}

impl Sink for MongoSink {
    const NAME: &'static str = "mongo";
    const TOPICS: &'static [Topic] = &[Topic::ActivityLogs];
    type In = ActivityLogged;

    // Every document is converted before the first insert. An insert that fails leaves those before it, and they are
    // duplicates the next time.
    async fn write(&self, batch: &[Envelope<ActivityLogged>]) -> Result<(), SinkError> {
        let mut documents: BTreeMap<&'static str, (&'static Collection, Vec<Document>)> = BTreeMap::new();
        for event in batch {
            let (collection, document) = document(&event.payload)
                .map_err(|error| SinkError::BadRow(format!("event {}: {error}", event.payload.event_id)))?;
            documents.entry(collection.name).or_insert((collection, Vec::new())).1.push(document);
        }
        for (collection, documents) in documents.values() {
            service::store(&self.database, collection, documents).await?;
        }
        Ok(())
    }

    async fn dependencies_respond(&self) -> bool {
        self.database.run_command(doc! { "ping": 1 }).await.is_ok()
    }
}
