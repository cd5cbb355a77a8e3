//! Talks to PostgreSQL: set-based upserts that can be repeated and come in any order.
//!
//! Rows are locked in one order by every writer - `odometer_uploads`, then what hangs on it, then transactions, blocks and
//! their events, then `users`, each by key - so batches do not wait for each other in a circle. The upload's row is written first
//! by every event: its lock makes the rest of one upload's statements one after the other.

use std::collections::{BTreeMap, HashMap, HashSet};

use rust_decimal::Decimal;
use schemas::reason::Reason;
use schemas::sealed::UserKey;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres, Row as _, query, query_as};
use uuid::Uuid;

use super::rows::{MileageRow, Rows, UploadRow, VerificationRow};
use super::score::{GRAMS_PER_KM, History, WINDOW_HOURS, score};
use crate::database::{Table, column};

/// The keys of users that have one.
pub(super) async fn keys(tx: &mut PgConnection, users: &[Uuid]) -> sqlx::Result<HashMap<Uuid, UserKey>> {
    let stored: Vec<(Uuid, Vec<u8>)> = query_as("select user_id, key from user_keys where user_id = any($1)")
        .bind(users)
        .fetch_all(tx)
        .await?;
    // The table's check holds every key at 32 bytes.
    Ok(stored.into_iter().filter_map(|(user, key)| Some((user, UserKey::from_bytes(&key).ok()?))).collect())
}

/// Accounts by id alone, where the gateway's row is not there (a rebuild into an empty schema): the rest is defaulted.
pub(super) async fn parents(
    tx: &mut PgConnection,
    uploads: impl Iterator<Item = &UploadRow>,
) -> sqlx::Result<()> {
    let users: BTreeMap<Uuid, _> =
        uploads.map(|upload| (upload.user_id, upload.account_created_at)).collect();
    let (ids, times): (Vec<Uuid>, Vec<_>) = users.into_iter().unzip();
    query(
        "insert into users (id, created_at, updated_at)
         select id, at, at from unnest($1::uuid[], $2::timestamptz[]) as r (id, at) order by id
         on conflict (id) do nothing",
    )
    .bind(ids)
    .bind(times)
    .execute(tx)
    .await?;
    Ok(())
}

/// Uploads.
pub(super) const UPLOADS_TABLE: Table = Table { name: "odometer_uploads", key: "id" };

// A row that would stay as it is (that of a reward, whose upload is decided already) is locked and not written again: a third of the
// writes of a verified upload.
macro_rules! insert_uploads {
    ($on_conflict:literal) => {
        concat!(
            "
insert into odometer_uploads as o (id, user_id, vehicle_id, vehicle_kind, image_url, image_hash, original_filename, file_size, mime_type,
    image_dimensions, upload_status, status_rank, created_at, updated_at, processed_at)
select id, user_id, vehicle_id, vehicle_kind, image_url, image_hash, original_filename, file_size, mime_type,
    image_dimensions, upload_status::odometer_uploads_upload_status, status_rank, created_at, updated_at, processed_at
from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
    $8::int[], $9::text[], $10::jsonb[], $11::text[], $12::smallint[], $13::timestamptz[], $14::timestamptz[],
    $15::timestamptz[])
    as r (id, user_id, vehicle_id, vehicle_kind, image_url, image_hash, original_filename, file_size, mime_type,
    image_dimensions, upload_status, status_rank, created_at, updated_at, processed_at)
order by id
on conflict (id) do ",
            $on_conflict
        )
    };
}

const UPLOADS: &str = insert_uploads!(
    "update set
    original_filename = coalesce(o.original_filename, excluded.original_filename),
    image_dimensions = coalesce(o.image_dimensions, excluded.image_dimensions),
    upload_status = case when excluded.status_rank > o.status_rank then excluded.upload_status else o.upload_status end,
    status_rank = greatest(o.status_rank, excluded.status_rank),
    created_at = least(o.created_at, excluded.created_at),
    updated_at = greatest(o.updated_at, excluded.updated_at),
    processed_at = coalesce(o.processed_at, excluded.processed_at)
where excluded.status_rank > o.status_rank or excluded.updated_at > o.updated_at or excluded.created_at < o.created_at
    or (o.processed_at is null and excluded.processed_at is not null)
    or (o.original_filename is null and excluded.original_filename is not null)
    or (o.image_dimensions is null and excluded.image_dimensions is not null)"
);
/// The same for uploads of which nothing is stored; names those.
const NEW_UPLOADS: &str = insert_uploads!("nothing returning o.id");

