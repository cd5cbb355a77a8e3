//! Publishing reservations: at once by the request that made them, later by the sweeper, always the stored bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt as _, TryStreamExt as _};
use runtime::clock::Clock;
use runtime::failpoint::{self, Step};
use runtime::producer::{Message, Outbound, send_and_wait};
use runtime::publish::{Delivered, PublishError};
use runtime::timers::{Ran, portions};
use runtime::worker::TRACEPARENT;
use schemas::codec;
use schemas::events::{Event as _, UploadReceived};
use schemas::ids::{Micros, UploadId};
use sqlx::{PgExecutor, PgPool};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::look::Reserved;
use super::reserve::{unpublished, unpublished_before};
use crate::activity::ActivityLog;
use crate::batches::{Answer, Batches};
use crate::http::problem::{ApiError, NOT_PUBLISHED};

/// First and longest wait between two looks at a reservation that another request is publishing: the mark of one that Kafka has taken comes
/// a few milliseconds later.
const LOOKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

/// Between two marks: nobody waits for one but another request for the same photo, and a user's next photo that comes so soon.
const MARKS: Duration = Duration::from_millis(20);

/// What publishing works with.
pub(crate) struct Publisher {
    pub(crate) pool: PgPool,
    pub(crate) marks: Batches<UploadId, ()>,
    pub(crate) outbound: Arc<dyn Outbound>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log: Arc<ActivityLog>,
    /// With the environment's prefix.
    pub(crate) topic: String,
    /// Longest wait for Kafka's acknowledgement.
    pub(crate) timeout: Duration,
    /// Whether the newest publication failed.
    pub(crate) failed: AtomicBool,
}

impl Publisher {
    /// Sees to it that a reservation is on the topic; true where this call put it there.
    ///
    /// One that another request has just made is that request's to publish: it gets the publish timeout for it, and only then are
    /// its bytes published here. A second publication would be harmless (the event id is the same), but noise.
    ///
    /// The user's earlier reservations go out first: whoever publishes one has seen to that, so that their first places on the topic are
    /// in the order of acceptance, however many gateways, requests and sweepers publish them. No lock is held while Kafka is waited for.
    /// What is reserved at the same moment on another gateway may still be overtaken; its decision knows its place by its time.
    pub(crate) async fn settle(
        &self,
        reserved: &Reserved,
        traceparent: Option<&str>,
    ) -> Result<bool, ApiError> {
        if reserved.published {
            return Ok(false);
        }
        if !reserved.fresh && self.published_by_another(reserved).await? {
            return Ok(false);
        }
        if !reserved.alone {
            self.settle_earlier(reserved).await?;
        }
        // Nobody waits for the mark.
        let published = self.publish(reserved, traceparent).await;
        published.map_err(|error| not_published(reserved, error))?;
        Ok(true)
    }

    /// Sees to it that the user's earlier reservations are on the topic.
    async fn settle_earlier(&self, reserved: &Reserved) -> Result<(), ApiError> {
        let mut earlier = portions(|behind| unpublished_before(&self.pool, reserved, behind));
        while let Some(portion) = earlier.try_next().await? {
            for earlier in &portion {
                if self.published_by_another(earlier).await? {
                    continue;
                }
                match self.publish(earlier, None).await {
                    // The sweeper says so of one that Kafka will never take.
                    Ok(_) | Err(PublishError::Refused(_)) => {}
                    Err(error) => return Err(not_published(reserved, error)),
                }
            }
        }
        Ok(())
    }

    async fn published_by_another(&self, reserved: &Reserved) -> Result<bool, ApiError> {
        let limit = self.timeout;
        let age = Duration::from_micros((self.clock.now().0 - reserved.reserved_at.0).max(0).unsigned_abs());
        let end = Instant::now() + limit.saturating_sub(age);
        let [mut wait, longest] = LOOKS;
        loop {
            let published: bool = sqlx::query_scalar(
                "select exists (select from photo_hashes where upload_id = $1 and published_at is not null)",
            )
            .bind(reserved.upload_id.0)
            .fetch_one(&self.pool)
            .await?;
            if published || Instant::now() >= end {
                return Ok(published);
            }
            sleep(wait).await;
            wait = longest.min(wait * 2);
        }
    }

    /// Publishes the stored bytes, waits for all in-sync replicas, and has that written down, whose end the receiver gets.
    async fn publish(
        &self,
        reserved: &Reserved,
        traceparent: Option<&str>,
    ) -> Result<Option<oneshot::Receiver<Answer<()>>>, PublishError> {
        let key = reserved.user.to_string();
        let trace = [(TRACEPARENT, traceparent.map(str::as_bytes))];
        let message = Message {
            topic: &self.topic,
            key: Some(key.as_bytes()),
            payload: Some(&reserved.event),
            headers: if traceparent.is_some() { &trace } else { &[] },
        };
        failpoint::at(Step::UploadReserved);
        let delivered = self.send(&message).await?;
        failpoint::at(Step::UploadPublished);
        // The upload is kept and acknowledged from here on. If the mark is lost, the sweeper publishes the same bytes once more.
        let marked = self.marks.add(reserved.upload_id).await;
        self.log_published(reserved, delivered);
        Ok(marked)
    }

