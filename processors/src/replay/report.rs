//! What a replay came to: every verdict, reason, distance and amount that differs from what was recorded.

use futures::TryStreamExt as _;
use rust_decimal::Decimal;
use schemas::ids::Micros;
use serde::Serialize;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _, query};
use uuid::Uuid;

use super::items::Item;
use super::outcome::Outcome;
use super::promote::Act;
use super::spec::Steps;
use super::tables::{Standing, standing};

/// Notes what was recorded of records of the window, and what the replay has made of them.
pub(super) async fn store(
    connection: &mut PgConnection,
    steps: Steps,
    items: impl Iterator<Item = &Item>,
) -> sqlx::Result<()> {
    let rows: Vec<(&Item, Outcome, Outcome)> =
        items.map(|item| (item, item.recorded.outcome(steps), item.replayed.outcome(steps))).collect();
    let header = |item: &Item| item.reading.payload.header().clone();
    query(
        "insert into replay_outcomes (effect, partition, record_offset, upload_id, user_id, accepted_at, recorded, replayed, differs, cancels,
            calculation, grant_detail)
         select * from unnest($1::text[], $2::int[], $3::bigint[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::jsonb[], $8::jsonb[],
            $9::bool[], $10::bool[], $11::jsonb[], $12::text[])",
    )
    .bind(rows.iter().map(|(item, ..)| item.reading.payload.effect()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(item, ..)| item.reading.position.partition).collect::<Vec<_>>())
    .bind(rows.iter().map(|(item, ..)| item.reading.position.offset).collect::<Vec<_>>())
    .bind(rows.iter().map(|(item, ..)| header(item).upload_id.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|(item, ..)| header(item).user_id.0).collect::<Vec<_>>())
    .bind(rows.iter().map(|(item, ..)| header(item).accepted_at.to_utc()).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, recorded, _)| Json(recorded)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(.., replayed)| Json(replayed)).collect::<Vec<_>>())
    .bind(rows.iter().map(|(_, recorded, replayed)| recorded != replayed).collect::<Vec<_>>())
    .bind(
        rows.iter()
            .map(|(_, recorded, replayed)| Act::of(recorded, replayed) == Act::Cancel)
            .collect::<Vec<_>>(),
    )
    .bind(
        rows.iter()
            .map(|(item, recorded, replayed)| match Act::of(recorded, replayed) {
                Act::Lower | Act::Raise => item.replayed.calculated.as_ref().map(Json),
                Act::Cancel | Act::Nothing(_) => None,
            })
            .collect::<Vec<_>>(),
    )
    .bind(rows.iter().map(|(item, ..)| item.replayed.granted.as_ref()?.detail.clone()).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

/// What all of it comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The replay's name.
    pub name: String,
    /// The first instant of the window.
    pub from: Micros,
    /// The first instant behind it.
    pub to: Micros,
    /// The stages that decided again.
    pub stages: String,
    /// Whether rules of a file held.
    pub rules_of_a_file: bool,
    /// Whether it came to its end.
    pub is_finished: bool,
    /// Uploads that were accepted in the window.
    pub accepted: i64,
    /// Those of them that were decided.
    pub decided: i64,
    /// Decisions that were compared; a review and a correction are one each.
    pub compared: i64,
    /// Those of them that differ.
    pub differences: i64,
    /// B3TR that were granted.
    pub granted_recorded: Decimal,
    /// B3TR that the replay grants.
    pub granted_replayed: Decimal,
    /// Rewards that promoting it cancels, those included that it has.
    pub cancels: i64,
    /// B3TR that were granted for them.
    pub cancels_granted: Decimal,
    /// Rewards that promoting it lowers.
    pub lowers: i64,
    /// B3TR by which they are lowered together.
    pub lowers_by: Decimal,
    /// Rewards that promoting it raises.
    pub raises: i64,
    /// B3TR by which they are raised together.
    pub raises_by: Decimal,
}

