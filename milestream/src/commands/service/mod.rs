//! `milestream service`: reading services, rows of `ai_service_configs` with sealed keys. Each change is recorded in
//! `system_audit_logs`, in the same transaction; no key is.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use processors::models::SERVICE;
use providers::vault::{Vault, generate_key, read_secret, secret_of};
use providers::{Credentials, Limits, Protocol, ServiceConfig, trust};
use rust_decimal::{Decimal, RoundingStrategy};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

mod row;

use row::{PRIORITY, ROWS, Row, write};

/// Most USD that a call may cost: more is a mistake in the unit.
const COST_MAX: Decimal = Decimal::ONE_HUNDRED;
/// Names the lock under which commands that seal keys take turns.
const LOCK: i64 = 0x6d73_6b65_7973;

/// What to do with reading services.
#[derive(Debug, Subcommand)]
pub enum Service {
    /// List services in the order in which they are asked: priority, state, threshold, cost, name, protocol, address, and the id of
    /// the key that seals its key.
    List,
    /// Add a service, or change it; what is not given stays as it is.
    Set(Box<SetService>),
    /// Stop asking a service; `milestream service set` enables it again.
    Disable {
        /// Its name.
        name: String,
    },
    /// Seal every key again: with a new key put in front of services.keys_file, or with the first of services.keys where they are
    /// given themselves. Running stages use it within half a minute.
    Rotate,
}

/// A service and what is known of it.
#[derive(Debug, Args)]
pub struct SetService {
    /// Its name, e.g. `Google Vision`; `Milestream Embedded` is the embedded reader.
    name: String,
    /// `google_vision`, `aws_rekognition` or `openai` (any compatible server).
    #[arg(long)]
    protocol: Option<String>,
    /// Its whole address, https and without query, e.g. `https://vision.googleapis.com/v1/images:annotate`.
    #[arg(long)]
    endpoint: Option<String>,
    /// The model to ask for; needed for `openai`.
    #[arg(long)]
    model: Option<String>,
    /// 1 is asked first, 10 last; ties go by name.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=10))]
    priority: Option<i32>,
    /// Confidence below which the next service is asked: up to 0.85 for a service outside.
    #[arg(long)]
    threshold: Option<Decimal>,
    /// USD per call at the list price.
    #[arg(long)]
    cost: Option<Decimal>,
    /// Calls per minute of one process; 0 for none at all.
    #[arg(long)]
    per_minute: Option<u32>,
    /// Calls per hour of one process.
    #[arg(long)]
    per_hour: Option<u32>,
    /// Calls per day (UTC) of one process.
    #[arg(long)]
    per_day: Option<u32>,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_parser = clap::value_parser!(i32).range(100..=60_000))]
    timeout_ms: Option<i32>,
    /// Milliseconds after which the next service is asked as well.
    #[arg(long, value_parser = clap::value_parser!(i32).range(10..=60_000))]
    hedge_ms: Option<i32>,
    /// A file with its API key, or AWS' access key id; `-` is standard input.
    #[arg(long)]
    key_file: Option<PathBuf>,
    /// A file with AWS' secret access key; `-` is standard input.
    #[arg(long)]
    secret_file: Option<PathBuf>,
}

impl Service {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::List => list(config).await,
            Self::Set(service) => set(config, service).await,
            Self::Disable { name } => disable(config, name).await,
            Self::Rotate => rotate(config).await,
        }
    }
}

fn action(name: &'static str, severity: &'static str) -> Action {
    Action { module: "ai", action: name, severity }
}

/// A transaction in which no other command seals keys.
async fn begin(config: &Config) -> Result<Transaction<'static, Postgres>> {
    let mut tx = database::pool(config)?.begin().await?;
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(&mut *tx).await?;
    Ok(tx)
}

