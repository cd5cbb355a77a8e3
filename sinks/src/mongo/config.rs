//! Settings of the sink, and the check at start.

use std::time::Duration;

use mongodb::options::{ClientOptions, WriteConcern};
use mongodb::{Client, Database};
use secrecy::{ExposeSecret as _, SecretString};

use super::service;
use super::sink::MongoSink;

/// Settings of the sink.
#[derive(Clone, Debug)]
pub struct MongoConfig {
    /// `mongodb://…` or `mongodb+srv://…`; may hold a password, so it is never printed.
    pub uri: SecretString,
    /// The database of the log collections; not empty.
    pub database: String,
    /// Longest wait for a usable server, after which a batch is tried again. 5 s in production.
    pub timeout: Duration,
}

impl MongoConfig {
    /// A client whose writes are acknowledged by the majority, journalled: an offset moves only behind what a fail-over
    /// keeps.
    ///
    /// # Errors
    /// The driver's, for a URI that does not parse. Servers are not contacted yet, except to resolve `mongodb+srv`.
    pub async fn database(&self) -> mongodb::error::Result<Database> {
        runtime::registry::install_tls();
        let mut options = ClientOptions::parse(self.uri.expose_secret()).await?;
        options.app_name = Some("milestream".to_owned());
        options.server_selection_timeout = Some(self.timeout);
        options.write_concern =
            Some(WriteConcern::builder().w(mongodb::options::Acknowledgment::Majority).journal(true).build());
        Ok(Client::with_options(options)?.database(&self.database))
    }

    /// The sink, once every collection is there with its indexes; a lifetime that changed since is changed in place.
    ///
    /// # Errors
    /// The driver's: no server, or it refuses a collection or an index.
    pub async fn build(&self) -> mongodb::error::Result<MongoSink> {
        let database = self.database().await?;
        service::ensure_collections(&database).await?;
        Ok(MongoSink::new(database))
    }
}
