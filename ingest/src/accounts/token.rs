//! Issuing tokens for operators (`milestream token`): the account, its session and the token in one transaction.

use std::time::Duration;

use chrono::TimeDelta;
use schemas::codec::CodecError;
use schemas::events::AccountChanged;
use schemas::ids::{EventId, Micros, UserId};
use schemas::logs::{AuthLog, LogDocument as _};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::preferences::Preferences;
use super::session::NewSession;
use crate::auth::keys::{Claims, KeyError, Role, SigningKey};
use crate::http::problem::{ACCOUNT_LOCKED, ApiError, INTERNAL};
use crate::outbox::{OutboxError, announce};
use crate::schema_ids::SchemaIds;

/// Longest life of a token: its session ends then.
const TTL_MAX: Duration = Duration::from_secs(7 * 86_400);

/// Why no token was issued.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The account is locked.
    #[error("the account {0} is locked")]
    Locked(UserId),
    /// Not 1 second to 7 days.
    #[error("a token lives 1 second to 7 days")]
    Ttl,
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An event does not encode: a bug of ours.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A document does not encode: a bug of ours.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Locked(_) => ACCOUNT_LOCKED.error(),
            TokenError::Database(error) => error.into(),
            other => INTERNAL.caused_by(other),
        }
    }
}

impl From<OutboxError> for TokenError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Codec(error) => Self::Codec(error),
            OutboxError::Database(error) => Self::Database(error),
        }
    }
}

/// Issues a token; makes the account (`driver-` and the first 8 hex digits of the id, level basic) with its preferences where
/// there is none, and announces both through the outbox.
///
/// # Errors
/// [`TokenError`]; nothing is written then.
pub async fn issue(
    pool: &PgPool,
    key: &SigningKey,
    schemas: SchemaIds,
    (user, role): (UserId, Role),
    ttl: Duration,
    now: Micros,
) -> Result<String, TokenError> {
    if ttl.as_secs() == 0 || ttl > TTL_MAX {
        return Err(TokenError::Ttl);
    }
    let ttl_s = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    let claims = Claims::new((user, role, Uuid::now_v7()), now, ttl_s);
    let token = key.sign(&claims)?;
    let mut tx = pool.begin().await?;
    account(&mut tx, schemas, user, now).await?;
    sqlx::query("update users set last_login_at = $2, updated_at = $2 where id = $1")
        .bind(user.0)
        .bind(now.to_utc())
        .execute(&mut *tx)
        .await?;
    // An operator's token is not refreshed: the hash is that of a random secret nobody has.
    let nobodys: [u8; 32] = rand::random();
    let session = NewSession {
        id: claims.sid,
        user: user.0,
        access: &token,
        refresh: &nobodys,
        expires_at: now.to_utc() + TimeDelta::days(7),
        address: None,
        agent: None,
    };
    session.insert(&mut tx, now.to_utc()).await?;
    let log = AuthLog {
        user_id: Some(user.to_string()),
        action: "login".to_owned(),
        wallet_address: None,
        ip_address: None,
        user_agent: None,
        success: true,
        error_message: None,
        session_duration: None,
        metadata: json!({ "session_id": claims.sid, "method": "operator", "role": role }),
    };
    let log = log.activity(EventId(Uuid::now_v7()), 0, now)?;
    announce(&mut tx, schemas.activity_logged, &log, now).await?;
    tx.commit().await?;
    Ok(token)
}

/// Makes the account with its preferences where there is none, locks its row, and announces it where it is new.
pub(crate) async fn account(
    tx: &mut PgConnection,
    schemas: SchemaIds,
    user: UserId,
    now: Micros,
) -> Result<(), TokenError> {
    let at = now.to_utc();
    let username = format!("driver-{}", &user.0.simple().to_string()[..8]);
    // xmax is 0 exactly for a row that this statement inserted. A row that a sink inserted first has no name yet.
    let (made, is_active, level): (bool, bool, String) = sqlx::query_as(
        "insert into users (id, username, created_at, updated_at) values ($1, $2, $3, $3)
         on conflict (id) do update set username = coalesce(users.username, excluded.username)
         returning xmax = 0, is_active, verification_level::text",
    )
    .bind(user.0)
    .bind(username)
    .bind(at)
    .fetch_one(&mut *tx)
    .await?;
    if !is_active {
        return Err(TokenError::Locked(user));
    }
    Preferences::default().store_first(tx, user, now).await?;
    if made {
        let event = AccountChanged {
            event_id: EventId(Uuid::now_v7()),
            user_id: user,
            occurred_at: now,
            is_active,
            verification_level: level,
        };
        announce(tx, schemas.account_changed, &event, now).await?;
    }
    Ok(())
}
