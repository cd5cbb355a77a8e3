//! Which models read photos: published when `odometer_reading` starts, on `models.deployed`.
//!
//! When a version took over is kept in `model_deployments`: a restart and a second instance publish the same bytes again. A version that
//! comes back after another, and one of which the manifest holds something new, takes over again, under an id of its own.

use chrono::{DateTime, Utc};
use reading::{Model, ReaderError};
use runtime::backoff::Backoff;
use runtime::{Clock, Engine, EngineError, StageError};
use schemas::events::ModelDeployed;
use schemas::ids::{EventId, natural};
use serde_json::json;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool, query, query_as};

/// The embedded reader's name in `ai_service_configs`.
pub const SERVICE: &str = "Milestream Embedded";

/// Why the models could not be announced.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The embedded models do not load.
    #[error("the reader")]
    Reader(#[from] ReaderError),
    /// The engine ended before it was asked to.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Publishes one event per model of this release, once Postgres and Kafka are there.
///
/// # Errors
/// [`AnnounceError`].
pub async fn announce(engine: &Engine, pool: &PgPool, clock: &dyn Clock) -> Result<(), AnnounceError> {
    let (models, stop, mut backoff) = (reading::models()?, engine.stopping(), Backoff::default());
    let events = loop {
        match deployed(pool, &models, clock.now().to_utc()).await {
            Ok(events) => break events,
            Err(error) => tracing::warn!(error = %error, "model_deployments"),
        }
        if !backoff.wait(&stop).await {
            return Ok(());
        }
    };
    Ok(engine.publish(&events).await?)
}

/// The events of models that read photos at `now`: those of their deployment, where it stands.
///
/// # Errors
/// [`StageError`] when the database does not answer.
pub async fn deployed(
    pool: &PgPool,
    models: &[Model],
    now: DateTime<Utc>,
) -> Result<Vec<ModelDeployed>, StageError> {
    let mut tx = pool.begin().await?;
    // Two instances that start at once deploy one after the other.
    query("select pg_advisory_xact_lock(hashtextextended('milestream.models ' || current_schema(), 0))")
        .execute(&mut *tx)
        .await?;
    let mut events = Vec::with_capacity(models.len());
    for model in models {
        let (first_deployed_at, deployed_at) = deploy(&mut tx, model, now).await?;
        events.push(event(model, first_deployed_at, deployed_at));
    }
    tx.commit().await?;
    Ok(events)
}

// Later than every deployment of the model, also where this machine's clock is behind another's.
const DEPLOY: &str = "
with newest as (
    select max(deployed_at) as at from model_deployments where model_name = $1
), now as (
    select greatest($3, newest.at + interval '1 microsecond') as at from newest
)
insert into model_deployments as m (model_name, model_version, first_deployed_at, deployed_at, facts)
select $1, $2, now.at, now.at, $4 from now
on conflict (model_name, model_version) do update
    set deployed_at = case when m.facts = excluded.facts and m.deployed_at = (select at from newest)
        then m.deployed_at else excluded.deployed_at end,
    facts = excluded.facts
returning first_deployed_at, deployed_at";

async fn deploy(
    tx: &mut PgConnection,
    model: &Model,
    now: DateTime<Utc>,
) -> sqlx::Result<(DateTime<Utc>, DateTime<Utc>)> {
    let facts = json!({
        "type": model.model_type, "sha256": model.sha256, "bytes": model.bytes, "accuracy": model.accuracy,
        "cpu_ms": model.cpu_ms, "built_at": model.built_at,
    });
    query_as(DEPLOY).bind(&model.name).bind(model.version()).bind(now).bind(Json(facts)).fetch_one(tx).await
}

fn event(model: &Model, first_deployed_at: DateTime<Utc>, deployed_at: DateTime<Utc>) -> ModelDeployed {
    let (name, version) = (model.name.clone(), model.version());
    ModelDeployed {
        event_id: EventId(natural(&format!(
            "model_deployed/{name}/{version}/{}",
            deployed_at.timestamp_micros()
        ))),
        occurred_at: deployed_at.into(),
        model_name: name,
        model_version: version,
        model_type: model.model_type,
        accuracy: model.accuracy,
        cpu_ms: model.cpu_ms,
        file_size: model.bytes,
        sha256: model.sha256.clone(),
        built_at: model.built_at.into(),
        first_deployed_at: first_deployed_at.into(),
    }
}
