//! The documents of `odometer_reading`: how the stage went, every service that was tried, its call, every switch to the next, and
//! the quality of the reading's box.

use providers::Attempt;
use runtime::Envelope;
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{ActivityLogged, Candidate, Fault, UploadGraded, UploadHeader};
use schemas::ids::{Micros, natural};
use schemas::logs::{AiProcessingLog, AiServiceLog, FallbackLog, ImageQualityLog, IntegrationLog};
use schemas::reason::Reason;
use serde_json::{Value, json};
use uuid::Uuid;

use super::answers::Answer;
use super::attempts::is_embedded;
use crate::documents::{self, Documents, StageRun, sentence};

/// One in so many calls that went well is recorded as an integration (data map's lineage: `integration_logs`).
const CALLS_ONE_IN: u8 = 10;

/// What there is to report about one upload.
pub(super) struct UploadFacts<'a> {
    pub record: &'a Envelope<UploadGraded>,
    pub header: &'a UploadHeader,
    pub answer: Option<&'a Answer>,
    /// Every service that was tried for the answer, or in vain.
    pub attempts: Vec<Attempt>,
    pub fault: Option<&'a Fault>,
    pub started: Micros,
    pub rules_version: &'a str,
}

impl UploadFacts<'_> {
    /// All of them. An answer that was read for another upload of the same photo is no new call: nothing is logged of it.
    pub fn documents(&self) -> Vec<ActivityLogged> {
        let mut documents = Documents::about(self.header.event_id, self.header.occurred_at);
        let stage_run = StageRun {
            name: "ai_processing",
            started: self.started,
            image: self.record.payload.image,
            verdict: match (self.answer, self.fault) {
                (None, _) => "passed_on",
                (Some(_), None) => "read",
                (Some(_), Some(_)) => "nothing_read",
            },
            reason: self.fault.map(|fault| fault.reason),
            detail: self.fault.map(|fault| fault.detail.as_str()),
            rules_version: self.rules_version,
        };
        documents.add(0, &documents::processing(self.record, self.header, &stage_run));
        let ours = self.answer.is_none_or(|answer| answer.upload_id == self.header.upload_id);
        if ours {
            for (ordinal, (index, attempt)) in (0..).zip(self.attempts.iter().enumerate()) {
                documents.add(ordinal, &self.tried(index, attempt));
                documents.add(ordinal, &self.call(index, attempt));
                if self.is_integration(index, attempt) {
                    documents.add(ordinal, &self.integration(index, attempt));
                }
            }
            for (ordinal, pair) in (0..).zip(self.attempts.windows(2)) {
                documents.add(ordinal, &self.switch(&pair[0], &pair[1]));
            }
        }
        if let Some(answer) = self.answer.filter(|_| ours) {
            documents.add(1, &self.box_quality(answer));
        }
        documents.into_records()
    }

    /// The id of the `index`-th call, from 0.
    fn call_id(&self, index: usize) -> Uuid {
        natural(&format!("{}/call/{}", self.header.event_id, index + 1))
    }

    fn tried(&self, index: usize, attempt: &Attempt) -> AiProcessingLog {
        let size = self.answer.map(|answer| answer.size);
        AiProcessingLog {
            upload_id: self.header.upload_id.to_string(),
            ai_service_name: attempt.service.clone(),
            service_endpoint: attempt.endpoint.clone(),
            request_payload: json!({
                "image_sha256": self.header.image_hash, "width": size.map(|size| size.width),
                "height": size.map(|size| size.height), "bytes": self.header.file_size, "features": ["odometer"],
            }),
            response_payload: attempt.failure.is_none().then(|| {
                json!({"candidates": candidates(&attempt.candidates, &attempt.lines), "lines": attempt.lines})
            }),
            processing_time: attempt.spent_ms,
            success: !attempt.candidates.is_empty(),
            confidence_score: attempt.candidates.first().map(|best| cut(best.confidence)),
            error_details: match (&attempt.failure, attempt.candidates.is_empty()) {
                (Some(failure), _) => Some(format!("{}: {}", failure.code, failure.message)),
                (None, true) => Some(sentence(Reason::NoOdometer, None)),
                (None, false) => None,
            },
            fallback_used: index > 0,
            cost_incurred: attempt.cost,
            service_metadata: json!({
                "request_ids": [self.call_id(index)], "models": attempt.model.split(',').collect::<Vec<_>>(),
                "hedged": attempt.hedged, "breaker": attempt.breaker,
            }),
        }
    }

    fn call(&self, index: usize, attempt: &Attempt) -> AiServiceLog {
        AiServiceLog {
            service_name: attempt.service.clone(),
            request_id: self.call_id(index).to_string(),
            upload_id: Some(self.header.upload_id.to_string()),
            request_type: "ocr".to_owned(),
            request_payload: json!({
                "method": if is_embedded(attempt) { "call" } else { "POST" }, "url": attempt.endpoint,
                "parameters": {}, "image_sha256": self.header.image_hash, "bytes": self.header.file_size,
            }),
            response_payload: attempt.failure.is_none().then(|| json!({"lines": attempt.lines})),
            processing_time: attempt.spent_ms,
            success: attempt.failure.is_none(),
            error_code: attempt.failure.as_ref().map(|failure| failure.code.clone()),
            error_message: attempt.failure.as_ref().map(|failure| failure.message.clone()),
            cost_incurred: attempt.cost,
            service_metadata: json!({
                "attempt": 1, "http_status": attempt.http_status, "model": attempt.model,
                "provider_request_id": attempt.provider_request_id,
            }),
        }
    }

    /// Whether the call is recorded as one to a service outside too: where it failed, and one in ten of the others, by its id, so that a
    /// redelivery gives the same.
    fn is_integration(&self, index: usize, attempt: &Attempt) -> bool {
        let called = !is_embedded(attempt) && attempt.was_sent();
        called
            && (attempt.failure.is_some() || self.call_id(index).as_bytes()[15].is_multiple_of(CALLS_ONE_IN))
    }

    fn integration(&self, index: usize, attempt: &Attempt) -> IntegrationLog {
        IntegrationLog {
            integration_type: "ai_service".to_owned(),
            service_name: attempt.service.clone(),
            request_id: self.call_id(index).to_string(),
            request_data: json!({
                "method": "POST", "url": attempt.endpoint, "bytes": self.header.file_size,
                "sha256": self.header.image_hash, "summary": "ocr",
            }),
            response_data: attempt
                .http_status
                .map_or(json!({}), |status| json!({"status": status, "summary": attempt.outcome()})),
            response_time: attempt.spent_ms,
            success: attempt.failure.is_none(),
            error_details: attempt
                .failure
                .as_ref()
                .map(|failure| format!("{}: {}", failure.code, failure.message)),
            retry_count: 0,
        }
    }

    /// The switch from one service to the next.
    fn switch(&self, left: &Attempt, next: &Attempt) -> FallbackLog {
        FallbackLog {
            upload_id: self.header.upload_id.to_string(),
            primary_service: left.service.clone(),
            fallback_service: next.service.clone(),
            trigger_reason: left.trigger(next.hedged).to_owned(),
            primary_error: left.complaint(),
            fallback_success: next.outcome() == "accepted",
            fallback_result: match (&next.failure, next.candidates.first()) {
                (None, Some(best)) => json!({
                    "value": best.value, "unit": best.unit, "confidence": best.confidence,
                    "processing_time": next.spent_ms, "cost": next.cost,
                }),
                _ => json!({"error": next.complaint(), "processing_time": next.spent_ms, "cost": next.cost}),
            },
        }
    }

    fn box_quality(&self, answer: &Answer) -> ImageQualityLog {
        let score = answer.result.quality_score;
        let quality_metrics = match &answer.box_metrics {
            Some(measured) => json!({
                "scope": "box", "brightness": measured.mean, "contrast": measured.contrast,
                "sharpness": measured.gradient, "score": score, "bmean": measured.mean, "bcon": measured.contrast,
                "bgrad": measured.gradient, "bglare": measured.glare,
            }),
            None => json!({"scope": "box", "score": score}),
        };
        let labels = |labels: &[String]| labels.iter().cloned().map(Value::from).collect::<Vec<_>>();
        let (width, height) = (answer.size.width, answer.size.height);
        ImageQualityLog {
            upload_id: self.header.upload_id.to_string(),
            quality_metrics,
            detected_issues: labels(&answer.issues),
            preprocessing_applied: labels(&answer.preprocessing),
            original_file_info: answer.file.clone(),
            // The reader works on the decoded photo: three bytes a pixel, upright.
            processed_file_info: Some(json!({
                "bytes": 3 * i64::from(width) * i64::from(height), "format": "rgb8", "width": width,
                "height": height, "orientation": 1,
            })),
        }
    }
}

/// The candidates; the best one with the box that it was read from.
fn candidates(candidates: &[Candidate], boxes: &[Value]) -> Vec<Value> {
    let best =
        boxes.iter().find(|line| line["role"] == "reading").map_or(Value::Null, |line| line["quad"].clone());
    candidates
        .iter()
        .enumerate()
        .map(|(rank, candidate)| {
            json!({
                "value": candidate.value, "unit": candidate.unit, "confidence": candidate.confidence,
                "quad": if rank == 0 { best.clone() } else { Value::Null },
            })
        })
        .collect()
}

fn cut(confidence: Decimal) -> Decimal {
    confidence.round_dp_with_strategy(2, RoundingStrategy::ToZero)
}
