//! The log collections, for those that look for what they say of a person.

use mongodb::Database;
use mongodb::bson::{Document, doc};
use mongodb::error::Error;
use schemas::ids::UserId;
use schemas::logs::COLLECTIONS;
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
    /// Removes every document about a user: those that name them, one of their uploads or one of their wallets. Returns how many. It may
    /// be repeated; what the sink writes later is there again.
    ///
    /// # Errors
    /// The driver's: no server, or it refuses.
    pub async fn erase(&self, user: UserId, uploads: &[Uuid], wallets: &[String]) -> Result<u64, Error> {
        let uploads: Vec<String> = uploads.iter().map(Uuid::to_string).collect();
        let mut removed = 0;
        for collection in COLLECTIONS {
            let documents = self.0.collection::<Document>(collection.name);
            let own = |field: &str| collection.fields.iter().any(|(name, _)| *name == field);
            let mut filters = vec![doc! { "user_id": user.to_string() }];
            if own("wallet_address") && !wallets.is_empty() {
                filters.push(doc! { "wallet_address": { "$in": wallets } });
            }
            filters.extend(uploads.chunks(NAMED).map(|ids| doc! { "upload_id": { "$in": ids } }));
            for filter in filters {
                removed += documents.delete_many(filter).await?.deleted_count;
            }
        }
        Ok(removed)
    }
}
