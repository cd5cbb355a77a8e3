//! `POST /v1/chain/events`: what the watcher of a chain reports. Steps are taken in order, whole batches at a time, in one transaction
//! with the outbox rows that publish them and with the watcher's own checkpoint: the response is the acknowledgement.

use std::sync::Arc;

use runtime::clock::Clock;
use runtime::signature::{HEAD_SIGNATURE_HEADER, SIGNATURE_HEADER, TIME_HEADER};
use schemas::events::ChainStep;
use schemas::payouts::{ChainBatch, ChainResponse, StepOutcome, StepResult};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;
use warp::http::HeaderMap;

use super::batch::{self, BatchSignature, WINDOW, invalid_step};
use crate::config::{ChainAccess, Limits, Timeouts};
use crate::http::body::Body;
use crate::http::operation::{Operation, one_of};
use crate::http::places::Places;
use crate::http::problem::{
    ApiError, BAD_SIGNATURE, BATCH_TOO_LARGE, BUSY, CHAIN_DISABLED, CHAIN_GAP, INTERNAL, INVALID_STEP,
    MALFORMED_BATCH, Problem, STALE_BATCH, WRONG_NETWORK,
};
use crate::http::reply::Json;
use crate::http::request::{Dependency, Extract, Headers, Request, RequestBody, content_length};
use crate::metrics::GatewayMetrics;
use crate::outbox::announce;
use crate::schema_ids::SchemaIds;

/// What the route refuses.
pub(crate) const REFUSALS: &[Problem] = &[
    BAD_SIGNATURE,
    BATCH_TOO_LARGE,
    BUSY,
    CHAIN_DISABLED,
    CHAIN_GAP,
    INVALID_STEP,
    MALFORMED_BATCH,
    STALE_BATCH,
    WRONG_NETWORK,
];

/// What taking batches works with.
pub(crate) struct ChainIntake {
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) schemas: SchemaIds,
    /// None where no chain is watched.
    pub(crate) access: Option<ChainAccess>,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    /// For batches being read and stored whose head is signed: nobody else can take these places, however slow their bodies are.
    pub(crate) signed: Places,
    /// For the rest: watchers of the release before sign the body alone.
    pub(crate) unsigned: Places,
}

/// Steps of a chain, and where the watcher goes on after them.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes `schemas::payouts::ChainBatch` to clients")]
#[schema(as = ChainBatch)]
#[serde(deny_unknown_fields)]
struct BatchDocument {
    #[schema(pattern = "^0x[0-9a-f]{64}$")]
    genesis_id: String,
    /// Steps with seq rising by one; none to ask where to go on, which changes nothing
    #[schema(max_items = 512)]
    steps: Vec<StepDocument>,
    /// Kept as it is and given back with the highest step; null without steps
    #[schema(required = true)]
    checkpoint: Option<Value>,
}

/// A block as it is adopted or undone; one that is adopted carries its transactions.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes `schemas::events::ChainStep` to clients")]
#[schema(as = ChainStep)]
struct StepDocument {
    #[serde(rename = "type")]
    #[schema(schema_with = step_types)]
    kind: String,
    event_id: Uuid,
    /// Microseconds since 1970
    occurred_at: i64,
    #[schema(minimum = 1)]
    seq: i64,
    genesis_id: String,
    #[schema(minimum = 1)]
    adoption: i32,
}

fn step_types() -> Schema {
    one_of(&["adopted", "undone"])
}

/// A result per step, and where to go on.
#[derive(Serialize, ToSchema)]
#[schema(as = ChainAnswer)]
pub(crate) struct ResponseDocument {
    results: Vec<ResultDocument>,
    /// The highest step that was ever taken; 0 before the first
    #[schema(minimum = 0)]
    highest_seq: i64,
    /// The one that came with the highest step; null before the first
    #[schema(required = true)]
    checkpoint: Option<Value>,
}

/// A step's result.
#[derive(Serialize, ToSchema)]
#[schema(as = StepResult)]
struct ResultDocument {
    seq: i64,
    #[schema(schema_with = outcomes)]
    outcome: StepOutcome,
}

fn outcomes() -> Schema {
    one_of(&["accepted", "duplicate"])
}

impl From<ChainResponse> for ResponseDocument {
    fn from(response: ChainResponse) -> Self {
        let document = |StepResult { seq, outcome }| ResultDocument { seq, outcome };
        Self {
            results: response.results.into_iter().map(document).collect(),
            highest_seq: response.highest_seq,
            checkpoint: response.checkpoint,
        }
    }
}

/// A body that is signed by the watcher.
pub(crate) struct SignedBody(RequestBody);

impl<S: Sync> Extract<S> for SignedBody {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        RequestBody::extract(dependencies, request).await.map(Self)
    }

    fn describe(operation: &mut Operation) {
        <RequestBody as Extract<S>>::describe(operation);
        let text = json!({ "type": "string" });
        let time = format!("Seconds since 1970 at which the batch was signed; at most {WINDOW} s from now");
        operation.required_header(TIME_HEADER, text.clone(), &time);
        let signature = "sha256= and the hex digits of HMAC-SHA256(secret, time + \".\" + body)";
        operation.required_header(SIGNATURE_HEADER, text.clone(), signature);
        let head = "sha256= and the hex digits of HMAC-SHA256(secret, time + \".head.\" + Content-Length): keeps a place for the body";
        operation.parameter("header", HEAD_SIGNATURE_HEADER, text, head);
        let content = operation.json::<BatchDocument>();
        operation.body(true, content);
    }
}

