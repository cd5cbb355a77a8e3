//! Talks to PostgreSQL. Every writer locks in one order - what was seen, then what changes, then the numbers, then those of services,
//! each by key - so that batches of several partitions, instances and a rebuild do not wait for each other in a circle.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};
use schemas::ids::natural;
use sqlx::{PgConnection, query, query_as, query_scalar};
use uuid::Uuid;

use super::count::Count;
use super::entities::{Counted, Entity, Kind};
use super::exact::Exact;
use super::sums::{Key, Sum};
use crate::database::{Table, erased};

/// What was counted.
pub(super) const SEEN: Table = Table { name: "analytics_seen", key: "key" };

/// Notes keys as counted; returns those that were not before. One that another batch is about to note is waited for.
pub(super) async fn unseen(
    tx: &mut PgConnection,
    keys: &BTreeMap<Uuid, NaiveDate>,
) -> sqlx::Result<HashSet<Uuid>> {
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let fresh: Vec<Uuid> = query_scalar(
        "insert into analytics_seen (key, occurred_on)
         select key, occurred_on from unnest($1::uuid[], $2::date[]) as r (key, occurred_on) order by key
         on conflict (key) do nothing returning key",
    )
    .bind(keys.keys().copied().collect::<Vec<_>>())
    .bind(keys.values().copied().collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    Ok(fresh.into_iter().collect())
}

/// What changes, and what was counted of it.
pub(super) const ENTITIES: Table = Table { name: "analytics_entities", key: "key" };

/// What was counted of an entity: its revision, none for one that is new.
type Stored = (String, Option<i64>, Option<DateTime<Utc>>, Option<String>, Option<i64>, Option<String>);

/// Moves entities to their highest revision; returns what that takes back and adds.
pub(super) async fn changes(
    tx: &mut PgConnection,
    newest: &BTreeMap<String, Entity>,
) -> sqlx::Result<Vec<Count>> {
    if newest.is_empty() {
        return Ok(Vec::new());
    }
    let mut counts = Vec::new();
    let mut moved: Vec<(String, &Entity)> = Vec::new();
    for (key, revision, at, units, samples, label) in lock(tx, newest.keys().cloned().collect()).await? {
        let Some(entity) = newest.get(&key) else { continue };
        if revision.is_some_and(|revision| revision >= entity.revision) {
            continue;
        }
        let before = counted(at, units.as_deref(), samples, label)?;
        if before != entity.counted {
            counts.extend(before.iter().flat_map(|before| taken_back(before, entity.kind)));
            counts.extend(entity.counted.iter().flat_map(|now| now.counts(entity.kind)));
        }
        moved.push((key, entity));
    }
    store(tx, &moved).await?;
    Ok(counts)
}

fn taken_back(before: &Counted, kind: Kind) -> Vec<Count> {
    let back = |count: Count| Count { value: count.value.negated(), samples: -count.samples, ..count };
    before.counts(kind).into_iter().map(back).collect()
}

fn counted(
    at: Option<DateTime<Utc>>,
    units: Option<&str>,
    samples: Option<i64>,
    label: Option<String>,
) -> sqlx::Result<Option<Counted>> {
    let (Some(at), Some(units), Some(samples), Some(label)) = (at, units, samples, label) else {
        return Ok(None);
    };
    let amount = units.parse().ok().and_then(Exact::of_units);
    let amount = amount.ok_or_else(|| sqlx::Error::Decode("analytics_entities.amount".into()))?;
    Ok(Some(Counted { at, amount, samples, label }))
}

async fn lock(tx: &mut PgConnection, keys: Vec<String>) -> sqlx::Result<Vec<Stored>> {
    query(
        "insert into analytics_entities (key) select key from unnest($1::text[]) as r (key) order by key
         on conflict (key) do nothing",
    )
    .bind(&keys)
    .execute(&mut *tx)
    .await?;
    query_as(
        "select key, revision, counted_at, (amount * 1000000000000000000)::numeric(38,0)::text, samples, label
         from analytics_entities where key = any($1) order by key for update",
    )
    .bind(&keys)
    .fetch_all(tx)
    .await
}

async fn store(tx: &mut PgConnection, moved: &[(String, &Entity)]) -> sqlx::Result<()> {
    let counted = || moved.iter().map(|(_, entity)| entity.counted.as_ref());
    query(
        "update analytics_entities e set revision = r.revision, counted_at = r.at,
            amount = r.units::numeric * 0.000000000000000001, samples = r.samples, label = r.label
         from unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::bigint[], $6::text[])
            as r (key, revision, at, units, samples, label)
         where e.key = r.key",
    )
    .bind(moved.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>())
    .bind(moved.iter().map(|(_, entity)| entity.revision).collect::<Vec<_>>())
    .bind(counted().map(|counted| Some(counted?.at)).collect::<Vec<_>>())
    .bind(counted().map(|counted| Some(counted?.amount.units().to_string())).collect::<Vec<_>>())
    .bind(counted().map(|counted| Some(counted?.samples)).collect::<Vec<_>>())
    .bind(counted().map(|counted| Some(counted?.label.clone())).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// The numbers.
pub(super) const DATA: Table = Table { name: "analytics_data", key: "id" };

// Units of 10^-18 come as text: exact, and multiplied back exactly. A value of 10^11 does not fit metric_value: the server refuses
// the row. What is taken back has no time of its own, and its row is there. A row that would stay as it is is not written. The id is
// derived from what else is unique, and asked for a conflict because its index is written first: of two that write one row at once, the
// second would otherwise be refused by it.
const ADD: &str = "
insert into analytics_data as a (id, metric_type, metric_name, metric_value, metric_unit, dimension, time_period, period_start,
    period_end, user_id, created_at, dimension_hash, exact_value, sample_count)
select r.id, c.metric_type, c.metric_name, trunc(case when c.is_mean then r.value / nullif(r.samples, 0) else r.value end, 4),
    c.metric_unit, r.dimension, r.period::analytics_data_time_period, r.starts, r.ends, r.user_id, coalesce(r.at, 'infinity'), r.hash,
    r.value, r.samples
from (
    select id, name, dimension, period, starts, ends, user_id, at, hash, units::numeric * 0.000000000000000001 as value, samples
    from unnest($1::uuid[], $2::text[], $3::jsonb[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::uuid[],
        $8::timestamptz[], $9::bytea[], $10::text[], $11::bigint[])
        as u (id, name, dimension, period, starts, ends, user_id, at, hash, units, samples)
) r join metric_catalogue c on c.metric_name = r.name
order by r.id
on conflict (id) do update set
    exact_value = a.exact_value + excluded.exact_value,
    sample_count = a.sample_count + excluded.sample_count,
    metric_value = trunc(case when (select c.is_mean from metric_catalogue c where c.metric_name = a.metric_name)
        then (a.exact_value + excluded.exact_value) / nullif(a.sample_count + excluded.sample_count, 0)
        else a.exact_value + excluded.exact_value end, 4),
    created_at = least(a.created_at, excluded.created_at)
where excluded.exact_value <> 0 or excluded.sample_count <> 0 or excluded.created_at < a.created_at";

/// Adds to the numbers.
pub(super) async fn add(tx: &mut PgConnection, sums: &BTreeMap<Key, Sum>) -> sqlx::Result<()> {
    if sums.is_empty() {
        return Ok(());
    }
    let keys = || sums.keys();
    query(ADD)
        .bind(keys().map(id_of).collect::<Vec<_>>())
        .bind(keys().map(|key| key.metric.name()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.dimension.json()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.window.period.label()).collect::<Vec<_>>())
        .bind(keys().map(|key| key.window.start).collect::<Vec<_>>())
        .bind(keys().map(|key| key.window.end).collect::<Vec<_>>())
        .bind(keys().map(|key| key.dimension.user()).collect::<Vec<_>>())
        .bind(sums.values().map(|sum| sum.first_event_at).collect::<Vec<_>>())
        .bind(keys().map(|key| key.dimension.hash()).collect::<Vec<_>>())
        .bind(sums.values().map(|sum| sum.value.units().to_string()).collect::<Vec<_>>())
        .bind(sums.values().map(|sum| sum.samples).collect::<Vec<_>>())
        .execute(tx)
        .await?;
    Ok(())
}

/// Takes away what was just added of people who are erased: the erasure has taken away what was there before.
pub(super) async fn forget(tx: &mut PgConnection, sums: &BTreeMap<Key, Sum>) -> sqlx::Result<()> {
    let mut users: Vec<Uuid> = sums.keys().filter_map(|key| key.dimension.user()).collect();
    users.dedup();
    if users.is_empty() {
        return Ok(());
    }
    let erased = erased(tx, &users).await?;
    if !erased.is_empty() {
        query("delete from analytics_data where user_id = any($1)").bind(erased).execute(tx).await?;
    }
    Ok(())
}

/// `id`: UUIDv5 of the unique key.
fn id_of(key: &Key) -> Uuid {
    let user = key.dimension.user().map(|user| user.to_string()).unwrap_or_default();
    natural(&format!(
        "analytics_data/{}/{}/{}/{}/{user}",
        key.metric.name(),
        key.dimension.json(),
        key.window.period.label(),
        key.window.start.to_rfc3339()
    ))
}
