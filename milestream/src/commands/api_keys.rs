//! `milestream keys api`: keys of services. Each that is made or revoked is recorded in `system_audit_logs`, in the same transaction.

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Subcommand, ValueEnum};
use ingest::api_keys::{DAYS_MAX, Scopes, create};
use schemas::ids::UserId;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

/// What to do with keys of services.
#[derive(Debug, Subcommand)]
pub enum ApiKeys {
    /// Make a key by which a service acts for an account, and print it: it cannot be printed again.
    Create {
        /// The account.
        #[arg(long)]
        user: Uuid,
        /// What the key is for, as the list shows it.
        #[arg(long)]
        name: String,
        /// What it may do. May be given twice.
        #[arg(long, value_enum, required = true)]
        scope: Vec<Scope>,
        /// Days until it ends.
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
        days: u32,
    },
    /// List keys, the newest first: id, account, scopes, state (active, expired or revoked), end, hour of the last use, name.
    List {
        /// Only those of this account.
        #[arg(long)]
        user: Option<Uuid>,
    },
    /// Revoke a key: it opens nothing from then on.
    Revoke {
        /// The key's id.
        key: Uuid,
        /// Why, for the audit log.
        #[arg(long)]
        reason: String,
    },
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Look at uploads, rewards and vehicles.
    Read,
    /// Send photos.
    Write,
}

impl ApiKeys {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Create { user, name, scope, days } => make(config, (*user, name), scope, *days).await,
            Self::List { user } => list(config, *user).await,
            Self::Revoke { key, reason } => revoke(config, *key, reason).await,
        }
    }
}

async fn make(config: &Config, (user, name): (Uuid, &str), scope: &[Scope], days: u32) -> Result<()> {
    ensure!((1..=100).contains(&name.chars().count()), "a name has 1 to 100 characters");
    let scopes = Scopes { read: scope.contains(&Scope::Read), write: scope.contains(&Scope::Write) };
    let mut tx = database::pool(config)?.begin().await?;
    let known: bool = sqlx::query_scalar("select exists (select from users where id = $1)")
        .bind(user)
        .fetch_one(&mut *tx)
        .await?;
    ensure!(known, "there is no account {user}: `milestream token --user {user}` makes one");
    let made = create(&mut tx, (UserId(user), name), scopes, days, Utc::now()).await?;
    let after = json!({
        "user_id": user, "name": name, "read": scopes.read, "write": scopes.write, "expires_at": made.expires_at,
    });
    let what = Action { module: "auth", action: "key.create", severity: "warning" };
    audit(&mut tx, what, &made.id.to_string(), None, after).await?;
    tx.commit().await?;
    println!("{} {}", made.id, made.key.expose_secret());
    Ok(())
}

type Row = (Uuid, Uuid, Vec<String>, String, DateTime<Utc>, Option<DateTime<Utc>>, String);

async fn list(config: &Config, user: Option<Uuid>) -> Result<()> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, user_id, scopes, case when revoked_at is not null then 'revoked' when expires_at <= now() then 'expired'
             else 'active' end, expires_at, last_used_at, name
         from api_keys where $1 is null or user_id = $1 order by created_at desc, id desc",
    )
    .bind(user)
    .fetch_all(&database::pool(config)?)
    .await?;
    let shown = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    for (id, user, scopes, state, ends, used, name) in rows {
        let used = used.map_or_else(|| "-".to_owned(), shown);
        println!("{id} {user} {} {state} {} {used} {name:?}", scopes.join(","), shown(ends));
    }
    Ok(())
}

async fn revoke(config: &Config, key: Uuid, reason: &str) -> Result<()> {
    let mut tx = database::pool(config)?.begin().await?;
    let before: Option<Value> = sqlx::query_scalar(
        "update api_keys set revoked_at = now() where id = $1 and revoked_at is null
         returning jsonb_build_object('user_id', user_id, 'name', name, 'revoked', false)",
    )
    .bind(key)
    .fetch_optional(&mut *tx)
    .await?;
    let before = before.with_context(|| {
        format!("there is no such key that is not revoked: {key}; `milestream keys api list` shows them")
    })?;
    let what = Action { module: "auth", action: "key.revoke", severity: "warning" };
    audit(&mut tx, what, &key.to_string(), Some(before), json!({ "revoked": true, "reason": reason }))
        .await?;
    tx.commit().await?;
    println!("{key} revoked");
    Ok(())
}
