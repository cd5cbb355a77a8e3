//! The sections, with the defaults of their keys.

use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// What stands for a secret where a configuration is shown.
const REDACTED: &str = "[redacted]";

/// The brokers and how to authenticate to them; consumer, producer and admin client share it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// Bootstrap servers, `host:port` joined by commas.
    pub brokers: String,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`; empty without SASL.
    pub sasl_mechanism: String,
    /// SASL user.
    pub sasl_username: String,
    /// SASL password.
    #[serde(serialize_with = "redacted")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub sasl_password: SecretString,
    /// Certificate authorities as a PEM file; empty for the system's.
    pub ssl_ca_location: String,
    /// In front of every topic and group name: several environments can share a cluster.
    pub topic_prefix: String,
    /// Copies of each record; 3 in production, where two must have it (`min.insync.replicas`), 1 on a laptop.
    pub replication: i32,
    /// Partitions of every topic but `chain.events`, `models.deployed` and `payouts.guard`, which have one. Chosen at the first
    /// `milestream topics apply`; another number is refused ever after.
    pub partitions: i32,
}

/// The schema registry.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RegistrySection {
    /// Its Confluent-compatible base URL.
    pub url: String,
    /// User; empty where it asks for none.
    pub username: String,
    /// Password.
    #[serde(serialize_with = "redacted")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub password: SecretString,
}

/// PostgreSQL.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=…`.
    #[serde(serialize_with = "redacted_url")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub url: SecretString,
    /// Connections of this process: four partitions work at once, and the requests of the gateway share the rest. The gateway has up to six
    /// besides, for what requests ask at the same time.
    pub max_connections: u32,
    /// Seconds to wait for a connection before the work is tried again later. A statement that requests of the gateway share has as long
    /// for its answer.
    pub acquire_timeout_s: u64,
}

/// MongoDB.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Mongodb {
    /// `mongodb://…`, with `tls=true` and credentials where the server has them.
    #[serde(serialize_with = "redacted_url")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub uri: SecretString,
    /// The database of the log collections.
    pub database: String,
}

/// The photo store.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Photos {
    /// `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`; credentials come from the
    /// provider's own environment variables.
    pub url: String,
    /// Whether a photo is compared with those of other vehicles that show the same number: one that looks like a copy goes to a person. Off
    /// only where one photo is sent for many vehicles, as load tests do.
    pub compare: bool,
}

/// The gateway.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Ingest {
    /// Where it listens.
    #[cfg_attr(test, schemars(with = "String"))]
    pub listen: SocketAddr,
    /// The base of the URLs that it responds with.
    pub public_url: String,
    /// Largest photo, bytes.
    pub max_photo_bytes: u64,
    /// Bytes of uploads in memory at once; those that come after wait. 0: sixteen times `max_photo_bytes`.
    pub upload_memory_bytes: u64,
    /// Milliseconds from the first byte of a request's head to its end.
    pub header_timeout_ms: u64,
    /// Milliseconds that a connection may wait for its next request, at least `header_timeout_ms`. Longer than the proxy in front keeps
    /// idle connections, so that it is the proxy that closes them.
    pub keep_alive_timeout_ms: u64,
    /// Milliseconds between two pieces of a body.
    pub body_idle_timeout_ms: u64,
    /// Milliseconds for a whole body.
    pub body_timeout_ms: u64,
    /// Connections at once.
    pub max_connections: usize,
    /// Event streams at once.
    pub max_streams: usize,
    /// Event streams of a user at once.
    pub max_streams_per_user: usize,
    /// Proxies that are believed about the address of a client: addresses (`10.0.0.7`) and networks (`10.0.0.0/8`). Without them all
    /// clients behind a proxy share one rate.
    pub trusted_proxies: Vec<String>,
    /// The header in which those proxies name the client: `x-forwarded-for`, or `forwarded` (RFC 7239). The other one is not read: a
    /// client can write it.
    pub forwarded_header: String,
    /// Whether those proxies begin each connection with a PROXY header (version 1 or 2), as balancers of TCP do: it names the client.
    /// Then nobody else may connect, and `trusted_proxies` must name them.
    pub proxy_protocol: bool,
    /// A JSON file of wallets that the gateway signs for, a list of `{"name", "key"}`: whoever asks is signed in with them, so that this
    /// is for a developer's machine. Refused on mainnet. Empty: none.
    pub development_wallets_file: String,
    /// A Thor node of the network that is asked about wallets that are contracts (EIP-1271) when they sign in. Empty: only keys sign in.
    #[serde(serialize_with = "redacted")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub node_url: SecretString,
    /// Origins whose pages may read responses, e.g. `https://app.example`; the gateway's own need not be named.
    pub cors_origins: Vec<String>,
    /// Requests a user may make in a minute, as `milestream migrate` sets it at first; `milestream limits set` changes it.
    pub requests_per_user_per_minute: u32,
    /// Requests an address may make in a minute, set in the same way.
    pub requests_per_address_per_minute: u32,
    /// Photos a user may have accepted in a day (UTC), set in the same way.
    pub uploads_per_user_per_day: u32,
    /// Uploads an address may send in an hour, set in the same way.
    pub uploads_per_address_per_hour: u32,
}

