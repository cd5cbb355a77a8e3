//! A watcher's batch before anything is stored: who signed it, when, and whether every step of it can be true.

use runtime::signature::{HEAD_SIGNATURE_HEADER, SIGNATURE_HEADER, TIME_HEADER, head, is_signed};
use schemas::events::{BlockAdopted, ChainLog, ChainStep, ChainTransaction};
use schemas::payouts::ChainBatch;
use serde_json::Value;
use warp::http::HeaderMap;

use crate::config::ChainAccess;
use crate::http::problem::{
    ApiError, BAD_SIGNATURE, INVALID_STEP, MALFORMED_BATCH, STALE_BATCH, WRONG_NETWORK,
};
use crate::http::request::{content_length, text};

/// Seconds between the signature and now, at most: a captured batch is worth nothing later, and clocks may be a little off.
pub(crate) const WINDOW: u64 = 300;
/// Steps of a batch, at most: eight times what the watcher sends.
const STEPS: usize = 512;
/// Topics of a log, at most: Thor's own log database holds `topic0` to `topic4` (thor `logdb/schema.go`).
const TOPICS: usize = 5;
/// Digits of an amount in wei: what `numeric(38,0)` holds.
const WEI_DIGITS: usize = 38;

/// When and how a batch was signed, as its headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BatchSignature {
    time: String,
    signature: String,
}

impl BatchSignature {
    /// Reads the headers; refuses those that no body could make right, so that no body is read for them.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, ApiError> {
        let header = |name| text(headers, name).unwrap_or_default();
        let (time, signature) = (header(TIME_HEADER), header(SIGNATURE_HEADER));
        let digits = signature.strip_prefix("sha256=").unwrap_or_default();
        let formed = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !formed || time.parse::<i64>().is_err() {
            return Err(BAD_SIGNATURE.error());
        }
        Ok(Self { time: time.to_owned(), signature: signature.to_owned() })
    }

    /// Whether the head alone shows that the watcher sends the batch: its length is signed, and lately. `now` in seconds.
    pub(crate) fn is_of_head(&self, access: &ChainAccess, headers: &HeaderMap, now: i64) -> bool {
        let claimed = text(headers, HEAD_SIGNATURE_HEADER).unwrap_or_default();
        let Some(length) = content_length(headers) else { return false };
        is_signed(&access.secret, &self.time, head(length).as_bytes(), claimed)
            && self.time.parse::<i64>().is_ok_and(|time| now.abs_diff(time) <= WINDOW)
    }

    /// Whether the body is signed, and lately; `now` in seconds. Only a signed time is looked at.
    fn check(&self, access: &ChainAccess, body: &[u8], now: i64) -> Result<(), ApiError> {
        if !is_signed(&access.secret, &self.time, body, &self.signature) {
            return Err(BAD_SIGNATURE.error());
        }
        match self.time.parse::<i64>() {
            Ok(time) if now.abs_diff(time) <= WINDOW => Ok(()),
            _ => Err(STALE_BATCH.because(format!(
                "the batch was signed more than {WINDOW} s from now: put the clocks right, or sign it anew"
            ))),
        }
    }
}

/// Reads a signed batch; `now` in seconds since 1970. Takes some 100 ms for the largest.
pub(crate) fn read(
    access: &ChainAccess,
    signature: &BatchSignature,
    body: &[u8],
    now: i64,
) -> Result<ChainBatch, ApiError> {
    signature.check(access, body, now)?;
    let batch: ChainBatch = serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
    check(access, &batch)?;
    Ok(batch)
}

fn check(access: &ChainAccess, batch: &ChainBatch) -> Result<(), ApiError> {
    if batch.genesis_id != access.genesis_id {
        return Err(WRONG_NETWORK.error());
    }
    if batch.steps.len() > STEPS {
        return Err(malformed(&format!("more than {STEPS} steps")));
    }
    if !batch.steps.is_empty() && batch.checkpoint.as_ref().is_none_or(Value::is_null) {
        return Err(malformed("steps without a checkpoint"));
    }
    let mut before = None;
    for step in &batch.steps {
        let seq = step.seq();
        let follows = match before {
            None => seq >= 1,
            Some(before) => seq.checked_sub(1) == Some(before),
        };
        before = Some(seq);
        let fault = if follows {
            fault(step, &batch.genesis_id)
        } else {
            Some("the numbers do not rise by one from 1")
        };
        if let Some(detail) = fault {
            return Err(invalid_step(seq, detail));
        }
    }
    Ok(())
}

