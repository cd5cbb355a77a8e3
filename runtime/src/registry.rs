//! The schema registry: ids for what we write, schemas for what we read, compatibility when topics are applied.
//!
//! Look-ups by id distinguish "unknown" (a dead letter) from "unreachable" (wait). Nothing negative is cached: a blip must
//! not poison a consumer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use schema_registry_converter::async_impl::schema_registry::{self, SrSettings};
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};
use schemas::codec::{RecordSchema, SchemaCache};
use schemas::events::Event;
use schemas::topic::Topic;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

/// Longest wait for a response of the registry.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why the registry did not help.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry says that it does not know the id.
    #[error("the schema registry does not know schema id {0}")]
    Unknown(u32),
    /// No response, or not a sensible one: try again.
    #[error("the schema registry is not reachable: {0}")]
    Unavailable(String),
    /// The schema would break readers or writers of the version before.
    #[error(
        "subject {subject} refuses the schema: {detail}. Change it compatibly (new fields need a default)"
    )]
    Incompatible {
        /// The subject.
        subject: String,
        /// The registry's words.
        detail: String,
    },
    /// A schema that this release cannot parse.
    #[error("schema id {id} does not parse: {detail}")]
    Unparsable {
        /// Its id.
        id: u32,
        /// Avro's words.
        detail: String,
    },
}

/// Finds the schema of an id. A trait so that engine tests run without a registry.
pub trait SchemaSource: Send + Sync + 'static {
    /// The schema, where it is known without asking: what happens for almost every record.
    fn known(&self, id: u32) -> Option<Arc<RecordSchema>> {
        let _ = id;
        None
    }

    /// The schema that a record was written with.
    fn schema(&self, id: u32) -> BoxFuture<'_, Result<Arc<RecordSchema>, RegistryError>>;

    /// Whether it responds for an id that it has responded for before; false where there is none.
    fn responds(&self) -> BoxFuture<'_, bool> {
        Box::pin(async { false })
    }
}

/// Where the registry is and who asks.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// Its Confluent-compatible base URL.
    pub url: String,
    /// User and password, where it asks for them.
    pub login: Option<(String, SecretString)>,
}

impl RegistryConfig {
    /// A registry that asks for no password.
    #[must_use]
    pub fn open(url: &str) -> Self {
        Self { url: url.to_owned(), login: None }
    }
}

/// A Confluent-compatible registry.
pub struct Registry {
    config: RegistryConfig,
    http: reqwest::Client,
    settings: SrSettings,
    cache: SchemaCache,
    /// An id that the registry knows; 0 for none.
    known: AtomicU32,
}

#[derive(Deserialize)]
struct SchemaResponse {
    schema: String,
}

impl Registry {
    /// A client for a registry.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] when no HTTP client can be made (TLS).
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        install_tls();
        let unavailable = |error: &dyn std::fmt::Display| RegistryError::Unavailable(error.to_string());
        let http = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(|e| unavailable(&e))?;
        let url = config.url.trim_end_matches('/').to_owned();
        let mut settings = SrSettings::new_builder(url.clone());
        settings.set_timeout(TIMEOUT);
        if let Some((user, password)) = &config.login {
            settings.set_basic_authorization(user, Some(password.expose_secret()));
        }
        let settings = settings.build().map_err(|e| unavailable(&e))?;
        let config = RegistryConfig { url, login: config.login.clone() };
        Ok(Self { config, http, settings, cache: SchemaCache::default(), known: AtomicU32::new(0) })
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/{path}", self.config.url));
        match &self.config.login {
            Some((user, password)) => request.basic_auth(user, Some(password.expose_secret())),
            None => request,
        }
    }

    /// Registers what this release writes and returns its id. The same schema again gives the same id.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`] or [`RegistryError::Unavailable`].
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        match schema_registry::post_schema(&self.settings, subject.to_owned(), supplied).await {
            Ok(registered) => {
                self.known.store(registered.id, Ordering::Relaxed);
                Ok(registered.id)
            }
            Err(error) if error.retriable => Err(RegistryError::Unavailable(error.to_string())),
            Err(error) => {
                Err(RegistryError::Incompatible { subject: subject.to_owned(), detail: error.to_string() })
            }
        }
    }

    /// The id of the schema that this release writes for an event type.
    ///
    /// # Errors
    /// As [`Registry::register`].
    pub async fn id_of<E: Event>(&self, prefix: &str) -> Result<u32, RegistryError> {
        self.register(&subject(prefix, E::TOPIC, E::NAME), E::schema_text()).await
    }

    /// Sets a subject's compatibility rule.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`].
    pub async fn set_compatibility(&self, subject: &str, rule: &str) -> Result<(), RegistryError> {
        let path = format!("config/{subject}");
        let body = serde_json::json!({ "compatibility": rule });
        let unavailable = |error: reqwest::Error| RegistryError::Unavailable(error.to_string());
        let response =
            self.request(reqwest::Method::PUT, &path).json(&body).send().await.map_err(unavailable)?;
        response.error_for_status().map_err(unavailable)?;
        Ok(())
    }

    async fn fetch(&self, id: u32) -> Result<Arc<RecordSchema>, RegistryError> {
        let unavailable = |error: reqwest::Error| RegistryError::Unavailable(error.to_string());
        let request = self.request(reqwest::Method::GET, &format!("schemas/ids/{id}"));
        let response = request.send().await.map_err(unavailable)?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            // A proxy in front of a registry that is down can respond 404 too; only the registry's own code counts.
            let body = response.text().await.map_err(unavailable)?;
            return Err(if body.contains("40403") {
                RegistryError::Unknown(id)
            } else {
                RegistryError::Unavailable(format!("404 without the registry's error code 40403 for id {id}"))
            });
        }
        let found: SchemaResponse =
            response.error_for_status().map_err(unavailable)?.json().await.map_err(unavailable)?;
        let schema =
            RecordSchema::parse(&found.schema).map_err(|detail| RegistryError::Unparsable { id, detail })?;
        Ok(Arc::new(schema))
    }
}

impl SchemaSource for Registry {
    fn known(&self, id: u32) -> Option<Arc<RecordSchema>> {
        self.cache.get(id).cloned()
    }

    fn schema(&self, id: u32) -> BoxFuture<'_, Result<Arc<RecordSchema>, RegistryError>> {
        Box::pin(async move {
            if let Some(schema) = self.known(id) {
                return Ok(schema);
            }
            let schema = self.fetch(id).await?;
            self.cache.put(id, &schema);
            self.known.store(id, Ordering::Relaxed);
            Ok(schema)
        })
    }

    fn responds(&self) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let known = self.known.load(Ordering::Relaxed);
            known != 0 && self.fetch(known).await.is_ok()
        })
    }
}

/// The registry subject of a record type on a topic (TopicRecordName).
#[must_use]
pub fn subject(prefix: &str, topic: Topic, record: &str) -> String {
    format!("{prefix}{}-{record}", topic.name())
}

/// Chooses ring as the process' TLS provider; a second call changes nothing.
pub fn install_tls() {
    // Err means that a provider was installed before: by us, so it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
