//! What waits for a person, and all that a person needs to see of one upload.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::OdometerRead;
use schemas::ids::{Micros, UploadId, UserId};
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json as SqlJson;
use sqlx::{FromRow, PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::desk::Desk;
use super::opinions::{Needs, Opinion};
use super::{look_alike_path, photo_path};
use crate::auth::admission::Caller;
use crate::auth::keys::Role;
use crate::http::problem::{
    ANOTHER_PERSON, ApiError, OPERATOR_NEEDED, OWN_UPLOAD, REVIEW_DECIDED, REVIEW_EXPIRED, REVIEW_HELD,
    REVIEW_NOT_FOUND,
};
use crate::http::reply::Json;
use crate::http::request::{Dependency, Path, PathParameter, uuid_schema};
use crate::queries::page::{Page, PageQuery, Place};
use crate::queries::payout::instant;
use crate::queries::photo::Photo;
use crate::uploads::store::PhotoStore;

/// Readings of the vehicle that are shown beside the photo.
const HISTORY: i64 = 10;

/// The upload of a review.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reviewed(pub(crate) UploadId);

impl std::str::FromStr for Reviewed {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(UploadId).map(Self)
    }
}

impl PathParameter for Reviewed {
    const MISSING: crate::http::problem::Problem = REVIEW_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// A row of the queue.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Row {
    pub upload_id: Uuid,
    pub user_id: Uuid,
    accepted_at: DateTime<Utc>,
    opened_at: DateTime<Utc>,
    reason: String,
    detail: String,
    pub signals: Value,
    pub record: SqlJson<OdometerRead>,
    reviewer_id: Option<Uuid>,
    decided_at: Option<DateTime<Utc>>,
    decision: Option<Value>,
    risk: i16,
    ranked_at: Option<DateTime<Utc>>,
    claimed_by: Option<Uuid>,
    claimed_until: Option<DateTime<Utc>>,
    pub opinions: SqlJson<Vec<Opinion>>,
    appealed_at: Option<DateTime<Utc>>,
    appeal_text: Option<String>,
}

/// A review in the queue
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ReviewItem {
    upload_id: Uuid,
    #[schema(format = DateTime)]
    accepted_at: String,
    /// When a person was asked for
    #[schema(format = DateTime)]
    opened_at: String,
    /// Why a person is asked, e.g. low_confidence
    reason: String,
    /// A sentence with the values compared
    detail: String,
    /// What was read
    reading: Option<Decimal>,
    /// What the driver typed
    claimed: Option<Decimal>,
    /// How much speaks for fraud: the sum of what each check against it counts, 0 to 20. A point is worth six hours of waiting
    risk: i16,
    needs: Needs,
    /// Whether a rule has turned it down and the driver has appealed
    appealed: bool,
}

/// What was read on the photo
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SeenValue {
    value: Decimal,
    unit: Option<&'static str>,
    confidence: Decimal,
}

/// An earlier upload of the vehicle
#[derive(Debug, Serialize, FromRow, ToSchema)]
pub(crate) struct EarlierReading {
    upload_id: Uuid,
    #[schema(format = DateTime)]
    accepted_at: DateTime<Utc>,
    mileage: Option<Decimal>,
    unit: Option<String>,
    status: Option<String>,
}

/// A review with all that a person decides by
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReviewDocument {
    #[serde(flatten)]
    item: ReviewItem,
    vehicle_id: Uuid,
    /// Where the photo is
    photo: String,
    /// Where the photo of another vehicle is that it looks like; null where none is known
    look_alike: Option<String>,
    /// Best first
    candidates: Vec<SeenValue>,
    /// Where they stand on the photo, in its pixels
    #[schema(value_type = Option<Object>)]
    boxes: Option<Value>,
    /// Every check with its value and threshold
    #[schema(value_type = Object)]
    signals: Value,
    /// The vehicle's uploads, newest first
    history: Vec<EarlierReading>,
    /// When the driver has appealed against the rule that `reason` names; null where the rule itself has asked for a person
    #[schema(format = DateTime)]
    appealed_at: Option<String>,
    /// What the driver says to it; null where they say nothing
    appeal_text: Option<String>,
    /// Null until somebody has decided
    #[schema(value_type = Option<Object>)]
    decision: Option<Value>,
    /// Null until then, and where nobody has decided in time
    reviewer_id: Option<Uuid>,
    #[schema(format = DateTime)]
    decided_at: Option<String>,
    /// Until when somebody works on it; null where nobody does
    #[schema(format = DateTime)]
    claimed_until: Option<String>,
    /// What people have said before who did not decide alone; empty until two have, so that the second looks with their own eyes
    opinions: Vec<Opinion>,
}

