//! How far an account is verified: one whose primary wallet has signed and whose e-mail address is proven is `verified`. What is above and
//! the way down are an operator's.

use schemas::events::AccountChanged;
use schemas::ids::{EventId, Micros, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::outbox::{OutboxError, announce};

/// Raises a `basic` account that has proven both, and announces it; whether it was raised. `account_changed` is the registry's id.
///
/// # Errors
/// [`OutboxError`].
pub(crate) async fn raise(
    tx: &mut PgConnection,
    account_changed: u32,
    user: UserId,
    now: Micros,
) -> Result<bool, OutboxError> {
    let raised: Option<(bool, String)> = sqlx::query_as(
        "update users set verification_level = 'verified', updated_at = $2
         where id = $1 and verification_level = 'basic' and is_verified and email_verified_at is not null
         returning is_active, verification_level::text",
    )
    .bind(user.0)
    .bind(now.to_utc())
    .fetch_optional(&mut *tx)
    .await?;
    let Some((is_active, verification_level)) = raised else { return Ok(false) };
    let event = AccountChanged {
        event_id: EventId(Uuid::now_v7()),
        user_id: user,
        occurred_at: now,
        is_active,
        verification_level,
    };
    announce(tx, account_changed, &event, now).await?;
    Ok(true)
}
