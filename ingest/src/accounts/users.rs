//! What operators change of accounts (`milestream users`, `milestream sessions`). Each works in a transaction of the caller's, who writes
//! it into the audit log there.

use schemas::events::AccountChanged;
use schemas::ids::{EventId, Micros, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::auth::keys::Role;
use crate::outbox::{OutboxError, announce};
use crate::schema_ids::SchemaIds;

/// Why an account was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is none.
    #[error("there is no account {0}")]
    Missing(UserId),
    /// The role of services is not an account's.
    #[error(
        "an account is a driver's, a reviewer's or an operator's: services get tokens by `milestream token`"
    )]
    Role,
    /// An event does not encode: a bug of ours.
    #[error(transparent)]
    Codec(#[from] schemas::codec::CodecError),
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl From<OutboxError> for UserError {
    fn from(error: OutboxError) -> Self {
        match error {
            OutboxError::Codec(error) => Self::Codec(error),
            OutboxError::Database(error) => Self::Database(error),
        }
    }
}

/// Locks an account, which ends its sessions, or unlocks it, and announces the change; whether it was active before. A lock counts from
/// the next request on.
///
/// # Errors
/// [`UserError`].
pub async fn set_active(
    tx: &mut PgConnection,
    schemas: SchemaIds,
    user: UserId,
    active: bool,
    now: Micros,
) -> Result<bool, UserError> {
    let before: Option<(bool, String)> =
        sqlx::query_as("select is_active, verification_level::text from users where id = $1 for update")
            .bind(user.0)
            .fetch_optional(&mut *tx)
            .await?;
    let (was_active, verification_level) = before.ok_or(UserError::Missing(user))?;
    if was_active == active {
        return Ok(was_active);
    }
    sqlx::query("update users set is_active = $2, updated_at = $3 where id = $1")
        .bind(user.0)
        .bind(active)
        .bind(now.to_utc())
        .execute(&mut *tx)
        .await?;
    if !active {
        end_sessions(tx, user).await?;
    }
    let event = AccountChanged {
        event_id: EventId(Uuid::now_v7()),
        user_id: user,
        occurred_at: now,
        is_active: active,
        verification_level,
    };
    announce(tx, schemas.account_changed, &event, now).await?;
    Ok(was_active)
}

/// Gives an account a role, which its next token has; the one before.
///
/// # Errors
/// [`UserError`].
pub async fn set_role(
    tx: &mut PgConnection,
    user: UserId,
    role: Role,
    now: Micros,
) -> Result<Role, UserError> {
    if role == Role::Service {
        return Err(UserError::Role);
    }
    let before: Option<String> = sqlx::query_scalar("select role from users where id = $1 for update")
        .bind(user.0)
        .fetch_optional(&mut *tx)
        .await?;
    let before = before.ok_or(UserError::Missing(user))?;
    sqlx::query("update users set role = $2, updated_at = $3 where id = $1")
        .bind(user.0)
        .bind(role.label())
        .bind(now.to_utc())
        .execute(tx)
        .await?;
    before.parse().map_err(|_| UserError::Role)
}

/// Ends the open sessions of an account; their ids.
///
/// # Errors
/// The database.
pub async fn end_sessions(tx: &mut PgConnection, user: UserId) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "update user_sessions set is_active = false where user_id = $1 and is_active returning id",
    )
    .bind(user.0)
    .fetch_all(tx)
    .await
}
