//! What operators change of accounts (`milestream users`, `milestream sessions`). Each works in a transaction of the caller's, who writes
//! it into the audit log there.

use schemas::events::{AccountChanged, UserHeld, UserReleased};
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
    /// It was erased, for good.
    #[error("the account {0} is erased")]
    Erased(UserId),
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
    refuse_erased(tx, user).await?;
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

/// Holds an account, whose payouts wait from then on, or releases it, and announces the change; whether it was held before. `schemas` are
/// the registry's ids of `UserHeld` and `UserReleased`. What is signed already is paid.
///
/// # Errors
/// [`UserError`].
pub async fn set_held(
    tx: &mut PgConnection,
    (user_held, user_released): (u32, u32),
    user: UserId,
    held: bool,
    now: Micros,
) -> Result<bool, UserError> {
    let before: Option<bool> =
        sqlx::query_scalar("select held_at is not null from users where id = $1 for update")
            .bind(user.0)
            .fetch_optional(&mut *tx)
            .await?;
    let was_held = before.ok_or(UserError::Missing(user))?;
    refuse_erased(tx, user).await?;
    if was_held == held {
        return Ok(was_held);
    }
    sqlx::query("update users set held_at = case when $2 then $3 end, updated_at = $3 where id = $1")
        .bind(user.0)
        .bind(held)
        .bind(now.to_utc())
        .execute(&mut *tx)
        .await?;
    let (event_id, user_id, occurred_at) = (EventId(Uuid::now_v7()), user, now);
    if held {
        announce(tx, user_held, &UserHeld { event_id, user_id, occurred_at }, now).await?;
    } else {
        announce(tx, user_released, &UserReleased { event_id, user_id, occurred_at }, now).await?;
    }
    Ok(was_held)
}

async fn refuse_erased(tx: &mut PgConnection, user: UserId) -> Result<(), UserError> {
    let erased: bool = sqlx::query_scalar(
        "select exists (select from erasures where user_id = $1 and erased_at is not null)",
    )
    .bind(user.0)
    .fetch_one(tx)
    .await?;
    if erased { Err(UserError::Erased(user)) } else { Ok(()) }
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
