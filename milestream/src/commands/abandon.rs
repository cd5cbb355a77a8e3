//! The end of an upload that gets no further, by an operator's word: `milestream uploads abandon`, and what
//! `milestream dead-letters drop` leaves standing. It goes out as a record that only `fraud_check` decides, in its place among the driver's
//! readings.

use anyhow::{Result, bail, ensure};
use chrono::{DateTime, Utc};
use runtime::clock::{Clock as _, SystemClock};
use runtime::outbox::OutboxRows;
use runtime::registry::Registry;
use schemas::events::{UploadAbandoned, UploadReceived};
use schemas::ids::{EventId, UploadId};
use schemas::reason::Reason;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;
use crate::recorded::first_since;

/// Characters of what a driver is told.
const MOST_CHARACTERS: usize = 200;

/// Why an upload is not ended.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("there is no upload {0}")]
    Unknown(UploadId),
    #[error("it is on no topic yet: the gateway publishes it as soon as Kafka responds, and loses nothing")]
    Unpublished,
    #[error("it waits for a person: decide it on the page of reviews, or it ends there when its time is up")]
    InReview,
    #[error("it is decided already{}", .0.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Decided(Option<String>),
    #[error("it is abandoned already")]
    Abandoned,
    #[error("the order to abandon it is on its way already: it is decided within seconds")]
    OnItsWay,
}

/// Ends an upload that gets no further; `reason` is told to its driver.
pub async fn abandon(config: &Config, upload: UploadId, reason: &str) -> Result<()> {
    let fits = reason.chars().count() <= MOST_CHARACTERS && !reason.chars().any(char::is_control);
    ensure!(fits, "a reason is one line of {MOST_CHARACTERS} characters at most");
    let (pool, registry) = (database::pool(config)?, Registry::new(&config.registry_client())?);
    let schema_id = registry.id_of::<UploadAbandoned>(&config.kafka.topic_prefix).await?;
    undecided(&pool, upload).await?;
    let (accepted_at, status) = accepted(&pool, upload).await?;
    let wanted = |event: &UploadReceived| event.header.upload_id == upload;
    let Some((UploadReceived { header, stamp }, root)) =
        first_since(config, &registry, accepted_at, wanted).await?
    else {
        bail!(Refused::Unpublished);
    };
    let said = (format!("an operator has ended it: {reason}"), None);
    let event =
        UploadAbandoned::of((header, stamp), said, (env!("CARGO_PKG_VERSION"), SystemClock.now(), root));
    let mut tx = pool.begin().await?;
    ensure!(order(&mut tx, schema_id, &event).await?, Refused::OnItsWay);
    let what = Action { module: "pipeline", action: "uploads.abandon", severity: "warning" };
    let after = json!({"status": "failed", "reason": Reason::Abandoned.label(), "why": reason});
    audit(&mut tx, what, &upload.to_string(), Some(json!({"status": status})), after).await?;
    tx.commit().await?;
    println!("{upload} ends as failed, as soon as fraud_check has decided it");
    Ok(())
}

/// Puts the end of an upload into the outbox; false where it is there already.
pub async fn order(tx: &mut PgConnection, schema_id: u32, event: &UploadAbandoned) -> Result<bool> {
    let mut rows = OutboxRows::created_at(Utc::now());
    rows.push(schema_id, event, event.header.event_id.0)?;
    Ok(rows.insert(tx).await? == 1)
}

/// Whether `fraud_check` has decided about an upload: its verdict, or where a person was asked what they have said.
pub async fn is_decided(pool: &PgPool, upload: UploadId, of_a_review: bool) -> Result<bool> {
    let effect = if of_a_review { "review" } else { "verdict" };
    let decided = "select exists (select 1 from decisions where stage = 'fraud_check' and effect_id = $1)";
    Ok(sqlx::query_scalar(decided).bind(format!("{effect}:{upload}")).fetch_one(pool).await?)
}

/// Refuses an upload that is decided.
async fn undecided(pool: &PgPool, upload: UploadId) -> Result<()> {
    let decisions: Vec<(Uuid, Option<String>)> = sqlx::query_as(
        "select input_event_id, reason from decisions where stage = 'fraud_check' and effect_id = any($1)
         order by effect_id",
    )
    .bind(vec![format!("review:{upload}"), format!("verdict:{upload}")])
    .fetch_all(pool)
    .await?;
    // Of the two the review comes first, and stands over the verdict.
    let Some((input, reason)) = decisions.into_iter().next() else { return Ok(()) };
    let in_review: bool = sqlx::query_scalar(
        "select exists (select 1 from reviews where upload_id = $1 and decided_at is null)",
    )
    .bind(upload.0)
    .fetch_one(pool)
    .await?;
    bail!(match (UploadAbandoned::is_id_of(EventId(input), upload), in_review) {
        (true, _) => Refused::Abandoned,
        (false, true) => Refused::InReview,
        (false, false) => Refused::Decided(reason),
    })
}

/// When an upload was accepted, and how it stands in the tables.
async fn accepted(pool: &PgPool, upload: UploadId) -> Result<(DateTime<Utc>, String)> {
    let found: Option<(DateTime<Utc>, bool, String)> = sqlx::query_as(
        "select coalesce(o.created_at, p.reserved_at), o.id is null and p.published_at is null,
                coalesce(o.upload_status::text, 'uploaded')
         from (select $1::uuid as id) u left join photo_hashes p on p.upload_id = u.id
             left join odometer_uploads o on o.id = u.id and o.created_at is not null
         where p.upload_id is not null or o.id is not null",
    )
    .bind(upload.0)
    .fetch_optional(pool)
    .await?;
    match found {
        None => bail!(Refused::Unknown(upload)),
        Some((.., true, _)) => bail!(Refused::Unpublished),
        Some((at, false, status)) => Ok((at, status)),
    }
}
