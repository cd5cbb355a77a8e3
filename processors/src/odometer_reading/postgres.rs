//! What the stage keeps, in Postgres: answers and pictures.

use reading::{COPY, Surroundings};
use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::{LookAlike, PixelHolder, UploadHeader};
use schemas::ids::{Micros, UploadId, UserId, VehicleId};
use schemas::sealed::UserKey;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool, query, query_as, query_scalar};
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::answers::{Answer, AnswerKey, Answers};
use super::pictures::Pictures;
use super::roster::ServiceRow;

/// Photos of other vehicles with the same number that are compared, newest first: 32 comparisons of about a millisecond. One of 170 looks
/// alike by chance: with more of them, honest drivers would wait for a person.
const MOST_COMPARED: i64 = 32;

/// Answers in `reading_results`, keys in `user_keys`, services in `ai_service_configs`.
#[derive(Clone, Debug)]
pub struct PostgresAnswers(PgPool);

impl PostgresAnswers {
    /// Answers in this database.
    #[must_use]
    pub fn new(pool: PgPool) -> Self {
        Self(pool)
    }
}

impl Answers for PostgresAnswers {
    async fn find(&self, key: AnswerKey<'_>) -> Result<Option<Answer>, StageError> {
        let found: Option<Json<Answer>> = query_scalar(
            "select result from reading_results where image_hash = $1 and reader_version = $2 and chain = $3",
        )
        .bind(key.image_hash)
        .bind(key.reader_version)
        .bind(key.cascade)
        .fetch_optional(&self.0)
        .await?;
        Ok(found.map(|Json(answer)| answer))
    }

    async fn keep(&self, key: AnswerKey<'_>, answer: Answer) -> Result<Answer, StageError> {
        let kept: Option<Json<Answer>> = query_scalar(
            "insert into reading_results (image_hash, reader_version, chain, result) values ($1, $2, $3, $4)
             on conflict do nothing returning result",
        )
        .bind(key.image_hash)
        .bind(key.reader_version)
        .bind(key.cascade)
        .bind(Json(&answer))
        .fetch_optional(&self.0)
        .await?;
        match kept {
            Some(Json(kept)) => Ok(kept),
            // Another owner of the partition was faster; its answer stands.
            None => Ok(self.find(key).await?.unwrap_or(answer)),
        }
    }

    async fn user_key(&self, user: UserId) -> Result<Option<UserKey>, StageError> {
        let key: Option<Vec<u8>> = query_scalar("select key from user_keys where user_id = $1")
            .bind(user.0)
            .fetch_optional(&self.0)
            .await?;
        key.map(|key| UserKey::from_bytes(&key))
            .transpose()
            .map_err(|error| StageError::new("user_keys", error))
    }

    async fn services(&self) -> Result<Vec<ServiceRow>, StageError> {
        Ok(sqlx::query_as(ServiceRow::ACTIVE).fetch_all(&self.0).await?)
    }
}

impl Pictures for PostgresAnswers {
    async fn hold_pixels(
        &self,
        pixel_hash: &str,
        own: &UploadHeader,
    ) -> Result<Option<PixelHolder>, StageError> {
        // The update changes nothing: it waits for a holder that another transaction is about to commit, and returns it.
        let (user, vehicle, upload, accepted_at, same_file): (Uuid, Uuid, Uuid, DateTime<Utc>, bool) =
            query_as(
                "insert into pixel_holders as h (pixel_hash, user_id, vehicle_id, upload_id, accepted_at, image_hash)
                 values (decode($1, 'hex'), $2, $3, $4, $5, decode($6, 'hex'))
                 on conflict (pixel_hash) do update set upload_id = h.upload_id
                 returning user_id, vehicle_id, upload_id, accepted_at, image_hash = decode($6, 'hex')",
            )
            .bind(pixel_hash)
            .bind(own.user_id.0)
            .bind(own.vehicle_id.0)
            .bind(own.upload_id.0)
            .bind(own.accepted_at.to_utc())
            .bind(&own.image_hash)
            .fetch_one(&self.0)
            .await?;
        let holder = PixelHolder {
            upload_id: UploadId(upload),
            user_id: UserId(user),
            vehicle_id: VehicleId(vehicle),
            accepted_at: Micros::from(accepted_at),
        };
        Ok((!same_file).then_some(holder))
    }

