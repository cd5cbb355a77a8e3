//! One try of a reading service, as the reading lists it: what speed, cost, availability and use of the machine are added up from.

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// How a try of a reading service ended: a closed set. All but the first three are technical failures, under the codes of
/// `ai_service_logs.error_code`; an answer that has no mileage, or none that is sure enough, is the photo's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// A reading at or above the service's threshold.
    Success,
    /// It answered, and found no mileage.
    NoReading,
    /// It answered, and its best reading is below its threshold.
    LowConfidence,
    /// No answer in time.
    Timeout,
    /// Turned away for too many requests, by the service or by our own limit.
    RateLimited,
    /// It does not accept our key.
    Unauthorized,
    /// Not asked: it failed too often just before.
    CircuitOpen,
    /// An answer that cannot be understood.
    BadResponse,
    /// Another status than 2xx: `http_NNN`, with the number in `http_status`.
    HttpStatus,
    /// Our own fault; also what a later release calls by a name that this one does not know.
    #[serde(other)]
    Internal,
}

impl AttemptOutcome {
    /// Every outcome.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::NoReading,
        Self::LowConfidence,
        Self::Timeout,
        Self::RateLimited,
        Self::Unauthorized,
        Self::CircuitOpen,
        Self::BadResponse,
        Self::HttpStatus,
        Self::Internal,
    ];

    /// Whether the service did not do its work: what its availability falls by.
    #[must_use]
    pub fn is_technical(self) -> bool {
        !matches!(self, Self::Success | Self::NoReading | Self::LowConfidence)
    }

    /// The stable label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::NoReading => "no_reading",
            Self::LowConfidence => "low_confidence",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::CircuitOpen => "circuit_open",
            Self::BadResponse => "bad_response",
            Self::HttpStatus => "http_status",
            Self::Internal => "internal",
        }
    }
}

/// One try of a reading service, with all its calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadingAttempt {
    /// The service, as in `ai_service_configs.service_name`.
    pub service: String,
    /// Its models and versions, `name@version` joined by commas.
    pub reader_version: String,
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The HTTP status; set exactly for [`AttemptOutcome::HttpStatus`].
    pub http_status: Option<i32>,
    /// Milliseconds from its start to its end, without waiting for a free place.
    pub processing_time_ms: i32,
    /// Milliseconds of CPU; null where it ran elsewhere, or could not be measured.
    pub cpu_ms: Option<i32>,
    /// The largest resident set of the process up to its end, MB of 1,000,000 bytes; null as `cpu_ms`.
    pub rss_mb: Option<i32>,
    /// What it cost, USD, at most six decimals.
    pub cost_usd: Decimal,
    /// Calibrated confidence of its best reading, 0-0.99; null where it read nothing.
    pub confidence: Option<Decimal>,
    /// Whether two or more odometer values lie within 0.15 of confidence.
    pub several_readings: bool,
}

impl ReadingAttempt {
    /// `ai_service_logs.error_code`; none where the service did its work.
    #[must_use]
    pub fn error_code(&self) -> Option<String> {
        match (self.outcome, self.http_status) {
            (outcome, _) if !outcome.is_technical() => None,
            (AttemptOutcome::HttpStatus, Some(status)) => Some(format!("http_{status}")),
            (outcome, _) => Some(outcome.label().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::codec::{self, RecordSchema};
    use crate::events::{Event as _, OdometerRead};

    fn attempt(outcome: AttemptOutcome, http_status: Option<i32>) -> ReadingAttempt {
        ReadingAttempt {
            service: "Google Vision".into(),
            reader_version: "images:annotate@v1".into(),
            outcome,
            http_status,
            processing_time_ms: 640,
            cpu_ms: None,
            rss_mb: None,
            cost_usd: Decimal::new(1_500, 6),
            confidence: None,
            several_readings: false,
        }
    }

    fn example() -> Value {
        let text = include_str!("../examples/uploads.readings/normal-km.json");
        serde_json::from_str::<Value>(text).unwrap()["event"].take()
    }

    #[test]
    fn a_technical_failure_has_an_error_code_and_an_answer_without_a_mileage_has_none() {
        let codes = AttemptOutcome::ALL.map(|outcome| attempt(outcome, Some(503)).error_code());
        let codes: Vec<_> = codes.into_iter().flatten().collect();
        let expected = [
            "timeout",
            "rate_limited",
            "unauthorized",
            "circuit_open",
            "bad_response",
            "http_503",
            "internal",
        ];
        assert_eq!(codes, expected);
    }

    #[test]
    fn every_outcome_survives_avro_under_its_label() {
        let mut event: OdometerRead = serde_json::from_value(example()).unwrap();
        let reading = event.reading.as_mut().unwrap();
        reading.attempts = AttemptOutcome::ALL.map(|outcome| attempt(outcome, None)).to_vec();
        let bytes = codec::encode(7, &event).unwrap();
        let (id, datum) = codec::unframe(&bytes).unwrap();
        assert_eq!(codec::decode::<OdometerRead>(OdometerRead::schema(), id, datum).unwrap(), event);
        for outcome in AttemptOutcome::ALL {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.label());
        }
        assert_eq!(
            serde_json::from_value::<AttemptOutcome>(json!("moved_house")).unwrap(),
            AttemptOutcome::Internal
        );
    }

    #[test]
    fn an_event_and_a_kept_answer_from_before_attempts_were_listed_have_none() {
        let mut schema: Value = serde_json::from_str(OdometerRead::schema_text()).unwrap();
        let fields = schema["fields"].as_array_mut().unwrap();
        let reading = fields.iter_mut().find(|field| field["name"] == "reading").unwrap();
        reading["type"][1]["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "attempts");
        let before = RecordSchema::parse(&schema.to_string()).unwrap();
        let mut old = example();
        old["reading"].as_object_mut().unwrap().remove("attempts");
        let event: OdometerRead = serde_json::from_value(old).unwrap();
        assert_eq!(event.reading.as_ref().unwrap().attempts, []);
        // The array is the last field of the record's last field: without it the datum is one byte, its length, shorter.
        let mut bytes = codec::encode(7, &event).unwrap();
        assert_eq!(bytes.pop(), Some(0));
        let (id, datum) = codec::unframe(&bytes).unwrap();
        assert_eq!(codec::decode::<OdometerRead>(&before, id, datum).unwrap(), event);
    }
}
