//! The log documents about a person: they are in another database than everything else, which whoever runs the gateway knows.

use std::error::Error;

use futures::stream::BoxStream;
use schemas::ids::UserId;
use serde_json::Value;
use uuid::Uuid;

/// Documents with the names of their collections, one collection after the other.
pub type Documents = BoxStream<'static, Result<(&'static str, Value), Box<dyn Error + Send + Sync>>>;

/// Where the log documents are.
pub trait PersonLogs: Send + Sync {
    /// Those about a user, their uploads and their wallets.
    fn about(&self, user: UserId, uploads: Vec<Uuid>, wallets: Vec<String>) -> Documents;
}
