//! The fence of a deciding stage: an epoch and `decided_upto` per partition, moved by compare-and-set in the same
//! Postgres transaction as the decisions. A zombie's batch hits no row and is rolled back.

use std::collections::{HashMap, HashSet};

use schemas::ids::Micros;
use sqlx::{PgConnection, PgPool, Row as _};
use uuid::Uuid;

use crate::source::Assignment;

/// Whether the guards of money are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Guards {
    /// Always, outside one test.
    #[default]
    On,
    /// Only for the test that shows what the guards are for: no compare-and-set, no look at earlier decisions.
    Off,
}

/// This worker's hold on a partition.
#[derive(Debug)]
pub struct Fence {
    stage: &'static str,
    topic: String,
    partition: i32,
    epoch: i64,
    /// Every record below it is decided.
    pub decided_upto: i64,
    guards: Guards,
}

/// Why a fence could not be taken or moved.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// Postgres does not respond.
    #[error("postgres")]
    Postgres(#[from] sqlx::Error),
    /// Another owner took the partition.
    #[error("another owner took the partition")]
    Lost,
    /// Postgres and Kafka contradict each other.
    #[error("{0}")]
    Inconsistent(String),
}

/// A decision as it is stored.
#[derive(Debug)]
pub struct Stored {
    /// The input's event id, or one made of its position where it has none.
    pub input_event_id: Uuid,
    /// Redrive count.
    pub redrive: i32,
    /// What may happen only once.
    pub effect_id: Option<String>,
    /// The input's offset.
    pub offset: i64,
    /// `emit`, `drop` or `dead_letter`.
    pub outcome: &'static str,
    /// A label.
    pub reason: Option<&'static str>,
    /// Rules applied.
    pub rules_version: String,
    /// What was seen.
    pub evidence: serde_json::Value,
    /// Records to publish, packed by [`crate::stored::pack`].
    pub output: Vec<u8>,
}

impl Fence {
    /// Takes a new epoch. Records from the assignment's start up to `decided_upto` were decided before.
    ///
    /// # Errors
    /// [`FenceError::Inconsistent`] when decisions are missing behind Kafka's offset, or the group's offset is gone.
    pub async fn take(
        pool: &PgPool,
        stage: &'static str,
        assignment: &Assignment,
        owner: &str,
        guards: Guards,
    ) -> Result<Self, FenceError> {
        let (topic, partition, start) =
            (assignment.topic.to_string(), assignment.partition, assignment.start);
        let row = sqlx::query(
            "insert into stage_offsets (stage, topic, partition, epoch, decided_upto, owner, updated_at)
             values ($1, $2, $3, 1, 0, $4, now())
             on conflict (stage, topic, partition)
             do update set epoch = stage_offsets.epoch + 1, owner = excluded.owner, updated_at = now()
             returning epoch, decided_upto",
        )
        .bind(stage)
        .bind(&topic)
        .bind(partition)
        .bind(owner)
        .fetch_one(pool)
        .await?;
        let (epoch, decided_upto): (i64, i64) = (row.try_get("epoch")?, row.try_get("decided_upto")?);
        if guards == Guards::Off {
            return Ok(Self { stage, topic, partition, epoch, decided_upto: start, guards });
        }
        let place = format!("{stage} on {topic}/{partition}");
        if decided_upto < start {
            return Err(FenceError::Inconsistent(format!(
                "{place}: Kafka's offset is {start}, but decisions are stored only up to {decided_upto}: the database is older than the group. Stop the stage and run `milestream offsets align {stage}`: the records in between are decided again, with the same event ids"
            )));
        }
        if assignment.bootstrapped && decided_upto > start {
            return Err(FenceError::Inconsistent(format!(
                "{place}: decisions are stored up to {decided_upto}, but the consumer group has no offset: it expired, or the topic was recreated. If the topic is the one that was decided on, run `milestream offsets align {stage}`; if it was recreated, restore it first"
            )));
        }
        Ok(Self { stage, topic, partition, epoch, decided_upto, guards })
    }

