//! `milestream sessions`: where people are signed in. Each end of a session is recorded in `system_audit_logs`, in the same transaction.

use anyhow::{Result, ensure};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use ingest::users::end_sessions;
use schemas::ids::UserId;
use serde_json::json;
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;

/// The end of a session, as `system_audit_logs` has it.
const REVOKE: Action = Action { module: "auth", action: "session.revoke", severity: "info" };

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum Sessions {
    /// List the open sessions of a user, the newest first: id, when it began and ends, and from which address.
    List {
        /// The user.
        #[arg(long)]
        user: Uuid,
    },
    /// End a session, or all of a user: their access tokens open nothing from then on.
    Revoke {
        /// The session.
        #[arg(required_unless_present = "user", conflicts_with = "user")]
        session: Option<Uuid>,
        /// All sessions of this user.
        #[arg(long)]
        user: Option<Uuid>,
    },
}

impl Sessions {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::List { user } => list(config, *user).await,
            Self::Revoke { session, user } => revoke(config, *session, *user).await,
        }
    }
}

/// A session: its id, when it began and ends, and from which address.
type Row = (Uuid, DateTime<Utc>, DateTime<Utc>, Option<String>);

/// Prints sessions, one per line.
async fn list(config: &Config, user: Uuid) -> Result<()> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, created_at, expires_at, ip_address from user_sessions
         where user_id = $1 and is_active and expires_at > now() order by created_at desc, id desc",
    )
    .bind(user)
    .fetch_all(&database::pool(config)?)
    .await?;
    let shown = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    for (id, begun, ends, address) in rows {
        println!("{id} {} {} {}", shown(begun), shown(ends), address.as_deref().unwrap_or("-"));
    }
    Ok(())
}

/// Ends sessions.
async fn revoke(config: &Config, session: Option<Uuid>, user: Option<Uuid>) -> Result<()> {
    let pool = database::pool(config)?;
    let mut tx = pool.begin().await?;
    let ended: Vec<Uuid> = match user {
        Some(user) => end_sessions(&mut tx, UserId(user)).await?,
        None => {
            sqlx::query_scalar(
                "update user_sessions set is_active = false where id = $1 and is_active returning id",
            )
            .bind(session)
            .fetch_all(&mut *tx)
            .await?
        }
    };
    ensure!(!ended.is_empty(), "there is no such open session: `milestream sessions list` shows them");
    for session in &ended {
        let (before, after) = (Some(json!({ "is_active": true })), json!({ "is_active": false }));
        audit(&mut tx, REVOKE, &session.to_string(), before, after).await?;
    }
    tx.commit().await?;
    for session in ended {
        println!("{session}");
    }
    Ok(())
}
