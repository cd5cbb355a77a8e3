//! The tables of a replay in its shadow schema: what was recorded, how far it is, and what came out. Every connection here has the shadow
//! schema, and it alone, on its search path.

use std::collections::{BTreeMap, HashMap, HashSet};

use runtime::producer::Message;
use runtime::source::RawRecord;
use runtime::stored::{pack, unpack};
use runtime::{Position, StageError};
use schemas::ids::{EventId, Micros, UserId};
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _, query, query_scalar, raw_sql};
use uuid::Uuid;

use super::spec::{Cut, Spec};

/// The stages' tables name drivers, whose rows belong to live accounts and are no part of a replay.
const WITHOUT_PARENTS: &str = "
do $$ declare one record; begin
    for one in select conrelid::regclass as child, conname from pg_constraint
        where contype = 'f' and connamespace = current_schema()::regnamespace
    loop execute format('alter table %s drop constraint %I', one.child, one.conname); end loop;
end $$";

/// Makes what is missing.
///
/// # Errors
/// Postgres'.
pub async fn create(connection: &mut PgConnection) -> sqlx::Result<()> {
    raw_sql(WITHOUT_PARENTS).execute(&mut *connection).await?;
    raw_sql(include_str!("tables.sql")).execute(connection).await?;
    Ok(())
}

/// A replay as it stands.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What was asked for.
    pub spec: Spec,
    /// The cut, and how many uploads were accepted in it; none before it is taken.
    pub cut: Option<(Cut, i64)>,
    /// Whether everything that was recorded is here.
    pub is_copied: bool,
    /// When it came to its end.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Notes what is asked for, where nothing was noted before, and says what stands there.
///
/// # Errors
/// Postgres'.
pub async fn begin(connection: &mut PgConnection, spec: &Spec, now: Micros) -> sqlx::Result<Standing> {
    query("insert into replay (spec, begun_at) values ($1, $2) on conflict do nothing")
        .bind(Json(spec))
        .bind(now.to_utc())
        .execute(&mut *connection)
        .await?;
    standing(connection).await
}

/// A replay as it stands.
///
/// # Errors
/// Postgres'.
pub async fn standing(connection: &mut PgConnection) -> sqlx::Result<Standing> {
    let row = query("select spec, cut, accepted, copied_at is not null as copied, finished_at from replay")
        .fetch_one(connection)
        .await?;
    let cut = row.try_get::<Option<Json<Cut>>, _>("cut")?.map(|Json(cut)| cut);
    Ok(Standing {
        spec: row.try_get::<Json<Spec>, _>("spec")?.0,
        cut: cut.zip(row.try_get("accepted")?),
        is_copied: row.try_get("copied")?,
        finished_at: row.try_get("finished_at")?,
    })
}

/// Notes the cut.
///
/// # Errors
/// Postgres'.
pub async fn cut(connection: &mut PgConnection, cut: &Cut, accepted: i64) -> sqlx::Result<()> {
    let noted = query("update replay set cut = $1, accepted = $2").bind(Json(cut)).bind(accepted);
    noted.execute(connection).await.map(drop)
}

/// Notes that everything that was recorded is here.
///
/// # Errors
/// Postgres'.
pub async fn copied(connection: &mut PgConnection, now: Micros) -> sqlx::Result<()> {
    query("update replay set copied_at = $1").bind(now.to_utc()).execute(connection).await.map(drop)
}

/// Notes the end.
///
/// # Errors
/// Postgres'.
pub async fn finished(connection: &mut PgConnection, now: Micros) -> sqlx::Result<()> {
    query("update replay set finished_at = $1").bind(now.to_utc()).execute(connection).await.map(drop)
}

/// What a record is to a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Of `uploads.readings`.
    Reading,
    /// Of `uploads.decided`.
    Decided,
    /// Of `rewards.calculated`.
    Calculated,
    /// A cancellation, of `rewards.calculated` as well.
    Cancelled,
    /// A reward that is worked out anew, of `rewards.calculated` as well.
    Adjusted,
    /// Of `rewards.granted`.
    Granted,
    /// The grant that answers an adjustment, of `rewards.granted` as well.
    AdjustedGrant,
}

impl What {
    fn label(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Decided => "decided",
            Self::Calculated => "calculated",
            Self::Cancelled => "cancelled",
            Self::Adjusted => "adjusted",
            Self::Granted => "granted",
            Self::AdjustedGrant => "adjusted_grant",
        }
    }
}

/// A record that is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it is.
    pub what: What,
    /// Its event's id.
    pub event_id: EventId,
    /// Whose it is.
    pub user_id: UserId,
    /// Whether its upload belongs to the window.
    pub in_window: bool,
    /// The record.
    pub record: RawRecord,
}

