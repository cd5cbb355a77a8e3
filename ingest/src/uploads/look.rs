//! What the database knows of an upload before it is reserved: the account and its vehicle, an earlier upload of the photo, its first
//! holder, and what its idempotency key stood for. One statement for all requests that ask at the same time; it changes nothing.

use chrono::{DateTime, Utc};
use schemas::events::FirstHolder;
use schemas::ids::{Micros, UploadId, UserId, VehicleId};
use serde_json::Value;
use sqlx::{FromRow, PgExecutor};
use uuid::Uuid;

use super::counts::Counts;
use crate::http::problem::{ApiError, IDEMPOTENCY_KEY_REUSED, VEHICLE_NOT_FOUND, VEHICLE_RETIRED};

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
    /// Whether it is known that every earlier reservation of the user is published.
    pub(crate) alone: bool,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) user: UserId,
    pub(crate) idempotency_key: Option<String>,
    /// The named vehicle, or the user's default one.
    pub(crate) vehicle: VehicleId,
    pub(crate) image_hash: String,
}

/// What is true of the account and the vehicle.
#[derive(Clone, Debug, PartialEq, FromRow)]
pub(crate) struct Facts {
    /// The vehicle's kind; none where the user has no such vehicle.
    pub(crate) kind: Option<String>,
    /// The key that opens the user's private text.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) is_active: bool,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) verification_level: String,
    pub(crate) wallet_id: Option<Uuid>,
    /// As `RewardPreferences` reads it.
    pub(crate) reward_preferences: Option<Value>,
    pub(crate) revision: Option<i64>,
    pub(crate) flags: Option<Value>,
}

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The photo that the idempotency key stands for.
    pub(crate) key_photo: Option<String>,
    pub(crate) vehicle_owner: Option<UserId>,
    pub(crate) vehicle_retired: bool,
    /// The user's reservation of the photo, and whether its upload failed.
    pub(crate) earlier: Option<(Reserved, bool)>,
    pub(crate) holder: Option<FirstHolder>,
    /// Photos that are accepted already.
    pub(crate) counts: Counts,
    /// Whether the user wants to keep what the camera wrote beside the picture.
    pub(crate) keeps_metadata: bool,
    /// None where there is no such account.
    pub(crate) facts: Option<Facts>,
}

impl Seen {
    /// Refuses a key used with another photo, and another's vehicle, before anything is moved.
    pub(crate) fn check(&self, question: &Question) -> Result<(), ApiError> {
        if self.key_photo.as_ref().is_some_and(|used| *used != question.image_hash) {
            return Err(IDEMPOTENCY_KEY_REUSED.error());
        }
        if self.vehicle_owner.is_some_and(|owner| owner != question.user) {
            return Err(vehicle_not_found());
        }
        Ok(())
    }

    /// Refuses a vehicle that is driven no more, and one that nobody has registered where that `must` be; before the photo is kept.
    pub(crate) fn check_vehicle(&self, must: bool) -> Result<(), ApiError> {
        match self.vehicle_owner {
            None if must => Err(vehicle_not_found()),
            Some(_) if self.vehicle_retired => Err(VEHICLE_RETIRED.error().field("vehicle_id")),
            _ => Ok(()),
        }
    }

    /// The reservation of the same photo of the same user, unless its upload failed. A key that is not stored yet is stored by the
    /// transaction that reserves.
    pub(crate) fn settled(&self, question: &Question) -> Option<&Reserved> {
        let (reserved, failed) = self.earlier.as_ref()?;
        (!failed && (question.idempotency_key.is_none() || self.key_photo.is_some())).then_some(reserved)
    }
}

/// The refusal of a vehicle that is not the user's.
pub(crate) fn vehicle_not_found() -> ApiError {
    VEHICLE_NOT_FOUND.error().field("vehicle_id")
}

#[derive(FromRow)]
struct Row {
    key_photo: Option<String>,
    vehicle_owner: Option<Uuid>,
    vehicle_retired: bool,
    upload_id: Option<Uuid>,
    event: Option<Vec<u8>>,
    reserved_at: Option<DateTime<Utc>>,
    published: bool,
    failed: bool,
    holder_user: Option<Uuid>,
    holder_upload: Option<Uuid>,
    kind: Option<String>,
    key: Option<Vec<u8>>,
    is_active: Option<bool>,
    created_at: Option<DateTime<Utc>>,
    verification_level: Option<String>,
    wallet_id: Option<Uuid>,
    reward_preferences: Option<Value>,
    revision: Option<i64>,
    flags: Option<Value>,
    keeps_metadata: bool,
    #[sqlx(flatten)]
    counts: Counts,
}