/// Uploads, at most one row each.
pub(super) async fn uploads(tx: &mut PgConnection, rows: &[&UploadRow]) -> sqlx::Result<()> {
    of_uploads(query(UPLOADS), rows).execute(tx).await?;
    Ok(())
}

/// Uploads of which nothing is stored, at most one row each; of the others nothing is changed. Returns those that were written.
pub(super) async fn new_uploads(tx: &mut PgConnection, rows: &[&UploadRow]) -> sqlx::Result<HashSet<Uuid>> {
    let new = of_uploads(query(NEW_UPLOADS), rows).fetch_all(tx).await?;
    new.iter().map(|row| row.try_get(0)).collect()
}

fn of_uploads(
    query: Query<'static, Postgres, PgArguments>,
    rows: &[&UploadRow],
) -> Query<'static, Postgres, PgArguments> {
    query
        .bind(column(rows, |row| row.id))
        .bind(column(rows, |row| row.user_id))
        .bind(column(rows, |row| row.vehicle_id))
        .bind(column(rows, |row| row.vehicle_kind.clone()))
        .bind(column(rows, |row| row.image_url.clone()))
        .bind(column(rows, |row| row.image_hash.clone()))
        .bind(column(rows, |row| row.original_filename.clone()))
        .bind(column(rows, |row| row.file_size))
        .bind(column(rows, |row| row.mime_type.clone()))
        .bind(column(rows, |row| row.image_dimensions.clone()))
        .bind(column(rows, |row| row.status))
        .bind(column(rows, |row| row.rank))
        .bind(column(rows, |row| row.created_at))
        .bind(column(rows, |row| row.updated_at))
        .bind(column(rows, |row| row.processed_at))
}

/// What uploads say of mileage.
pub(super) const MILEAGES_TABLE: Table = Table { name: "mileage_data", key: "id" };

// Before a decision the topics fill each other's blanks; a decision of a higher rank replaces the row, and after one
// nothing else changes it. `before` reads the row as it was when the statement began, under the upload's lock.
const MILEAGES: &str = "
with incoming as (
    select * from unnest($1::uuid[], $2::uuid[], $3::numeric[], $4::numeric[], $5::numeric[], $6::numeric[], $7::text[],
        $8::numeric[], $9::numeric[], $10::text[], $11::smallint[], $12::text[], $13::uuid[], $14::timestamptz[], $15::text[],
        $16::numeric[], $17::timestamptz[])
        as r (id, upload_id, claimed, ai, accepted, confidence, unit, previous, distance, status, status_rank, reason,
            reviewer, reviewed_at, notes, uncorrected, corrected_at)
), before as (
    select m.upload_id, m.distance_traveled from mileage_data m join incoming using (upload_id)
), written as (
    insert into mileage_data as m (id, upload_id, user_claimed_mileage, ai_verified_mileage, final_mileage,
        mileage_confidence, mileage_unit, previous_mileage, distance_traveled, verification_status, status_rank,
        rejection_reason, reviewed_by, reviewed_at, manual_review_notes, uncorrected_mileage, corrected_at)
    select id, upload_id, claimed, ai, accepted, confidence, unit::mileage_data_mileage_unit, previous, distance,
        status::mileage_data_verification_status, status_rank, reason, reviewer, reviewed_at, notes,
        uncorrected, corrected_at
    from incoming order by upload_id
    on conflict (upload_id) do update set
        user_claimed_mileage = case when excluded.status_rank > m.status_rank then excluded.user_claimed_mileage
            else coalesce(m.user_claimed_mileage, excluded.user_claimed_mileage) end,
        ai_verified_mileage = case when excluded.status_rank > m.status_rank then excluded.ai_verified_mileage
            else coalesce(m.ai_verified_mileage, excluded.ai_verified_mileage) end,
        final_mileage = excluded.final_mileage,
        mileage_confidence = excluded.mileage_confidence,
        mileage_unit = excluded.mileage_unit,
        previous_mileage = excluded.previous_mileage,
        distance_traveled = excluded.distance_traveled,
        verification_status = excluded.verification_status,
        status_rank = excluded.status_rank,
        rejection_reason = excluded.rejection_reason,
        reviewed_by = excluded.reviewed_by,
        reviewed_at = excluded.reviewed_at,
        manual_review_notes = excluded.manual_review_notes,
        uncorrected_mileage = excluded.uncorrected_mileage,
        corrected_at = excluded.corrected_at
    where m.status_rank = 0 or excluded.status_rank > m.status_rank
    returning m.upload_id, m.distance_traveled
)
select upload_id, coalesce(written.distance_traveled, 0) - coalesce(before.distance_traveled, 0)
from written left join before using (upload_id)";