    async fn look_alike(
        &self,
        own: &UploadHeader,
        mileage: Decimal,
        surroundings: Surroundings,
    ) -> Result<Option<LookAlike>, StageError> {
        let mut transaction = self.0.begin().await?;
        // Two photos with one number that are read at the same time would not see each other.
        query("select pg_advisory_xact_lock(hashtextextended('picture ' || trim_scale($1), 0))")
            .bind(mileage)
            .execute(&mut *transaction)
            .await?;
        if let Some(found) = found_before(&mut transaction, own.upload_id).await? {
            return Ok(found);
        }
        let known = same_number(&mut transaction, own, mileage).await?;
        let bytes = surroundings.to_bytes();
        let compared = spawn_blocking(move || most_alike(&surroundings, known)).await;
        let found = compared.map_err(|error| StageError::new("comparing photos", error))?;
        query(
            "insert into picture_surroundings
               (upload_id, user_id, vehicle_id, accepted_at, image_hash, mileage, surroundings, look_alike)
             values ($1, $2, $3, $4, decode($5, 'hex'), $6, $7, $8)",
        )
        .bind(own.upload_id.0)
        .bind(own.user_id.0)
        .bind(own.vehicle_id.0)
        .bind(own.accepted_at.to_utc())
        .bind(&own.image_hash)
        .bind(mileage)
        .bind(bytes)
        .bind(found.map(Json))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(found)
    }
}

/// What was found when the upload was read before; the outer none where it was not.
async fn found_before(
    connection: &mut PgConnection,
    upload: UploadId,
) -> Result<Option<Option<LookAlike>>, StageError> {
    let found: Option<Option<Json<LookAlike>>> =
        query_scalar("select look_alike from picture_surroundings where upload_id = $1")
            .bind(upload.0)
            .fetch_optional(connection)
            .await?;
    Ok(found.map(|found| found.map(|Json(found)| found)))
}

/// A photo of another vehicle that shows the same number.
#[derive(sqlx::FromRow)]
struct Known {
    upload_id: Uuid,
    user_id: Uuid,
    vehicle_id: Uuid,
    surroundings: Vec<u8>,
}

/// The newest of them. The same file says nothing: of it acceptance knows who was first.
async fn same_number(
    connection: &mut PgConnection,
    own: &UploadHeader,
    mileage: Decimal,
) -> Result<Vec<Known>, StageError> {
    Ok(query_as(
        "select upload_id, user_id, vehicle_id, surroundings from picture_surroundings
         where mileage = $1 and vehicle_id <> $2 and image_hash <> decode($3, 'hex')
         order by accepted_at desc limit $4",
    )
    .bind(mileage)
    .bind(own.vehicle_id.0)
    .bind(&own.image_hash)
    .bind(MOST_COMPARED)
    .fetch_all(connection)
    .await?)
}

fn most_alike(own: &Surroundings, known: Vec<Known>) -> Option<LookAlike> {
    let alike = known.into_iter().filter_map(|known| {
        let seen = Surroundings::from_bytes(&known.surroundings)?;
        Some((own.likeness(&seen), known))
    });
    let (likeness, known) =
        alike.filter(|(likeness, _)| *likeness >= COPY).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(LookAlike {
        upload_id: UploadId(known.upload_id),
        user_id: UserId(known.user_id),
        vehicle_id: VehicleId(known.vehicle_id),
        // Two decimals are what anybody reads.
        likeness: Decimal::from_f32_retain(likeness)?.round_dp(2).min(Decimal::ONE),
    })
}
