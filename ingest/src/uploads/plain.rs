//! The plain case of reserving: where nothing stands in a photo's way, one statement reserves it and all others that are reserved at the
//! same time. What it does not reserve is left to the transaction of [`super::reserve`], which looks again under locks.
//!
//! The event is encoded before, with the first holder that was seen, and is stored only where that is still the holder: one that names
//! none inserts its own into `photo_first_holders` under its unique key. Two drivers who post one photo at the same moment both have
//! events that say "first"; the second waits at the unique key for the first, finds another holder, and is not stored. Rows are locked in
//! the order of a reservation (idempotency key, vehicle, first holder, counts, photo), each table's by its key. The vehicle's row is
//! shared: one that changes hands meanwhile is another's when the statement goes on. Of two gateways' batches that still wait for each
//! other's first holders, one ends at its limit, and each of its requests takes the transaction.
//!
//! Photos are counted by user and by vehicle in the same statement. Where one of them has all that it may have, or several of the batch
//! are one more than that, nothing is stored and the transaction tells which; what a subject of such a pair was counted for here stays
//! counted until its window ends.
//!
//! The same statement tells whose earlier reservations are not published: nearly always nobody's, and then nobody looks again.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use schemas::ids::{EventId, UploadId, UserId, VehicleId};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::counts::{Allowed, window_start};

/// Milliseconds that the statement waits for a row that another transaction has locked: what is behind it waits as well.
const LOCK_MS: &str = "1000";

/// Keys, vehicles, holders, counts and photos in that order; tells of what it stored whether something of its user was unpublished before.
const RESERVE: &str = "with bounded as materialized (select set_config('lock_timeout', $9, true)),
     asked as materialized (
       select asked.* from bounded,
         unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::bytea[], $6::timestamptz[], $7::text[], $8::uuid[],
                $10::uuid[], $11::timestamptz[], $12::int[], $13::timestamptz[], $14::int[])
           as asked (user_id, image_hash, upload_id, event_id, event, reserved_at, key, holder,
                     vehicle_id, user_window, user_most, vehicle_window, vehicle_most)
     ), taken as (
       insert into idempotency_keys as k (user_id, key, image_hash, created_at)
       select user_id, key, image_hash, reserved_at from asked where key is not null order by user_id, key
       on conflict (user_id, key) do update set image_hash = k.image_hash
       returning k.user_id, k.key, k.image_hash
     ), free as materialized (
       select asked.* from asked left join taken using (user_id, key)
         join vehicles v on v.id = asked.vehicle_id and v.user_id = asked.user_id
       where asked.key is null or taken.image_hash = asked.image_hash for share of v
     ), held as (
       insert into photo_first_holders as f (image_hash, user_id, upload_id, published_at)
       select image_hash, user_id, upload_id, reserved_at from free where holder = upload_id order by image_hash
       on conflict (image_hash) do update set upload_id = f.upload_id
       returning f.image_hash, f.upload_id
     ), known as materialized (
       select f.image_hash from photo_first_holders f
         join free on f.image_hash = free.image_hash and f.upload_id = free.holder
       where free.holder <> free.upload_id and (select count(*) >= 0 from held)
       order by f.image_hash for share of f
     ), agreed as (
       select free.* from free join held using (image_hash) where held.upload_id = free.upload_id
       union all
       select free.* from free join known using (image_hash)
     ), subjects as (
       select subject, of_vehicle, max(window_start) as window_start, min(most) as most, count(*)::int as more from (
         select user_id as subject, false as of_vehicle, user_window as window_start, user_most as most from agreed
         union all select vehicle_id, true, vehicle_window, vehicle_most from agreed) s
       group by subject, of_vehicle
     ), counted as (
       insert into upload_counts as c (subject, of_vehicle, window_start, taken, most)
       select subject, of_vehicle, window_start, more, most from subjects where more <= most order by subject, of_vehicle
       on conflict (subject, of_vehicle) do update set window_start = greatest(c.window_start, excluded.window_start), most = excluded.most,
         taken = excluded.taken + case when excluded.window_start > c.window_start then 0 else c.taken end
       where excluded.taken + case when excluded.window_start > c.window_start then 0 else c.taken end <= excluded.most
       returning c.subject, c.of_vehicle
     ), allowed as (
       select * from agreed where user_id in (select subject from counted where not of_vehicle)
         and vehicle_id in (select subject from counted where of_vehicle)
     ), waiting as materialized (
       select distinct user_id from photo_hashes where published_at is null and user_id = any($1)
     ), stored as (
       insert into photo_hashes (user_id, image_hash, upload_id, event_id, event, reserved_at, vehicle_id)
       select user_id, image_hash, upload_id, event_id, event, reserved_at, vehicle_id from allowed order by user_id, image_hash
       on conflict (user_id, image_hash) do nothing
       returning upload_id, user_id
     )
     select upload_id, user_id in (select user_id from waiting) from stored";

