//! Configuration: defaults, then `milestream.toml`, then the environment. Unknown keys are refused, secrets are
//! redacted wherever a configuration is shown.
//!
//! `MILESTREAM_SECTION__KEY` sets a key of a section. The four addresses can also be given by the names that every
//! tool knows: `KAFKA_BROKERS`, `SCHEMA_REGISTRY_URL`, `DATABASE_URL` and `MONGODB_URI`.

mod claims;
mod edge;
mod notices;
mod privacy;
mod reviews;
mod sections;
mod signing;
mod system;
mod wallets;

use std::path::Path;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use providers::vault::Keys as Keyring;
use rdkafka::config::ClientConfig;
use runtime::registry::RegistryConfig;
use runtime::topics::Layout;
use schemas::payouts::is_mainnet;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

pub use self::claims::Claims;
pub use self::notices::Notices;
pub use self::privacy::Privacy;
pub use self::sections::{
    Chain, EngineSection, Ingest, Kafka, Keys, Log, Mongodb, Ops, Photos, Postgres, RegistrySection, Reviews,
    Services, Vehicles, Watch,
};
pub use self::signing::{GasPayer, Signer, Signing};
pub use self::system::System;
pub use self::wallets::Wallets;

/// Variables by the names that other programs use, and the keys that they set.
pub const FAMILIAR_NAMES: [(&str, &str); 11] = [
    ("KAFKA_BROKERS", "kafka.brokers"),
    ("KAFKA_SECURITY_PROTOCOL", "kafka.security_protocol"),
    ("KAFKA_SASL_MECHANISM", "kafka.sasl_mechanism"),
    ("KAFKA_SASL_USERNAME", "kafka.sasl_username"),
    ("KAFKA_SASL_PASSWORD", "kafka.sasl_password"),
    ("KAFKA_SSL_CA_LOCATION", "kafka.ssl_ca_location"),
    ("SCHEMA_REGISTRY_URL", "registry.url"),
    ("SCHEMA_REGISTRY_USERNAME", "registry.username"),
    ("SCHEMA_REGISTRY_PASSWORD", "registry.password"),
    ("DATABASE_URL", "postgres.url"),
    ("MONGODB_URI", "mongodb.uri"),
];

/// Bytes of the longest prefix: Kafka's names have 249 at most (`org.apache.kafka.common.internals.Topic`), and the rest is for the topics'
/// own names and what tools append.
const LONGEST_PREFIX: usize = 200;

/// Everything that can be set.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The brokers.
    pub kafka: Kafka,
    /// The schema registry.
    pub registry: RegistrySection,
    /// PostgreSQL.
    pub postgres: Postgres,
    /// MongoDB.
    pub mongodb: Mongodb,
    /// The photo store.
    pub photos: Photos,
    /// The deployment as a whole.
    pub system: System,
    /// The gateway.
    pub ingest: Ingest,
    /// What drivers drive.
    pub vehicles: Vehicles,
    /// Where rewards go.
    pub wallets: Wallets,
    /// Until when a reward can be claimed.
    pub claims: Claims,
    /// What waits for a person.
    pub reviews: Reviews,
    /// What is kept about people.
    pub privacy: Privacy,
    /// How people are told what they want to know.
    pub notices: Notices,
    /// The engine of stages and sinks.
    pub engine: EngineSection,
    /// Reading services outside.
    pub services: Services,
    /// The chain that rewards are paid on.
    pub chain: Chain,
    /// The distributor's key.
    pub signer: Signer,
    /// Who pays the gas of payments.
    pub gas_payer: GasPayer,
    /// What may be signed.
    pub signing: Signing,
    /// The watcher of the chain.
    pub watch: Watch,
    /// Health and metrics.
    pub ops: Ops,
    /// Signing and checking of bearer tokens.
    pub keys: Keys,
    /// Logging.
    pub log: Log,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An unknown key, or a value of the wrong type.
    #[error("configuration: {0}. `milestream config show` prints every key")]
    Read(#[from] Box<figment::Error>),
    /// A value that cannot work.
    #[error("configuration: {key}: {complaint}")]
    Value {
        /// The key.
        key: &'static str,
        /// What to change.
        complaint: String,
    },
}