impl Row {
    fn item(&self) -> ReviewItem {
        ReviewItem {
            upload_id: self.upload_id,
            accepted_at: instant(self.accepted_at),
            opened_at: instant(self.opened_at),
            reason: self.reason.clone(),
            detail: self.detail.clone(),
            reading: self.record.reading.as_ref().and_then(|reading| Some(reading.best.as_ref()?.value)),
            claimed: self.record.stamp.claimed_mileage,
            risk: self.risk,
            needs: Needs::after(&self.opinions),
            appealed: self.appealed_at.is_some(),
        }
    }

    /// Its place in the queue.
    fn place(&self) -> Place {
        (self.ranked_at.unwrap_or(self.accepted_at), self.upload_id)
    }

    /// What this person has said of it, whether or not that decided it.
    pub(super) fn said_by(&self, person: UserId) -> Option<&Value> {
        let decision = self.decision.as_ref().filter(|_| self.reviewer_id == Some(person.0));
        let opinion = self.opinions.iter().find(|opinion| opinion.reviewer_id == person);
        decision.or(opinion.map(|opinion| &opinion.decision))
    }

    /// Refuses whose photo it is.
    pub(super) fn refuse_own(&self, caller: &Caller) -> Result<(), ApiError> {
        if self.user_id == caller.user.0 { Err(OWN_UPLOAD.error()) } else { Ok(()) }
    }

    /// Refuses what is decided or has ended by itself.
    pub(super) fn refuse_ended(&self) -> Result<(), ApiError> {
        match (&self.decision, self.reviewer_id) {
            (None, _) => Ok(()),
            (Some(_), Some(_)) => Err(REVIEW_DECIDED.error()),
            (Some(_), None) => Err(REVIEW_EXPIRED.error()),
        }
    }

    /// Refuses who may not decide it now: whose photo it is, who has said what they saw, who is no operator where one is needed, and
    /// everybody while another works on it.
    pub(super) fn refuse(&self, caller: &Caller, now: Micros) -> Result<(), ApiError> {
        self.refuse_own(caller)?;
        if self.said_by(caller.user).is_some() {
            return Err(ANOTHER_PERSON.error());
        }
        if Needs::after(&self.opinions) == Needs::Operator && caller.role != Role::Operator {
            return Err(OPERATOR_NEEDED.error());
        }
        let held = self.claimed_by.filter(|holder| *holder != caller.user.0).and(self.claimed_until);
        match held.map(|until| until.signed_duration_since(now.to_utc())) {
            Some(left) if left > chrono::TimeDelta::zero() => {
                let seconds = left.num_seconds().unsigned_abs() + 1;
                Err(REVIEW_HELD.error().retry_after(seconds))
            }
            _ => Ok(()),
        }
    }

    /// The document, with the vehicle's history.
    pub(super) async fn document(&self, connection: &mut PgConnection) -> Result<ReviewDocument, ApiError> {
        let reading = self.record.reading.as_ref();
        let candidates = reading.map(|reading| reading.candidates.as_slice()).unwrap_or_default();
        Ok(ReviewDocument {
            item: self.item(),
            vehicle_id: self.record.header.vehicle_id.0,
            photo: photo_path(UploadId(self.upload_id)),
            look_alike: self.record.look_alike.map(|_| look_alike_path(UploadId(self.upload_id))),
            candidates: candidates
                .iter()
                .map(|seen| SeenValue {
                    value: seen.value,
                    unit: seen.unit.map(schemas::events::Unit::label),
                    confidence: seen.confidence,
                })
                .collect(),
            boxes: reading.and_then(|reading| serde_json::from_str(&reading.bounding_boxes).ok()),
            signals: self.signals.clone(),
            history: history(connection, &self.record).await?,
            appealed_at: self.appealed_at.map(instant),
            appeal_text: self.appeal_text.clone(),
            decision: self.decision.clone(),
            reviewer_id: self.reviewer_id,
            decided_at: self.decided_at.map(instant),
            claimed_until: self.claimed_until.map(instant),
            opinions: if self.opinions.len() > 1 { self.opinions.0.clone() } else { Vec::new() },
        })
    }
}

