//! `milestream uploads`: what an operator may do with an upload. A correction and an end go out as records of their own, which only
//! `fraud_check` decides, in their place among the driver's readings.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use processors::fraud_check::corrections::correct;
use processors::fraud_check::state::State;
use runtime::clock::{Clock as _, SystemClock};
use runtime::outbox::OutboxRows;
use runtime::registry::Registry;
use rust_decimal::Decimal;
use schemas::events::{Correction, ReadingCorrected, UploadDecided, Verdict};
use schemas::ids::{EventId, UploadId, derived};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::abandon::abandon;
use crate::audit::{Action, audit};
use crate::config::Config;
use crate::database;
use crate::recorded::first_since;

/// The one decider, by whose decisions an upload is found.
const DECIDER: &str = "fraud_check";
/// Decimals of a reading: no odometer shows more.
const MOST_DECIMALS: u32 = 1;

/// What to do with uploads.
#[derive(Debug, Subcommand)]
pub enum Uploads {
    /// Lower the reading of an upload that was verified. Later photos are compared with the lower one; a reward that no transaction pays is
    /// cancelled whole, and its budgets get back what it was charged. What was paid stays, and nothing is paid again below the highest
    /// reading ever verified. Where several readings of a vehicle are wrong, the oldest first.
    Correct {
        /// The upload.
        upload: Uuid,
        /// What the photo shows, in the unit of the reading that was verified.
        #[arg(long, value_name = "NUMBER")]
        mileage: Decimal,
        /// Why, for the audit log.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// End an upload that gets no further, as `failed`: because its photo cannot be opened any more, or what stood between it and its
    /// verdict was lost. The driver reads why, and may send the photo again. A reading that comes all the same is dropped as a repeat,
    /// and nothing is earned by it. What is decided, or waits for a person, is refused.
    Abandon {
        /// The upload.
        upload: Uuid,
        /// Why, for the driver and the audit log: it names nobody.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
}

/// Why a reading is not corrected.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("there is no upload {0}")]
    Unknown(UploadId),
    #[error("it is not decided yet")]
    Undecided,
    #[error("it is {}: only a verified reading is corrected", .0.label())]
    NotVerified(Verdict),
    #[error("a correction lowers: {mileage} is not below the verified {before}")]
    NotLower { mileage: Decimal, before: Decimal },
    #[error(
        "{0} lies below the verified reading that was accepted before it: where that one is wrong too, correct it first"
    )]
    BelowOlder(Decimal),
    #[error("a correction of it is on its way already: it is decided within seconds")]
    OnItsWay,
    #[error("it was corrected {} times: look at the photo again", Correction::MOST)]
    TooOften,
}

impl Uploads {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Correct { upload, mileage, reason } => {
                lower(config, UploadId(*upload), *mileage, reason).await
            }
            Self::Abandon { upload, reason } => abandon(config, UploadId(*upload), reason).await,
        }
    }
}

/// Lowers a reading.
async fn lower(config: &Config, upload: UploadId, mileage: Decimal, reason: &str) -> Result<()> {
    ensure!(
        mileage.scale() <= MOST_DECIMALS && mileage >= Decimal::ZERO,
        "a mileage is a number from 0 with at most one decimal place"
    );
    let (pool, registry) = (database::pool(config)?, Registry::new(&config.registry_client())?);
    let schema_id = registry.id_of::<ReadingCorrected>(&config.kafka.topic_prefix).await?;
    let last = newest(&pool, upload).await?;
    let decided = published(config, &registry, &last).await?;
    let before = decided.final_mileage.filter(|_| decided.verdict == Verdict::Verified);
    let before = before.ok_or(Refused::NotVerified(decided.verdict))?;
    if mileage >= before {
        bail!(Refused::NotLower { mileage, before });
    }
    let correction = Correction {
        number: last.corrections + 1,
        mileage_before: before,
        mileage,
        corrected_at: SystemClock.now(),
    };
    let event = ReadingCorrected::of(decided, correction);
    let mut tx = pool.begin().await?;
    // As it would be decided now; what the vehicle's readings are by then, the decider knows.
    let key = event.decided.header.vehicle_id;
    let state = State::load(&mut tx, &BTreeSet::from([key]), &BTreeSet::new()).await?;
    ensure!(correct(&event, state.vehicles.get(&key)).is_some(), Refused::BelowOlder(mileage));
    let mut rows = OutboxRows::created_at(Utc::now());
    rows.push(schema_id, &event, event.event_id.0)?;
    ensure!(rows.insert(&mut tx).await? == 1, Refused::OnItsWay);
    let what = Action { module: "pipeline", action: "uploads.correct", severity: "warning" };
    let after = json!({"mileage": mileage, "number": event.correction.number, "why": reason});
    audit(&mut tx, what, &upload.to_string(), Some(json!({"mileage": before})), after).await?;
    tx.commit().await?;
    println!("{upload}: {before} is corrected to {mileage}, as soon as {DECIDER} has decided it");
    Ok(())
}

/// The newest decision about an upload.
struct Newest {
    event_id: EventId,
    at: DateTime<Utc>,
    /// Corrections before, also those that were refused.
    corrections: i32,
}

async fn newest(pool: &PgPool, upload: UploadId) -> Result<Newest> {
    // The newest last.
    let corrections = (1..=Correction::MOST).map(|number| Correction::effect(upload, number));
    let effects: Vec<String> =
        [format!("verdict:{upload}"), format!("review:{upload}")].into_iter().chain(corrections).collect();
    let decisions: Vec<(String, Uuid, DateTime<Utc>, String)> = sqlx::query_as(
        "select effect_id, input_event_id, occurred_at, outcome from decisions where stage = $1 and effect_id = any($2)",
    )
    .bind(DECIDER)
    .bind(&effects)
    .fetch_all(pool)
    .await?;
    let place = |effect: &str| effects.iter().position(|known| known == effect).unwrap_or_default();
    let last_place = decisions.iter().map(|(effect, ..)| place(effect)).max();
    let last =
        decisions.iter().filter(|(.., outcome)| outcome == "emit").max_by_key(|(effect, ..)| place(effect));
    let Some((_, input, at, _)) = last else {
        let known: bool = sqlx::query_scalar(
            "select exists (select 1 from photo_hashes where upload_id = $1)
                or exists (select 1 from odometer_uploads where id = $1)",
        )
        .bind(upload.0)
        .fetch_one(pool)
        .await?;
        bail!(if known { Refused::Undecided } else { Refused::Unknown(upload) });
    };
    let corrections = i32::try_from(last_place.unwrap_or_default().saturating_sub(1))?;
    ensure!(corrections < Correction::MOST, Refused::TooOften);
    Ok(Newest { event_id: derived(EventId(*input), DECIDER, 0), at: *at, corrections })
}

/// The decision as it stands on its topic, which is kept for good; the bytes in the database are not.
async fn published(config: &Config, registry: &Registry, last: &Newest) -> Result<UploadDecided> {
    let wanted = |event: &UploadDecided| event.header.event_id == last.event_id;
    match first_since(config, registry, last.at, wanted).await? {
        Some((decided, _)) => Ok(decided),
        None => bail!(
            "its decision is on no topic: run `milestream offsets align {DECIDER}` if the topic was lost"
        ),
    }
}
