//! What operators change while gateways run: limits, maintenance and flags of `system_config`, looked at each second by one statement of
//! one row. What is not usable, and a database that does not respond, leave what held before.

use std::time::Duration;

use runtime::switches::Switches;
use serde_json::Value;
use sqlx::PgPool;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::auth::rates::Rates;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What holds now.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Live {
    pub(crate) rates: Rates,
    pub(crate) switches: Switches,
}

/// The row as it was seen last.
pub(crate) struct LiveSettings {
    pool: PgPool,
    /// Where the row does not say otherwise.
    defaults: Rates,
    now: watch::Sender<Live>,
}

/// Why the row of `system_config` is not usable.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// There is none.
    #[error("system_config has no row: run `milestream migrate` first")]
    None,
    /// A key or a value.
    #[error("system_config: {0}: `milestream limits set` and `milestream flags set` write what is usable")]
    Unusable(String),
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

type Row = (Option<bool>, Option<Value>, Option<Value>);

/// Holds that the row can be used, as a gateway does before it starts.
///
/// # Errors
/// [`LiveError`].
pub async fn check(pool: &PgPool, defaults: Rates) -> Result<(), LiveError> {
    load(pool, defaults).await?.map(|_| ()).ok_or(LiveError::None)
}

async fn load(pool: &PgPool, defaults: Rates) -> Result<Option<Live>, LiveError> {
    let row: Option<Row> = sqlx::query_as(
        "select maintenance_mode, feature_flags, rate_limits from system_config order by revision desc limit 1",
    )
    .fetch_optional(pool)
    .await?;
    let Some((maintenance, flags, limits)) = row else { return Ok(None) };
    let rates = defaults.with(limits.as_ref()).map_err(LiveError::Unusable)?;
    let switches = Switches::of(maintenance.unwrap_or(false), flags).map_err(LiveError::Unusable)?;
    Ok(Some(Live { rates, switches }))
}

impl LiveSettings {
    /// The defaults, until the first look.
    pub(crate) fn new(pool: PgPool, defaults: Rates) -> Self {
        let now = watch::Sender::new(Live { rates: defaults, switches: Switches::default() });
        Self { pool, defaults, now }
    }

    /// What holds now.
    pub(crate) fn now(&self) -> watch::Ref<'_, Live> {
        self.now.borrow()
    }

    /// Looks; leaves what holds where the row is not usable.
    pub(crate) async fn look(&self) {
        match load(&self.pool, self.defaults).await {
            Ok(Some(live)) => {
                let changed = self.now.send_if_modified(|before| {
                    let changes = *before != live;
                    *before = live;
                    changes
                });
                if changed {
                    tracing::info!("limits and switches are taken up");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %error, "limits and switches stay as they were"),
        }
    }

    /// Looks until stopped.
    pub(crate) async fn follow(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => self.look().await,
            }
        }
    }
}
