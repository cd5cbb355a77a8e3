//! `POST /v1/uploads`: read, check, keep, reserve, publish, respond.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use reading::FileInfo;
use schemas::events::CameraFacts;
use schemas::ids::{UploadId, UserId};
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;
use uuid::Uuid;
use warp::http::HeaderMap;

use super::check::PhotoCheck;
use super::counts::Allowed;
use super::fields;
use super::form::{FormFields, FormReader, Incoming, UploadForm, photo_too_large};
use super::look::{Question, Reserved};
use super::origin::{DeviceId, Origins, SentFrom};
use super::publish::Publisher;
use super::reserve::{Reservations, Wanted, default_vehicle};
use super::store::PhotoStore;
use crate::auth::admission::Uploader;
use crate::config::Limits;
use crate::http::body::Body;
use crate::http::operation::Operation;
use crate::http::places::Memory;
use crate::http::problem::{
    ApiError, BUSY, EMPTY_FILE, FIELD_TOO_LONG, IDEMPOTENCY_KEY_INVALID, IDEMPOTENCY_KEY_REUSED, INTERNAL,
    INVALID_FIELD, LOW_RESOLUTION, MALFORMED_FORM, MISSING_FIELD, NOT_PUBLISHED, PHOTO_REFUSED,
    PHOTO_STORE_UNAVAILABLE, PHOTO_TOO_LARGE, Problem, RATE_LIMITED, REPEATED_FIELD, TOO_MANY_PIXELS,
    TRUNCATED_IMAGE, UNKNOWN_FIELD, UNSUPPORTED_FORMAT, UNSUPPORTED_MEDIA_TYPE, VEHICLE_NOT_FOUND,
    VEHICLE_RETIRED,
};
use crate::http::reply::Taken;
use crate::http::request::{Dependency, Extract, Headers, Request, RequestBody, content_length, text};
use crate::http::shares::{Share, Shares};
use crate::live::LiveSettings;

/// Characters of a W3C `traceparent`, version 00.
const TRACEPARENT_CHARS: usize = 55;

/// What the route may refuse an upload for.
pub(crate) const REFUSALS: &[Problem] = &[
    BUSY,
    EMPTY_FILE,
    FIELD_TOO_LONG,
    IDEMPOTENCY_KEY_REUSED,
    INVALID_FIELD,
    LOW_RESOLUTION,
    MALFORMED_FORM,
    MISSING_FIELD,
    NOT_PUBLISHED,
    PHOTO_REFUSED,
    PHOTO_STORE_UNAVAILABLE,
    PHOTO_TOO_LARGE,
    REPEATED_FIELD,
    TOO_MANY_PIXELS,
    TRUNCATED_IMAGE,
    UNKNOWN_FIELD,
    UNSUPPORTED_FORMAT,
    UNSUPPORTED_MEDIA_TYPE,
    VEHICLE_NOT_FOUND,
    VEHICLE_RETIRED,
];

/// What taking an upload works with.
pub(crate) struct Uploads {
    pub(crate) photos: PhotoStore,
    pub(crate) check: Arc<dyn PhotoCheck>,
    pub(crate) origins: Origins,
    pub(crate) reservations: Reservations,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) limits: Limits,
    /// For bodies in memory.
    pub(crate) memory: Memory,
    /// What a user may take of it.
    pub(crate) memory_each: Shares<UserId>,
    /// How many photos a user and a vehicle may have accepted.
    pub(crate) live: Arc<LiveSettings>,
    /// Where clients reach the gateway.
    pub(crate) base_url: String,
    /// Whether a photo may name only a vehicle that its owner has registered.
    pub(crate) vehicles_must_be_registered: bool,
}

/// Where an upload that is accepted can be followed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    upload_id: Uuid,
    #[schema(pattern = "^uploaded$")]
    status: &'static str,
    #[schema(format = "uri")]
    status_url: String,
    #[schema(format = "uri")]
    events_url: String,
}

