//! The fence of a deciding stage: an epoch and `decided_upto` per partition, moved by compare-and-set in the same
//! Postgres transaction as the decisions. A zombie's batch hits no row and is rolled back.

use std::collections::{HashMap, HashSet};

use schemas::ids::Micros;
use schemas::reason::Reason;
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

/// Which of a batch's events (`$2`, `$3`) and effects (`$4`) the stage `$1` has decided: a look-up in an index for each.
#[doc(hidden)]
pub const KNOWN: &str = "
select d.input_event_id, d.redrive, null::text
from unnest($2::uuid[], $3::int[]) as wanted (id, redrive) cross join lateral (
    select d.input_event_id, d.redrive from decisions d
    where d.stage = $1 and d.input_event_id = wanted.id and d.redrive = wanted.redrive limit 1
) d
union all
select null, null, d.effect_id
from unnest($4::text[]) as wanted (effect) cross join lateral (
    select d.effect_id from decisions d where d.stage = $1 and d.effect_id = wanted.effect limit 1
) d";

/// Moves the fence by compare-and-set and stores the batch where it moved; the result is how many fences moved. Of a lost fence not
/// one row is tried: the successor's rows would fail with a unique key where [`FenceError::Lost`] is the truth.
#[doc(hidden)]
pub const STORE: &str = "
with moved as (
    update stage_offsets set decided_upto = $6, updated_at = now()
    where stage = $1 and topic = $2 and partition = $3 and epoch = $4 and decided_upto = $5
    returning 1
), stored as (
    insert into decisions (stage, input_event_id, redrive, effect_id, topic, partition, record_offset, rules_version, outcome,
        reason, evidence, output, occurred_at)
    select $1, id, redrive, effect, $2, $3, record_offset, rules, outcome, reason, evidence, output, $7::timestamptz
    from moved, unnest($8::uuid[], $9::int[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::jsonb[],
        $16::bytea[]) as r (id, redrive, effect, record_offset, rules, outcome, reason, evidence, output)
)
select count(*) from moved";

/// The same without its guards, for the one test that shows what they are for. It names the parameters that it does not use.
const STORE_UNGUARDED: &str = "
with stored as (
    insert into decisions (stage, input_event_id, redrive, effect_id, topic, partition, record_offset, rules_version, outcome,
        reason, evidence, output, occurred_at)
    select $1, id, redrive, effect, $2, $3, record_offset, rules, outcome, reason, evidence, output, $7::timestamptz
    from unnest($8::uuid[], $9::int[], $10::text[], $11::bigint[], $12::text[], $13::text[], $14::text[], $15::jsonb[],
        $16::bytea[]) as r (id, redrive, effect, record_offset, rules, outcome, reason, evidence, output)
    on conflict do nothing
)
select count(*) from (values ($4::bigint, $5::bigint, $6::bigint)) as unused";

impl Stored {
    /// Whether the event was decided before.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        self.reason == Some(Reason::DuplicateEvent.label())
    }
}

/// Gives a partition a new owner.
const SEIZE: &str = "
insert into stage_offsets (stage, topic, partition, epoch, decided_upto, owner, updated_at)
values ($1, $2, $3, 1, 0, $4, now())
on conflict (stage, topic, partition) do update set epoch = stage_offsets.epoch + 1, owner = excluded.owner, updated_at = now()
returning epoch, decided_upto, outputs_from";

impl Fence {
    /// Takes a new epoch wherever Kafka's offset is: for what brings decisions and offset together again.
    ///
    /// # Errors
    /// [`FenceError::Postgres`].
    pub(crate) async fn seize(
        pool: &PgPool,
        stage: &'static str,
        (topic, partition): (&str, i32),
        owner: &str,
    ) -> Result<Self, FenceError> {
        let row =
            sqlx::query(SEIZE).bind(stage).bind(topic).bind(partition).bind(owner).fetch_one(pool).await?;
        let (epoch, decided_upto) = (row.try_get("epoch")?, row.try_get("decided_upto")?);
        Ok(Self { stage, topic: topic.to_owned(), partition, epoch, decided_upto, guards: Guards::On })
    }

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
        let row =
            sqlx::query(SEIZE).bind(stage).bind(&topic).bind(partition).bind(owner).fetch_one(pool).await?;
        let (epoch, decided_upto): (i64, i64) = (row.try_get("epoch")?, row.try_get("decided_upto")?);
        let outputs_from: i64 = row.try_get("outputs_from")?;
        if guards == Guards::Off {
            return Ok(Self { stage, topic, partition, epoch, decided_upto: start, guards });
        }
        let place = format!("{stage} on {topic}/{partition}");
        if decided_upto < start {
            return Err(FenceError::Inconsistent(format!(
                "{place}: Kafka's offset is {start}, but decisions are stored only up to {decided_upto}: the database is older than the group. Stop the stage and run `milestream restore decisions`, which folds back what was decided in between. Only where the topics were lost as well, `milestream offsets align {stage}` has it decided again, with the same event ids"
            )));
        }
        if start < outputs_from {
            return Err(FenceError::Inconsistent(format!(
                "{place}: Kafka's offset is {start}, but `milestream prune` has taken away the outputs of the decisions below {outputs_from}: they cannot be published again. Run `milestream offsets align {stage}`"
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
        let rows = sqlx::query_as::<_, (Option<Uuid>, Option<i32>, Option<String>)>(KNOWN)
            .bind(self.stage)
            .bind(ids)
            .bind(redrives)
            .bind(effects)
            .fetch_all(tx)
            .await?;
        let (mut known, mut taken) = (HashSet::new(), HashSet::new());
        for (id, redrive, effect) in rows {
            known.extend(id.zip(redrive));
            taken.extend(effect);
        }
        Ok((known, taken))
    }

    /// Stores a batch and moves `decided_upto` to `upto`, in the caller's transaction and one statement. The caller commits, and
    /// sets [`Fence::decided_upto`] only then.
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
        let sql = if self.guards == Guards::On { STORE } else { STORE_UNGUARDED };
        let moved: i64 = sqlx::query_scalar(sql)
            .bind(self.stage)
            .bind(&self.topic)
            .bind(self.partition)
            .bind(self.epoch)
            .bind(self.decided_upto)
            .bind(upto)
            .bind(now.to_utc())
            .bind(batch.iter().map(|row| row.input_event_id).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| row.redrive).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| row.effect_id.as_deref()).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| row.offset).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| row.rules_version.as_str()).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| row.outcome).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| row.reason).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| &row.evidence).collect::<Vec<_>>())
            .bind(batch.iter().map(|row| row.output.as_slice()).collect::<Vec<_>>())
            .fetch_one(tx)
            .await?;
        if self.guards == Guards::On && moved != 1 {
            return Err(FenceError::Lost);
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
