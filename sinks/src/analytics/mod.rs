//! The `analytics` sink: rolling aggregates of uploads, decisions, rewards and payments in `analytics_data`, of reading services in
//! `ai_performance_metrics`, and the hourly documents of models (`model_hours`).
//!
//! [`counts`] and [`entities`] say what an event adds, as functions of the event alone; [`windows`] where it falls: each event is
//! added to the hour, day, ISO week, month and year that hold it. Sums are exact ([`exact`]), so that no order and no split into
//! batches changes them, and an hour's rows add up to the day's to the last digit.
//!
//! **Once.** What an event reports is counted when an event reports it for the first time: its key (`accepted:UPLOAD`,
//! `read:EVENT`, `decided:UPLOAD`, `calculated:REWARD`, `granted:REWARD`) goes into `analytics_seen` in the transaction that
//! adds it up. What can change (`paid:REWARD`, `fee:NETWORK/TX`, `verdict:UPLOAD`) is kept in `analytics_entities` with its
//! highest revision and what was counted of it, so that a block that is undone takes back what it brought. `created_at` is the
//! earliest event that ever counted in a row.
//!
//! **Rows of nothing.** A sum of which everything was taken back stays as 0; a mean without samples has no value.
//!
//! **Growth.** Neither helper table is swept: a key that is gone would let its event count again, should its topic be read from
//! the beginning. Five keys an upload, some 110 bytes each with their index, and a verdict's 200 make 0.8 GB a million uploads.
//!
//! Not built: distinct counts (`active_users`, `active_vehicles`, `retention`), quantiles (durations, `granted_to_paid`), `streak_weeks`,
//! `new_users` and `sessions_started`, `rewards_claimed` and `payouts_failed`, `sustainability_score`, `stage_duration`, `dead_letters`,
//! `reading_confidence` and `reading_cost`, the cut by provider; refusing what is too late or from the future, closing windows,
//! and with them `analytics_processing_logs`, which need a producer; removing old windows.

pub mod co2;
mod config;
mod count;
pub mod counts;
pub mod entities;
mod event;
pub mod exact;
mod labels;
pub mod metrics;
mod model_hours;
mod service;
pub mod services;
mod sink;
mod sums;
pub mod windows;
pub use config::{AnalyticsConfig, AnalyticsStartError};
pub use count::{BadCount, Count};
pub use event::AnalyticsEvent;
pub use sink::AnalyticsSink;

use rdkafka::config::ClientConfig;
use runtime::registry::RegistryConfig;
use sqlx::PgPool;

use crate::database::Tables;
use crate::rebuild::{Progress, RebuildError, Source, TopicCount};

/// The sink's tables, in the order in which a batch locks them.
#[must_use]
pub fn tables() -> Tables {
    Tables {
        emptied: vec![service::SEEN, service::ENTITIES, service::DATA, services::TABLE],
        resets: Vec::new(),
    }
}
/// What metrics there are: a migration fills it.
pub const CATALOGUE: &str = "metric_catalogue";

/// Empties [`tables`] and fills them again; see [`crate::rebuild::rebuild`].
///
/// # Errors
/// [`RebuildError`].
pub async fn rebuild(
    pool: &PgPool,
    kafka: &ClientConfig,
    registry: &RegistryConfig,
    prefix: &str,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Vec<TopicCount>, RebuildError> {
    let sink = AnalyticsSink::new(pool.clone());
    crate::rebuild::rebuild(sink, &tables(), pool, Source { kafka, registry, prefix }, progress).await
}