/// Mileages by upload, at most one row each. Returns the rows that were not passed over, with the change of their distance.
pub(super) async fn mileages(
    tx: &mut PgConnection,
    rows: &[(Uuid, &MileageRow)],
) -> sqlx::Result<HashMap<Uuid, Decimal>> {
    let written: Vec<(Uuid, Decimal)> = query_as(MILEAGES)
        .bind(column(rows, |(_, row)| row.id))
        .bind(column(rows, |(upload, _)| *upload))
        .bind(column(rows, |(_, row)| row.claimed))
        .bind(column(rows, |(_, row)| row.ai))
        .bind(column(rows, |(_, row)| row.accepted))
        .bind(column(rows, |(_, row)| row.confidence))
        .bind(column(rows, |(_, row)| row.unit))
        .bind(column(rows, |(_, row)| row.previous))
        .bind(column(rows, |(_, row)| row.distance))
        .bind(column(rows, |(_, row)| row.status))
        .bind(column(rows, |(_, row)| row.rank))
        .bind(column(rows, |(_, row)| row.rejection_reason.clone()))
        .bind(column(rows, |(_, row)| row.review.as_ref().map(|review| review.reviewer)))
        .bind(column(rows, |(_, row)| row.review.as_ref().map(|review| review.at)))
        .bind(column(rows, |(_, row)| row.review.as_ref().and_then(|review| review.notes.clone())))
        .bind(column(rows, |(_, row)| row.correction.as_ref().and_then(|correction| correction.before)))
        .bind(column(rows, |(_, row)| row.correction.as_ref().map(|correction| correction.at)))
        .fetch_all(tx)
        .await?;
    Ok(written.into_iter().collect())
}

/// How photos were read.
pub(super) const VERIFICATIONS_TABLE: Table = Table { name: "upload_verifications", key: "id" };

// A decision says nothing here but its error, and where that is the one that stands the row is not written again.
// Quality: the readings refine what was graded, so they replace it once, and of equals the first stands. Only readings
// bring `fallback_used`, only decisions no `created_at`. The last error is the decision's, before one the readings'.
const VERIFICATIONS: &str = "
insert into upload_verifications as v (id, upload_id, ai_service_used, processing_time, confidence_score, detected_text,
    bounding_boxes, multiple_readings_detected, fallback_used, image_quality_score, lighting_conditions, blur_detected,
    glare_detected, error_details, created_at)
select id, upload_id, service, time, confidence, words, boxes, several, fallback, score,
    lighting::upload_verifications_lighting_conditions, blur, glare, error, created_at
from unnest($1::uuid[], $2::uuid[], $3::text[], $4::int[], $5::numeric[], $6::text[], $7::jsonb[], $8::bool[], $9::bool[],
    $10::numeric[], $11::text[], $12::bool[], $13::bool[], $14::text[], $15::timestamptz[])
    as r (id, upload_id, service, time, confidence, words, boxes, several, fallback, score, lighting, blur, glare, error,
    created_at)