    /// Which of these events and effects are stored already.
    ///
    /// # Errors
    /// [`FenceError::Postgres`].
    pub async fn known(
        &self,
        tx: &mut PgConnection,
        events: &[(Uuid, i32)],
        effects: &[String],
    ) -> Result<(HashSet<(Uuid, i32)>, HashSet<String>), FenceError> {
        if self.guards == Guards::Off {
            return Ok((HashSet::new(), HashSet::new()));
        }
        let (ids, redrives): (Vec<Uuid>, Vec<i32>) = events.iter().copied().unzip();
        let known = sqlx::query_as::<_, (Uuid, i32)>(
            "select d.input_event_id, d.redrive from decisions d
             join unnest($2::uuid[], $3::int[]) as wanted (id, redrive)
               on d.input_event_id = wanted.id and d.redrive = wanted.redrive
             where d.stage = $1",
        )
        .bind(self.stage)
        .bind(ids)
        .bind(redrives)
        .fetch_all(&mut *tx)
        .await?;
        let taken = sqlx::query_scalar::<_, String>(
            "select effect_id from decisions where stage = $1 and effect_id = any($2)",
        )
        .bind(self.stage)
        .bind(effects)
        .fetch_all(tx)
        .await?;
        Ok((known.into_iter().collect(), taken.into_iter().collect()))
    }

    /// Stores a batch and moves `decided_upto` to `upto`, in the caller's transaction. The caller commits, and sets
    /// [`Fence::decided_upto`] only then.
    ///
    /// # Errors
    /// [`FenceError::Lost`] when another owner has the partition: the caller rolls back.
    pub async fn store(
        &self,
        tx: &mut PgConnection,
        batch: &[Stored],
        upto: i64,
        now: Micros,
    ) -> Result<(), FenceError> {
        if self.guards == Guards::On {
            let moved = sqlx::query(
                "update stage_offsets set decided_upto = $1, updated_at = now()
                 where stage = $2 and topic = $3 and partition = $4 and epoch = $5 and decided_upto = $6",
            )
            .bind(upto)
            .bind(self.stage)
            .bind(&self.topic)
            .bind(self.partition)
            .bind(self.epoch)
            .bind(self.decided_upto)
            .execute(&mut *tx)
            .await?
            .rows_affected();
            if moved != 1 {
                return Err(FenceError::Lost);
            }
        }
        for row in batch {
            let keep_going = if self.guards == Guards::On { "" } else { " on conflict do nothing" };
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "insert into decisions (stage, input_event_id, redrive, effect_id, topic, partition, record_offset,
                    rules_version, outcome, reason, evidence, output, occurred_at)
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13){keep_going}"
            )))
            .bind(self.stage)
            .bind(row.input_event_id)
            .bind(row.redrive)
            .bind(&row.effect_id)
            .bind(&self.topic)
            .bind(self.partition)
            .bind(row.offset)
            .bind(&row.rules_version)
            .bind(row.outcome)
            .bind(row.reason)
            .bind(&row.evidence)
            .bind(&row.output)
            .bind(now.to_utc())
            .execute(&mut *tx)
            .await?;
        }
        Ok(())
    }

    /// The stored outputs of records that were decided before, by offset.
    ///
    /// # Errors
    /// [`FenceError::Postgres`].
    pub async fn outputs(&self, pool: &PgPool, offsets: &[i64]) -> Result<HashMap<i64, Vec<u8>>, FenceError> {
        let rows = sqlx::query_as::<_, (i64, Vec<u8>)>(
            "select record_offset, output from decisions
             where stage = $1 and topic = $2 and partition = $3 and record_offset = any($4)",
        )
        .bind(self.stage)
        .bind(&self.topic)
        .bind(self.partition)
        .bind(offsets)
        .fetch_all(pool)
        .await?;
        Ok(rows.into_iter().collect())
    }
}