/// A decision that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What is decided once, e.g. `verdict:UPLOAD`.
    pub effect: String,
    /// The upload.
    pub upload_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// What was recorded.
    pub recorded: Outcome,
    /// What the replay made of it.
    pub replayed: Outcome,
    /// What promoting it does, or why it does nothing.
    pub promotion: String,
}

impl Difference {
    /// What differs: its name, what was recorded, and what the replay made of it.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, String, String)> {
        let pairs = self.recorded.told().into_iter().zip(self.replayed.told());
        pairs.filter(|((_, was), (_, is))| was != is).map(|((name, was), (_, is))| (name, was, is))
    }
}

/// The summary.
///
/// # Errors
/// Postgres'.
pub async fn summary(connection: &mut PgConnection, name: &str) -> sqlx::Result<Summary> {
    let Standing { spec, cut, finished_at, .. } = standing(connection).await?;
    // As `Act` has it; a replay of a release before says the same by what it has stored.
    let row = query(
        "with moved as (
            select *, case when not cancels and (recorded->>'verdict', recorded->>'reason', recorded->>'mileage', recorded->>'distance_km')
                    is not distinct from (replayed->>'verdict', replayed->>'reason', replayed->>'mileage', replayed->>'distance_km')
                then coalesce((replayed->>'granted')::numeric, 0) - coalesce((recorded->>'granted')::numeric, 0) else 0 end as moves
            from replay_outcomes
         )
         select count(*) as compared, count(distinct upload_id) as decided, count(*) filter (where differs) as differences,
            coalesce(sum((recorded->>'granted')::numeric), 0) as recorded, coalesce(sum((replayed->>'granted')::numeric), 0) as replayed,
            count(*) filter (where cancels) as cancels, coalesce(sum((recorded->>'granted')::numeric) filter (where cancels), 0) as cancels_granted,
            count(*) filter (where moves < 0) as lowers, coalesce(-sum(moves) filter (where moves < 0), 0) as lowers_by,
            count(*) filter (where moves > 0) as raises, coalesce(sum(moves) filter (where moves > 0), 0) as raises_by
         from moved",
    )
    .fetch_one(connection)
    .await?;
    Ok(Summary {
        name: name.to_owned(),
        from: spec.from,
        to: spec.to,
        stages: spec.steps.to_string(),
        rules_of_a_file: spec.rules.is_some(),
        is_finished: finished_at.is_some(),
        accepted: cut.map_or(0, |(_, accepted)| accepted),
        decided: row.try_get("decided")?,
        compared: row.try_get("compared")?,
        differences: row.try_get("differences")?,
        granted_recorded: row.try_get::<Decimal, _>("recorded")?.normalize(),
        granted_replayed: row.try_get::<Decimal, _>("replayed")?.normalize(),
        cancels: row.try_get("cancels")?,
        cancels_granted: row.try_get::<Decimal, _>("cancels_granted")?.normalize(),
        lowers: row.try_get("lowers")?,
        lowers_by: row.try_get::<Decimal, _>("lowers_by")?.normalize(),
        raises: row.try_get("raises")?,
        raises_by: row.try_get::<Decimal, _>("raises_by")?.normalize(),
    })
}

/// Hands over every difference, in the order of the topic, without holding them all.
///
/// # Errors
/// Postgres', and what `take` returns.
pub async fn differences<E: From<sqlx::Error>>(
    connection: &mut PgConnection,
    mut take: impl FnMut(&Difference) -> Result<(), E>,
) -> Result<(), E> {
    let mut rows = query(
        "select effect, upload_id, user_id, accepted_at, recorded, replayed from replay_outcomes where differs
         order by partition, record_offset",
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let recorded = row.try_get::<Json<Outcome>, _>("recorded")?.0;
        let replayed = row.try_get::<Json<Outcome>, _>("replayed")?.0;
        take(&Difference {
            effect: row.try_get("effect")?,
            upload_id: row.try_get("upload_id")?,
            user_id: row.try_get("user_id")?,
            accepted_at: row.try_get("accepted_at")?,
            promotion: Act::of(&recorded, &replayed).told().to_owned(),
            recorded,
            replayed,
        })?;
    }
    Ok(())
}