    async fn send(&self, message: &Message<'_>) -> Result<Delivered, PublishError> {
        let sent = timeout(self.timeout, send_and_wait(self.outbound.as_ref(), message)).await;
        let delivered =
            sent.unwrap_or_else(|_| Err(PublishError::Timeout("the gateway's own limit".to_owned())));
        // One that Kafka will never take says nothing of the producer.
        if !matches!(delivered, Err(PublishError::Refused(_))) {
            self.failed.store(delivered.is_err(), Ordering::Relaxed);
        }
        delivered
    }

    /// Whether the newest publication failed.
    pub(crate) fn fails(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Reservations that are older than `age` and not published.
    pub(crate) async fn overdue(&self, age: Duration) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "select count(*) from photo_hashes where published_at is null and reserved_at <= $1",
        )
        .bind(self.before(age).to_utc())
        .fetch_one(&self.pool)
        .await
    }

    /// The instant `age` before now.
    fn before(&self, age: Duration) -> Micros {
        let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        Micros(self.clock.now().0.saturating_sub(age))
    }

    /// Waits until what was added before is marked.
    pub(crate) async fn flush(&self) {
        let _ = self.marks.ask(UploadId(Uuid::nil())).await;
    }

    fn log_published(&self, reserved: &Reserved, delivered: Delivered) {
        let event = codec::unframe(&reserved.event)
            .and_then(|(id, datum)| codec::decode::<UploadReceived>(UploadReceived::schema(), id, datum));
        match event {
            Ok(event) => self.log.log_upload(&event, delivered),
            // Reserved by another release: its stages log it all the same.
            Err(error) => tracing::warn!(error = %error, "a stored event is not of this release"),
        }
    }

    /// Publishes all reservations older than `grace` that a crash or a silent Kafka left behind, the oldest first. One gateway at a time,
    /// under an advisory lock: none where another is at it. `grace` must not be below the publish timeout, or requests are overtaken.
    ///
    /// # Errors
    /// [`ApiError`] of the first that Kafka does not acknowledge; the rest waits for the next round.
    pub(crate) async fn republish_reserved(&self, grace: Duration) -> Result<Option<Ran>, ApiError> {
        let mut lock = self.pool.begin().await?;
        // Advisory locks are the database's: the schema's name keeps gateways of other schemas (tests, replays) apart.
        let mine: bool = sqlx::query_scalar(
            "select pg_try_advisory_xact_lock(hashtext('milestream.reserved/' || current_schema()))",
        )
        .fetch_one(&mut *lock)
        .await?;
        if !mine {
            return Ok(None);
        }
        let (before, mut ran) = (self.before(grace), Ran::default());
        let mut left = portions(|behind| unpublished(&self.pool, before, behind));
        while let Some(portion) = left.try_next().await? {
            let mut marks = Vec::new();
            for reserved in &portion {
                match self.publish(reserved, None).await {
                    Ok(marked) => {
                        ran.done += 1;
                        marks.extend(marked);
                    }
                    // One that Kafka will never take must not hold the others up: it stays, visibly.
                    Err(refused @ PublishError::Refused(_)) => {
                        ran.fail(format!("upload {}", reserved.upload_id), &refused);
                    }
                    Err(error) => return Err(not_published(reserved, error)),
                }
            }
            join_all(marks).await;
        }
        lock.rollback().await?;
        Ok(Some(ran))
    }
}

/// Marks what was published, all that is acknowledged meanwhile at once.
pub(crate) fn marks(pool: &PgPool, clock: Arc<dyn Clock>) -> Batches<UploadId, ()> {
    Batches::paced(pool, MARKS, move |connection, published: &[UploadId]| {
        let now = clock.now();
        async move {
            let marked = mark(connection, published, now).await;
            if let Err(error) = &marked {
                tracing::warn!(error = %error, uploads = published.len(), "published, but not marked so");
            }
            marked.map(|()| vec![(); published.len()])
        }
        .boxed()
    })
}

async fn mark(executor: impl PgExecutor<'_>, published: &[UploadId], now: Micros) -> Result<(), sqlx::Error> {
    // Locks in the order of a reservation, the holders before the photos: the other way round is a deadlock with a second request for
    // the same photo. A holder is found by the photo's hash, its key. The commit does not wait for the disk: a mark that a power cut
    // takes is made again by the sweeper.
    sqlx::query(
        "with unhurried as materialized (select set_config('synchronous_commit', 'off', true)),
         photo as materialized (
            select image_hash, upload_id from photo_hashes, unhurried where upload_id = any($1) and published_at is null
         ), holder as materialized (
            select f.image_hash from photo_first_holders f join photo using (image_hash, upload_id)
            order by f.image_hash for update of f
         ), marked as (
            update photo_hashes p set published_at = $2
            from photo where p.upload_id = photo.upload_id and (select count(*) >= 0 from holder)
            returning p.image_hash, p.upload_id
         )
         update photo_first_holders f set published_at = $2
         from holder, marked where f.image_hash = holder.image_hash and f.image_hash = marked.image_hash
           and f.upload_id = marked.upload_id",
    )
    .bind(published.iter().map(|id| id.0).collect::<Vec<_>>())
    .bind(now.to_utc())
    .execute(executor)
    .await?;
    Ok(())
}

fn not_published(reserved: &Reserved, error: PublishError) -> ApiError {
    NOT_PUBLISHED.caused_by(error).upload(reserved.upload_id)
}
