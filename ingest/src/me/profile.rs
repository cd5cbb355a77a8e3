//! `GET /v1/me` and `PATCH /v1/me`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use super::audit::Change;
use super::{Account, given};
use crate::accounts::preferences::{is_email, is_https};
use crate::auth::admission::{Agent, Caller};
use crate::http::problem::{ApiError, EMAIL_TAKEN, INTERNAL, INVALID_FIELD, Problem};
use crate::http::reply::Uncached;
use crate::http::request::{Dependency, JsonBody};

/// What changing a profile refuses.
pub(crate) const REFUSALS: &[Problem] = &[INVALID_FIELD, EMAIL_TAKEN];
/// Characters of a name.
const NAME: std::ops::RangeInclusive<usize> = 3..=100;

/// An account's row.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Row {
    id: Uuid,
    username: Option<String>,
    email: Option<String>,
    pub(super) email_verified: bool,
    profile_image: Option<String>,
    wallet_address: Option<String>,
    role: String,
    pub(super) verification_level: String,
    is_verified: bool,
    total_mileage: Decimal,
    total_rewards: Decimal,
    sustainability_score: Option<i32>,
    created_at: DateTime<Utc>,
    last_login_at: Option<DateTime<Utc>>,
    erasure_due_at: Option<DateTime<Utc>>,
}

/// Your account
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Profile {
    user_id: Uuid,
    username: Option<String>,
    email: Option<String>,
    /// Whether a code has shown that the address is yours; e-mails go to one that is alone
    email_verified: bool,
    profile_image: Option<String>,
    /// Where rewards are paid to
    wallet_address: Option<String>,
    /// What tokens of a login allow: driver, reviewer or operator
    role: String,
    verification_level: String,
    /// Whether the wallet that rewards are paid to has signed
    is_verified: bool,
    /// Kilometres
    total_mileage: Decimal,
    /// B3TR
    total_rewards: Decimal,
    sustainability_score: Option<i32>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    last_login_at: Option<String>,
    /// When the account is erased, where you have asked for it
    #[schema(format = DateTime)]
    erasure_due_at: Option<String>,
}

/// What to change; what is left out stays as it is
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "left out, null, or a value")]
pub(crate) struct ProfileChange {
    /// 3 to 100 characters
    #[serde(default)]
    #[schema(min_length = 3, max_length = 100)]
    username: Option<String>,
    /// Kept in lower case; null takes it away. Another address is not proven: ask for a code
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 254)]
    email: Option<Option<String>>,
    /// An https URL; null takes it away
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 500)]
    profile_image: Option<Option<String>>,
}

impl Row {
    pub(super) fn document(self) -> Profile {
        let instant = crate::queries::payout::instant;
        Profile {
            user_id: self.id,
            username: self.username,
            email: self.email,
            email_verified: self.email_verified,
            profile_image: self.profile_image,
            wallet_address: self.wallet_address,
            role: self.role,
            verification_level: self.verification_level,
            is_verified: self.is_verified,
            total_mileage: self.total_mileage,
            total_rewards: self.total_rewards,
            sustainability_score: self.sustainability_score,
            created_at: instant(self.created_at),
            last_login_at: self.last_login_at.map(instant),
            erasure_due_at: self.erasure_due_at.map(instant),
        }
    }
}

pub(super) async fn find(connection: &mut PgConnection, caller: &Caller) -> Result<Row, ApiError> {
    let row = sqlx::query_as(
        "select u.*, u.verification_level::text as verification_level, u.email_verified_at is not null as email_verified,
           e.due_at as erasure_due_at
         from users u left join erasures e on e.user_id = u.id where u.id = $1",
    )
    .bind(caller.user.0)
    .fetch_optional(connection)
    .await?;
    // Whoever asks has an account, or would not have got here.
    row.ok_or_else(|| INTERNAL.error())
}

/// `GET /v1/me`.
pub(crate) async fn show(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
) -> Result<Uncached<Profile>, ApiError> {
    let mut connection = account.pool.acquire().await?;
    Ok(Uncached(find(&mut connection, &caller).await?.document()))
}

/// `PATCH /v1/me`.
pub(crate) async fn change(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
    JsonBody(change): JsonBody<ProfileChange>,
) -> Result<Uncached<Profile>, ApiError> {
    let change = change.checked()?;
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let before = find(&mut tx, &caller).await?;
    sqlx::query(
        "update users set username = coalesce($2, username), email = case when $3 then $4 else email end,
           profile_image = case when $5 then $6 else profile_image end, updated_at = $7 where id = $1",
    )
    .bind(caller.user.0)
    .bind(&change.username)
    .bind(change.email.is_some())
    .bind(change.email.clone().flatten())
    .bind(change.profile_image.is_some())
    .bind(change.profile_image.clone().flatten())
    .bind(now.to_utc())
    .execute(&mut *tx)
    .await
    .map_err(|error| match error.as_database_error() {
        Some(database) if database.is_unique_violation() => EMAIL_TAKEN.error().field("email"),
        _ => error.into(),
    })?;
    let after = find(&mut tx, &caller).await?;
    let shown = |row: &Row| json!({ "username": row.username, "has_email": row.email.is_some(), "profile_image": row.profile_image });
    let record = Change {
        module: "users",
        action: "user.update",
        target: caller.user.0,
        before: shown(&before),
        after: shown(&after),
        agent: agent.as_deref(),
    };
    record.record(&mut tx, &caller, now).await?;
    tx.commit().await?;
    Ok(Uncached(after.document()))
}

impl ProfileChange {
    fn checked(mut self) -> Result<Self, ApiError> {
        let unusable = |field: &'static str, wanted: &str| {
            Err(INVALID_FIELD.because(format!("the field {field} is not usable: {wanted}")).field(field))
        };
        if let Some(name) = &mut self.username {
            *name = name.trim().to_owned();
            if !NAME.contains(&name.chars().count()) || name.chars().any(char::is_control) {
                return unusable("username", "3 to 100 characters are wanted");
            }
        }
        if let Some(Some(email)) = &mut self.email {
            *email = email.to_lowercase();
            if !is_email(email) {
                return unusable("email", "an e-mail address is wanted");
            }
        }
        if self.profile_image.as_ref().and_then(Option::as_deref).is_some_and(|image| !is_https(image)) {
            return unusable("profile_image", "an https URL of at most 500 characters is wanted");
        }
        Ok(self)
    }
}