order by upload_id
on conflict (upload_id) do update set
    (image_quality_score, lighting_conditions, blur_detected, glare_detected) = (select
        case when refined then coalesce(excluded.image_quality_score, v.image_quality_score)
            else coalesce(v.image_quality_score, excluded.image_quality_score) end,
        case when refined then coalesce(excluded.lighting_conditions, v.lighting_conditions)
            else coalesce(v.lighting_conditions, excluded.lighting_conditions) end,
        case when refined then coalesce(excluded.blur_detected, v.blur_detected)
            else coalesce(v.blur_detected, excluded.blur_detected) end,
        case when refined then coalesce(excluded.glare_detected, v.glare_detected)
            else coalesce(v.glare_detected, excluded.glare_detected) end
        from (select excluded.fallback_used is not null and v.fallback_used is null) as r (refined)),
    ai_service_used = coalesce(v.ai_service_used, excluded.ai_service_used),
    processing_time = coalesce(v.processing_time, excluded.processing_time),
    confidence_score = coalesce(v.confidence_score, excluded.confidence_score),
    detected_text = coalesce(v.detected_text, excluded.detected_text),
    bounding_boxes = coalesce(v.bounding_boxes, excluded.bounding_boxes),
    multiple_readings_detected = coalesce(v.multiple_readings_detected, excluded.multiple_readings_detected),
    fallback_used = coalesce(v.fallback_used, excluded.fallback_used),
    error_details = case
        when excluded.created_at is null then excluded.error_details
        when (select m.status_rank from mileage_data m where m.upload_id = v.upload_id) = 0
            then coalesce(v.error_details, excluded.error_details)
        else v.error_details end,
    created_at = least(v.created_at, excluded.created_at)
where excluded.created_at is not null or excluded.error_details is distinct from v.error_details";

/// Verifications by upload, at most one row each, after the mileages; a decision that was passed over there must not be here.
pub(super) async fn verifications(
    tx: &mut PgConnection,
    rows: &[(Uuid, &VerificationRow)],
) -> sqlx::Result<()> {
    query(VERIFICATIONS)
        .bind(column(rows, |(_, row)| row.id))
        .bind(column(rows, |(upload, _)| *upload))
        .bind(column(rows, |(_, row)| row.reading.as_ref()?.service.clone()))
        .bind(column(rows, |(_, row)| row.reading.as_ref()?.processing_time))
        .bind(column(rows, |(_, row)| row.reading.as_ref()?.confidence))
        .bind(column(rows, |(_, row)| row.reading.as_ref()?.detected_text.clone()))
        .bind(column(rows, |(_, row)| row.reading.as_ref()?.bounding_boxes.clone()))
        .bind(column(rows, |(_, row)| Some(row.reading.as_ref()?.several)))
        .bind(column(rows, |(_, row)| Some(row.reading.as_ref()?.fallback)))
        .bind(column(rows, |(_, row)| Some(row.quality.as_ref()?.score)))
        .bind(column(rows, |(_, row)| Some(row.quality.as_ref()?.lighting)))
        .bind(column(rows, |(_, row)| Some(row.quality.as_ref()?.blur)))
        .bind(column(rows, |(_, row)| Some(row.quality.as_ref()?.glare)))
        .bind(column(rows, |(_, row)| row.error_details.clone()))
        .bind(column(rows, |(_, row)| row.created_at))
        .execute(tx)
        .await?;
    Ok(())
}

/// Takes back what the sink wrote of users.
pub(super) const RESET_TOTALS: &str = "
update users set total_mileage = 0, total_rewards = 0, sustainability_score = null
where total_mileage <> 0 or total_rewards <> 0 or sustainability_score is not null";

/// What a batch adds to a user's totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    /// Kilometres.
    pub km: Decimal,
    /// B3TR granted and not cancelled.
    pub b3tr: Decimal,
}

/// Locks users by key, before their scores are read: of two batches of one user the second sees what the first wrote.
pub(super) async fn lock_users(tx: &mut PgConnection, users: &[Uuid]) -> sqlx::Result<()> {
    query("select 1 from users where id = any($1) order by id for no key update")
        .bind(users)
        .execute(tx)
        .await?;
    Ok(())
}

