//! `DELETE /v1/me` and `POST /v1/me/keep`: a person has taken away what is kept about them. It is done some days later, by the role
//! `timers`, so that a stolen phone cannot do it at once; until then the account works on, is paid, and may be kept after all.
//!
//! See `docs/adr/0023-erasure.md` for what stays and why.

mod job;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;

pub use self::job::{Due, EraseError, due, erase, owed, traces};
use crate::auth::admission::{Agent, Caller};
use crate::http::problem::{ApiError, ERASURE_DUE, Problem};
use crate::http::reply::{NoContent, Taken};
use crate::http::request::Dependency;
use crate::me::Account;
use crate::me::audit::Change;
use crate::queries::payout::instant;

/// What keeping an account refuses.
pub(crate) const KEEP_REFUSALS: &[Problem] = &[ERASURE_DUE];

/// When an account will be erased
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErasureDocument {
    /// Until then `POST /v1/me/keep` takes it back
    #[schema(format = DateTime)]
    erasure_due_at: String,
    /// B3TR that you have earned and not claimed: claim it before, or it is cancelled
    unclaimed: Decimal,
}

/// When an account will be erased; none where nobody has asked for it.
pub(crate) async fn due_at(
    connection: &mut PgConnection,
    caller: &Caller,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar("select due_at from erasures where user_id = $1 and erased_at is null")
        .bind(caller.user.0)
        .fetch_optional(connection)
        .await
}

/// `DELETE /v1/me`: 202; asking again gives the first response.
pub(crate) async fn ask(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
) -> Result<Taken<ErasureDocument>, ApiError> {
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let due: Option<DateTime<Utc>> = sqlx::query_scalar(
        "insert into erasures (user_id, requested_at, due_at) values ($1, $2, $3)
         on conflict (user_id) do nothing returning due_at",
    )
    .bind(caller.user.0)
    .bind(now.to_utc())
    .bind(now.to_utc() + delta(account.erasure_grace))
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(due) = due {
        let record = Change {
            module: "users",
            action: "user.erasure_request",
            target: caller.user.0,
            before: json!({}),
            after: json!({ "due_at": instant(due) }),
            agent: agent.as_deref(),
        };
        record.record(&mut tx, &caller, now).await?;
    }
    let stands = due_at(&mut tx, &caller).await?.unwrap_or(now.to_utc());
    let unclaimed: Decimal = sqlx::query_scalar(
        "select coalesce(sum(amount_wei), 0) * 0.000000000000000001 from payouts where user_id = $1 and state = 'waiting'",
    )
    .bind(caller.user.0)
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    let document = ErasureDocument { erasure_due_at: instant(stands), unclaimed: unclaimed.normalize() };
    Ok(Taken { now: due.is_some(), location: None, document })
}

/// `POST /v1/me/keep`: the account stays; where nobody has asked for its erasure nothing changes.
pub(crate) async fn keep(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
) -> Result<NoContent, ApiError> {
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let due: Option<DateTime<Utc>> =
        sqlx::query_scalar("delete from erasures where user_id = $1 and due_at > $2 returning due_at")
            .bind(caller.user.0)
            .bind(now.to_utc())
            .fetch_optional(&mut *tx)
            .await?;
    if due.is_none() && due_at(&mut tx, &caller).await?.is_some() {
        // Photos may be gone already.
        return Err(ERASURE_DUE.error());
    }
    if let Some(due) = due {
        let record = Change {
            module: "users",
            action: "user.erasure_cancel",
            target: caller.user.0,
            before: json!({ "due_at": instant(due) }),
            after: json!({}),
            agent: agent.as_deref(),
        };
        record.record(&mut tx, &caller, now).await?;
    }
    tx.commit().await?;
    Ok(NoContent)
}

/// A grace beyond all calendars is none: settings are days.
fn delta(grace: Duration) -> TimeDelta {
    TimeDelta::from_std(grace).unwrap_or_default()
}
