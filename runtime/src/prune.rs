//! Takes away what is old and what no promise rests on, in small transactions that lock nothing but the rows they change.
//!
//! Tables without an index on time are walked along their blocks: one pass over a table, a MiB a statement.

use std::ops::Range;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgPool, query, query_as, query_scalar};

use crate::deciding::BATCH;

/// Blocks of a statement: 128 of 8 KiB are 1 MiB, some thousand rows at most.
const BLOCKS: i64 = 128;
/// Outputs of a transaction.
const OUTPUTS: i64 = 500;

/// Something that is taken away by its age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// Published rows of `outbox`, but those of `chain.events`: that an adoption of a block was announced is looked up there.
    Outbox,
    /// The payloads of those.
    ChainPayloads,
    /// `photo_hashes.event` of published reservations: the bytes are in the topic.
    PhotoEvents,
    /// `reading_results`: a photo that is read again is read anew, and paid for anew.
    Readings,
    /// `idempotency_keys`: a key counts for as long as it is kept.
    IdempotencyKeys,
}

impl Old {
    /// Everything.
    pub const ALL: [Self; 5] =
        [Self::Outbox, Self::ChainPayloads, Self::PhotoEvents, Self::Readings, Self::IdempotencyKeys];

    /// Its table.
    #[must_use]
    pub fn table(self) -> &'static str {
        match self {
            Self::Outbox | Self::ChainPayloads => "outbox",
            Self::PhotoEvents => "photo_hashes",
            Self::Readings => "reading_results",
            Self::IdempotencyKeys => "idempotency_keys",
        }
    }

    /// What of it, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Outbox => "outbox",
            Self::ChainPayloads => "outbox.payload of chain.events",
            Self::PhotoEvents => "photo_hashes.event",
            Self::Readings => "reading_results",
            Self::IdempotencyKeys => "idempotency_keys",
        }
    }

    /// What is done with its rows.
    fn statement(self) -> &'static str {
        match self {
            Self::Outbox => "delete from outbox",
            Self::ChainPayloads => "update outbox set payload = ''",
            Self::PhotoEvents => "update photo_hashes set event = ''",
            Self::Readings => "delete from reading_results",
            Self::IdempotencyKeys => "delete from idempotency_keys",
        }
    }

    /// Which rows; `$3` is the time.
    fn condition(self) -> &'static str {
        match self {
            Self::Outbox => "published_at < $3 and topic <> 'chain.events'",
            Self::ChainPayloads => "published_at < $3 and topic = 'chain.events' and payload <> ''",
            Self::PhotoEvents => "published_at < $3 and event <> ''",
            Self::Readings | Self::IdempotencyKeys => "created_at < $3",
        }
    }
}

/// Takes away what is older than `before`; returns how many rows that were. With `dry` it only counts them.
///
/// # Errors
/// Postgres'; what was done until then stays done.
pub async fn old(pool: &PgPool, what: Old, before: DateTime<Utc>, dry: bool) -> sqlx::Result<u64> {
    let blocks = blocks(pool, what).await?;
    walk(pool, what, (before, dry), 0..blocks).await
}

/// Takes away what is older than `before` from the `number`-th of so many `parts` of the table, counted round: who asks for one after the
/// other has walked along the whole table once, at a `parts`-th of its cost each time. Returns how many rows that were.
///
/// # Errors
/// Postgres'; what was done until then stays done.
pub async fn part(
    pool: &PgPool,
    what: Old,
    before: DateTime<Utc>,
    (number, parts): (u32, u32),
) -> sqlx::Result<u64> {
    let (blocks, parts) = (blocks(pool, what).await?, i64::from(parts.max(1)));
    let number = i64::from(number) % parts;
    // A table has at most 2^32 blocks: times 2^31 that fits. The last part ends with the table.
    let ends = |part: i64| blocks.saturating_mul(part) / parts;
    walk(pool, what, (before, false), ends(number)..ends(number + 1)).await
}

/// Blocks of its table.
async fn blocks(pool: &PgPool, what: Old) -> sqlx::Result<i64> {
    query_scalar("select pg_relation_size($1::regclass) / current_setting('block_size')::bigint")
        .bind(what.table())
        .fetch_one(pool)
        .await
}