/// `Idempotency-Key`, where it is sent.
pub(crate) struct IdempotencyKey(Option<String>);

impl<S: Sync> Extract<S> for IdempotencyKey {
    async fn extract(_state: &S, request: &mut Request) -> Result<Self, ApiError> {
        let sent = request.headers.get("idempotency-key");
        let key = sent.map(|value| fields::idempotency_key(value.to_str().unwrap_or_default()));
        Ok(Self(key.transpose()?))
    }

    fn describe(operation: &mut Operation) {
        operation.parameter(
            "header",
            "Idempotency-Key",
            json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
            "The same key with the same photo gives the first response, with another photo 422; kept 30 days",
        );
        operation.problems(&[IDEMPOTENCY_KEY_INVALID]);
    }
}

/// The form as the body has it.
pub(crate) struct FormBody(RequestBody);

impl<S: Sync> Extract<S> for FormBody {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        RequestBody::extract(dependencies, request).await.map(Self)
    }

    fn describe(operation: &mut Operation) {
        <RequestBody as Extract<S>>::describe(operation);
        let form = operation.schema::<UploadForm>();
        let encoding = json!({ "photo": { "contentType": "image/jpeg, image/png, image/webp, image/heic" } });
        operation.body(true, json!({ "multipart/form-data": { "schema": form, "encoding": encoding } }));
    }
}

/// The route.
pub(crate) async fn post(
    Dependency(uploads): Dependency<Arc<Uploads>>,
    Uploader(caller): Uploader,
    Headers(headers): Headers,
    IdempotencyKey(key): IdempotencyKey,
    device: DeviceId,
    FormBody(RequestBody(mut body)): FormBody,
) -> Result<Taken<Accepted>, ApiError> {
    let announced = content_length(&headers);
    let memory = uploads.take_memory(caller.user, announced).await?;
    let (photo, form) = uploads.read(&headers, announced, &mut body).await?;
    let from = SentFrom { device, address: caller.address };
    let reserved = uploads.keep((caller.user, &from), (photo, memory), &form, key).await?;
    let now = uploads.publisher.settle(&reserved, traceparent(&headers)).await?;
    let document = uploads.accepted(reserved.upload_id);
    Ok(Taken { now, location: Some(document.status_url.clone()), document })
}

/// Memory of a body, until it is dropped.
struct Held {
    _share: Share<UserId>,
    _memory: OwnedSemaphorePermit,
}

impl Uploads {
    async fn take_memory(&self, user: UserId, announced: Option<u64>) -> Result<Held, ApiError> {
        let bytes = self.most(announced)?;
        let share = self.memory_each.take(user, bytes).ok_or_else(|| {
            RATE_LIMITED
                .because("your other uploads are not taken yet: send this one after them")
                .retry_after(5)
        })?;
        Ok(Held { _share: share, _memory: self.memory.take(bytes).await? })
    }

    /// Bytes that a body may have: as many as are announced, or the longest where none are.
    fn most(&self, announced: Option<u64>) -> Result<u64, ApiError> {
        // As every other field is capped by itself, a longer body means a longer photo, and is refused as one.
        let longest = self.limits.photo_bytes + self.limits.form_overhead_bytes;
        match announced {
            Some(length) if length > longest => Err(photo_too_large(self.limits.photo_bytes)),
            Some(length) => Ok(length),
            None => Ok(longest),
        }
    }

    async fn read(
        &self,
        headers: &HeaderMap,
        announced: Option<u64>,
        body: &mut Body,
    ) -> Result<(Incoming, FormFields), ApiError> {
        let limits = self.limits;
        body.allow(self.most(announced)?, move || photo_too_large(limits.photo_bytes));
        let now = self.reservations.clock.now();
        let reader = FormReader { limits, announced: announced.unwrap_or(0), now };
        reader.read(text(headers, "content-type"), body).await
    }