/// What drivers drive.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Vehicles {
    /// Whether a photo may name only a vehicle that its owner has added; otherwise the first photo of a vehicle adds it.
    pub must_be_registered: bool,
}

/// What waits for a person.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Reviews {
    /// Days after which a review that nobody has decided ends by itself: the driver is asked for a new photo. At least 1.
    pub time_out_days: u32,
    /// Minutes for which an item of the queue is the person's who has claimed it. At least 1.
    pub claim_minutes: u32,
    /// Kilometres since the vehicle's last verified reading beyond which nobody approves alone: another person has to see the same.
    pub second_person_above_km: u32,
}

/// The engine of stages and sinks.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// Unique and stable per instance, so that a restart keeps its partitions; empty for dynamic membership.
    pub instance: String,
    /// Milliseconds without a heartbeat after which a member's partitions go to others.
    pub session_timeout_ms: u64,
    /// Milliseconds that a revoke or a stop waits for records in flight; under the session timeout.
    pub drain_budget_ms: u64,
    /// Milliseconds after which a record that fails alone, while others of its stage or sink succeed, is given up: an upload is
    /// decided `failed`, anything else becomes a dead letter. A dependency that is down is waited for without a limit.
    pub record_retry_limit_ms: u64,
    /// `on`; `off` exists for the one test that shows what the guards of money are for.
    pub guards: String,
}

/// Reading services outside. They are rows of `ai_service_configs`, which `milestream service` writes; their keys are sealed there.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Services {
    /// A file of the keys that seal those of services, 64 hex digits a line: the first seals, all open. `milestream service rotate`
    /// puts a new one in front.
    pub keys_file: PathBuf,
    /// The keys themselves, joined by commas, instead of the file.
    #[serde(serialize_with = "redacted")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub keys: SecretString,
    /// The folder of sealed secrets that are longer than their column (326 bytes).
    pub secrets_folder: PathBuf,
}

/// The chain that rewards are paid on. Its nodes and contracts are rows of `network_configs` and `smart_contracts`, which
/// `milestream networks` and `milestream contracts` write.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Chain {
    /// The network's genesis block id; nodes of another network are refused. Empty: nothing is paid or watched.
    pub genesis_id: String,
    /// The distributor's keystore (Web3 Secret Storage, version 3).
    pub keystore_file: PathBuf,
    /// A file whose first line is the keystore's password.
    pub keystore_password_file: PathBuf,
    /// Rewards of one transaction at most, 1 to 40: 40 stay below 15M gas, of which a block holds 40M.
    pub batch_rewards: usize,
    /// Milliseconds that a reward waits for company before it is paid with what there is.
    pub batch_wait_ms: u64,
    /// Blocks in which a transaction is valid, 1 to 8,640: long enough that it is not missed, short enough that its end can be
    /// proven soon. 180 blocks are half an hour.
    pub expiration_blocks: u32,
    /// B3TR that may be signed for in a day (UTC), a decimal string.
    pub daily_ceiling: String,
    /// `low`, `medium` or `high`: the most paid for gas is 1.25, 2 or 4 times the next block's base fee.
    pub gas_strategy: String,
    /// Where the public reaches the pages that payments link as their proof (`/proofs/…` of a gateway): https, or this machine. Empty:
    /// `ingest.public_url`.
    pub proofs_url: String,
    /// Shared by gateway and watcher: authenticates the batches of chain events. At least 32 characters.
    #[serde(serialize_with = "redacted")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub watch_secret: SecretString,
}

/// The watcher of the chain.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Watch {
    /// The gateway that takes its batches.
    pub gateway_url: String,
    /// Milliseconds between two looks at the node; blocks come every 10 s.
    pub poll_ms: u64,
    /// Block that a first start begins after: one before the first payment. Later starts continue where the gateway's own record ends.
    pub start_block: u32,
}

/// Health and metrics.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Ops {
    /// Where `/livez`, `/readyz` and `/metrics` listen. The gateway serves the first two on its own address too, for balancers.
    #[cfg_attr(test, schemars(with = "String"))]
    pub listen: SocketAddr,
}