async fn walk(
    pool: &PgPool,
    what: Old,
    (before, dry): (DateTime<Utc>, bool),
    blocks: Range<i64>,
) -> sqlx::Result<u64> {
    let range = "ctid >= $1::text::tid and ctid < $2::text::tid";
    let sql = if dry {
        format!("select from {} where {range} and {}", what.table(), what.condition())
    } else {
        format!("{} where {range} and {}", what.statement(), what.condition())
    };
    let (mut rows, mut block) = (0, blocks.start);
    while block < blocks.end {
        let next = (block + BLOCKS).min(blocks.end);
        let done = query(AssertSqlSafe(sql.clone()))
            .bind(format!("({block},0)"))
            .bind(format!("({next},0)"))
            .bind(before)
            .execute(pool)
            .await?;
        rows += done.rows_affected();
        block = next;
    }
    Ok(rows)
}

/// A partition of a deciding stage, and where its group stands in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The stage.
    pub stage: String,
    /// The topic, with its prefix.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next record to process.
    pub committed: i64,
}

/// Empties the outputs of a partition's decisions that are older than `before`, behind the group's offset, and but for the newest
/// that `milestream offsets align` may have published again. The decisions themselves stay: by them a record that comes again is
/// recognized, and a verdict is explained. Returns how many outputs those were; with `dry` it only counts them.
///
/// # Errors
/// Postgres'; what was done until then stays done.
pub async fn outputs(pool: &PgPool, place: &Place, before: DateTime<Utc>, dry: bool) -> sqlx::Result<u64> {
    let Place { stage, topic, partition, committed } = place;
    let range: Option<(i64, Option<i64>)> = query_as(
        "select o.outputs_from, (select min(record_offset) from (
            select record_offset from decisions d
            where d.stage = o.stage and d.topic = o.topic and d.partition = o.partition
                and d.record_offset < least(o.decided_upto, $4)
            order by record_offset desc limit $5) as newest)
         from stage_offsets o where o.stage = $1 and o.topic = $2 and o.partition = $3",
    )
    .bind(stage)
    .bind(topic)
    .bind(partition)
    .bind(committed)
    .bind(i64::try_from(BATCH).unwrap_or(i64::MAX))
    .fetch_optional(pool)
    .await?;
    let Some((mut from, Some(end))) = range else { return Ok(0) };
    let mut emptied = 0;
    loop {
        let next: Vec<(i64, DateTime<Utc>, bool)> = query_as(
            "select record_offset, occurred_at, output <> '' from decisions
             where stage = $1 and topic = $2 and partition = $3 and record_offset >= $4 and record_offset < $5
             order by record_offset limit $6",
        )
        .bind(stage)
        .bind(topic)
        .bind(partition)
        .bind(from)
        .bind(end)
        .bind(OUTPUTS)
        .fetch_all(pool)
        .await?;
        let old: Vec<_> = next.iter().take_while(|(_, at, _)| *at < before).collect();
        let Some((last, ..)) = old.last() else { return Ok(emptied) };
        let upto = last + 1;
        emptied += if dry {
            old.iter().filter(|(.., filled)| *filled).count() as u64
        } else {
            empty(pool, place, (from, upto)).await?
        };
        from = upto;
    }
}

async fn empty(pool: &PgPool, place: &Place, (from, upto): (i64, i64)) -> sqlx::Result<u64> {
    let mut tx = pool.begin().await?;
    let emptied = query(
        "update decisions set output = '' where stage = $1 and topic = $2 and partition = $3 and record_offset >= $4
            and record_offset < $5 and output <> ''",
    )
    .bind(&place.stage)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(from)
    .bind(upto)
    .execute(&mut *tx)
    .await?
    .rows_affected();
    // Last, so that the stage waits for its fence no longer than this commit takes.
    query(
        "update stage_offsets set outputs_from = greatest(outputs_from, $4)
         where stage = $1 and topic = $2 and partition = $3",
    )
    .bind(&place.stage)
    .bind(&place.topic)
    .bind(place.partition)
    .bind(upto)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(emptied)
}
