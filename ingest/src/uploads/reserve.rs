//! Reserving a photo: one transaction that decides everything about an upload that its event will hold, and keeps the
//! event's exact bytes. Publishing comes after; a retry after any crash in between publishes the same bytes.
//!
//! *Who is first?* The first holder of a photo is decided here, by inserting into `photo_first_holders` under its unique
//! key, and not when the event is published. Two drivers who post one photo at the same moment both reserve before either
//! publishes; were the row written after publishing, both events would say "first" and both would be paid. Here the second
//! transaction waits at the unique key until the first has committed, then reads who it was and stamps it. A reservation
//! is always published in the end (the sweeper sees to it), so "first reserved" is "first published" in effect, and a
//! rolled-back transaction leaves no holder. Rows are locked in one order (idempotency key, vehicle, user key, first holder,
//! photo), so that reservations cannot deadlock.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use runtime::clock::Clock;
use schemas::codec;
use schemas::events::{FirstHolder, Stamp, UploadHeader, UploadReceived};
use schemas::ids::{EventId, Micros, UploadId, UserId, VehicleId, natural};
use schemas::sealed::{Sealed, UserKey};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::form::FormFields;
use super::store::Incoming;
use crate::http::problem::{ApiError, BUSY, IDEMPOTENCY_KEY_REUSED, INTERNAL, VEHICLE_NOT_FOUND};

/// Tries before a lost race is an error. A try is lost only to a commit, which the next try sees.
const TRIES: usize = 3;

/// A photo that is to be reserved.
pub(crate) struct Wanted<'a> {
    pub(crate) user: UserId,
    pub(crate) photo: &'a Incoming,
    pub(crate) mime: &'static str,
    pub(crate) form: &'a FormFields,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) object_key: &'a str,
    pub(crate) image_url: &'a str,
}

/// A reserved photo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) upload_id: UploadId,
    pub(crate) user: UserId,
    /// The framed event.
    pub(crate) event: Vec<u8>,
    pub(crate) reserved_at: Micros,
    pub(crate) published: bool,
    /// Whether this request reserved it.
    pub(crate) fresh: bool,
}

/// What is known of a photo that is sent, of its idempotency key and its vehicle.
#[derive(FromRow)]
struct Seen {
    key_photo: Option<String>,
    vehicle_owner: Option<Uuid>,
    upload_id: Option<Uuid>,
    event: Option<Vec<u8>>,
    reserved_at: Option<DateTime<Utc>>,
    published: bool,
    failed: bool,
}

impl Seen {
    /// The photo's reservation; none where there is none.
    fn reserved(self, user: UserId) -> Option<Reserved> {
        Some(Reserved {
            upload_id: UploadId(self.upload_id?),
            user,
            event: self.event?,
            reserved_at: self.reserved_at?.into(),
            published: self.published,
            fresh: false,
        })
    }
}

type Row = (Uuid, Vec<u8>, DateTime<Utc>, bool, bool);

/// What reserving works with.
pub(crate) struct Reservations {
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    /// The registry's id of `UploadReceived`.
    pub(crate) schema_id: u32,
    /// The rules in force, stamped into every event.
    pub(crate) rules_version: String,
}

impl Reservations {
    /// The reservation of the same photo of the same user, unless its upload failed; refuses a key used with another photo and
    /// another's vehicle before anything is moved. Decides nothing: [`Reservations::reserve`] looks again under locks.
    pub(crate) async fn earlier(
        &self,
        user: UserId,
        photo: &Incoming,
        form: &FormFields,
        idempotency_key: Option<&str>,
    ) -> Result<Option<Reserved>, ApiError> {
        let seen: Seen = sqlx::query_as(
            "select (select image_hash from idempotency_keys where user_id = $1 and key = $2) as key_photo,
                    (select user_id from vehicles where id = $3) as vehicle_owner,
                    p.upload_id, p.event, p.reserved_at, p.published_at is not null as published,
                    coalesce(o.upload_status = 'failed', false) as failed
             from (select $4::text as image_hash) sent
               left join photo_hashes p on p.user_id = $1 and p.image_hash = sent.image_hash
               left join odometer_uploads o on o.id = p.upload_id",
        )
        .bind(user.0)
        .bind(idempotency_key)
        .bind(form.vehicle_id.map(|id| id.0))
        .bind(&photo.sha256)
        .fetch_one(&self.pool)
        .await?;
        if seen.key_photo.as_ref().is_some_and(|used| *used != photo.sha256) {
            return Err(IDEMPOTENCY_KEY_REUSED.error());
        }
        if seen.vehicle_owner.is_some_and(|owner| owner != user.0) {
            return Err(vehicle_not_found());
        }
        // A key that is not stored yet is stored by the transaction.
        let settled = !seen.failed && (idempotency_key.is_none() || seen.key_photo.is_some());
        Ok(seen.reserved(user).filter(|_| settled))
    }

