//! What waits for a person, and all that a person needs to see of one upload.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use schemas::events::OdometerRead;
use schemas::ids::{UploadId, UserId};
use serde::Serialize;
use serde_json::Value;
use sqlx::types::Json as SqlJson;
use sqlx::{FromRow, PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Photo, photo_path};
use crate::auth::admission::Reviewer;
use crate::http::problem::{ApiError, REVIEW_NOT_FOUND};
use crate::http::reply::Json;
use crate::http::request::{Dependency, Path, PathParameter, uuid_schema};
use crate::queries::page::{Page, PageQuery, Place};
use crate::queries::payout::instant;
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
    signals: Value,
    pub record: SqlJson<OdometerRead>,
    pub reviewer_id: Option<Uuid>,
    decided_at: Option<DateTime<Utc>>,
    pub decision: Option<Value>,
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
    /// Null until somebody has decided
    #[schema(value_type = Option<Object>)]
    decision: Option<Value>,
    /// Null until then, and where nobody has decided in time
    reviewer_id: Option<Uuid>,
    #[schema(format = DateTime)]
    decided_at: Option<String>,
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
            decision: self.decision.clone(),
            reviewer_id: self.reviewer_id,
            decided_at: self.decided_at.map(instant),
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

/// What waits, oldest first. Nobody is shown photos of their own: they could not decide them.
async fn waiting(
    pool: &PgPool,
    reviewer: UserId,
    (at, id): Place,
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as(
        "select * from reviews
         where decided_at is null and (accepted_at, upload_id) > ($1, $2) and user_id <> $3
         order by accepted_at, upload_id limit $4",
    )
    .bind(at)
    .bind(id)
    .bind(reviewer.0)
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
    Dependency(pool): Dependency<PgPool>,
    Reviewer(caller): Reviewer,
    query: PageQuery,
) -> Result<Page<ReviewItem>, ApiError> {
    let rows = waiting(&pool, caller.user, query.after_oldest(), query.rows()).await?;
    Ok(query.page(&rows, |row| (row.accepted_at, row.upload_id), Row::item))
}

/// `GET /v1/reviews/{id}`.
pub(crate) async fn show(
    Dependency(pool): Dependency<PgPool>,
    _: Reviewer,
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
    _: Reviewer,
    Path(Reviewed(upload)): Path<Reviewed>,
) -> Result<Photo, ApiError> {
    let mut connection = pool.acquire().await?;
    let row = find(&mut connection, upload, false).await?;
    drop(connection);
    let header = &row.record.header;
    let bytes = photos.read(&header.object_key).await?;
    Ok(Photo { bytes, mime_type: header.mime_type.clone() })
}
