//! `POST /v1/auth/refresh`: a refresh token for the next ones. Each is good once: one that comes again is in two hands, and ends its
//! session.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::ids::{Micros, UserId};
use serde::Deserialize;
use sqlx::{FromRow, PgPool};
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
use crate::outbox::Row;

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
        let question = Question::from(trace.address, now.to_utc());
        self.look(question).await?.check(now.to_utc())?;
        let before = fingerprint(token);
        let Some(session) = current(&self.pool, &before, now).await? else {
            return Err(self.spent(&before, now, trace).await?);
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
        let log = Row::of(self.schemas.activity_logged, &trace.success(now)?)?;
        if renew(&self.pool, (&session, &before), (&tokens, expires_at), log, now).await? {
            return Ok(tokens);
        }
        Err(self.spent(&before, now, trace).await?)
    }

    /// Why a token that is nobody's newest is refused. One that was used ends its session.
    async fn spent(&self, hash: &str, now: Micros, trace: &mut Trace) -> Result<ApiError, sqlx::Error> {
        let reused = revoke_family(&self.pool, hash, now, trace).await?;
        Ok(if reused { REFRESH_REUSED.error() } else { REFRESH_INVALID.error() })
    }
}

/// The session whose newest refresh token this is.
async fn current(pool: &PgPool, hash: &str, now: Micros) -> Result<Option<Session>, sqlx::Error> {
    sqlx::query_as(
        "select s.id, s.user_id, s.created_at, u.role, u.is_active
         from user_sessions s join users u on u.id = s.user_id
         where s.refresh_token = $1 and s.is_active and s.expires_at > $2",
    )
    .bind(hash)
    .bind(now.to_utc())
    .fetch_optional(pool)
    .await
}

/// Puts other tokens in the place of a session's, remembers the used one, forgets those that would have expired by now, and records it.
/// False where the token is not the session's newest any more: of two at once the second waits for the first, and finds it used.
async fn renew(
    pool: &PgPool,
    (session, before): (&Session, &str),
    (tokens, expires_at): (&Tokens, DateTime<Utc>),
    log: Row,
    now: Micros,
) -> Result<bool, sqlx::Error> {
    let renewed = sqlx::query(
        "with renewed as (
           update user_sessions set session_token = $3, refresh_token = $4, expires_at = $5, last_activity = $6
           where id = $1 and refresh_token = $2 and is_active and expires_at > $7
           returning id
         ), spent as (
           insert into spent_refresh_tokens (token_hash, session_id, spent_at) select $2, id, $7 from renewed
         ), forgotten as (
           delete from spent_refresh_tokens s using renewed where s.session_id = renewed.id and s.spent_at < $8
         )
         insert into outbox (topic, key, event_id, payload, created_at) select $9, $10, $11, $12, $7 from renewed",
    )
    .bind(session.id)
    .bind(before)
    .bind(fingerprint(tokens.access_token.as_bytes()))
    .bind(fingerprint(tokens.refresh_token.as_bytes()))
    .bind(expires_at)
    .bind(minute(now.to_utc()))
    .bind(now.to_utc())
    .bind(now.to_utc() - REMEMBERED)
    .bind(log.topic)
    .bind(log.key)
    .bind(log.event_id)
    .bind(log.payload)
    .execute(pool)
    .await?;
    Ok(renewed.rows_affected() == 1)
}

/// Ends the session of a token that was used before; false where it never was one.
async fn revoke_family(
    pool: &PgPool,
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
    .fetch_optional(pool)
    .await?;
    let Some((session, user)) = ended else { return Ok(false) };
    trace.user = Some(UserId(user));
    *trace = trace.clone().with("session_id", session.to_string());
    Ok(true)
}