    /// Reserves a photo, or finds its reservation.
    pub(crate) async fn reserve(&self, wanted: &Wanted<'_>) -> Result<Reserved, ApiError> {
        for _ in 0..TRIES {
            if let Some(reserved) = self.try_reserve(wanted).await? {
                return Ok(reserved);
            }
        }
        Err(BUSY.error().retry_after(1))
    }

    /// None where another request of the same user reserved the same photo in the meantime.
    async fn try_reserve(&self, wanted: &Wanted<'_>) -> Result<Option<Reserved>, ApiError> {
        let now = self.clock.now();
        let mut tx = self.pool.begin().await?;
        claim_key(&mut tx, wanted, now).await?;
        let before = find(&mut tx, wanted.user, &wanted.photo.sha256).await?;
        let failed = match before {
            Some((reserved, false)) => {
                tx.commit().await?;
                return Ok(Some(reserved));
            }
            Some((reserved, true)) => Some(reserved.upload_id),
            None => None,
        };
        let upload_id = UploadId(Uuid::now_v7());
        let vehicle_id = wanted.form.vehicle_id.unwrap_or_else(|| default_vehicle(wanted.user));
        let facts = facts(&mut tx, wanted, vehicle_id, now).await?;
        let first_holder = first_holder(&mut tx, wanted, upload_id, failed, now).await?;
        let stamp = Stamp { first_holder, ..stamp(wanted, upload_id, facts)? };
        let event = UploadReceived { header: self.header(wanted, upload_id, vehicle_id, now), stamp };
        let bytes = codec::encode(self.schema_id, &event).map_err(|error| INTERNAL.caused_by(error))?;
        if !store(&mut tx, wanted, &event.header, &bytes, failed).await? {
            tx.rollback().await?;
            return Ok(None);
        }
        tx.commit().await?;
        let reserved = Reserved {
            upload_id,
            user: wanted.user,
            event: bytes,
            reserved_at: now,
            published: false,
            fresh: true,
        };
        Ok(Some(reserved))
    }

    fn header(
        &self,
        wanted: &Wanted<'_>,
        upload_id: UploadId,
        vehicle_id: VehicleId,
        now: Micros,
    ) -> UploadHeader {
        UploadHeader {
            event_id: EventId(Uuid::now_v7()),
            upload_id,
            user_id: wanted.user,
            vehicle_id,
            occurred_at: now,
            accepted_at: now,
            image_hash: wanted.photo.sha256.clone(),
            object_key: wanted.object_key.to_owned(),
            image_url: wanted.image_url.to_owned(),
            // At most 16 MiB, so the conversion cannot fail.
            file_size: i64::try_from(wanted.photo.bytes).unwrap_or(i64::MAX),
            mime_type: wanted.mime.to_owned(),
            stage_version: env!("CARGO_PKG_VERSION").to_owned(),
            rules_version: self.rules_version.clone(),
            root: None,
        }
    }
}

/// The user's reservation of a photo, and whether its upload failed.
async fn find(
    tx: &mut PgConnection,
    user: UserId,
    image_hash: &str,
) -> Result<Option<(Reserved, bool)>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(
        "select p.upload_id, p.event, p.reserved_at, p.published_at is not null,
                coalesce(o.upload_status = 'failed', false)
         from photo_hashes p left join odometer_uploads o on o.id = p.upload_id
         where p.user_id = $1 and p.image_hash = $2",
    )
    .bind(user.0)
    .bind(image_hash)
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|(upload_id, event, reserved_at, published, failed)| {
        let reserved_at = Micros::from(reserved_at);
        (
            Reserved { upload_id: UploadId(upload_id), user, event, reserved_at, published, fresh: false },
            failed,
        )
    }))
}

