//! Documents that somebody has to act on: those of the collections with a field for what an operator says of them.

use std::str::FromStr as _;

use futures::TryStreamExt as _;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use schemas::events::ActivityLogged;
use schemas::ids::{EventId, Micros};
use schemas::logs::{self, Collection};
use serde_json::Value;
use uuid::Uuid;

use super::logs::{MongoLogs, json};

/// Most documents that one event has in a collection.
const ORDINALS: i32 = 64;

/// A document that somebody has to act on.
#[derive(Clone, Debug)]
pub struct Finding {
    /// `_id`, 24 hex digits.
    pub id: String,
    /// Its `timestamp`.
    pub at: Micros,
    /// All of its fields.
    pub fields: Value,
    event_id: EventId,
}

/// Why a finding cannot be resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolutionError {
    /// The collection has no field for notes.
    #[error("documents of {0} are not resolved")]
    NotResolved(&'static str),
    /// `_id` is not derived from `event_id`.
    #[error("{0} is not the id of a document of its event")]
    Foreign(String),
}

impl Finding {
    fn of(document: Document) -> Option<Self> {
        let id = document.get_object_id("_id").ok()?.to_hex();
        let at = Micros(document.get_datetime("timestamp").ok()?.timestamp_millis().checked_mul(1_000)?);
        let event_id = EventId(Uuid::from_str(document.get_str("event_id").ok()?).ok()?);
        Some(Self { id, at, event_id, fields: json(Bson::Document(document)) })
    }

    /// The record that resolves it. It names the same document, with its time, so that it may come before it as well as after it.
    ///
    /// # Errors
    /// [`ResolutionError`].
    pub fn resolution(
        &self,
        collection: &'static Collection,
        notes: &str,
    ) -> Result<ActivityLogged, ResolutionError> {
        let field = logs::notes_field(collection).ok_or(ResolutionError::NotResolved(collection.name))?;
        let is_own = |ordinal: &i32| {
            hex::encode(logs::document_id(self.event_id, collection.name, *ordinal)) == self.id
        };
        let ordinal = (0..ORDINALS).find(is_own).ok_or_else(|| ResolutionError::Foreign(self.id.clone()))?;
        let document = serde_json::json!({ "resolved": true, field: notes }).to_string();
        let collection = collection.name.to_owned();
        Ok(ActivityLogged { event_id: self.event_id, collection, ordinal, occurred_at: self.at, document })
    }
}

impl MongoLogs {
    /// Those that nobody has resolved, newest first.
    ///
    /// # Errors
    /// The driver's: no server, or it refuses.
    pub async fn unresolved(&self, collection: &Collection, limit: i64) -> Result<Vec<Finding>, Error> {
        let documents = self.documents(collection);
        let found = documents.find(doc! { "resolved": false }).sort(doc! { "timestamp": -1 }).limit(limit);
        let found: Vec<Document> = found.await?.try_collect().await?;
        Ok(found.into_iter().filter_map(Finding::of).collect())
    }

    /// The one with an id; `None` also where the id is none.
    ///
    /// # Errors
    /// As [`MongoLogs::unresolved`].
    pub async fn finding(&self, collection: &Collection, id: &str) -> Result<Option<Finding>, Error> {
        let Ok(id) = ObjectId::parse_str(id) else { return Ok(None) };
        let found = self.documents(collection).find_one(doc! { "_id": id }).await?;
        Ok(found.and_then(Finding::of))
    }
}
