//! What the event reports of each service that was tried.

use providers::Attempt;
use reading::AUTO_ACCEPT;
use schemas::events::{AttemptOutcome, ReadingAttempt};

use super::answers::Answer;
use super::measured::Spent;
use super::roster::endpoint;

/// Whether the embedded reader was tried.
pub(super) fn is_embedded(attempt: &Attempt) -> bool {
    attempt.endpoint.starts_with("embedded:")
}

/// A try as it stands in the event; `spent` is what the embedded reader took of this machine.
pub(super) fn as_published(attempt: &Attempt, spent: Option<Spent>) -> ReadingAttempt {
    let outcome = outcome(attempt.outcome());
    let spent = spent.filter(|_| is_embedded(attempt));
    ReadingAttempt {
        service: attempt.service.clone(),
        reader_version: attempt.model.clone(),
        outcome,
        http_status: attempt.http_status.filter(|_| outcome == AttemptOutcome::HttpStatus).map(i32::from),
        processing_time_ms: whole(attempt.spent_ms),
        cpu_ms: spent.and_then(|spent| spent.cpu_ms),
        rss_mb: spent.and_then(|spent| spent.rss_mb),
        cost_usd: attempt.cost,
        confidence: attempt.candidates.first().map(|best| best.confidence),
        several_readings: attempt.several,
    }
}

fn outcome(label: &str) -> AttemptOutcome {
    match label {
        "accepted" => AttemptOutcome::Success,
        label if label.starts_with("http_") => AttemptOutcome::HttpStatus,
        label => {
            let known = AttemptOutcome::ALL.into_iter().find(|outcome| outcome.label() == label);
            known.unwrap_or(AttemptOutcome::Internal)
        }
    }
}

/// Whole milliseconds. A stage that ran for 24 days would not fit; the engine is restarted more often.
pub(super) fn whole(milliseconds: f64) -> i32 {
    #[allow(clippy::cast_possible_truncation, reason = "a float saturates")]
    let whole = milliseconds.round() as i32;
    whole
}

impl Answer {
    /// Every service that was tried. An answer that the release before kept lists the embedded reader alone.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        if !self.attempts.is_empty() {
            return self.attempts.clone();
        }
        vec![Attempt {
            service: self.result.service.clone(),
            endpoint: endpoint(&self.result.reader_version),
            model: self.result.reader_version.clone(),
            threshold: AUTO_ACCEPT,
            spent_ms: self.spent_ms,
            cost: rust_decimal::Decimal::ZERO,
            breaker: "closed".to_owned(),
            hedged: false,
            http_status: None,
            provider_request_id: None,
            failure: None,
            candidates: self.result.candidates.clone(),
            several: self.result.several_readings,
            lines: self.lines(),
        }]
    }

    /// The lines as they stand in the event: digits and units, other words masked.
    fn lines(&self) -> Vec<serde_json::Value> {
        match serde_json::from_str(&self.result.bounding_boxes) {
            Ok(serde_json::Value::Object(mut whole)) => match whole.remove("boxes") {
                Some(serde_json::Value::Array(lines)) => lines,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }
}