/// The review of an upload; with `lock`, for a decision.
pub(super) async fn find(
    connection: &mut PgConnection,
    upload: UploadId,
    lock: bool,
) -> Result<Row, ApiError> {
    // One statement each: a lock is no parameter.
    let statement = if lock {
        "select * from reviews where upload_id = $1 for update"
    } else {
        "select * from reviews where upload_id = $1"
    };
    let found: Option<Row> = sqlx::query_as(statement).bind(upload.0).fetch_optional(connection).await?;
    found.ok_or_else(|| REVIEW_NOT_FOUND.error())
}

/// What waits for this person, the riskiest and oldest first: without photos of their own, what others work on, what they have looked at
/// already, and what an operator is asked about, unless they are one.
async fn waiting(
    pool: &PgPool,
    caller: &Caller,
    (at, id): Place,
    (now, limit): (Micros, i64),
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as(
        "select * from reviews
         where decided_at is null and (coalesce(ranked_at, accepted_at), upload_id) > ($1, $2) and user_id <> $3
            and (claimed_by is null or claimed_by = $3 or claimed_until <= $4)
            and not opinions @> jsonb_build_array(jsonb_build_object('reviewer_id', $3::text))
            and (jsonb_array_length(opinions) < 2 or $5)
         order by coalesce(ranked_at, accepted_at), upload_id limit $6",
    )
    .bind(at)
    .bind(id)
    .bind(caller.user.0)
    .bind(now.to_utc())
    .bind(caller.role == Role::Operator)
    .bind(limit)
    .fetch_all(pool)
    .await
}

async fn history(
    connection: &mut PgConnection,
    record: &OdometerRead,
) -> Result<Vec<EarlierReading>, sqlx::Error> {
    // The vehicle is looked for among its owner's uploads, of which the newest come first by their index.
    sqlx::query_as(
        "select o.id as upload_id, o.created_at as accepted_at, m.final_mileage as mileage,
            m.mileage_unit::text as unit, m.verification_status::text as status
         from odometer_uploads o join mileage_data m on m.upload_id = o.id
         where o.user_id = $1 and o.vehicle_id = $2 and o.id <> $3
         order by o.created_at desc limit $4",
    )
    .bind(record.header.user_id.0)
    .bind(record.header.vehicle_id.0)
    .bind(record.header.upload_id.0)
    .bind(HISTORY)
    .fetch_all(connection)
    .await
}

/// `GET /v1/reviews`.
pub(crate) async fn list(
    Dependency(desk): Dependency<Arc<Desk>>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<ReviewItem>, ApiError> {
    let asked = (desk.clock.now(), query.rows());
    let rows = waiting(&desk.pool, &caller, query.after_oldest(), asked).await?;
    Ok(query.page(&rows, Row::place, Row::item))
}

/// `GET /v1/reviews/{id}`.
pub(crate) async fn show(
    Dependency(pool): Dependency<PgPool>,
    Path(Reviewed(upload)): Path<Reviewed>,
) -> Result<Json<ReviewDocument>, ApiError> {
    let mut connection = pool.acquire().await?;
    let row = find(&mut connection, upload, false).await?;
    Ok(Json(row.document(&mut connection).await?))
}

/// `GET /v1/reviews/{id}/photo`.
pub(crate) async fn photo(
    Dependency(pool): Dependency<PgPool>,
    Dependency(photos): Dependency<PhotoStore>,
    Path(Reviewed(upload)): Path<Reviewed>,
) -> Result<Photo, ApiError> {
    let mut connection = pool.acquire().await?;
    let row = find(&mut connection, upload, false).await?;
    drop(connection);
    let header = &row.record.header;
    Photo::open(&photos, &header.object_key, Some(header.mime_type.clone())).await
}
