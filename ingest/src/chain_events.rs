//! `POST /v1/chain/events`: what the watcher of a chain tells. Steps are taken in order, whole batches at a time, in one transaction
//! with the outbox rows that publish them and with the watcher's own checkpoint: the answer is the acknowledgement.

use schemas::events::ChainStep;
use schemas::payouts::{ChainAnswer, ChainBatch, StepOutcome, StepResult};
use serde_json::Value;
use sqlx::PgConnection;
use warp::http::HeaderMap;
use warp::http::header::{CONTENT_LENGTH, EXPECT};
use warp::reply::Response;

use crate::accept::json_response;
use crate::batch::{self, Claim};
use crate::body::Body;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::outbox::announce;

impl Gateway {
    /// The route. After a refusal the rest of the body is thrown away, so that the watcher reads the answer.
    pub(crate) async fn chain_events(
        &self,
        headers: &HeaderMap,
        mut body: Body,
    ) -> Result<Response, ApiError> {
        let result = self.take_batch(headers, &mut body).await;
        self.count_steps(&result);
        if result.is_err() {
            body.discard(self.config().timeouts.drain, headers.contains_key(EXPECT)).await;
        }
        let answer = result?;
        let document =
            serde_json::to_value(&answer).map_err(|error| ApiError::Internal { source: error.into() })?;
        Ok(json_response(&document))
    }

    async fn take_batch(&self, headers: &HeaderMap, body: &mut Body) -> Result<ChainAnswer, ApiError> {
        let access = self.config().chain.clone().ok_or(ApiError::ChainDisabled)?;
        let claim = Claim::read(headers)?;
        let limit = self.config().limits.chain_bytes;
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit) {
            return Err(ApiError::BatchTooLarge { limit });
        }
        let _place = self.batch_place().await?;
        let bytes = body.whole().await?;
        let now = self.now().0.div_euclid(1_000_000);
        // Hashing and parsing the largest batch would hold up every connection of this thread.
        let read = tokio::task::spawn_blocking(move || batch::read(&access, &claim, &bytes, now)).await;
        let batch = read.map_err(|error| ApiError::Internal { source: error.into() })??;
        self.take_steps(&batch).await
    }

    /// Steps by what became of them. A refused batch counts as one, as it may not even read; trouble of ours is no refusal.
    fn count_steps(&self, result: &Result<ChainAnswer, ApiError>) {
        let (outcome, steps) = match result {
            Ok(ChainAnswer { results, .. }) => match results.first() {
                Some(StepResult { outcome: StepOutcome::Accepted, .. }) => ("accepted", results.len()),
                Some(StepResult { outcome: StepOutcome::Duplicate, .. }) => ("duplicate", results.len()),
                None => return,
            },
            Err(error) if error.answer().0 < 500 => ("refused", 1),
            Err(_) => return,
        };
        self.parts().metrics.chain_steps.with_label_values(&[outcome]).inc_by(steps as u64);
    }

    async fn take_steps(&self, batch: &ChainBatch) -> Result<ChainAnswer, ApiError> {
        let mut tx = self.pool().begin().await?;
        let (highest, checkpoint) = cursor(&mut tx, &batch.genesis_id).await?;
        // Whatever ends before the commit below changes nothing, the cursor's row included.
        let Some(first) = batch.steps.first().map(ChainStep::seq) else {
            return Ok(ChainAnswer { results: Vec::new(), highest_seq: highest, checkpoint });
        };
        if first > highest + 1 {
            return Err(ApiError::ChainGap { expected: highest + 1, found: first });
        }
        let outcome = if first <= highest { StepOutcome::Duplicate } else { StepOutcome::Accepted };
        let result = |step: &ChainStep| StepResult { seq: step.seq(), outcome };
        let results = batch.steps.iter().map(result).collect();
        if outcome == StepOutcome::Duplicate {
            return Ok(ChainAnswer { results, highest_seq: highest, checkpoint });
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
        .bind(self.now().to_utc())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(ChainAnswer { results, highest_seq, checkpoint: batch.checkpoint.clone() })
    }

    /// A step whose event was told under another number is refused: left out, it would be a gap for everyone who reads on.
    async fn publish_step(&self, tx: &mut PgConnection, step: &ChainStep) -> Result<(), ApiError> {
        let schemas = self.parts().schemas;
        let new = match step {
            ChainStep::Adopted(event) => announce(tx, schemas.block_adopted, event, self.now()).await?,
            ChainStep::Undone(event) => announce(tx, schemas.block_undone, event, self.now()).await?,
        };
        let detail = "this adoption of its block was told before, under another number";
        if new { Ok(()) } else { Err(ApiError::InvalidStep { seq: step.seq(), detail }) }
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
