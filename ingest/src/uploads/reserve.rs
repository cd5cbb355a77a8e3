//! Reserving a photo: everything about an upload that its event will hold is decided, and the event's exact bytes are kept,
//! in one transaction, or in one statement with others where nothing stands in the way ([`super::plain`]). Publishing comes
//! after; a retry after any crash in between publishes the same bytes.
//!
//! *Who is first?* The first holder of a photo is decided here, by inserting into `photo_first_holders` under its unique
//! key, and not when the event is published. Two drivers who post one photo at the same moment both reserve before either
//! publishes; were the row written after publishing, both events would say "first" and both would be paid. Here the second
//! transaction waits at the unique key until the first has committed, then reads who it was and stamps it. A reservation
//! is always published in the end (the sweeper sees to it), so "first reserved" is "first published" in effect, and a
//! rolled-back transaction leaves no holder. Rows are locked in one order (idempotency key, vehicle, user key, first holder,
//! counts, photo), so that reservations cannot deadlock.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use runtime::clock::Clock;
use runtime::timers::PORTION;
use schemas::codec;
use schemas::events::{CameraFacts, FirstHolder, OriginFacts, Stamp, UploadHeader, UploadReceived};
use schemas::ids::{EventId, Micros, UploadId, UserId, VehicleId, natural};
use schemas::sealed::{Sealed, UserKey};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::counts::{Allowed, count};
use super::form::FormFields;
use super::look::{Facts, Question, Reserved, Seen, look, vehicle_not_found};
use super::plain::{Plain, Stored, reserve_plain};
use crate::accounts::preferences::RewardPreferences;
use crate::batches::Batches;
use crate::http::problem::{ApiError, BUSY, IDEMPOTENCY_KEY_REUSED, INTERNAL};

/// Tries before a lost race is an error. A try is lost only to a commit, which the next try sees.
const TRIES: usize = 3;

/// A photo that is to be reserved.
pub(crate) struct Wanted<'a> {
    pub(crate) question: &'a Question,
    /// The photo's size.
    pub(crate) bytes: usize,
    pub(crate) mime: &'static str,
    /// What its metadata say.
    pub(crate) camera: Option<CameraFacts>,
    /// How many accounts send from where it came from.
    pub(crate) origin: Option<OriginFacts>,
    pub(crate) form: &'a FormFields,
    pub(crate) object_key: &'a str,
    pub(crate) image_url: &'a str,
    pub(crate) allowed: Allowed,
}

type Row = (Uuid, Vec<u8>, DateTime<Utc>, bool, bool);

/// What reserving works with.
pub(crate) struct Reservations {
    pub(crate) clock: Arc<dyn Clock>,
    pool: PgPool,
    /// The registry's id of `UploadReceived`.
    schema_id: u32,
    /// The rules in force, stamped into every event.
    rules_version: String,
    looks: Batches<Question, Seen>,
    plain: Batches<Plain, Stored>,
}

impl Reservations {
    /// Reservations in a database.
    pub(crate) fn new(pool: PgPool, clock: Arc<dyn Clock>, schema_id: u32, rules_version: String) -> Self {
        let looks = Batches::of(&pool, |connection, asked| look(connection, asked).boxed());
        let plain = Batches::of(&pool, |connection, wanted| reserve_plain(connection, wanted).boxed());
        Self { clock, pool, schema_id, rules_version, looks, plain }
    }

    /// What is known of an upload before anything of it is kept. Decides nothing: reserving looks again.
    pub(crate) async fn look(&self, question: &Question) -> Result<Seen, ApiError> {
        let seen = match self.looks.ask(question.clone()).await? {
            Some(seen) => Some(seen),
            None => look(&self.pool, std::slice::from_ref(question)).await?.pop(),
        };
        let seen = seen.ok_or_else(|| INTERNAL.error())?;
        seen.check(question)?;
        Ok(seen)
    }