/// The route.
pub(crate) async fn post(
    Dependency(intake): Dependency<Arc<ChainIntake>>,
    Headers(headers): Headers,
    SignedBody(RequestBody(mut body)): SignedBody,
) -> Result<Json<ResponseDocument>, ApiError> {
    let result = intake.take_batch(&headers, &mut body).await;
    intake.count_steps(&result);
    Ok(Json(result?.into()))
}

impl ChainIntake {
    async fn take_batch(&self, headers: &HeaderMap, body: &mut Body) -> Result<ChainResponse, ApiError> {
        let access = self.access.clone().ok_or_else(|| CHAIN_DISABLED.error())?;
        let signature = BatchSignature::read(headers)?;
        let limit = self.limits.chain_bytes;
        let too_large = move || BATCH_TOO_LARGE.because(format!("a batch may have at most {limit} bytes"));
        if content_length(headers).is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        body.allow(limit, too_large);
        body.within(self.timeouts.batch);
        let now = self.clock.now().0.div_euclid(1_000_000);
        let is_signed = signature.is_of_head(&access, headers, now);
        let places = if is_signed { &self.signed } else { &self.unsigned };
        let _place = places.take().await?;
        let bytes = body.whole().await?;
        let now = self.clock.now().0.div_euclid(1_000_000);
        // Hashing and parsing the largest batch would hold up every connection of this thread.
        let read = tokio::task::spawn_blocking(move || batch::read(&access, &signature, &bytes, now)).await;
        let batch = read.map_err(|error| INTERNAL.caused_by(error))??;
        self.take_steps(&batch).await
    }

    /// Steps by what became of them. A refused batch counts as one, as it may not even read; a fault of ours is no refusal.
    fn count_steps(&self, result: &Result<ChainResponse, ApiError>) {
        let (outcome, steps) = match result {
            Ok(ChainResponse { results, .. }) => match results.first() {
                Some(StepResult { outcome: StepOutcome::Accepted, .. }) => ("accepted", results.len()),
                Some(StepResult { outcome: StepOutcome::Duplicate, .. }) => ("duplicate", results.len()),
                None => return,
            },
            Err(error) if error.status() < 500 => ("refused", 1),
            Err(_) => return,
        };
        self.metrics.chain_steps.with_label_values(&[outcome]).inc_by(steps as u64);
    }

    async fn take_steps(&self, batch: &ChainBatch) -> Result<ChainResponse, ApiError> {
        let mut tx = self.pool.begin().await?;
        let (highest, checkpoint) = cursor(&mut tx, &batch.genesis_id).await?;
        // Whatever ends before the commit below changes nothing, the cursor's row included.
        let Some(first) = batch.steps.first().map(ChainStep::seq) else {
            return Ok(ChainResponse { results: Vec::new(), highest_seq: highest, checkpoint });
        };
        if first > highest + 1 {
            let expected = highest + 1;
            return Err(CHAIN_GAP.because(format!(
                "step {expected} is next, the batch begins with {first}: ask where to go on with an empty batch"
            )));
        }
        let outcome = if first <= highest { StepOutcome::Duplicate } else { StepOutcome::Accepted };
        let result = |step: &ChainStep| StepResult { seq: step.seq(), outcome };
        let results = batch.steps.iter().map(result).collect();
        if outcome == StepOutcome::Duplicate {
            return Ok(ChainResponse { results, highest_seq: highest, checkpoint });
        }
        for step in &batch.steps {
            self.publish_step(&mut tx, step).await?;
        }
        let highest_seq = batch.steps.last().map_or(highest, ChainStep::seq);
        sqlx::query(
            "update chain_cursors set highest_seq = $2, checkpoint = $3, updated_at = $4 where genesis_id = $1",
        )
        .bind(&batch.genesis_id)
        .bind(highest_seq)
        .bind(&batch.checkpoint)
        .bind(self.clock.now().to_utc())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(ChainResponse { results, highest_seq, checkpoint: batch.checkpoint.clone() })
    }

    /// A step whose event was published under another number is refused: left out, it would be a gap for everyone who reads on.
    async fn publish_step(&self, tx: &mut PgConnection, step: &ChainStep) -> Result<(), ApiError> {
        let schemas = self.schemas;
        let new = match step {
            ChainStep::Adopted(event) => announce(tx, schemas.block_adopted, event, self.clock.now()).await?,
            ChainStep::Undone(event) => announce(tx, schemas.block_undone, event, self.clock.now()).await?,
        };
        let detail = "this adoption of its block was reported before, under another number";
        if new { Ok(()) } else { Err(invalid_step(step.seq(), detail)) }
    }
}

/// The network's cursor, locked, so that batches take turns; made where there is none yet. A checkpoint of null is none.
async fn cursor(tx: &mut PgConnection, genesis_id: &str) -> Result<(i64, Option<Value>), ApiError> {
    sqlx::query(
        "insert into chain_cursors (genesis_id, highest_seq, checkpoint, updated_at) values ($1, 0, 'null', now())
         on conflict (genesis_id) do nothing",
    )
    .bind(genesis_id)
    .execute(&mut *tx)
    .await?;
    let (highest, checkpoint): (i64, Value) =
        sqlx::query_as("select highest_seq, checkpoint from chain_cursors where genesis_id = $1 for update")
            .bind(genesis_id)
            .fetch_one(tx)
            .await?;
    Ok((highest, Some(checkpoint).filter(|checkpoint| !checkpoint.is_null())))
}