/// Writes the embedded reader down beside the services outside: operators and dashboards see the whole cascade. What an operator
/// set of it stays; the address names the models of this release.
pub async fn add_embedded(config: &Config) -> Result<()> {
    let mut tx = begin(config).await?;
    let ours = Row::embedded()?;
    let found: Option<Row> = sqlx::query_as(ROWS).bind(SERVICE).fetch_optional(&mut *tx).await?;
    if found.as_ref().is_some_and(|found| found.endpoint_url == ours.endpoint_url) {
        return Ok(());
    }
    let vault = Vault::default();
    let shown = found.as_ref().map(|row| row.shown(&vault));
    let what = if found.is_some() { "provider.update" } else { "provider.create" };
    let row = match found {
        Some(found) => Row { endpoint_url: ours.endpoint_url, ..found },
        None => ours,
    };
    write(&mut tx, &row).await?;
    audit(&mut tx, action(what, "info"), SERVICE, shown, row.shown(&vault)).await?;
    tx.commit().await?;
    Ok(())
}

/// Prints services, one per line.
async fn list(config: &Config) -> Result<()> {
    let vault = config.service_keys().vault()?;
    let rows: Vec<Row> =
        sqlx::query_as(ROWS).bind(None::<String>).fetch_all(&database::pool(config)?).await?;
    for row in rows {
        let text = |value: Option<Decimal>, places: usize| {
            value.map_or("-".to_owned(), |value| format!("{value:.places$}"))
        };
        let key = row.api_key.as_deref().map(|stored| vault.key_of(stored).unwrap_or_else(|_| "?".into()));
        println!(
            "{} {} {} {} {:?} {} {} {}",
            row.priority.unwrap_or_default(),
            if row.is_active { "active" } else { "disabled" },
            text(row.accuracy_threshold, 2),
            text(row.cost_per_request, 4),
            row.service_name,
            row.protocol.as_deref().unwrap_or("-"),
            row.endpoint_url.as_deref().unwrap_or("-"),
            key.as_deref().unwrap_or("-"),
        );
    }
    Ok(())
}

/// Adds a service, or changes it.
async fn set(config: &Config, service: &SetService) -> Result<()> {
    let (key, secret) = (given(service.key_file.as_deref())?, given(service.secret_file.as_deref())?);
    let mut tx = begin(config).await?;
    if key.is_some() || secret.is_some() {
        make_keys(config)?;
    }
    let vault = config.service_keys().vault()?;
    let found: Option<Row> = sqlx::query_as(ROWS).bind(&service.name).fetch_optional(&mut *tx).await?;
    let before = match &found {
        Some(row) => row.clone(),
        None if service.name == SERVICE => Row::embedded()?,
        None => Row::new(&service.name),
    };
    let mut row = changed(service, before.clone())?;
    check(&row, key.as_ref(), secret.as_ref())?;
    let id = row.id;
    let sealed = |column: &str, secret: &Option<SecretString>| {
        secret.as_ref().map(|secret| vault.seal(id, column, secret)).transpose()
    };
    let (key, secret) = (sealed("api_key", &key)?, sealed("api_secret", &secret)?);
    let rotated = found.is_some() && (key.is_some() || secret.is_some());
    row.api_key = key.or(row.api_key);
    row.api_secret = secret.or(row.api_secret);
    write(&mut tx, &row).await?;
    let shown = found.as_ref().map(|row| row.shown(&vault));
    let what = if found.is_some() { "provider.update" } else { "provider.create" };
    audit(&mut tx, action(what, "info"), &service.name, shown, row.shown(&vault)).await?;
    if rotated {
        let after = json!({"sealed_with": vault.current_key()});
        audit(&mut tx, action("provider.secret_rotate", "critical"), &service.name, None, after).await?;
    }
    tx.commit().await?;
    forget(&vault, &before, &row);
    println!("{} is asked with priority {}", row.service_name, row.priority.unwrap_or_default());
    Ok(())
}

/// A secret from a file or standard input.
fn given(path: Option<&Path>) -> Result<Option<SecretString>> {
    let Some(path) = path else { return Ok(None) };
    let secret = if path == Path::new("-") {
        secret_of(std::io::stdin().lock())?.context("standard input is no secret: too long, or no UTF-8")?
    } else {
        read_secret(path)?
    };
    ensure!(!secret.expose_secret().is_empty(), "{} is empty", path.display());
    Ok(Some(secret))
}

