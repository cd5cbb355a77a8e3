//! `milestream users`: accounts. Each change is recorded in `system_audit_logs`, in the same transaction.

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};
use ingest::keys::Role;
use ingest::users::{set_active, set_held, set_role};
use runtime::clock::{Clock as _, SystemClock};
use runtime::registry::Registry;
use schemas::events::{UserHeld, UserReleased};
use schemas::ids::UserId;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::{database, schema_ids};

/// What to do with accounts.
#[derive(Debug, Subcommand)]
pub enum Users {
    /// List accounts, the newest first: id, role, state (active, held, locked or erased), name, wallet.
    List {
        /// Only those that are locked.
        #[arg(long)]
        locked: bool,
        /// How many at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Print an account with its wallets as JSON, without the e-mail address.
    Show {
        /// The user.
        user: Uuid,
    },
    /// Lock an account: its sessions end at once, and it signs in no more.
    Lock {
        /// The user.
        user: Uuid,
        /// Why, for the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Unlock an account.
    Unlock {
        /// The user.
        user: Uuid,
        /// Why, for the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Hold an account: its payouts wait from now on, but for those that are signed. It signs in and sends photos as before.
    Hold {
        /// The user.
        user: Uuid,
        /// Why, for the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Release a held account: its payouts go on.
    Release {
        /// The user.
        user: Uuid,
        /// Why, for the audit log.
        #[arg(long)]
        reason: String,
    },
    /// Say what an account's tokens allow, from its next login or refresh on.
    Role {
        /// The user.
        user: Uuid,
        /// What they allow.
        #[arg(value_enum)]
        role: AccountRole,
    },
}

/// What an account's tokens allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccountRole {
    /// Sends photos.
    Driver,
    /// Looks at doubtful photos.
    Reviewer,
    /// Operates the system.
    Operator,
}

impl Users {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::List { locked, limit } => list(config, *locked, *limit).await,
            Self::Show { user } => show(config, *user).await,
            Self::Lock { user, reason } => activate(config, UserId(*user), false, reason).await,
            Self::Unlock { user, reason } => activate(config, UserId(*user), true, reason).await,
            Self::Hold { user, reason } => hold(config, UserId(*user), true, reason).await,
            Self::Release { user, reason } => hold(config, UserId(*user), false, reason).await,
            Self::Role { user, role } => change_role(config, UserId(*user), *role).await,
        }
    }
}

/// An account: its id, role, state, name and wallet.
type Row = (Uuid, String, String, Option<String>, Option<String>);

/// Prints accounts, one per line.
async fn list(config: &Config, locked: bool, limit: i64) -> Result<()> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, role, case when e.erased_at is not null then 'erased' when not is_active then 'locked'
             when held_at is not null then 'held' else 'active' end, username, wallet_address
         from users left join erasures e on e.user_id = id where not ($1 and is_active)
         order by created_at desc, id desc limit $2",
    )
    .bind(locked)
    .bind(limit)
    .fetch_all(&database::pool(config)?)
    .await?;
    for (id, role, standing, name, wallet) in rows {
        // Quoted, so that a name cannot pass for another column or line.
        let name = name.map_or_else(|| "-".to_owned(), |name| format!("{name:?}"));
        println!("{id} {role} {standing} {name} {}", wallet.as_deref().unwrap_or("-"));
    }
    Ok(())
}

/// Prints an account.
async fn show(config: &Config, user: Uuid) -> Result<()> {
    let account: Option<Value> = sqlx::query_scalar(
        "select to_jsonb(u) - 'email' || jsonb_build_object('has_email', u.email is not null,
            'wallets', (select coalesce(jsonb_agg(to_jsonb(w) - 'user_id' order by w.created_at), '[]') from user_wallets w where w.user_id = u.id),
            'open_sessions', (select count(*) from user_sessions s where s.user_id = u.id and s.is_active and s.expires_at > now()))
         from users u where id = $1",
    )
    .bind(user)
    .fetch_optional(&database::pool(config)?)
    .await?;
    let account = account.with_context(|| format!("there is no account {user}"))?;
    println!("{account:#}");
    Ok(())
}

/// Locks or unlocks an account.
async fn activate(config: &Config, user: UserId, active: bool, reason: &str) -> Result<()> {
    let registry = Registry::new(&config.registry_client())?;
    let schemas = schema_ids::registered(&registry, &config.kafka.topic_prefix).await?;
    let pool = database::pool(config)?;
    let mut tx = pool.begin().await?;
    let before = set_active(&mut tx, schemas, user, active, SystemClock.now()).await?;
    let what = if active {
        Action { module: "users", action: "user.activate", severity: "info" }
    } else {
        Action { module: "users", action: "user.deactivate", severity: "warning" }
    };
    let after = json!({ "is_active": active, "reason": reason });
    audit(&mut tx, what, &user.to_string(), Some(json!({ "is_active": before })), after).await?;
    tx.commit().await?;
    println!("{user} {}", if active { "active" } else { "locked" });
    Ok(())
}

/// Holds or releases an account.
async fn hold(config: &Config, user: UserId, held: bool, reason: &str) -> Result<()> {
    let registry = Registry::new(&config.registry_client())?;
    let prefix = &config.kafka.topic_prefix;
    let schemas = (registry.id_of::<UserHeld>(prefix).await?, registry.id_of::<UserReleased>(prefix).await?);
    let mut tx = database::pool(config)?.begin().await?;
    let before = set_held(&mut tx, schemas, user, held, SystemClock.now()).await?;
    let action = if held { "user.hold" } else { "user.release" };
    let what = Action { module: "users", action, severity: "warning" };
    let after = json!({ "is_held": held, "reason": reason });
    audit(&mut tx, what, &user.to_string(), Some(json!({ "is_held": before })), after).await?;
    tx.commit().await?;
    println!("{user} {}", if held { "held" } else { "released" });
    Ok(())
}

/// Gives an account a role.
async fn change_role(config: &Config, user: UserId, role: AccountRole) -> Result<()> {
    let role = match role {
        AccountRole::Driver => Role::Driver,
        AccountRole::Reviewer => Role::Reviewer,
        AccountRole::Operator => Role::Operator,
    };
    let pool = database::pool(config)?;
    let mut tx = pool.begin().await?;
    let before = set_role(&mut tx, user, role, SystemClock.now()).await?;
    let what = Action { module: "users", action: "user.role_change", severity: "warning" };
    audit(&mut tx, what, &user.to_string(), Some(json!({ "role": before })), json!({ "role": role })).await?;
    tx.commit().await?;
    println!("{user} {}", role.label());
    Ok(())
}