/// A reservation to be made.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) user: UserId,
    pub(crate) vehicle: VehicleId,
    pub(crate) allowed: Allowed,
    pub(crate) image_hash: String,
    pub(crate) upload_id: UploadId,
    pub(crate) event_id: EventId,
    /// The framed event.
    pub(crate) event: Vec<u8>,
    pub(crate) at: DateTime<Utc>,
    pub(crate) idempotency_key: Option<String>,
    /// The upload that the event names as the photo's first holder; this one where it names none.
    pub(crate) holder: UploadId,
}

/// What became of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Left to the transaction.
    No,
    /// Reserved.
    Alone,
    /// Reserved, and an earlier reservation of the user may not be published yet.
    BehindOthers,
}

/// What became of them, in order.
pub(crate) async fn reserve_plain(
    executor: impl PgExecutor<'_>,
    wanted: &[Plain],
) -> Result<Vec<Stored>, sqlx::Error> {
    // A statement touches a row once: of those that share a photo or a key, the first.
    let mut photos = HashSet::new();
    let mut keys = HashSet::new();
    let tried: Vec<&Plain> = wanted
        .iter()
        .filter(|plain| {
            let key = plain.idempotency_key.as_deref().map(|key| (plain.user, key));
            photos.insert(plain.image_hash.as_str()) && key.is_none_or(|key| keys.insert(key))
        })
        .collect();
    let stored: Vec<(Uuid, bool)> = sqlx::query_as(RESERVE)
        .bind(tried.iter().map(|plain| plain.user.0).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.image_hash.as_str()).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.upload_id.0).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.event_id.0).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.event.as_slice()).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.at).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.idempotency_key.as_deref()).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.holder.0).collect::<Vec<_>>())
        .bind(LOCK_MS)
        .bind(tried.iter().map(|plain| plain.vehicle.0).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| window_start(plain.allowed.user, plain.at)).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.allowed.user.most()).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| window_start(plain.allowed.vehicle, plain.at)).collect::<Vec<_>>())
        .bind(tried.iter().map(|plain| plain.allowed.vehicle.most()).collect::<Vec<_>>())
        .fetch_all(executor)
        .await?;
    Ok(outcomes(wanted, &stored.into_iter().collect()))
}

/// What became of each; `stored` tells of the stored ones whether something of their user was unpublished before.
fn outcomes(wanted: &[Plain], stored: &HashMap<Uuid, bool>) -> Vec<Stored> {
    // Of one user's in the batch each may have to wait for another: which, is looked up then.
    let mut of_user: HashMap<UserId, usize> = HashMap::new();
    wanted.iter().for_each(|plain| *of_user.entry(plain.user).or_default() += 1);
    let became = |plain: &Plain| match stored.get(&plain.upload_id.0) {
        None => Stored::No,
        Some(waits) if *waits || of_user.get(&plain.user).is_some_and(|count| *count > 1) => {
            Stored::BehindOthers
        }
        Some(_) => Stored::Alone,
    };
    wanted.iter().map(became).collect()
}