/// Bearer tokens.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Public keys as a JSON Web Key Set. A running gateway takes up a changed file within a minute.
    pub jwks_file: PathBuf,
    /// The private Ed25519 key as PKCS#8 PEM, for `milestream token` and for gateways where people sign in: nobody does where there is
    /// no such file, or no `chain.genesis_id`.
    pub signing_key_file: PathBuf,
}

/// Logging.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: String,
    /// A filter such as `info,runtime=debug`.
    pub filter: String,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            security_protocol: "plaintext".into(),
            sasl_mechanism: String::new(),
            sasl_username: String::new(),
            sasl_password: SecretString::default(),
            ssl_ca_location: String::new(),
            topic_prefix: String::new(),
            replication: 1,
            partitions: 4,
        }
    }
}

impl Default for RegistrySection {
    fn default() -> Self {
        let url = "http://127.0.0.1:8081".into();
        Self { url, username: String::new(), password: SecretString::default() }
    }
}

impl Default for Postgres {
    fn default() -> Self {
        let url = SecretString::from("postgres://milestream@127.0.0.1:5432/milestream");
        Self { url, max_connections: 10, acquire_timeout_s: 5 }
    }
}

impl Default for Mongodb {
    fn default() -> Self {
        Self { uri: SecretString::from("mongodb://127.0.0.1:27017/"), database: "milestream".into() }
    }
}

impl Default for Photos {
    fn default() -> Self {
        Self { url: "file:///var/lib/milestream/photos".into(), compare: true }
    }
}

impl Default for Ingest {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            public_url: "http://127.0.0.1:8080".into(),
            max_photo_bytes: 16 * 1024 * 1024,
            upload_memory_bytes: 0,
            header_timeout_ms: 10_000,
            keep_alive_timeout_ms: 75_000,
            body_idle_timeout_ms: 10_000,
            body_timeout_ms: 60_000,
            max_connections: 1_024,
            max_streams: 256,
            max_streams_per_user: 8,
            trusted_proxies: Vec::new(),
            forwarded_header: "x-forwarded-for".into(),
            proxy_protocol: false,
            cors_origins: Vec::new(),
            development_wallets_file: String::new(),
            node_url: SecretString::default(),
            requests_per_user_per_minute: 120,
            requests_per_address_per_minute: 300,
            uploads_per_user_per_day: 20,
            uploads_per_address_per_hour: 60,
        }
    }
}

impl Default for Vehicles {
    fn default() -> Self {
        Self { must_be_registered: true }
    }
}

impl Default for Reviews {
    fn default() -> Self {
        Self { time_out_days: 14, claim_minutes: 10, second_person_above_km: 1_000 }
    }
}

impl Default for EngineSection {
    fn default() -> Self {
        Self {
            instance: String::new(),
            session_timeout_ms: 10_000,
            drain_budget_ms: 6_000,
            record_retry_limit_ms: 30_000,
            guards: "on".into(),
        }
    }
}

impl Default for Services {
    fn default() -> Self {
        Self {
            keys_file: "keys/services.keys".into(),
            keys: SecretString::default(),
            secrets_folder: "keys/services".into(),
        }
    }
}

impl Default for Chain {
    fn default() -> Self {
        Self {
            genesis_id: String::new(),
            keystore_file: "keys/distributor.json".into(),
            keystore_password_file: "keys/distributor.password".into(),
            batch_rewards: 40,
            batch_wait_ms: 30_000,
            expiration_blocks: 180,
            daily_ceiling: "10000".into(),
            gas_strategy: "medium".into(),
            proofs_url: String::new(),
            watch_secret: SecretString::default(),
        }
    }
}

impl Default for Watch {
    fn default() -> Self {
        Self { gateway_url: "http://127.0.0.1:8080".into(), poll_ms: 2_000, start_block: 0 }
    }
}

impl Default for Ops {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9100)) }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self { jwks_file: "keys/jwks.json".into(), signing_key_file: "keys/signing-key.pem".into() }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: "text".into(), filter: "info".into() }
    }
}

pub(super) fn redacted<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.expose_secret().is_empty() { "" } else { REDACTED })
}

/// A URL without its password and query (which may carry one).
fn redacted_url<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    let Ok(mut url) = Url::parse(secret.expose_secret()) else { return serializer.serialize_str(REDACTED) };
    if url.password().is_some() && url.set_password(Some("redacted")).is_err() {
        return serializer.serialize_str(REDACTED);
    }
    url.set_query(None);
    serializer.serialize_str(url.as_str())
}