    /// Reserves a photo, or finds its reservation.
    pub(crate) async fn reserve(&self, wanted: &Wanted<'_>, seen: &Seen) -> Result<Reserved, ApiError> {
        let upload_id = UploadId(Uuid::now_v7());
        if let Some(plain) = self.plain(wanted, seen, upload_id)? {
            let reserved = Reserved {
                upload_id,
                user: wanted.question.user,
                event: plain.event.clone(),
                reserved_at: plain.at.into(),
                published: false,
                fresh: true,
                alone: false,
            };
            // Lost, it may be kept all the same: the same photo of the same user, sent again, finds it, with or without its key.
            match self.plain.ask(plain).await? {
                Some(Stored::Alone) => return Ok(Reserved { alone: true, ..reserved }),
                Some(Stored::BehindOthers) => return Ok(reserved),
                Some(Stored::No) | None => {}
            }
        }
        for _ in 0..TRIES {
            if let Some(mut reserved) = self.try_reserve(wanted, upload_id).await? {
                // A batch whose end was not seen may have reserved it after all.
                reserved.fresh |= reserved.upload_id == upload_id && !reserved.published;
                return Ok(reserved);
            }
        }
        Err(BUSY.error().retry_after(1))
    }

    /// The reservation as one of a batch; none where a vehicle or a key is to be made, or an earlier upload renewed.
    fn plain(
        &self,
        wanted: &Wanted<'_>,
        seen: &Seen,
        upload_id: UploadId,
    ) -> Result<Option<Plain>, ApiError> {
        let Some(facts) = seen.facts.as_ref().filter(|facts| facts.kind.is_some() && facts.key.is_some())
        else {
            return Ok(None);
        };
        if seen.earlier.is_some() {
            return Ok(None);
        }
        let now = self.clock.now();
        let stamp = Stamp { first_holder: seen.holder, ..stamp(wanted, upload_id, facts)? };
        let event = UploadReceived { header: self.header(wanted, upload_id, now), stamp };
        Ok(Some(Plain {
            user: wanted.question.user,
            vehicle: wanted.question.vehicle,
            allowed: wanted.allowed,
            image_hash: wanted.question.image_hash.clone(),
            upload_id,
            event_id: event.header.event_id,
            event: codec::encode(self.schema_id, &event).map_err(|error| INTERNAL.caused_by(error))?,
            at: now.to_utc(),
            idempotency_key: wanted.question.idempotency_key.clone(),
            holder: seen.holder.map_or(upload_id, |holder| holder.upload_id),
        }))
    }

    /// None where another request of the same user reserved the same photo in the meantime.
    async fn try_reserve(
        &self,
        wanted: &Wanted<'_>,
        upload_id: UploadId,
    ) -> Result<Option<Reserved>, ApiError> {
        let user = wanted.question.user;
        let now = self.clock.now();
        let mut tx = self.pool.begin().await?;
        claim_key(&mut tx, wanted, now).await?;
        let before = find(&mut tx, user, &wanted.question.image_hash).await?;
        let failed = match before {
            Some((reserved, false)) => {
                tx.commit().await?;
                return Ok(Some(reserved));
            }
            Some((reserved, true)) => Some(reserved.upload_id),
            None => None,
        };
        let facts = facts(&mut tx, wanted, now).await?;
        let first_holder = first_holder(&mut tx, wanted, upload_id, failed, now).await?;
        let stamp = Stamp { first_holder, ..stamp(wanted, upload_id, &facts)? };
        let event = UploadReceived { header: self.header(wanted, upload_id, now), stamp };
        let bytes = codec::encode(self.schema_id, &event).map_err(|error| INTERNAL.caused_by(error))?;
        count(&mut tx, (user, wanted.question.vehicle), &wanted.allowed, now).await?;
        if !store(&mut tx, wanted, &event.header, &bytes, failed).await? {
            tx.rollback().await?;
            return Ok(None);
        }
        tx.commit().await?;
        let (published, fresh, alone) = (false, true, false);
        Ok(Some(Reserved { upload_id, user, event: bytes, reserved_at: now, published, fresh, alone }))
    }

