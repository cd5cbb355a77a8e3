//! Takes batches: one transaction each.

use std::future::Future;

use runtime::failpoint::{self, Step};
use runtime::planner::look_up_by_key;
use runtime::retry::database_responds;
use runtime::{Envelope, Sink, SinkError};
use schemas::topic::Topic;
use sqlx::PgPool;

use super::config::{PostgresConfig, PostgresStartError};
use super::event::UploadEvent;
use super::writer::WriteError;
use super::{WRITERS, tables};
use crate::database::sink_error;

/// Materializes [`tables`] and the totals of `users`.
#[derive(Clone, Debug)]
pub struct PostgresSink {
    pool: PgPool,
    config: PostgresConfig,
}

impl PostgresConfig {
    /// The sink, once its tables are there.
    ///
    /// # Errors
    /// [`PostgresStartError`].
    pub async fn build(self, pool: PgPool) -> Result<PostgresSink, PostgresStartError> {
        match tables().missing(&pool).await? {
            Some(table) => Err(PostgresStartError::Missing(table)),
            None => Ok(PostgresSink::new(pool, self)),
        }
    }
}

impl PostgresSink {
    /// A sink on a schema that has its tables; [`PostgresConfig::build`] checks that.
    #[must_use]
    pub fn new(pool: PgPool, config: PostgresConfig) -> Self {
        Self { pool, config }
    }

    async fn apply(&self, batch: &[Envelope<UploadEvent>]) -> Result<(), SinkError> {
        let named = match batch {
            [] => return Ok(()),
            [one] => match one.payload.parts() {
                Some((header, _)) => format!("upload {}", header.upload_id),
                None => format!("offset {}", one.position.offset),
            },
            more => format!("one of {} records", more.len()),
        };
        let failed = |error| sink_error(error, &named, "(table)");
        let mut tx = self.pool.begin().await.map_err(failed)?;
        look_up_by_key(&mut tx, Some(self.config.statement_timeout)).await.map_err(failed)?;
        for writer in WRITERS {
            writer.write(&mut tx, batch).await.map_err(|error| match error {
                WriteError::Postgres(error) => failed(error),
                WriteError::Value(bad) => SinkError::BadRow(bad.to_string()),
            })?;
        }
        failpoint::at(Step::SinkStored);
        tx.commit().await.map_err(failed)
    }
}

impl Sink for PostgresSink {
    const NAME: &'static str = "postgres";
    const TOPICS: &'static [Topic] = &[
        Topic::UploadsReceived,
        Topic::UploadsGraded,
        Topic::UploadsReadings,
        Topic::UploadsDecided,
        Topic::RewardsCalculated,
        Topic::RewardsGranted,
        Topic::PayoutsUpdated,
        Topic::ChainEvents,
        Topic::ModelsDeployed,
        Topic::AccountsEvents,
    ];
    type In = UploadEvent;

    fn write(&self, batch: &[Envelope<UploadEvent>]) -> impl Future<Output = Result<(), SinkError>> + Send {
        self.apply(batch)
    }

    async fn dependencies_respond(&self) -> bool {
        database_responds(&self.pool).await
    }
}