    /// From a photo in memory to a reservation.
    async fn keep(
        &self,
        (user, from): (UserId, &SentFrom),
        (photo, memory): (Incoming, Held),
        form: &FormFields,
        idempotency_key: Option<String>,
    ) -> Result<Reserved, ApiError> {
        let vehicle = form.vehicle_id.unwrap_or_else(|| default_vehicle(user));
        let question = Question { user, idempotency_key, vehicle, image_hash: photo.sha256 };
        let seen = self.reservations.look(&question).await?;
        if let Some(reserved) = seen.settled(&question) {
            return Ok(reserved.clone());
        }
        // Who names no vehicle drives the one that every account has.
        seen.check_vehicle(self.vehicles_must_be_registered && vehicle != default_vehicle(user))?;
        let allowed = Allowed::of(&self.live.now().rates);
        seen.counts.check(&allowed, self.reservations.clock.now())?;
        let (bytes, object_key) = (photo.bytes.len(), PhotoStore::key(user, &question.image_hash));
        // Before the reservation: a reserved event may be published at any time, and its photo must be there then. A reservation
        // that fails now leaves a photo without an upload, under a key that the same photo sent again will have.
        let (mime, camera) =
            self.check_and_keep((photo.bytes, memory), &object_key, seen.keeps_metadata).await?;
        let image_url = self.photos.url_of(&object_key);
        let account = (user, seen.facts.as_ref().map(|facts| facts.created_at));
        let origin = self.origins.count(account, from, self.reservations.clock.now().to_utc()).await?;
        let wanted = Wanted {
            question: &question,
            bytes,
            mime,
            camera,
            origin,
            form,
            object_key: &object_key,
            image_url: &image_url,
            allowed,
        };
        self.reservations.reserve(&wanted, &seen).await
    }

    /// Checks and keeps a photo; gives its MIME type, and what its metadata say that later checks need. Without the user's consent no
    /// place, time or name stays in it. The work goes on where the client has gone, and so does its memory.
    async fn check_and_keep(
        &self,
        (photo, memory): (Bytes, Held),
        object_key: &str,
        keeps_metadata: bool,
    ) -> Result<(&'static str, Option<CameraFacts>), ApiError> {
        let (check, photos, key) = (self.check.clone(), self.photos.clone(), object_key.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            let _memory = memory;
            let info = check.check(&photo).map_err(super::check::refusal)?;
            let said = (info.format.mime(), reading::camera(&photo, &info));
            let photo = if keeps_metadata { photo } else { bare(photo, &info) };
            let kept = photos.keep_on_disk(&photo, &key);
            Ok::<_, ApiError>((said, kept, photo))
        });
        match work.await.map_err(|error| INTERNAL.caused_by(error))?? {
            (said, Some(kept), _) => kept.map(|()| said).map_err(ApiError::from),
            (said, None, photo) => {
                self.photos.keep_in_bucket(photo, object_key).await?;
                Ok(said)
            }
        }
    }

    fn accepted(&self, upload_id: UploadId) -> Accepted {
        let status_url = format!("{}/v1/uploads/{upload_id}", self.base_url);
        let events_url = format!("{status_url}/events");
        Accepted { upload_id: upload_id.0, status: "uploaded", status_url, events_url }
    }
}

/// A photo without what the camera wrote beside the picture.
fn bare(photo: Bytes, info: &FileInfo) -> Bytes {
    let bare = match reading::without_metadata(&photo, info) {
        Cow::Borrowed(_) => None,
        Cow::Owned(bare) => Some(bare),
    };
    bare.map_or(photo, Bytes::from)
}

/// The client's trace context, if it has the form of version 00.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let value = text(headers, runtime::worker::TRACEPARENT)?;
    let hex = |byte: u8| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (value.len() == TRACEPARENT_CHARS && value.starts_with("00-") && value.bytes().all(hex)).then_some(value)
}
