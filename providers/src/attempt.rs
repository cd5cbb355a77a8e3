//! What is reported of a service that was tried.

use rust_decimal::Decimal;
use schemas::events::Candidate;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::CallError;

/// One service that was tried for one photo, in the words of `ai_processing_logs` and `ai_service_logs`. Kept with the answer, so it
/// holds no text of the photo but digits and units.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// `ai_service_configs.service_name`.
    pub service: String,
    /// `ai_service_configs.endpoint_url`.
    pub endpoint: String,
    /// Models and versions, `name@version` joined by commas; of the last answer known where there was none now.
    pub model: String,
    /// Confidence that its reading had to reach.
    pub threshold: Decimal,
    /// Milliseconds until the answer, or until it was given up.
    pub spent_ms: f64,
    /// USD that it cost, or may have cost where no answer arrived.
    pub cost: Decimal,
    /// The breaker when it was asked: `closed`, `open` or `half_open`.
    pub breaker: String,
    /// Whether it was asked because the one before took long.
    pub hedged: bool,
    /// Of the answer; `None` where there was none, and for the embedded reader.
    pub http_status: Option<u16>,
    /// The service's own name of the call.
    pub provider_request_id: Option<String>,
    /// Why there is no answer.
    pub failure: Option<Failure>,
    /// The candidates, best first, no surer than [`trust`](crate::trust) allows.
    pub candidates: Vec<Candidate>,
    /// Whether two of them are about equally sure.
    pub several: bool,
    /// The lines with the service's own confidence, words masked: `[{quad,text,confidence,role}]`.
    pub lines: Vec<Value>,
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The code in `ai_service_logs.error_code`.
    pub code: String,
    /// A sentence.
    pub message: String,
}

impl From<&CallError> for Failure {
    fn from(error: &CallError) -> Self {
        Self { code: error.code().into_owned(), message: error.to_string() }
    }
}

impl Attempt {
    /// How it ended: `accepted` (at its threshold), `low_confidence`, `no_reading`, or the code of the failure.
    #[must_use]
    pub fn outcome(&self) -> &str {
        match (&self.failure, self.candidates.first()) {
            (Some(failure), _) => &failure.code,
            (None, None) => "no_reading",
            (None, Some(best)) if best.confidence < self.threshold => "low_confidence",
            (None, Some(_)) => "accepted",
        }
    }

    /// Whether a request went out: neither the breaker nor our own budget kept it back. A response with a status always followed one.
    #[must_use]
    pub fn was_sent(&self) -> bool {
        let kept_back = |failure: &Failure| matches!(failure.code.as_str(), "circuit_open" | "rate_limited");
        self.http_status.is_some() || !self.failure.as_ref().is_some_and(kept_back)
    }

    /// Why the next service was asked, in the words of `fallback_logs.trigger_reason`. `hedged` is that of the next.
    #[must_use]
    pub fn trigger(&self, hedged: bool) -> &'static str {
        match self.outcome() {
            _ if hedged => "hedge",
            "timeout" => "timeout",
            "rate_limited" => "rate_limited",
            "circuit_open" => "circuit_open",
            "no_reading" => "no_reading",
            "low_confidence" | "accepted" => "low_confidence",
            _ => "error",
        }
    }

    /// What was wrong with it: `code: sentence`.
    #[must_use]
    pub fn complaint(&self) -> String {
        match (&self.failure, self.candidates.first()) {
            (Some(failure), _) => format!("{}: {}", failure.code, failure.message),
            (None, None) => "no_reading: no number looks like a total mileage".to_owned(),
            (None, Some(best)) => format!("low_confidence: {} < {}", best.confidence, self.threshold),
        }
    }
}
