//! Settings that a deployment chooses once: written to `deployment_settings` when they are first used, and held against that ever
//! after, because records were written under them.

use sqlx::PgPool;

/// Why a setting is refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// It was chosen otherwise.
    #[error(
        "{name} is {configured}, and this deployment was set up with {chosen}: it cannot be changed any more, put {chosen} back"
    )]
    Changed {
        /// The setting.
        name: &'static str,
        /// What was chosen.
        chosen: String,
        /// What is configured now.
        configured: String,
    },
    /// The database does not do it.
    #[error("deployment_settings (run `milestream migrate` first): {0}")]
    Database(#[from] sqlx::Error),
}

/// Chooses a setting, or holds it against what was chosen. Of several that choose at once, the first counts.
///
/// # Errors
/// [`SettingError`].
pub async fn choose(pool: &PgPool, name: &'static str, configured: String) -> Result<(), SettingError> {
    sqlx::query(
        "insert into deployment_settings (name, value) values ($1, $2) on conflict (name) do nothing",
    )
    .bind(name)
    .bind(&configured)
    .execute(pool)
    .await?;
    let chosen: String = sqlx::query_scalar("select value from deployment_settings where name = $1")
        .bind(name)
        .fetch_one(pool)
        .await?;
    if chosen == configured { Ok(()) } else { Err(SettingError::Changed { name, chosen, configured }) }
}