impl Row {
    fn seen(self, user: UserId) -> Seen {
        let earlier = match (self.upload_id, self.event, self.reserved_at) {
            (Some(upload_id), Some(event), Some(reserved_at)) => {
                let reserved = Reserved {
                    upload_id: UploadId(upload_id),
                    user,
                    event,
                    reserved_at: reserved_at.into(),
                    published: self.published,
                    fresh: false,
                    alone: false,
                };
                Some((reserved, self.failed))
            }
            _ => None,
        };
        let holder = self.holder_upload.zip(self.holder_user);
        let vehicle_owner = self.vehicle_owner.map(UserId);
        let account = self.is_active.zip(self.created_at).zip(self.verification_level);
        let facts = account.map(|((is_active, created_at), verification_level)| Facts {
            kind: self.kind.filter(|_| vehicle_owner == Some(user)),
            key: self.key,
            is_active,
            created_at,
            verification_level,
            wallet_id: self.wallet_id,
            reward_preferences: self.reward_preferences,
            revision: self.revision,
            flags: self.flags,
        });
        Seen {
            key_photo: self.key_photo,
            vehicle_owner,
            vehicle_retired: self.vehicle_retired,
            earlier,
            holder: holder
                .map(|(upload, user)| FirstHolder { upload_id: UploadId(upload), user_id: UserId(user) }),
            counts: self.counts,
            keeps_metadata: self.keeps_metadata,
            facts,
        }
    }
}

/// What is known of each, in order.
pub(crate) async fn look(
    executor: impl PgExecutor<'_>,
    questions: &[Question],
) -> Result<Vec<Seen>, sqlx::Error> {
    let users: Vec<Uuid> = questions.iter().map(|question| question.user.0).collect();
    let keys: Vec<Option<&str>> =
        questions.iter().map(|question| question.idempotency_key.as_deref()).collect();
    let vehicles: Vec<Uuid> = questions.iter().map(|question| question.vehicle.0).collect();
    let hashes: Vec<&str> = questions.iter().map(|question| question.image_hash.as_str()).collect();
    let rows: Vec<Row> = sqlx::query_as(
        "select k.image_hash as key_photo, v.user_id as vehicle_owner, v.retired_at is not null as vehicle_retired,
                p.upload_id, p.event, p.reserved_at, p.published_at is not null as published,
                coalesce(o.upload_status = 'failed', false) as failed,
                f.user_id as holder_user, f.upload_id as holder_upload,
                v.kind, s.key, u.is_active, u.created_at, u.verification_level::text as verification_level,
                (select w.id from user_wallets w where w.user_id = u.id and w.is_primary) as wallet_id,
                r.reward_preferences,
                coalesce(r.dashboard_settings -> 'privacy' -> 'keep_exif_location' = 'true', false) as keeps_metadata,
                c.revision, c.feature_flags as flags,
                n.window_start as user_window, n.taken as user_taken, m.window_start as vehicle_window, m.taken as vehicle_taken
         from unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[]) with ordinality
                as asked (user_id, key, vehicle_id, image_hash, place)
           left join users u on u.id = asked.user_id
           left join user_preferences r on r.user_id = asked.user_id
           left join user_keys s on s.user_id = asked.user_id
           left join vehicles v on v.id = asked.vehicle_id
           left join upload_counts n on n.subject = asked.user_id and not n.of_vehicle
           left join upload_counts m on m.subject = asked.vehicle_id and m.of_vehicle
           left join idempotency_keys k on k.user_id = asked.user_id and k.key = asked.key
           left join photo_first_holders f on f.image_hash = asked.image_hash
           left join photo_hashes p on p.user_id = asked.user_id and p.image_hash = asked.image_hash
           left join odometer_uploads o on o.id = p.upload_id
           left join lateral (select revision, feature_flags from system_config order by revision desc limit 1) c on true
         order by asked.place",
    )
    .bind(users)
    .bind(keys)
    .bind(vehicles)
    .bind(hashes)
    .fetch_all(executor)
    .await?;
    if rows.len() != questions.len() {
        return Err(sqlx::Error::Protocol("an account has several rows where it must have one".into()));
    }
    Ok(rows.into_iter().zip(questions).map(|(row, question)| row.seen(question.user)).collect())
}