impl Config {
    /// Reads defaults, `file` (may be absent) and the environment, and checks the values.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Defaults));
        if file.exists() {
            figment = figment.merge(Toml::file_exact(file));
        }
        for (variable, key) in FAMILIAR_NAMES {
            if let Some(value) = std::env::var(variable).ok().filter(|value| !value.is_empty()) {
                figment = figment.merge(Serialized::default(key, value));
            }
        }
        let config: Self = figment
            .merge(Env::prefixed("MILESTREAM_").split("__").ignore(&["config"]))
            .extract()
            .map_err(Box::new)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, complaint: String| Err(ConfigError::Value { key, complaint });
        let engine = &self.engine;
        if engine.drain_budget_ms >= engine.session_timeout_ms {
            return refuse(
                "engine.drain_budget_ms",
                format!(
                    "{} must be less than engine.session_timeout_ms ({}), or the group gives the partitions away before they are drained",
                    engine.drain_budget_ms, engine.session_timeout_ms
                ),
            );
        }
        if !["on", "off"].contains(&engine.guards.as_str()) {
            return refuse("engine.guards", format!("{:?} is neither on nor off", engine.guards));
        }
        self.ingest.check()?;
        if !self.ingest.development_wallets_file.is_empty() && is_mainnet(&self.chain.genesis_id) {
            return refuse(
                "ingest.development_wallets_file",
                "nobody signs in this way on mainnet: leave it empty".into(),
            );
        }
        self.system.check()?;
        self.claims.check()?;
        self.reviews.check()?;
        self.privacy.check()?;
        self.wallets.check()?;
        if let Err(error) = Url::parse(&self.photos.url) {
            return refuse("photos.url", format!("{error}: write file:///folder, s3://…, gs://… or az://…"));
        }
        let prefix = &self.kafka.topic_prefix;
        let is_taken = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        if prefix.len() > LONGEST_PREFIX || !prefix.chars().all(is_taken) {
            return refuse(
                "kafka.topic_prefix",
                format!(
                    "{prefix:?}: at most {LONGEST_PREFIX} of the letters, digits and signs . _ - of which Kafka's names consist"
                ),
            );
        }
        if self.kafka.replication < 1 {
            return refuse("kafka.replication", "at least 1".into());
        }
        if self.kafka.partitions < 1 {
            return refuse("kafka.partitions", "at least 1".into());
        }
        Ok(())
    }

    /// How the topics are laid out.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let Kafka { topic_prefix, partitions, replication, .. } = &self.kafka;
        Layout { prefix: topic_prefix.clone(), partitions: *partitions, replication: *replication }
    }

    /// The settings that every Kafka client of this process shares.
    #[must_use]
    pub fn kafka_client(&self) -> ClientConfig {
        let kafka = &self.kafka;
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &kafka.brokers).set("security.protocol", &kafka.security_protocol);
        client.set("client.id", "milestream");
        if !kafka.sasl_mechanism.is_empty() {
            client
                .set("sasl.mechanism", &kafka.sasl_mechanism)
                .set("sasl.username", &kafka.sasl_username)
                .set("sasl.password", kafka.sasl_password.expose_secret());
        }
        if !kafka.ssl_ca_location.is_empty() {
            client.set("ssl.ca.location", &kafka.ssl_ca_location);
        }
        client
    }

    /// The registry with its login.
    #[must_use]
    pub fn registry_client(&self) -> RegistryConfig {
        let registry = &self.registry;
        let login =
            (!registry.username.is_empty()).then(|| (registry.username.clone(), registry.password.clone()));
        RegistryConfig { url: registry.url.clone(), login }
    }

    /// The instance name, where one is set.
    #[must_use]
    pub fn instance(&self) -> Option<String> {
        (!self.engine.instance.is_empty()).then(|| self.engine.instance.clone())
    }

    /// Where the keys are that seal those of reading services.
    #[must_use]
    pub fn service_keys(&self) -> Keyring {
        let Services { keys_file, keys, secrets_folder } = self.services.clone();
        Keyring { text: keys, file: keys_file, folder: secrets_folder }
    }

    /// Session timeout and drain budget.
    #[must_use]
    pub fn group_timing(&self) -> (Duration, Duration) {
        let engine = &self.engine;
        (Duration::from_millis(engine.session_timeout_ms), Duration::from_millis(engine.drain_budget_ms))
    }

    /// The whole configuration as TOML, secrets redacted.
    ///
    /// # Errors
    /// Never in practice: every value has a TOML form.
    pub fn shown(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

/// The defaults for figment: as [`Config::default`], but with secrets in clear, since figment reads them back.
struct Defaults;

impl Serialize for Defaults {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let config = Config::default();
        let mut value = serde_json::to_value(&config).map_err(serde::ser::Error::custom)?;
        value["kafka"]["sasl_password"] = "".into();
        value["registry"]["password"] = "".into();
        value["chain"]["watch_secret"] = "".into();
        value["signer"]["url"] = "".into();
        value["gas_payer"]["url"] = "".into();
        value["services"]["keys"] = "".into();
        value["postgres"]["url"] = config.postgres.url.expose_secret().into();
        value["mongodb"]["uri"] = config.mongodb.uri.expose_secret().into();
        value.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use figment::Jail;

    use super::*;

    #[allow(clippy::result_large_err, reason = "figment's own error type, in a test")]
    fn jailed(test: impl FnOnce(&mut Jail) -> Result<(), Box<dyn std::error::Error>>) {
        Jail::expect_with(|jail| test(jail).map_err(|error| error.to_string().into()));
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        jailed(|jail| {
            jail.create_file(
                "milestream.toml",
                "[ingest]\nmax_connections = 7\n[kafka]\nbrokers = \"file:1\"\n",
            )?;
            jail.set_env("KAFKA_BROKERS", "known:1");
            jail.set_env("MILESTREAM_ENGINE__INSTANCE", "a");
            let config = Config::load(Path::new("milestream.toml"))?;
            assert_eq!(config.ingest.max_connections, 7);
            assert_eq!(config.kafka.brokers, "known:1");
            assert_eq!(config.instance(), Some("a".into()));
            assert_eq!(config.kafka.replication, 1);
            Ok(())
        });
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        jailed(|jail| {
            jail.create_file("milestream.toml", "[kafka]\nbroker = \"typo\"\n")?;
            let error = Config::load(Path::new("milestream.toml")).unwrap_err().to_string();
            assert!(error.contains("broker"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_drain_budget_over_the_session_timeout_is_refused_with_what_to_change() {
        jailed(|jail| {
            jail.set_env("MILESTREAM_ENGINE__DRAIN_BUDGET_MS", "20000");
            let error = Config::load(Path::new("milestream.toml")).unwrap_err().to_string();
            assert!(error.contains("must be less than engine.session_timeout_ms (10000)"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_prefix_that_no_topic_may_have_is_refused_before_anything_asks_kafka() {
        for refused in ["eu/", "eu west.", "köln.", &"e".repeat(201)] {
            let mut config = Config::default();
            config.kafka.topic_prefix = refused.to_owned();
            assert!(config.check().unwrap_err().to_string().contains("kafka.topic_prefix"), "{refused}");
        }
        let mut config = Config::default();
        config.kafka.topic_prefix = "eu-west_1.".to_owned();
        config.check().unwrap();
    }

    #[test]
    fn development_wallets_are_refused_on_mainnet() {
        jailed(|jail| {
            jail.set_env("MILESTREAM_INGEST__DEVELOPMENT_WALLETS_FILE", "wallets.json");
            assert!(Config::load(Path::new("milestream.toml")).is_ok());
            let mainnet = "0x00000000851CAF3CFDB6E899CF5958BFB1AC3413D346D43539627E6BE7EC1B4A";
            jail.set_env("MILESTREAM_CHAIN__GENESIS_ID", mainnet);
            let error = Config::load(Path::new("milestream.toml")).unwrap_err().to_string();
            assert!(error.contains("ingest.development_wallets_file"), "{error}");
            Ok(())
        });
    }

    #[test]
    fn no_secret_is_shown_and_no_secret_is_in_the_debug_output() {
        jailed(|jail| {
            jail.set_env("DATABASE_URL", "postgres://u:hunter2@h/d?password=hunter2");
            jail.set_env("MONGODB_URI", "mongodb://u:hunter2@h/");
            jail.set_env("KAFKA_SASL_PASSWORD", "hunter2");
            jail.set_env("SCHEMA_REGISTRY_PASSWORD", "hunter2");
            jail.set_env("MILESTREAM_CHAIN__WATCH_SECRET", "hunter2");
            jail.set_env("MILESTREAM_SERVICES__KEYS", "hunter2");
            jail.set_env("MILESTREAM_SIGNER__URL", "https://h/?key=hunter2");
            jail.set_env("MILESTREAM_GAS_PAYER__URL", "https://h/by/hunter2");
            let config = Config::load(Path::new("milestream.toml"))?;
            assert_eq!(config.postgres.url.expose_secret(), "postgres://u:hunter2@h/d?password=hunter2");
            let shown = config.shown()? + &format!("{config:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("postgres://u:redacted@h/d"), "{shown}");
            Ok(())
        });
    }
}
