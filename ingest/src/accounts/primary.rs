//! Which wallet is the primary one: rewards of photos that are accepted, and rewards that are claimed, are paid to it. A first wallet is at
//! once ([`super::wallets`]); another takes its place after a cooling time, in which it can be taken back, so that nobody who holds
//! somebody's session for an hour is paid in their place. Nothing else moves `user_wallets.is_primary` from one wallet to another.

use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use runtime::timers::{JobError, PORTION, Ran, portions};
use schemas::ids::{Micros, UserId, natural};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::level::raise;
use crate::outbox::OutboxError;

/// Makes a wallet of the user's the primary one; the one before. The account's row is locked.
pub(crate) async fn set(
    tx: &mut PgConnection,
    user: Uuid,
    wallet: Uuid,
    now: DateTime<Utc>,
) -> Result<Option<Uuid>, sqlx::Error> {
    let before: Option<Uuid> = sqlx::query_scalar(
        "update user_wallets set is_primary = false, updated_at = $2 where user_id = $1 and is_primary returning id",
    )
    .bind(user)
    .bind(now)
    .fetch_optional(&mut *tx)
    .await?;
    sqlx::query("update user_wallets set is_primary = true, updated_at = $2 where id = $1")
        .bind(wallet)
        .bind(now)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "update users u set wallet_address = w.wallet_address, is_verified = true, updated_at = $3
         from user_wallets w where u.id = $1 and w.id = $2",
    )
    .bind(user)
    .bind(wallet)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(before)
}

/// Has a wallet become the primary one at a time, in place of any other that was to. The account's row is locked.
pub(crate) async fn request(
    tx: &mut PgConnection,
    user: Uuid,
    wallet: Uuid,
    (now, due_at): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into wallet_changes (user_id, wallet_id, requested_at, due_at) values ($1, $2, $3, $4)
         on conflict (user_id) do update set wallet_id = excluded.wallet_id, requested_at = excluded.requested_at,
           due_at = excluded.due_at",
    )
    .bind(user)
    .bind(wallet)
    .bind(now)
    .bind(due_at)
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes back what was requested; the wallet that was to become the primary one.
pub(crate) async fn take_back(tx: &mut PgConnection, user: Uuid) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar("delete from wallet_changes where user_id = $1 returning wallet_id")
        .bind(user)
        .fetch_optional(tx)
        .await
}

/// Makes those wallets the primary ones whose cooling time is over; how many. Of an account that is locked or held by then the change
/// lapses, as does that to a wallet which its owner has removed: whoever unlocks an account does not thereby have another paid.
/// One of which that fails keeps no other waiting. `account_changed` is the registry's id.
///
/// # Errors
/// Where the database is away; what was done before stays.
pub async fn replace_due(pool: &PgPool, account_changed: u32, now: Micros) -> Result<Ran, JobError> {
    let mut ran = Ran::default();
    let mut changes = portions(|behind: Option<(DateTime<Utc>, Uuid)>| {
        let (due_at, user) = behind.unwrap_or_default();
        sqlx::query_as(
            "select due_at, user_id from wallet_changes where due_at <= $1 and (due_at, user_id) > ($2, $3)
             order by due_at, user_id limit $4",
        )
        .bind(now.to_utc())
        .bind(due_at)
        .bind(user)
        .bind(PORTION)
        .fetch_all(pool)
    });
    while let Some(due) = changes.try_next().await? {
        for (_, user) in due {
            let replaced = replace(pool, account_changed, UserId(user), now).await;
            ran.count(pool, format!("wallet of {user}"), replaced.map(u64::from)).await?;
        }
    }
    Ok(ran)
}

async fn replace(pool: &PgPool, account_changed: u32, user: UserId, at: Micros) -> Result<bool, OutboxError> {
    let (UserId(id), now) = (user, at.to_utc());
    let mut tx = pool.begin().await?;
    let in_order: bool =
        sqlx::query_scalar("select is_active and held_at is null from users where id = $1 for update")
            .bind(id)
            .fetch_one(&mut *tx)
            .await?;
    // Taken back, or asked for anew, since it was looked for.
    let change: Option<(Uuid, DateTime<Utc>, bool)> = sqlx::query_as(
        "delete from wallet_changes c using user_wallets w
         where c.user_id = $1 and c.due_at <= $2 and w.id = c.wallet_id
         returning c.wallet_id, c.requested_at, w.removed_at is null and w.verified_at is not null",
    )
    .bind(id)
    .bind(now)
    .fetch_optional(&mut *tx)
    .await?;
    let Some((wallet, requested_at, usable)) = change else { return Ok(false) };
    let done = in_order && usable;
    let mut before = None;
    if done {
        before = set(&mut tx, id, wallet, now).await?;
        raise(&mut tx, account_changed, user, at).await?;
    }
    let (before, after) = match done {
        true => (json!({ "primary": before }), json!({ "primary": wallet })),
        false => (json!({ "requested": wallet }), Value::Null),
    };
    sqlx::query(
        "insert into system_audit_logs (id, action, module, action_details, timestamp, severity)
         values ($1, 'wallet.set_primary', 'wallets', $2, $3, 'info')",
    )
    .bind(natural(&format!("wallet-change/{user}/{}", requested_at.timestamp_micros())))
    .bind(json!({ "target": user, "wallet": wallet, "before": before, "after": after, "via": "timers" }))
    .bind(now)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(done)
}
