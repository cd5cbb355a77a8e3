//! `/v1/notices`: what somebody was told, what their webhooks are signed with, and telling something again. The `notices` sink sends.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use schemas::ids::UserId;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, PgPool};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;

use crate::auth::admission::{Agent, Caller};
use crate::http::operation::one_of;
use crate::http::problem::{ApiError, NOTICE_NOT_FOUND, Problem};
use crate::http::reply::{NoContent, Uncached};
use crate::http::request::{Dependency, Path, PathParameter, uuid_schema};
use crate::me::Account;
use crate::me::audit::Change;
use crate::queries::page::{Page, PageQuery};
use crate::queries::payout::instant;

/// A notice's id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoticeId(Uuid);

impl std::str::FromStr for NoticeId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl PathParameter for NoticeId {
    const MISSING: Problem = NOTICE_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// A notice and what became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NoticeItem {
    /// The same in each attempt: `webhook-id`, and the `Message-ID` of an e-mail
    id: Uuid,
    #[schema(schema_with = channels)]
    channel: String,
    #[serde(rename = "type")]
    #[schema(schema_with = kinds)]
    kind: String,
    /// What is told
    #[schema(value_type = Object)]
    data: Value,
    #[schema(format = DateTime)]
    occurred_at: String,
    #[schema(schema_with = states)]
    status: &'static str,
    attempts: i32,
    /// Of the last attempt, where that failed
    error: Option<String>,
    #[schema(format = DateTime)]
    delivered_at: Option<String>,
    /// When it is sent next, where it waits
    #[schema(format = DateTime)]
    due_at: Option<String>,
    #[schema(format = DateTime)]
    created_at: String,
}

fn channels() -> Schema {
    one_of(&["email", "sms", "push", "webhook"])
}

fn kinds() -> Schema {
    one_of(&[
        "upload_settled",
        "reward_paid",
        "review_needed",
        "security_event",
        "reward_expiring",
        "reward_expired",
        "vehicle_offered",
    ])
}

fn states() -> Schema {
    one_of(&["waiting", "delivered", "given_up"])
}

/// What your webhooks are signed with from now on
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NoticeSecret {
    /// `whsec_` and base64, as libraries for Standard Webhooks take it; shown once
    secret: String,
}

#[derive(FromRow)]
struct Row {
    id: Uuid,
    channel: String,
    kind: String,
    document: Value,
    occurred_at: DateTime<Utc>,
    attempts: i32,
    last_error: Option<String>,
    delivered_at: Option<DateTime<Utc>>,
    given_up_at: Option<DateTime<Utc>>,
    due_at: DateTime<Utc>,
    created_at: DateTime<Utc>,
}

impl Row {
    fn item(&self) -> NoticeItem {
        let status = match (self.delivered_at, self.given_up_at) {
            (Some(_), _) => "delivered",
            (None, Some(_)) => "given_up",
            (None, None) => "waiting",
        };
        NoticeItem {
            id: self.id,
            channel: self.channel.clone(),
            kind: self.kind.clone(),
            data: self.document.clone(),
            occurred_at: instant(self.occurred_at),
            status,
            attempts: self.attempts,
            error: self.last_error.clone(),
            delivered_at: self.delivered_at.map(instant),
            due_at: (status == "waiting").then(|| instant(self.due_at)),
            created_at: instant(self.created_at),
        }
    }
}

/// `GET /v1/notices`.
pub(crate) async fn list(
    Dependency(pool): Dependency<PgPool>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<NoticeItem>, ApiError> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, channel, kind, document, occurred_at, attempts, last_error, delivered_at, given_up_at, due_at, created_at
         from notice_deliveries where user_id = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4",
    )
    .bind(caller.user.0)
    .bind(query.after.0)
    .bind(query.after.1)
    .bind(query.rows())
    .fetch_all(&pool)
    .await?;
    Ok(query.page(&rows, |row| (row.created_at, row.id), Row::item))
}

/// `POST /v1/notices/{id}/send`: one that is delivered or given up is sent anew; one that waits is sent now. It waits for a day again.
pub(crate) async fn send(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Path(NoticeId(id)): Path<NoticeId>,
) -> Result<NoContent, ApiError> {
    let changed = sqlx::query(
        "update notice_deliveries set delivered_at = null, given_up_at = null, due_at = $3, attempts = 0,
           created_at = case when delivered_at is null and given_up_at is null then created_at else $3 end
         where id = $1 and user_id = $2",
    )
    .bind(id)
    .bind(caller.user.0)
    .bind(account.clock.now().to_utc())
    .execute(&account.pool)
    .await?;
    if changed.rows_affected() == 1 { Ok(NoContent) } else { Err(NOTICE_NOT_FOUND.error()) }
}

/// `POST /v1/notices/secret`: a new secret in the place of the one before.
pub(crate) async fn secret(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
) -> Result<Uncached<NoticeSecret>, ApiError> {
    let (secret, now): ([u8; 32], _) = (rand::random(), account.clock.now());
    let mut tx = account.pool.begin().await?;
    let UserId(user) = caller.user;
    sqlx::query(
        "insert into notice_secrets (user_id, secret, created_at) values ($1, $2, $3)
         on conflict (user_id) do update set secret = excluded.secret, created_at = excluded.created_at",
    )
    .bind(user)
    .bind(&secret[..])
    .bind(now.to_utc())
    .execute(&mut *tx)
    .await?;
    let (module, action) = ("auth", "key.create");
    let (before, after, agent) = (Value::Null, json!({ "for": "notices" }), agent.as_deref());
    Change { module, action, target: user, before, after, agent }.record(&mut tx, &caller, now).await?;
    tx.commit().await?;
    Ok(Uncached(NoticeSecret { secret: format!("whsec_{}", STANDARD.encode(secret)) }))
}