async fn claim_key(tx: &mut PgConnection, wanted: &Wanted<'_>, now: Micros) -> Result<(), ApiError> {
    let Some(key) = wanted.idempotency_key else { return Ok(()) };
    sqlx::query(
        "insert into idempotency_keys (user_id, key, image_hash, created_at) values ($1, $2, $3, $4)
         on conflict (user_id, key) do nothing",
    )
    .bind(wanted.user.0)
    .bind(key)
    .bind(&wanted.photo.sha256)
    .bind(now.to_utc())
    .execute(&mut *tx)
    .await?;
    let used: String =
        sqlx::query_scalar("select image_hash from idempotency_keys where user_id = $1 and key = $2")
            .bind(wanted.user.0)
            .bind(key)
            .fetch_one(tx)
            .await?;
    if used == wanted.photo.sha256 { Ok(()) } else { Err(IDEMPOTENCY_KEY_REUSED.error()) }
}

/// What the database knows that an event holds.
#[derive(FromRow)]
struct Facts {
    kind: Option<String>,
    key: Option<Vec<u8>>,
    is_active: bool,
    created_at: DateTime<Utc>,
    verification_level: String,
    wallet_id: Option<Uuid>,
    wants_claim: bool,
    revision: Option<i64>,
    flags: Option<Value>,
}

/// The facts, in one statement that also makes the vehicle and the user's key where there are none.
///
/// The first use of a vehicle's id registers it for the user; only random (v4) and time-ordered (v7) ids can be, so that nobody takes
/// another's default vehicle, whose id (v5) can be worked out. Bounded by the rate of uploads. The key waits for the vehicle, so that rows
/// are locked in the order above. Rows that another request commits while this one waits for them are not in the statement's snapshot: a
/// second look sees them.
async fn facts(
    tx: &mut PgConnection,
    wanted: &Wanted<'_>,
    vehicle: VehicleId,
    now: Micros,
) -> Result<Facts, ApiError> {
    let may_register =
        vehicle == default_vehicle(wanted.user) || [4, 7].contains(&vehicle.0.get_version_num());
    let mut facts = look(tx, wanted, vehicle, may_register, now).await?;
    if facts.key.is_none() || (facts.kind.is_none() && may_register) {
        facts = look(tx, wanted, vehicle, may_register, now).await?;
    }
    if facts.kind.is_none() { Err(vehicle_not_found()) } else { Ok(facts) }
}

async fn look(
    tx: &mut PgConnection,
    wanted: &Wanted<'_>,
    vehicle: VehicleId,
    may_register: bool,
    now: Micros,
) -> Result<Facts, sqlx::Error> {
    sqlx::query_as(
        "with made_vehicle as (
           insert into vehicles (id, user_id, created_at) select $2, $1, $3 where $4
           on conflict (id) do nothing returning kind
         ), made_key as (
           insert into user_keys (user_id, key) select $1, $5 where (select count(*) >= 0 from made_vehicle)
           on conflict (user_id) do nothing returning key
         )
         select coalesce((select kind from made_vehicle),
                         (select kind from vehicles where id = $2 and user_id = $1)) as kind,
                coalesce((select key from made_key), (select key from user_keys where user_id = $1)) as key,
                u.is_active, u.created_at, u.verification_level::text as verification_level,
                (select w.id from user_wallets w where w.user_id = u.id and w.is_primary) as wallet_id,
                coalesce((p.reward_preferences ->> 'auto_claim')::boolean, true) as wants_claim,
                c.revision, c.feature_flags as flags
         from users u left join user_preferences p on p.user_id = u.id
           left join lateral (select revision, feature_flags from system_config
                              order by revision desc limit 1) c on true
         where u.id = $1",
    )
    .bind(wanted.user.0)
    .bind(vehicle.0)
    .bind(now.to_utc())
    .bind(may_register)
    .bind(UserKey::generate().expose())
    .fetch_one(tx)
    .await
}

fn vehicle_not_found() -> ApiError {
    VEHICLE_NOT_FOUND.error().field("vehicle_id")
}

/// The vehicle of a user who names none.
pub(crate) fn default_vehicle(user: UserId) -> VehicleId {
    VehicleId(natural(&format!("vehicle/{user}")))
}

/// The file's name, sealed with the user's key.
fn seal(wanted: &Wanted<'_>, upload_id: UploadId, key: Option<&[u8]>) -> Result<Option<Sealed>, ApiError> {
    let Some(name) = &wanted.form.file_name else { return Ok(None) };
    let sealed = UserKey::from_bytes(key.unwrap_or_default()).and_then(|key| key.seal(upload_id, name));
    sealed.map(Some).map_err(|error| INTERNAL.caused_by(error))
}