/// The row with what was given.
fn changed(service: &SetService, mut row: Row) -> Result<Row> {
    if row.service_name == SERVICE {
        let fixed = service.protocol.is_some() || service.endpoint.is_some() || service.model.is_some();
        ensure!(!fixed, "{SERVICE} is part of the program: it has no other protocol, address or model");
    }
    row.protocol = service.protocol.clone().or(row.protocol);
    row.endpoint_url = service.endpoint.clone().or(row.endpoint_url);
    row.model = service.model.clone().or(row.model);
    row.priority = service.priority.or(row.priority);
    row.accuracy_threshold = service.threshold.or(row.accuracy_threshold);
    row.timeout_ms = service.timeout_ms.unwrap_or(row.timeout_ms);
    row.hedge_ms = service.hedge_ms.or(row.hedge_ms);
    row.is_active = true;
    let mut limits = row.rate_limit.unwrap_or_else(|| json!({}));
    for (name, limit) in
        [("per_minute", service.per_minute), ("per_hour", service.per_hour), ("per_day", service.per_day)]
    {
        limits[name] = limit.map_or_else(|| limits[name].clone(), Value::from);
    }
    row.rate_limit = Some(limits);
    if let Some(cost) = service.cost {
        ensure!((Decimal::ZERO..=COST_MAX).contains(&cost), "--cost: {cost} USD is not between 0 and 100");
        row.cost_per_request = Some(cost.round_dp_with_strategy(4, RoundingStrategy::AwayFromZero));
    }
    Ok(row)
}

/// Refuses what the stage could not ask.
fn check(row: &Row, key: Option<&SecretString>, secret: Option<&SecretString>) -> Result<()> {
    let label = row.protocol.as_deref().context("--protocol: google_vision, aws_rekognition or openai")?;
    let Some(protocol) = Protocol::of(label) else {
        bail!("--protocol: {label:?} is none of google_vision, aws_rekognition, openai")
    };
    let embedded = row.service_name == SERVICE;
    ensure!(
        (protocol == Protocol::Embedded) == embedded,
        "--protocol: embedded is that of {SERVICE:?} alone"
    );
    ensure!(row.service_name.len() <= 100, "the name is longer than 100 characters");
    ensure!(
        row.model.as_ref().is_none_or(|model| model.len() <= 100),
        "--model is longer than 100 characters"
    );
    let threshold = row.accuracy_threshold.unwrap_or_default();
    let most = if embedded { Decimal::new(99, 2) } else { trust::AGREED };
    ensure!(
        (Decimal::ZERO..=most).contains(&threshold) && threshold.scale() <= 2,
        "--threshold: {threshold} is not between 0 and {most} in hundredths: nothing would reach it"
    );
    if embedded {
        ensure!(key.is_none() && secret.is_none(), "{SERVICE} has no key");
        return Ok(());
    }
    let cost = row.cost_per_request.context("--cost: USD per call at the list price")?;
    // A key that is in the row already was checked when it was set.
    let kept = |stored: &Option<String>| stored.as_ref().map(|_| SecretString::from("kept"));
    let config = ServiceConfig {
        name: row.service_name.clone(),
        protocol,
        endpoint: row.endpoint_url.clone().context("--endpoint: the service's whole address")?,
        model: row.model.clone(),
        priority: row.priority.unwrap_or(PRIORITY),
        threshold,
        cost,
        limits: Limits::default(),
        timeout: Duration::from_secs(1),
        hedge: None,
        credentials: Credentials {
            key: key.cloned().or(kept(&row.api_key)),
            secret: secret.cloned().or(kept(&row.api_secret)),
        },
    };
    config.check().with_context(|| row.service_name.clone())
}

