//! `POST /v1/chain/events`: what the watcher of a chain tells. Steps are taken in order, whole batches at a time, in one transaction
//! with the outbox rows that publish them and with the watcher's own checkpoint: the answer is the acknowledgement.

use runtime::signature::{SIGNATURE_HEADER, TIME_HEADER, is_signed};
use schemas::events::ChainStep;
use schemas::payouts::{ChainAnswer, ChainBatch, StepOutcome, StepResult};
use serde_json::Value;
use sqlx::PgConnection;
use warp::http::HeaderMap;
use warp::reply::Response;

use crate::accept::json_response;
use crate::body::Body;
use crate::config::ChainAccess;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::token::{SchemaIds, TokenError, announce};

/// Seconds between the signature and now, at most: a captured batch is worth nothing later, and clocks may be a little off.
const WINDOW: i64 = 300;
/// Steps of a batch, at most: eight times what the watcher sends.
const STEPS: usize = 512;

impl Gateway {
    /// The route.
    pub(crate) async fn chain_events(
        &self,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<Response, ApiError> {
        let access = self.config().chain.as_ref().ok_or(ApiError::ChainDisabled)?;
        let bytes = body.whole().await?;
        check_signature(access, headers, &bytes, self.now().0.div_euclid(1_000_000))?;
        let batch: ChainBatch =
            serde_json::from_slice(&bytes).map_err(|error| ApiError::MalformedBatch(error.to_string()))?;
        check_steps(access, &batch)?;
        let answer = self.take_steps(&batch).await?;
        let document =
            serde_json::to_value(&answer).map_err(|error| ApiError::Internal { source: error.into() })?;
        Ok(json_response(&document))
    }

    async fn take_steps(&self, batch: &ChainBatch) -> Result<ChainAnswer, ApiError> {
        let mut tx = self.pool().begin().await?;
        let (highest, checkpoint) = cursor(&mut tx, &batch.genesis_id).await?;
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
        let schemas = self.parts().schemas;
        for step in &batch.steps {
            publish(&mut tx, schemas, step, self.now()).await?;
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

async fn publish(
    tx: &mut PgConnection,
    schemas: SchemaIds,
    step: &ChainStep,
    now: schemas::ids::Micros,
) -> Result<(), ApiError> {
    let announced = match step {
        ChainStep::Adopted(step) => announce(tx, schemas.block_adopted, step, now).await,
        ChainStep::Undone(step) => announce(tx, schemas.block_undone, step, now).await,
    };
    announced.map_err(|error| match error {
        TokenError::Database(error) => error.into(),
        error => ApiError::Internal { source: error.into() },
    })
}

fn check_signature(access: &ChainAccess, headers: &HeaderMap, body: &[u8], now: i64) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let time = text(TIME_HEADER);
    if !is_signed(&access.secret, time, body, text(SIGNATURE_HEADER)) {
        return Err(ApiError::SignatureInvalid);
    }
    // Only a signed time is looked at.
    match time.parse::<i64>() {
        Ok(time) if (now - time).abs() <= WINDOW => Ok(()),
        _ => Err(ApiError::StaleBatch { seconds: WINDOW }),
    }
}

fn check_steps(access: &ChainAccess, batch: &ChainBatch) -> Result<(), ApiError> {
    if batch.genesis_id != access.genesis_id {
        return Err(ApiError::WrongNetwork);
    }
    if batch.steps.len() > STEPS {
        return Err(ApiError::MalformedBatch(format!("more than {STEPS} steps")));
    }
    if !batch.steps.is_empty() && batch.checkpoint.as_ref().is_none_or(Value::is_null) {
        return Err(ApiError::MalformedBatch("steps without a checkpoint".to_owned()));
    }
    let first = batch.steps.first().map_or(1, ChainStep::seq);
    for (expected, step) in (first..).zip(&batch.steps) {
        let refuse = |detail| Err(ApiError::InvalidStep { seq: step.seq(), detail });
        if step.seq() != expected || expected < 1 {
            return refuse("the numbers do not rise by one from 1");
        }
        if step.genesis_id() != batch.genesis_id {
            return refuse("it is of another network than the batch");
        }
        if step.event_id() != step.derived_id() {
            return refuse("its event_id is not the one of its block");
        }
        if !is_well_formed(step) {
            return refuse("a hash, an address or data is not 0x and lower-case hex of its length");
        }
    }
    Ok(())
}

fn is_well_formed(step: &ChainStep) -> bool {
    let hash = |text: &str| is_hex(text, Some(64));
    let address = |text: &str| is_hex(text, Some(40));
    match step {
        ChainStep::Undone(step) => hash(&step.block_id) && step.number > 0,
        ChainStep::Adopted(step) => {
            let txs = step.transactions.iter().all(|tx| {
                let logs = tx.logs.iter().all(|log| {
                    address(&log.address)
                        && log.topics.iter().all(|topic| hash(topic))
                        && is_hex(&log.data, None)
                });
                let paid = tx.paid_wei.len() <= 38 && tx.paid_wei.bytes().all(|byte| byte.is_ascii_digit());
                hash(&tx.id) && address(&tx.origin) && address(&tx.gas_payer) && paid && logs
            });
            hash(&step.block.id) && hash(&step.parent_id) && step.block.number > 0 && txs
        }
    }
}

/// `0x` and lower-case hex digits: so many, or any even number.
fn is_hex(text: &str, digits: Option<usize>) -> bool {
    let Some(found) = text.strip_prefix("0x") else { return false };
    let right = digits.map_or(found.len() % 2 == 0, |digits| found.len() == digits);
    right && found.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use runtime::signature::signature;
    use secrecy::SecretString;
    use warp::http::HeaderValue;

    use super::*;

    fn access() -> ChainAccess {
        ChainAccess {
            genesis_id: "0x00".into(),
            secret: SecretString::from("a secret of thirty-two characters"),
        }
    }

    fn signed(time: i64, body: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let text = time.to_string();
        headers.insert(TIME_HEADER, HeaderValue::from_str(&text).unwrap());
        let signature = signature(&access().secret, &text, body);
        headers.insert(SIGNATURE_HEADER, HeaderValue::from_str(&signature).unwrap());
        headers
    }

    #[test]
    fn a_batch_counts_within_five_minutes_of_its_signature_and_no_other_body_under_it() {
        let code = |headers: &HeaderMap, body: &[u8], now| {
            check_signature(&access(), headers, body, now).map_err(|error| error.answer().1)
        };
        let headers = signed(1_000, b"{}");
        assert_eq!(code(&headers, b"{}", 1_300), Ok(()));
        assert_eq!(code(&headers, b"{}", 700), Ok(()));
        assert_eq!(code(&headers, b"{}", 1_301), Err("stale_batch"));
        assert_eq!(code(&headers, b"{}", 699), Err("stale_batch"));
        assert_eq!(code(&headers, b"{ }", 1_000), Err("bad_signature"));
        assert_eq!(code(&HeaderMap::new(), b"{}", 1_000), Err("bad_signature"));
        let mut moved = headers.clone();
        moved.insert(TIME_HEADER, HeaderValue::from_static("1001"));
        assert_eq!(code(&moved, b"{}", 1_001), Err("bad_signature"));
    }

    #[test]
    fn hex_is_lower_case_and_of_its_length() {
        assert!(is_hex("0x0a", None) && is_hex("0x", None) && is_hex("0x0a", Some(2)));
        for text in ["0a", "0xA0", "0x0", "0xg0", ""] {
            assert!(!is_hex(text, None), "{text}");
        }
        assert!(!is_hex("0x0a", Some(4)));
    }
}