/// What is true now and later decisions need; the first holder comes after.
fn stamp(wanted: &Wanted<'_>, upload_id: UploadId, facts: Facts) -> Result<Stamp, ApiError> {
    // A flag that is not there is on, as the data map's defaults for these two say.
    let on = |flag: &str| facts.flags.as_ref().and_then(|flags| flags[flag].as_bool()).unwrap_or(true);
    Ok(Stamp {
        claimed_mileage: wanted.form.mileage,
        claimed_unit: wanted.form.unit,
        captured_at: wanted.form.captured_at,
        original_filename: seal(wanted, upload_id, facts.key.as_deref())?,
        account_active: facts.is_active,
        account_created_at: facts.created_at.into(),
        auto_claim: facts.wants_claim && on("auto_claim"),
        auto_accept: on("ai_verification"),
        verification_level: facts.verification_level,
        wallet_id: facts.wallet_id,
        vehicle_kind: facts.kind.unwrap_or_default(),
        region: "ZZ".to_owned(),
        config_revision: facts.revision.unwrap_or(0),
        first_holder: None,
    })
}

/// Who holds the photo already; none where this upload is the first, or renews the first, which failed.
async fn first_holder(
    tx: &mut PgConnection,
    wanted: &Wanted<'_>,
    upload_id: UploadId,
    failed: Option<UploadId>,
    now: Micros,
) -> Result<Option<FirstHolder>, sqlx::Error> {
    let (holder, upload): (Uuid, Uuid) = sqlx::query_as(
        "insert into photo_first_holders as f (image_hash, user_id, upload_id, published_at) values ($1, $2, $3, $4)
         on conflict (image_hash) do update set upload_id =
           case when f.user_id = excluded.user_id and f.upload_id = $5 then excluded.upload_id else f.upload_id end
         returning user_id, upload_id",
    )
    .bind(&wanted.photo.sha256)
    .bind(wanted.user.0)
    .bind(upload_id.0)
    .bind(now.to_utc())
    .bind(failed.map(|id| id.0))
    .fetch_one(tx)
    .await?;
    let holder = FirstHolder { upload_id: UploadId(upload), user_id: UserId(holder) };
    Ok((holder.upload_id != upload_id).then_some(holder))
}

/// Writes the reservation; false where another request was first.
async fn store(
    tx: &mut PgConnection,
    wanted: &Wanted<'_>,
    header: &UploadHeader,
    bytes: &[u8],
    failed: Option<UploadId>,
) -> Result<bool, sqlx::Error> {
    let written = sqlx::query(
        "insert into photo_hashes as p (user_id, image_hash, upload_id, event_id, event, reserved_at)
         values ($1, $2, $3, $4, $5, $6)
         on conflict (user_id, image_hash) do update set upload_id = excluded.upload_id,
           event_id = excluded.event_id, event = excluded.event, reserved_at = excluded.reserved_at,
           published_at = null
         where p.upload_id = $7",
    )
    .bind(wanted.user.0)
    .bind(&wanted.photo.sha256)
    .bind(header.upload_id.0)
    .bind(header.event_id.0)
    .bind(bytes)
    .bind(header.accepted_at.to_utc())
    .bind(failed.map(|id| id.0))
    .execute(tx)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// Reservations that were not published `age` after they were made, oldest first, at most `limit`.
pub(crate) async fn unpublished(
    pool: &PgPool,
    before: Micros,
    limit: i64,
) -> Result<Vec<Reserved>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid, Vec<u8>, DateTime<Utc>)> = sqlx::query_as(
        "select user_id, upload_id, event, reserved_at from photo_hashes
         where published_at is null and reserved_at <= $1 order by reserved_at limit $2",
    )
    .bind(before.to_utc())
    .bind(limit)
    .fetch_all(pool)
    .await?;
    let reserved = |(user, upload_id, event, reserved_at): (Uuid, Uuid, Vec<u8>, DateTime<Utc>)| Reserved {
        upload_id: UploadId(upload_id),
        user: UserId(user),
        event,
        reserved_at: reserved_at.into(),
        published: false,
        fresh: false,
    };
    Ok(rows.into_iter().map(reserved).collect())
}
