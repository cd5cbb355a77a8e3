//! What operators run once: migrations, topics, keys, tokens, rebuilds, offsets.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ingest::{SchemaIds, SigningKey};
use runtime::Engine;
use runtime::clock::{Clock as _, SystemClock};
use runtime::dead_letter::header;
use runtime::registry::Registry;
use runtime::source::RawRecord;
use runtime::topics::TopicsError;
use schemas::events::{
    AccountChanged, ActivityLogged, BlockAdopted, BlockUndone, RewardClaimed, UploadReceived,
};
use schemas::ids::UserId;
use schemas::topic::Topic;
use secrecy::ExposeSecret as _;
use sinks::rebuild::Progress;
use sqlx::PgPool;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use uuid::Uuid;

use crate::cli::Role;
use crate::config::Config;
use crate::service_commands;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// A pool that connects when it is first used.
///
/// # Errors
/// For a URL that is none; the URL is not in the error, as it may hold a password.
pub fn pool(config: &Config) -> Result<PgPool> {
    let options: PgConnectOptions =
        config.postgres.url.expose_secret().parse().map_err(|_| {
            anyhow::anyhow!("postgres.url is not postgres://user:password@host:port/database")
        })?;
    Ok(PgPoolOptions::new()
        .max_connections(config.postgres.max_connections)
        .acquire_timeout(Duration::from_secs(config.postgres.acquire_timeout_s))
        .connect_lazy_with(options.application_name("milestream")))
}

/// Brings the tables up to date, and the reading service that is part of the program; several at once take turns under the
/// migrator's lock.
pub async fn migrate(config: &Config) -> Result<()> {
    MIGRATIONS.run(&pool(config)?).await.context("migrations")?;
    service_commands::tell_embedded(config).await.context("the embedded reader's row")
}

/// Creates topics, registers schemas.
pub async fn apply_topics(config: &Config) -> Result<()> {
    let registry = Registry::new(&config.registry_client())?;
    let kafka = config.kafka_client();
    match runtime::topics::check(&kafka, &config.layout()).await {
        // A wrong count is not chosen for good.
        Ok(()) | Err(TopicsError::Missing(_)) => {}
        Err(error) => return Err(error.into()),
    }
    runtime::settings::choose(&pool(config)?, "kafka.partitions", config.kafka.partitions.to_string())
        .await?;
    for difference in runtime::topics::apply(&kafka, &registry, &config.layout()).await? {
        println!("{difference}: set");
    }
    println!("topics and schemas are as specified");
    Ok(())
}

/// Compares topics with their specification, and says everything that differs.
pub async fn compare_topics(config: &Config) -> Result<()> {
    runtime::topics::compare_all(&config.kafka_client(), &config.layout()).await?;
    println!("topics are as specified");
    Ok(())
}

/// Compares partition and replica counts: what every role does before it starts.
pub async fn check_topics(config: &Config) -> Result<()> {
    Ok(runtime::topics::check(&config.kafka_client(), &config.layout()).await?)
}

/// Whether waiting can help: the broker does not answer. A missing topic or a wrong count needs an operator.
pub fn is_weather(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<TopicsError>(), Some(TopicsError::Kafka(_)))
}

/// Fills the materialized tables again.
pub async fn rebuild(config: &Config) -> Result<()> {
    let (pool, kafka, registry) = (pool(config)?, config.kafka_client(), config.registry_client());
    let prefix = &config.kafka.topic_prefix;
    let tell = |progress: Progress| {
        let Progress { topic, done, total, .. } = progress;
        let remaining =
            progress.remaining.map_or(String::new(), |time| format!(", {} s remaining", time.as_secs()));
        eprintln!("{}: {done} of {total}{remaining}", topic.name());
    };
    let mut counts = sinks::postgres::rebuild(&pool, &kafka, &registry, prefix, &tell).await?;
    eprintln!("aggregates");
    counts.extend(sinks::analytics::rebuild(&pool, &kafka, &registry, prefix, &tell).await?);
    for count in counts {
        let skipped: u64 = count.skipped.values().sum();
        println!("{}: {} read, {} written, {skipped} skipped", count.topic.name(), count.read, count.written);
    }
    Ok(())
}

/// Prints dead letters, a line each.
pub async fn list_dead_letters(config: &Config, stage: Option<&str>, reason: Option<&str>) -> Result<()> {
    for letter in dead_letters(config).await? {
        let field = |name| letter.header(name).unwrap_or("?");
        let wanted = |filter: Option<&str>, name| filter.is_none_or(|filter| filter == field(name));
        if wanted(stage, header::STAGE) && wanted(reason, header::REASON) {
            println!(
                "{}:{} {} {} {}/{}@{} {}",
                letter.position.partition,
                letter.position.offset,
                field(header::STAGE),
                field(header::REASON),
                field(header::TOPIC),
                field(header::PARTITION),
                field(header::OFFSET),
                field(header::DETAIL)
            );
        }
    }
    Ok(())
}

