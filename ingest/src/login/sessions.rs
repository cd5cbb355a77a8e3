//! `GET /v1/sessions`, `DELETE /v1/sessions/{id}` and `POST /v1/auth/logout`: where somebody is signed in, and the end of it.

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::SignIn;
use super::records::Trace;
use crate::auth::admission::{Agent, Caller};
use crate::http::problem::{ApiError, Problem, SESSION_NOT_FOUND};
use crate::http::reply::NoContent;
use crate::http::request::{Dependency, Path, PathParameter, uuid_schema};
use crate::outbox::announce;
use crate::queries::page::{Page, PageQuery};
use crate::queries::payout::instant;

/// A session's id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionId(Uuid);

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl PathParameter for SessionId {
    const MISSING: Problem = SESSION_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// A session's row.
#[derive(Clone, Debug, FromRow)]
struct Row {
    id: Uuid,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    last_activity: Option<DateTime<Utc>>,
    ip_address: Option<String>,
    user_agent: Option<String>,
}

/// A place where you are signed in
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionDocument {
    session_id: Uuid,
    /// Whether it is the one that asks
    current: bool,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: String,
    /// To the minute
    #[schema(format = DateTime)]
    last_activity: Option<String>,
    ip_address: Option<String>,
    user_agent: Option<String>,
}

/// Sessions that have not ended, newest first.
pub(crate) async fn list(
    Dependency(pool): Dependency<PgPool>,
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<SessionDocument>, ApiError> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, created_at, expires_at, last_activity, ip_address, user_agent from user_sessions
         where user_id = $1 and is_active and expires_at > $2 and (created_at, id) < ($3, $4)
         order by created_at desc, id desc limit $5",
    )
    .bind(caller.user.0)
    .bind(sign_in.clock.now().to_utc())
    .bind(query.after.0)
    .bind(query.after.1)
    .bind(query.rows())
    .fetch_all(&pool)
    .await?;
    let document = |row: &Row| SessionDocument {
        session_id: row.id,
        current: row.id == caller.session,
        created_at: instant(row.created_at),
        expires_at: instant(row.expires_at),
        last_activity: row.last_activity.map(instant),
        ip_address: row.ip_address.clone(),
        user_agent: row.user_agent.clone(),
    };
    Ok(query.page(&rows, |row| (row.created_at, row.id), document))
}

/// Ends one of the caller's sessions; again changes nothing.
pub(crate) async fn delete(
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    caller: Caller,
    Agent(agent): Agent,
    Path(SessionId(session)): Path<SessionId>,
) -> Result<NoContent, ApiError> {
    let trace = Trace::new("session_revoke", caller.address, agent);
    if sign_in.end(&caller, session, trace).await? { Ok(NoContent) } else { Err(SESSION_NOT_FOUND.error()) }
}

/// Ends the session of the token.
pub(crate) async fn logout(
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    caller: Caller,
    Agent(agent): Agent,
) -> Result<NoContent, ApiError> {
    sign_in.end(&caller, caller.session, Trace::new("logout", caller.address, agent)).await?;
    Ok(NoContent)
}

impl SignIn {
    /// Ends a session; false where it is none of the caller's.
    async fn end(&self, caller: &Caller, session: Uuid, mut trace: Trace) -> Result<bool, ApiError> {
        let now = self.clock.now();
        let mut tx = self.pool.begin().await?;
        let found: Option<(bool, Option<DateTime<Utc>>)> = sqlx::query_as(
            "select is_active, created_at from user_sessions where id = $1 and user_id = $2 for update",
        )
        .bind(session)
        .bind(caller.user.0)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((is_active, created_at)) = found else { return Ok(false) };
        if is_active {
            sqlx::query("update user_sessions set is_active = false where id = $1")
                .bind(session)
                .execute(&mut *tx)
                .await?;
            trace.user = Some(caller.user);
            trace.session_duration =
                created_at.map(|created_at| (now.to_utc() - created_at).num_milliseconds());
            let log = trace.with("session_id", session.to_string()).success(now)?;
            announce(&mut tx, self.schemas.activity_logged, &log, now).await?;
            tx.commit().await?;
        }
        Ok(true)
    }
}