/// Stops asking a service.
async fn disable(config: &Config, name: &str) -> Result<()> {
    ensure!(name != SERVICE, "{SERVICE} is part of every cascade; its threshold says when the next is asked");
    let mut tx = begin(config).await?;
    let vault = config.service_keys().vault()?;
    let found: Option<Row> = sqlx::query_as(ROWS).bind(name).fetch_optional(&mut *tx).await?;
    let before =
        found.with_context(|| format!("there is no service {name:?}: see `milestream service list`"))?;
    let after = Row { is_active: false, ..before.clone() };
    write(&mut tx, &after).await?;
    let shown = Some(before.shown(&vault));
    audit(&mut tx, action("provider.update", "info"), name, shown, after.shown(&vault)).await?;
    tx.commit().await?;
    Ok(())
}

/// Seals every key again. The new key is in the file before a row is sealed with it, and the old ones stay: a stage that reads
/// between the two opens every row.
async fn rotate(config: &Config) -> Result<()> {
    let mut tx = begin(config).await?;
    if config.services.keys.expose_secret().is_empty() {
        add_key(&config.services.keys_file)?;
    }
    let vault = config.service_keys().vault()?;
    let current = vault.current_key().context("services.keys is empty")?.to_owned();
    let rows: Vec<Row> = sqlx::query_as(ROWS).bind(None::<String>).fetch_all(&mut *tx).await?;
    let mut replaced = Vec::new();
    for before in rows.into_iter().filter(|row| row.api_key.is_some() || row.api_secret.is_some()) {
        let sealed_again = |column: &str, stored: &Option<String>| -> Result<Option<String>> {
            let Some(stored) = stored else { return Ok(None) };
            let opened = vault.open(before.id, column, stored);
            let opened = opened.with_context(|| format!("{}: {column}", before.service_name))?;
            Ok(Some(vault.seal(before.id, column, &opened)?))
        };
        let (api_key, api_secret) =
            (sealed_again("api_key", &before.api_key)?, sealed_again("api_secret", &before.api_secret)?);
        let after = Row { api_key, api_secret, ..before.clone() };
        write(&mut tx, &after).await?;
        let sealed_with = json!({"sealed_with": current});
        let rotated = action("provider.secret_rotate", "critical");
        audit(&mut tx, rotated, &before.service_name, None, sealed_with).await?;
        replaced.push((before, after));
    }
    tx.commit().await?;
    for (before, after) in &replaced {
        forget(&vault, before, after);
    }
    println!(
        "the keys of {} services are sealed with {current}; older keys are no longer needed",
        replaced.len()
    );
    Ok(())
}

/// Removes the files of secrets that no row names any more. One that stays is sealed and harms nobody, so this fails nothing.
fn forget(vault: &Vault, before: &Row, after: &Row) {
    for (old, new) in [(&before.api_key, &after.api_key), (&before.api_secret, &after.api_secret)] {
        let Some(old) = old.as_deref().filter(|_| old != new) else { continue };
        if let Err(error) = vault.forget(old) {
            tracing::warn!(error = %error, "a file that is no longer needed stays");
        }
    }
}

/// Makes the first key that seals, where there is none.
fn make_keys(config: &Config) -> Result<()> {
    if config.service_keys().vault()?.current_key().is_none() {
        add_key(&config.services.keys_file)?;
    }
    Ok(())
}

/// Puts a fresh key in front of a keys file, whole or not at all.
fn add_key(path: &Path) -> Result<()> {
    let text = match read_secret(path) {
        Ok(text) => text,
        Err(_) if !path.exists() => SecretString::default(),
        Err(error) => return Err(error.into()),
    };
    let failed = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(failed)?;
    }
    let beside = path.with_extension(format!("{}.new", Uuid::new_v4().simple()));
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
    let mut file = file.with_context(failed)?;
    for line in [generate_key(), text] {
        file.write_all(line.expose_secret().as_bytes())
            .and_then(|()| file.write_all(b"\n"))
            .with_context(failed)?;
    }
    file.sync_all().and_then(|()| std::fs::rename(&beside, path)).with_context(failed)
}
