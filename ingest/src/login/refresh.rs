//! `POST /v1/auth/refresh`: a refresh token for the next ones. Each is good once: one that comes again is in two hands, and ends its
//! session.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::ids::{Micros, UserId};
use serde::Deserialize;
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use super::SignIn;
use super::look::Question;
use super::records::{Trace, error_message};
use super::tokens::{Tokens, make};
use crate::accounts::session::{fingerprint, minute};
use crate::auth::admission::{Agent, Visitor};
use crate::http::problem::{
    ACCOUNT_LOCKED, ApiError, INTERNAL, Problem, REFRESH_INVALID, REFRESH_REUSED, SIGN_IN_DELAYED,
    SIGN_IN_UNAVAILABLE,
};
use crate::http::reply::Uncached;
use crate::http::request::{Dependency, JsonBody};
use crate::outbox::announce;

/// What the route itself refuses.
pub(crate) const REFUSALS: &[Problem] =
    &[SIGN_IN_UNAVAILABLE, SIGN_IN_DELAYED, REFRESH_INVALID, REFRESH_REUSED, ACCOUNT_LOCKED];
/// A used refresh token is remembered for as long as it could have been used: after that it is refused by its age alone.
pub(super) const REMEMBERED: TimeDelta = TimeDelta::days(7);

/// The newest refresh token
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RefreshRequest {
    #[schema(max_length = 43)]
    refresh_token: String,
}

/// A session by its refresh token.
#[derive(FromRow)]
struct Session {
    id: Uuid,
    user_id: Uuid,
    created_at: Option<DateTime<Utc>>,
    role: String,
    is_active: bool,
}

/// The route.
pub(crate) async fn post(
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    Visitor(from): Visitor,
    Agent(agent): Agent,
    JsonBody(request): JsonBody<RefreshRequest>,
) -> Result<Uncached<Tokens>, ApiError> {
    let mut trace = Trace::new("token_refresh", from, agent);
    match sign_in.refresh(request.refresh_token.as_bytes(), &mut trace).await {
        Ok(tokens) => Ok(Uncached(tokens)),
        Err(error) if error.problem() == REFRESH_REUSED => {
            if let Some(message) = error_message(&error) {
                sign_in.log.write(&trace.log(Some(message)));
            }
            sign_in.log.write(&trace.event("token_reuse", "high"));
            Err(error)
        }
        Err(error) => {
            sign_in.refused(&error, &trace).await;
            Err(error)
        }
    }
}

impl SignIn {
    async fn refresh(&self, token: &[u8], trace: &mut Trace) -> Result<Tokens, ApiError> {
        let key = self.key()?;
        let now = self.clock.now();
        let question = Question {
            address: trace.address,
            wallet: None,
            network: None,
            challenge: None,
            now: now.to_utc(),
        };
        self.look(question).await?.check(now.to_utc())?;
        let before = fingerprint(token);
        let mut tx = self.pool.begin().await?;
        let Some(session) = current(&mut tx, &before, now).await? else {
            let reused = revoke_family(&mut tx, &before, now, trace).await?;
            tx.commit().await?;
            return Err(if reused { REFRESH_REUSED.error() } else { REFRESH_INVALID.error() });
        };
        let user = UserId(session.user_id);
        trace.user = Some(user);
        *trace = trace.clone().with("session_id", session.id.to_string());
        if !session.is_active {
            return Err(ACCOUNT_LOCKED.error());
        }
        let role = session.role.parse().map_err(|error: String| INTERNAL.caused_by(error))?;
        let created_at = session.created_at.unwrap_or_else(|| now.to_utc());
        let (tokens, expires_at) = make(&key, (user, role, session.id), created_at, now)?;
        spend(&mut tx, &session, &before, now).await?;
        sqlx::query(
            "update user_sessions set session_token = $2, refresh_token = $3, expires_at = $4, last_activity = $5
             where id = $1",
        )
        .bind(session.id)
        .bind(fingerprint(tokens.access_token.as_bytes()))
        .bind(fingerprint(tokens.refresh_token.as_bytes()))
        .bind(expires_at)
        .bind(minute(now.to_utc()))
        .execute(&mut *tx)
        .await?;
        let log = trace.success(now)?;
        announce(&mut tx, self.schemas.activity_logged, &log, now).await?;
        tx.commit().await?;
        Ok(tokens)
    }
}

/// The session whose newest refresh token this is; its row is locked, so that of two at once the second finds the token used.
async fn current(tx: &mut PgConnection, hash: &str, now: Micros) -> Result<Option<Session>, sqlx::Error> {
    sqlx::query_as(
        "select s.id, s.user_id, s.created_at, u.role, u.is_active
         from user_sessions s join users u on u.id = s.user_id
         where s.refresh_token = $1 and s.is_active and s.expires_at > $2 for update of s",
    )
    .bind(hash)
    .bind(now.to_utc())
    .fetch_optional(tx)
    .await
}

/// Remembers a used token, and forgets those that would have expired by now.
async fn spend(tx: &mut PgConnection, session: &Session, hash: &str, now: Micros) -> Result<(), sqlx::Error> {
    sqlx::query("insert into spent_refresh_tokens (token_hash, session_id, spent_at) values ($1, $2, $3)")
        .bind(hash)
        .bind(session.id)
        .bind(now.to_utc())
        .execute(&mut *tx)
        .await?;
    sqlx::query("delete from spent_refresh_tokens where session_id = $1 and spent_at < $2")
        .bind(session.id)
        .bind(now.to_utc() - REMEMBERED)
        .execute(tx)
        .await?;
    Ok(())
}

/// Ends the session of a token that was used before; false where it never was one.
async fn revoke_family(
    tx: &mut PgConnection,
    hash: &str,
    now: Micros,
    trace: &mut Trace,
) -> Result<bool, sqlx::Error> {
    let ended: Option<(Uuid, Uuid)> = sqlx::query_as(
        "update user_sessions s set is_active = false from spent_refresh_tokens t
         where t.token_hash = $1 and t.spent_at > $2 and s.id = t.session_id returning s.id, s.user_id",
    )
    .bind(hash)
    .bind(now.to_utc() - REMEMBERED)
    .fetch_optional(tx)
    .await?;
    let Some((session, user)) = ended else { return Ok(false) };
    trace.user = Some(UserId(user));
    *trace = trace.clone().with("session_id", session.to_string());
    Ok(true)
}