fn malformed(detail: &str) -> ApiError {
    MALFORMED_BATCH.because(format!("the batch does not read: {detail}"))
}

/// The refusal of a step by its number.
pub(crate) fn invalid_step(seq: i64, detail: &str) -> ApiError {
    INVALID_STEP.because(format!("step {seq}: {detail}")).field(seq.to_string())
}

/// What is wrong with a step.
fn fault(step: &ChainStep, genesis_id: &str) -> Option<&'static str> {
    if step.genesis_id() != genesis_id {
        return Some("it is of another network than the batch");
    }
    if step.event_id() != step.derived_id() {
        return Some("its event_id is not the one of its block");
    }
    match step {
        ChainStep::Adopted(step) => adopted_fault(step),
        ChainStep::Undone(step) => place_fault(&step.block_id, step.number, step.adoption),
    }
}

fn adopted_fault(step: &BlockAdopted) -> Option<&'static str> {
    let place = place_fault(&step.block.id, step.block.number, step.adoption);
    if place.is_some() {
        return place;
    }
    if !is_hash(&step.parent_id) {
        return Some("parent_id is no hash");
    }
    if step.block.timestamp.0 < 0 || step.finalized_number < 0 {
        return Some("a time or a height is negative");
    }
    step.transactions.iter().find_map(transaction_fault)
}

/// The columns of heights are four bytes wide: 680 years of blocks.
fn place_fault(id: &str, number: i64, adoption: i32) -> Option<&'static str> {
    if !is_hash(id) {
        return Some("the block's id is no hash");
    }
    if !(1..=i64::from(i32::MAX)).contains(&number) {
        return Some("the block's number is not 1 to 2147483647");
    }
    (adoption < 1).then_some("adoption is counted from 1")
}

fn transaction_fault(tx: &ChainTransaction) -> Option<&'static str> {
    if !is_hash(&tx.id) || !is_address(&tx.origin) || !is_address(&tx.gas_payer) {
        return Some("a transaction's id, origin or gas_payer is not 0x and lower-case hex of its length");
    }
    if !is_wei(&tx.paid_wei) {
        return Some("paid_wei is no whole number of at most 38 digits");
    }
    if tx.index < 0 || tx.gas_used < 0 {
        return Some("a transaction's index or gas_used is negative");
    }
    if tx.reverted && !tx.logs.is_empty() {
        return Some("a reverted transaction has logs");
    }
    tx.logs.iter().find_map(log_fault)
}

fn log_fault(log: &ChainLog) -> Option<&'static str> {
    if log.clause_index < 0 || log.log_index < 0 {
        return Some("a log's clause_index or log_index is negative");
    }
    let balance = log.balance_after_wei.as_deref().unwrap_or("0");
    if !is_wei(balance) {
        return Some("balance_after_wei is no whole number of at most 38 digits");
    }
    let topics = log.topics.len() <= TOPICS && log.topics.iter().all(|topic| is_hash(topic));
    let hex = is_address(&log.address) && topics && is_hex(&log.data) && log.data.len().is_multiple_of(2);
    (!hex).then_some("a log's address, topics or data is not 0x and lower-case hex of its length")
}

/// A whole number of a bounded number of digits.
fn is_wei(text: &str) -> bool {
    (1..=WEI_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_hash(text: &str) -> bool {
    text.len() == 66 && is_hex(text)
}

fn is_address(text: &str) -> bool {
    text.len() == 42 && is_hex(text)
}

/// `0x` and lower-case hex digits, or none.
fn is_hex(text: &str) -> bool {
    let digits = text.strip_prefix("0x");
    digits.is_some_and(|digits| digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