/// Appends the originals of dead letters to their topics again.
pub async fn redrive(config: &Config, places: &[(i32, i64)]) -> Result<()> {
    let letters = dead_letters(config).await?;
    let topics = runtime::letters::redrive(&config.kafka_client(), &letters, places).await?;
    for ((partition, offset), topic) in places.iter().zip(topics) {
        println!("{partition}:{offset} appended to {topic}");
    }
    Ok(())
}

async fn dead_letters(config: &Config) -> Result<Vec<RawRecord>> {
    let topic = format!("{}{}", config.kafka.topic_prefix, Topic::DeadLetters.name());
    let client = config.kafka_client();
    Ok(tokio::task::spawn_blocking(move || runtime::snapshot::read(&client, &topic)).await??)
}

/// Puts a deciding stage's group where its decisions end.
pub async fn align_offsets(config: &Config, stage: &str) -> Result<()> {
    let prefix = &config.kafka.topic_prefix;
    let rows = runtime::offsets::align(&config.kafka_client(), &pool(config)?, prefix, stage).await?;
    for (topic, partition, offset) in rows {
        println!("{topic}/{partition}: {offset}");
    }
    Ok(())
}

/// Makes a signing key and its key set; keeps those that exist.
pub fn generate_keys(config: &Config) -> Result<()> {
    let (private, public) = (&config.keys.signing_key_file, &config.keys.jwks_file);
    let key = if private.exists() {
        read_signing_key(private)?
    } else {
        let key = SigningKey::generate()?;
        write_new(private, &key.expose_pem()?, 0o600)?;
        key
    };
    if !public.exists() {
        write_new(public, &key.jwks(), 0o644)?;
    }
    println!("{} signs, {} checks", private.display(), public.display());
    Ok(())
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("write {}", path.display()))
}

fn read_signing_key(path: &Path) -> Result<SigningKey> {
    let pem = std::fs::read_to_string(path).with_context(|| {
        format!("keys.signing_key_file {}: run `milestream keys generate`", path.display())
    })?;
    Ok(SigningKey::from_pem(&pem)?)
}

/// Prints a bearer token on standard output, and nothing else there.
pub async fn token(config: &Config, user: Uuid, role: Role, hours: u32) -> Result<()> {
    let key = read_signing_key(&config.keys.signing_key_file)?;
    let registry = Registry::new(&config.registry_client())?;
    let schemas = registered(&registry, &config.kafka.topic_prefix).await?;
    let role = match role {
        Role::Driver => ingest::keys::Role::Driver,
        Role::Reviewer => ingest::keys::Role::Reviewer,
        Role::Operator => ingest::keys::Role::Operator,
    };
    let life = Duration::from_secs(u64::from(hours) * 3_600);
    let pool = pool(config)?;
    let token =
        ingest::token::issue(&pool, &key, schemas, (UserId(user), role), life, SystemClock.now()).await?;
    println!("{token}");
    Ok(())
}

/// Registry ids of what the gateway writes.
pub async fn registered(registry: &Registry, prefix: &str) -> Result<SchemaIds> {
    Ok(SchemaIds {
        upload_received: registry.id_of::<UploadReceived>(prefix).await?,
        activity_logged: registry.id_of::<ActivityLogged>(prefix).await?,
        account_changed: registry.id_of::<AccountChanged>(prefix).await?,
        reward_claimed: registry.id_of::<RewardClaimed>(prefix).await?,
        block_adopted: registry.id_of::<BlockAdopted>(prefix).await?,
        block_undone: registry.id_of::<BlockUndone>(prefix).await?,
    })
}

/// Registry ids of what the gateway writes, waiting while the registry is not reachable.
pub async fn schema_ids(engine: &Engine) -> Result<SchemaIds> {
    Ok(SchemaIds {
        upload_received: engine.schema_id::<UploadReceived>().await?,
        activity_logged: engine.schema_id::<ActivityLogged>().await?,
        account_changed: engine.schema_id::<AccountChanged>().await?,
        reward_claimed: engine.schema_id::<RewardClaimed>().await?,
        block_adopted: engine.schema_id::<BlockAdopted>().await?,
        block_undone: engine.schema_id::<BlockUndone>().await?,
    })
}
