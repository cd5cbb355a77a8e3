//! The log collections, for those that look for what they say of a person.

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use mongodb::Database;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Error;
use schemas::ids::UserId;
use schemas::logs::{COLLECTIONS, Collection};
use serde_json::Value;
use uuid::Uuid;

use super::MongoConfig;

/// Uploads that are named in one command.
const NAMED: usize = 1_000;

/// The log collections.
#[derive(Clone, Debug)]
pub struct MongoLogs(Database);

impl MongoConfig {
    /// The log collections. Servers are not contacted yet.
    ///
    /// # Errors
    /// As [`MongoConfig::database`].
    pub async fn logs(&self) -> Result<MongoLogs, Error> {
        self.database().await.map(MongoLogs)
    }
}

impl MongoLogs {
    pub(super) fn documents(&self, collection: &Collection) -> mongodb::Collection<Document> {
        self.0.collection(collection.name)
    }

    /// Removes every document about a user: those that name them, one of their uploads or one of their wallets. Returns how many. It may
    /// be repeated; what the sink writes later is there again.
    ///
    /// # Errors
    /// The driver's: no server, or it refuses.
    pub async fn erase(&self, user: UserId, uploads: &[Uuid], wallets: &[String]) -> Result<u64, Error> {
        let mut removed = 0;
        for (collection, filter) in filters(user, uploads, wallets) {
            let documents = self.0.collection::<Document>(collection.name);
            removed += documents.delete_many(filter).await?.deleted_count;
        }
        Ok(removed)
    }

    /// The same documents, each with the name of its collection, one collection after the other; as JSON: ids,
    /// decimals and instants (RFC 3339) are texts.
    #[must_use]
    pub fn about(
        &self,
        user: UserId,
        uploads: &[Uuid],
        wallets: &[String],
    ) -> BoxStream<'static, Result<(&'static str, Value), Error>> {
        let database = self.0.clone();
        stream::iter(filters(user, uploads, wallets))
            .then(move |(collection, filter)| {
                let documents = database.collection::<Document>(collection.name);
                async move {
                    let found = documents.find(filter).await?;
                    let told = move |document| (collection.name, json(Bson::Document(document)));
                    Ok::<_, Error>(found.map_ok(told))
                }
            })
            .try_flatten()
            .boxed()
    }
}

/// What finds every document about a user, once.
fn filters(user: UserId, uploads: &[Uuid], wallets: &[String]) -> Vec<(&'static Collection, Document)> {
    let user = user.to_string();
    let uploads: Vec<String> = uploads.iter().map(Uuid::to_string).collect();
    let mut filters = Vec::new();
    for collection in COLLECTIONS.iter().copied() {
        let mut named = vec![doc! { "user_id": &user }];
        if collection.fields.iter().any(|(name, _)| *name == "wallet_address") {
            named.push(doc! { "wallet_address": { "$in": wallets } });
        }
        filters.push((collection, doc! { "$or": &named }));
        let of_uploads = |ids: &[String]| doc! { "upload_id": { "$in": ids }, "$nor": &named };
        filters.extend(uploads.chunks(NAMED).map(|ids| (collection, of_uploads(ids))));
    }
    filters
}

pub(super) fn json(value: Bson) -> Value {
    match value {
        Bson::String(text) => Value::String(text),
        Bson::Boolean(value) => Value::Bool(value),
        Bson::Int32(number) => number.into(),
        Bson::Int64(number) => number.into(),
        Bson::Double(number) => number.into(),
        Bson::Null => Value::Null,
        Bson::Array(values) => values.into_iter().map(json).collect(),
        Bson::Document(document) => document.into_iter().map(|(field, value)| (field, json(value))).collect(),
        Bson::ObjectId(id) => Value::String(id.to_hex()),
        Bson::DateTime(at) => Value::String(at.try_to_rfc3339_string().unwrap_or_else(|_| at.to_string())),
        other => Value::String(other.to_string()),
    }
}