    fn header(&self, wanted: &Wanted<'_>, upload_id: UploadId, now: Micros) -> UploadHeader {
        UploadHeader {
            event_id: EventId(Uuid::now_v7()),
            upload_id,
            user_id: wanted.question.user,
            vehicle_id: wanted.question.vehicle,
            occurred_at: now,
            accepted_at: now,
            image_hash: wanted.question.image_hash.clone(),
            object_key: wanted.object_key.to_owned(),
            image_url: wanted.image_url.to_owned(),
            // At most 16 MiB, so the conversion cannot fail.
            file_size: i64::try_from(wanted.bytes).unwrap_or(i64::MAX),
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
        let (upload_id, reserved_at) = (UploadId(upload_id), Micros::from(reserved_at));
        (Reserved { upload_id, user, event, reserved_at, published, fresh: false, alone: false }, failed)
    }))
}

async fn claim_key(tx: &mut PgConnection, wanted: &Wanted<'_>, now: Micros) -> Result<(), ApiError> {
    let Some(key) = &wanted.question.idempotency_key else { return Ok(()) };
    sqlx::query(
        "insert into idempotency_keys (user_id, key, image_hash, created_at) values ($1, $2, $3, $4)
         on conflict (user_id, key) do nothing",
    )
    .bind(wanted.question.user.0)
    .bind(key)
    .bind(&wanted.question.image_hash)
    .bind(now.to_utc())
    .execute(&mut *tx)
    .await?;
    let used: String =
        sqlx::query_scalar("select image_hash from idempotency_keys where user_id = $1 and key = $2")
            .bind(wanted.question.user.0)
            .bind(key)
            .fetch_one(tx)
            .await?;
    if used == wanted.question.image_hash { Ok(()) } else { Err(IDEMPOTENCY_KEY_REUSED.error()) }
}

/// The facts, in one statement that also makes the vehicle and the user's key where there are none.
///
/// The first use of a vehicle's id registers it for the user; only random (v4) and time-ordered (v7) ids can be, so that nobody takes
/// another's default vehicle, whose id (v5) can be worked out. Bounded by the rate of uploads. The key waits for the vehicle, so that rows
/// are locked in the order above. Rows that another request commits while this one waits for them are not in the statement's snapshot: a
/// second look sees them.
async fn facts(tx: &mut PgConnection, wanted: &Wanted<'_>, now: Micros) -> Result<Facts, ApiError> {
    let Question { user, vehicle, .. } = wanted.question;
    let may_register = *vehicle == default_vehicle(*user) || [4, 7].contains(&vehicle.0.get_version_num());
    let mut facts = look_and_make(tx, wanted, may_register, now).await?;
    if facts.key.is_none() || (facts.kind.is_none() && may_register) {
        facts = look_and_make(tx, wanted, may_register, now).await?;
    }
    if facts.kind.is_none() { Err(vehicle_not_found()) } else { Ok(facts) }
}

