//! Takes batches: one statement each.

use chrono::Utc;
use runtime::retry::database_responds;
use runtime::{Envelope, Sink, SinkError};
use schemas::topic::Topic;
use sqlx::PgPool;

use super::event::{NoticeEvent, Told};
use super::{OLDEST, service};

/// Writes what is to be told.
#[derive(Clone, Debug)]
pub struct NoticesSink {
    pool: PgPool,
    channels: Vec<&'static str>,
}

impl NoticesSink {
    /// A sink for these ways of telling; [`super::NoticesConfig::build`] knows them.
    #[must_use]
    pub(super) fn new(pool: PgPool, channels: Vec<&'static str>) -> Self {
        Self { pool, channels }
    }
}

impl Sink for NoticesSink {
    const NAME: &'static str = "notices";
    const TOPICS: &'static [Topic] = &[Topic::UploadsDecided, Topic::PayoutsUpdated, Topic::ActivityLogs];
    type In = NoticeEvent;

    async fn write(&self, batch: &[Envelope<NoticeEvent>]) -> Result<(), SinkError> {
        let now = Utc::now();
        let fresh = |told: &Told| now - told.occurred_at.to_utc() < OLDEST;
        let told: Vec<Told> = batch.iter().filter_map(|record| record.payload.told()).filter(fresh).collect();
        service::insert(&self.pool, &told, &self.channels, now).await
    }

    async fn dependencies_respond(&self) -> bool {
        database_responds(&self.pool).await
    }
}