/// Adds to the users' totals. The gateway's `updated_at` is not the sink's and stays.
pub(super) async fn totals(tx: &mut PgConnection, deltas: &BTreeMap<Uuid, Delta>) -> sqlx::Result<()> {
    let users: Vec<Uuid> = deltas.keys().copied().collect();
    lock_users(tx, &users).await?;
    query(
        "update users u set total_mileage = u.total_mileage + d.km, total_rewards = u.total_rewards + d.b3tr
         from unnest($1::uuid[], $2::numeric[], $3::numeric[]) as d (id, km, b3tr)
         where u.id = d.id and (d.km <> 0 or d.b3tr <> 0)",
    )
    .bind(users)
    .bind(deltas.values().map(|delta| delta.km).collect::<Vec<_>>())
    .bind(deltas.values().map(|delta| delta.b3tr).collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

// Looked up per user and upload, whatever the tables' size: each `lateral` with a limit or an offset is a loop over an index, which
// the planner cannot turn into a join that reads a whole table. A user has at most a few hundred uploads a year: the index on
// (user_id, created_at) makes the window a short range. What a vehicle runs on is the gateway's word at the time of writing; a
// vehicle that it does not know counts as the reference.
#[doc(hidden)]
pub const HISTORIES: &str = "
with readings as (
    select u.id as user_id, max(l.created_at) as last_at, count(*) as readings
    from unnest($1::uuid[]) as u (id) cross join lateral (
        select o.created_at from odometer_uploads o cross join lateral (
            select m.verification_status from mileage_data m where m.upload_id = o.id limit 1
        ) m
        where o.user_id = u.id and m.verification_status = 'approved'
        order by o.created_at desc limit 2
    ) l
    group by u.id
), windowed as (
    select r.user_id, r.readings, o.created_at, m.distance_traveled, coalesce(f.grams, $4) as grams,
        m.verification_status = 'approved' as verified,
        coalesce(split_part(m.rejection_reason, ':', 1) = any($5), false) as fraud
    from readings r cross join lateral (
        select o.id, o.created_at, o.vehicle_kind from odometer_uploads o
        where o.user_id = r.user_id
            and o.created_at > r.last_at - make_interval(hours => $6) and o.created_at <= r.last_at
        offset 0
    ) o cross join lateral (
        select m.distance_traveled, m.verification_status, m.rejection_reason from mileage_data m
        where m.upload_id = o.id limit 1
    ) m
    left join unnest($2::text[], $3::numeric[]) as f (kind, grams) on f.kind = o.vehicle_kind
)
select user_id, readings, count(*) filter (where verified), count(*) filter (where fraud),
    count(distinct date_trunc('week', created_at at time zone 'UTC')) filter (where verified),
    coalesce(sum(distance_traveled) filter (where verified), 0),
    coalesce(sum(distance_traveled * grams) filter (where verified), 0)
from windowed group by user_id, readings";

/// Works the users' scores out anew from their uploads.
pub(super) async fn scores(tx: &mut PgConnection, users: &[Uuid]) -> sqlx::Result<()> {
    let (kinds, grams): (Vec<&str>, Vec<Decimal>) = GRAMS_PER_KM.into_iter().unzip();
    let [(_, reference), ..] = GRAMS_PER_KM;
    let histories: Vec<(Uuid, i64, i64, i64, i64, Decimal, Decimal)> = query_as(HISTORIES)
        .bind(users)
        .bind(kinds)
        .bind(grams)
        .bind(reference)
        .bind(Reason::FRAUD.map(|reason| reason.label()).to_vec())
        .bind(WINDOW_HOURS)
        .fetch_all(&mut *tx)
        .await?;
    let (users, scores): (Vec<Uuid>, Vec<Option<i32>>) = histories
        .into_iter()
        .map(|(user, readings, verified, fraud, weeks, km, grams)| {
            (user, score(&History { readings, verified, fraud, weeks, km, grams }))
        })
        .unzip();
    query(
        "update users u set sustainability_score = s.score from unnest($1::uuid[], $2::int[]) as s (id, score)
         where u.id = s.id and u.sustainability_score is distinct from s.score",
    )
    .bind(users)
    .bind(scores)
    .execute(tx)
    .await?;
    Ok(())
}

/// Splits rows so that no part holds an upload twice: a statement can touch a row once. Order per upload is kept; a
/// batch is one part unless a record was delivered twice.
pub(super) fn waves(rows: Vec<Rows>) -> Vec<Vec<Rows>> {
    let mut waves: Vec<Vec<Rows>> = Vec::new();
    let mut depth: HashMap<Uuid, usize> = HashMap::new();
    for row in rows {
        let at = depth.entry(row.upload.id).or_default();
        if waves.len() == *at {
            waves.push(Vec::new());
        }
        waves[*at].push(row);
        *at += 1;
    }
    waves
}
