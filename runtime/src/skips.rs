//! Records that an operator has set aside (`milestream records skip`, table `skipped_records`). A role that would halt at
//! such a record ends it as a dead letter: its bytes are kept, and a redrive processes it once a release knows its type.
//! A deciding stage stores that as the record's outcome under its fence, like any other dead letter.

use std::time::Duration;

use sqlx::PgPool;

use crate::stage::Position;

/// Between two looks for a skip that frees a halted partition.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Looks for skips of one environment; without a database there are none.
#[derive(Clone, Debug, Default)]
pub struct Skips(Option<PgPool>);

impl Skips {
    /// The skips that are stored in this database.
    #[must_use]
    pub fn of(pool: PgPool) -> Self {
        Self(Some(pool))
    }

    /// Why an operator has set this record aside for `stage`; `None` where nobody has.
    ///
    /// # Errors
    /// When Postgres does not respond.
    pub async fn reason(&self, stage: &str, at: &Position) -> Result<Option<String>, sqlx::Error> {
        let Some(pool) = &self.0 else { return Ok(None) };
        sqlx::query_scalar(
            "select reason from skipped_records
             where stage = $1 and topic = $2 and partition = $3 and record_offset = $4",
        )
        .bind(stage)
        .bind(&*at.topic)
        .bind(at.partition)
        .bind(at.offset)
        .fetch_optional(pool)
        .await
    }

    /// Waits until a record of this partition is set aside that was not when the wait began. Without a database it waits
    /// for ever: the caller waits for the end of the assignment beside it.
    pub async fn added(&self, stage: &str, topic: &str, partition: i32) {
        let Some(pool) = &self.0 else { return std::future::pending().await };
        let mut known = None;
        loop {
            let count = sqlx::query_scalar::<_, i64>(
                "select count(*) from skipped_records where stage = $1 and topic = $2 and partition = $3",
            )
            .bind(stage)
            .bind(topic)
            .bind(partition)
            .fetch_one(pool)
            .await;
            match count {
                Ok(count) if *known.get_or_insert(count) != count => return,
                Ok(_) => {}
                Err(error) => tracing::debug!(stage, topic, partition, %error, "skips cannot be read now"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
