//! `GET /v1/preferences` and `PUT /v1/preferences`. What is put in holds for photos that are accepted from then on.

use std::sync::Arc;

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::Account;
use super::audit::Change;
use crate::accounts::preferences::Preferences;
use crate::auth::admission::{Agent, Caller};
use crate::http::problem::{ApiError, INTERNAL, INVALID_FIELD, Problem};
use crate::http::reply::Json;
use crate::http::request::{Dependency, JsonBody};

/// What putting preferences in refuses.
pub(crate) const REFUSALS: &[Problem] = &[INVALID_FIELD];

type Documents = (Option<Value>, Option<Value>, Option<Value>);

/// The preferences; those of the beginning where an account has none.
async fn find(connection: &mut PgConnection, caller: &Caller) -> Result<Preferences, ApiError> {
    let found: Option<Documents> = sqlx::query_as(
        "select notification_preferences, dashboard_settings, reward_preferences from user_preferences where user_id = $1",
    )
    .bind(caller.user.0)
    .fetch_optional(connection)
    .await?;
    let Some((Some(notifications), Some(dashboard), Some(rewards))) = found else {
        return Ok(Preferences::default());
    };
    serde_json::from_value(json!({
        "notification_preferences": notifications, "dashboard_settings": dashboard, "reward_preferences": rewards,
    }))
    .map_err(|error| INTERNAL.caused_by(error))
}

/// `GET /v1/preferences`.
pub(crate) async fn show(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
) -> Result<Json<Preferences>, ApiError> {
    let mut connection = account.pool.acquire().await?;
    find(&mut connection, &caller).await.map(Json)
}

/// `PUT /v1/preferences`.
pub(crate) async fn put(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
    JsonBody(preferences): JsonBody<Preferences>,
) -> Result<Json<Preferences>, ApiError> {
    preferences.check()?;
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let before = find(&mut tx, &caller).await?;
    preferences.store(&mut tx, caller.user, now).await?;
    // Addresses that notices go to are kept in one place only.
    let shown = |preferences: &Preferences| {
        json!({
            "dashboard_settings": preferences.dashboard_settings, "reward_preferences": preferences.reward_preferences,
        })
    };
    let record = Change {
        module: "users",
        action: "user.update",
        target: caller.user.0,
        before: shown(&before),
        after: shown(&preferences),
        agent: agent.as_deref(),
    };
    record.record(&mut tx, &caller, now).await?;
    tx.commit().await?;
    Ok(Json(preferences))
}