async fn look_and_make(
    tx: &mut PgConnection,
    wanted: &Wanted<'_>,
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
                         (select kind from vehicles where id = $2 and user_id = $1 for share)) as kind,
                coalesce((select key from made_key), (select key from user_keys where user_id = $1)) as key,
                u.is_active, u.created_at, u.verification_level::text as verification_level,
                (select w.id from user_wallets w where w.user_id = u.id and w.is_primary) as wallet_id,
                p.reward_preferences,
                c.revision, c.feature_flags as flags
         from users u left join user_preferences p on p.user_id = u.id
           left join lateral (select revision, feature_flags from system_config
                              order by revision desc limit 1) c on true
         where u.id = $1",
    )
    .bind(wanted.question.user.0)
    .bind(wanted.question.vehicle.0)
    .bind(now.to_utc())
    .bind(may_register)
    .bind(UserKey::generate().expose())
    .fetch_one(tx)
    .await
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
fn stamp(wanted: &Wanted<'_>, upload_id: UploadId, facts: &Facts) -> Result<Stamp, ApiError> {
    // A flag that is not there is on, as the data map's defaults for these two say.
    let on = |flag: &str| facts.flags.as_ref().and_then(|flags| flags[flag].as_bool()).unwrap_or(true);
    let rewards = RewardPreferences::of_row(facts.reward_preferences.as_ref());
    Ok(Stamp {
        claimed_mileage: wanted.form.mileage,
        claimed_unit: wanted.form.unit,
        captured_at: wanted.form.captured_at,
        camera: wanted.camera.clone(),
        origin: wanted.origin,
        original_filename: seal(wanted, upload_id, facts.key.as_deref())?,
        account_active: facts.is_active,
        account_created_at: facts.created_at.into(),
        auto_claim: rewards.auto_claim && on("auto_claim"),
        auto_accept: on("ai_verification"),
        verification_level: facts.verification_level.clone(),
        wallet_id: facts.wallet_id,
        vehicle_kind: facts.kind.clone().unwrap_or_default(),
        region: "ZZ".to_owned(),
        config_revision: facts.revision.unwrap_or(0),
        first_holder: None,
        min_claim: rewards.min_claim(),
        personal_limits: rewards.personal_limits(),
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
    .bind(&wanted.question.image_hash)
    .bind(wanted.question.user.0)
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
        "insert into photo_hashes as p (user_id, image_hash, upload_id, event_id, event, reserved_at, vehicle_id)
         values ($1, $2, $3, $4, $5, $6, $8)
         on conflict (user_id, image_hash) do update set upload_id = excluded.upload_id,
           event_id = excluded.event_id, event = excluded.event, reserved_at = excluded.reserved_at,
           published_at = null, vehicle_id = excluded.vehicle_id
         where p.upload_id = $7",
    )
    .bind(wanted.question.user.0)
    .bind(&wanted.question.image_hash)
    .bind(header.upload_id.0)
    .bind(header.event_id.0)
    .bind(bytes)
    .bind(header.accepted_at.to_utc())
    .bind(failed.map(|id| id.0))
    .bind(header.vehicle_id.0)
    .execute(tx)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// A portion of the reservations that were made until `before` and are not published, oldest first.
pub(crate) async fn unpublished(
    pool: &PgPool,
    before: Micros,
    behind: Option<Reserved>,
) -> Result<Vec<Reserved>, sqlx::Error> {
    let (reserved_at, upload) = place(behind);
    let rows: Vec<UnpublishedRow> = sqlx::query_as(
        "select user_id, upload_id, event, reserved_at from photo_hashes
         where published_at is null and reserved_at <= $1 and (reserved_at, upload_id) > ($2, $3)
         order by reserved_at, upload_id limit $4",
    )
    .bind(before.to_utc())
    .bind(reserved_at)
    .bind(upload)
    .bind(PORTION)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(of_row).collect())
}

/// A portion of the user's reservations before this one that are not published, oldest first.
pub(crate) async fn unpublished_before(
    pool: &PgPool,
    reserved: &Reserved,
    behind: Option<Reserved>,
) -> Result<Vec<Reserved>, sqlx::Error> {
    let (reserved_at, upload) = place(behind);
    let rows: Vec<UnpublishedRow> = sqlx::query_as(
        "select user_id, upload_id, event, reserved_at from photo_hashes
         where published_at is null and user_id = $1 and reserved_at < $2 and (reserved_at, upload_id) > ($3, $4)
         order by reserved_at, upload_id limit $5",
    )
    .bind(reserved.user.0)
    .bind(reserved.reserved_at.to_utc())
    .bind(reserved_at)
    .bind(upload)
    .bind(PORTION)
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(of_row).collect())
}

/// Where a reservation stands among all; without one, before all.
fn place(reserved: Option<Reserved>) -> (DateTime<Utc>, Uuid) {
    reserved.map(|reserved| (reserved.reserved_at.to_utc(), reserved.upload_id.0)).unwrap_or_default()
}

type UnpublishedRow = (Uuid, Uuid, Vec<u8>, DateTime<Utc>);

fn of_row((user, upload_id, event, reserved_at): UnpublishedRow) -> Reserved {
    Reserved {
        upload_id: UploadId(upload_id),
        user: UserId(user),
        event,
        reserved_at: reserved_at.into(),
        published: false,
        fresh: false,
        alone: false,
    }
}