/// Keeps records; those that are here already stay.
///
/// # Errors
/// Postgres'.
pub async fn keep(connection: &mut PgConnection, kept: &[Kept]) -> sqlx::Result<()> {
    let packed = |record: &RawRecord| {
        let headers: Vec<_> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let (key, payload) = (record.key.as_deref(), record.payload.as_deref());
        let mut bytes = Vec::new();
        pack(&mut bytes, &Message { topic: &record.position.topic, key, payload, headers: &headers });
        bytes
    };
    query(
        "insert into replay_records (what, partition, record_offset, event_id, user_id, timestamp_ms, in_window, record)
         select * from unnest($1::text[], $2::int[], $3::bigint[], $4::uuid[], $5::uuid[], $6::bigint[], $7::bool[], $8::bytea[])
         on conflict do nothing",
    )
    .bind(kept.iter().map(|kept| kept.what.label()).collect::<Vec<_>>())
    .bind(kept.iter().map(|kept| kept.record.position.partition).collect::<Vec<_>>())
    .bind(kept.iter().map(|kept| kept.record.position.offset).collect::<Vec<_>>())
    .bind(kept.iter().map(|kept| kept.event_id.0).collect::<Vec<_>>())
    .bind(kept.iter().map(|kept| kept.user_id.0).collect::<Vec<_>>())
    .bind(kept.iter().map(|kept| kept.record.timestamp_ms).collect::<Vec<_>>())
    .bind(kept.iter().map(|kept| kept.in_window).collect::<Vec<_>>())
    .bind(kept.iter().map(|kept| packed(&kept.record)).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

/// Of each partition how many readings there are up to the window's last, the offset behind that, and how many of them are done.
///
/// # Errors
/// Postgres'.
pub async fn partitions(connection: &mut PgConnection) -> sqlx::Result<BTreeMap<i32, (i64, i64, i64)>> {
    let rows: Vec<(i32, i64, i64, i64)> = sqlx::query_as(
        "select partition, count(*), max(record_offset) + 1, count(*) filter (where record_offset < done)
         from replay_records join (
            select partition, max(record_offset) as newest from replay_records where what = 'reading' and in_window group by partition
         ) ends using (partition)
         left join (select partition, done_upto as done from replay_progress) progress using (partition)
         where what = 'reading' and record_offset <= newest group by partition",
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|(partition, count, upto, done)| (partition, (count, upto, done))).collect())
}

const COLUMNS: &str = "partition, record_offset, timestamp_ms, in_window, record";

/// The next readings of a partition that are not done, up to an offset.
///
/// # Errors
/// Postgres', and [`StageError`] where a row is damaged.
pub async fn next(
    connection: &mut PgConnection,
    (partition, upto): (i32, i64),
    most: i64,
) -> Result<Vec<RawRecord>, StageError> {
    let sql = format!(
        "select {COLUMNS} from replay_records where what = 'reading' and partition = $1 and record_offset < $2
            and record_offset >= coalesce((select done_upto from replay_progress where partition = $1), 0)
         order by record_offset limit $3"
    );
    let rows = query(sqlx::AssertSqlSafe(sql)).bind(partition).bind(upto).bind(most);
    rows.fetch_all(connection).await?.iter().map(unpacked).collect()
}

/// What stands under these event ids: what was published first, where it was more than once.
///
/// # Errors
/// As [`next`].
pub async fn recorded(
    connection: &mut PgConnection,
    ids: &[EventId],
) -> Result<HashMap<EventId, RawRecord>, StageError> {
    let sql = format!(
        "select event_id, {COLUMNS} from replay_records where event_id = any($1) order by record_offset desc"
    );
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = query(sqlx::AssertSqlSafe(sql)).bind(ids).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((EventId(row.try_get("event_id")?), unpacked(row)?))).collect()
}

/// The cancellations and adjustments of these drivers' rewards that stand below an offset, in order.
///
/// # Errors
/// As [`next`].
pub async fn changed(
    connection: &mut PgConnection,
    users: &HashSet<UserId>,
    below: i64,
) -> Result<Vec<RawRecord>, StageError> {
    let sql = format!(
        "select {COLUMNS} from replay_records where what in ('cancelled', 'adjusted') and user_id = any($1)
            and record_offset < $2 order by record_offset"
    );
    let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let rows = query(sqlx::AssertSqlSafe(sql)).bind(users).bind(below).fetch_all(connection).await?;
    rows.iter().map(unpacked).collect()
}

/// The grants of these drivers that answer adjustments.
///
/// # Errors
/// As [`next`].
pub async fn adjusted(
    connection: &mut PgConnection,
    users: &HashSet<UserId>,
) -> Result<Vec<RawRecord>, StageError> {
    let sql = format!(
        "select {COLUMNS} from replay_records where what = 'adjusted_grant' and user_id = any($1) order by record_offset"
    );
    let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
    let rows = query(sqlx::AssertSqlSafe(sql)).bind(users).fetch_all(connection).await?;
    rows.iter().map(unpacked).collect()
}

fn unpacked(row: &sqlx::postgres::PgRow) -> Result<RawRecord, StageError> {
    let bytes: Vec<u8> = row.try_get("record")?;
    let record = unpack(&bytes).map_err(|error| StageError::new("replay_records", error))?.pop();
    let record = record.ok_or_else(|| StageError::new("replay_records", "a row without a record"))?;
    Ok(RawRecord {
        position: Position {
            topic: record.topic.into(),
            partition: row.try_get("partition")?,
            offset: row.try_get("record_offset")?,
        },
        key: record.key,
        payload: record.payload,
        headers: record.headers,
        timestamp_ms: row.try_get("timestamp_ms")?,
    })
}

/// Which of these effects are had.
///
/// # Errors
/// Postgres'.
pub async fn had(connection: &mut PgConnection, effects: &[String]) -> sqlx::Result<HashSet<String>> {
    let had = query_scalar("select effect from replay_effects where effect = any($1)").bind(effects);
    Ok(had.fetch_all(connection).await?.into_iter().collect())
}

/// Notes effects.
///
/// # Errors
/// Postgres'.
pub async fn have(connection: &mut PgConnection, effects: &[String]) -> sqlx::Result<()> {
    let noted = query("insert into replay_effects select * from unnest($1::text[])").bind(effects);
    noted.execute(connection).await.map(drop)
}

/// Notes that a partition is done up to an offset.
///
/// # Errors
/// Postgres'.
pub async fn done(connection: &mut PgConnection, partition: i32, upto: i64) -> sqlx::Result<()> {
    query(
        "insert into replay_progress values ($1, $2)
         on conflict (partition) do update set done_upto = excluded.done_upto",
    )
    .bind(partition)
    .bind(upto)
    .execute(connection)
    .await
    .map(drop)
}
