//! The documents of `odometer_reading`: how the stage went, the service that was tried, its call, and the quality of the
//! reading's box.

use runtime::Envelope;
use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{ActivityLogged, Candidate, Fault, UploadGraded, UploadHeader};
use schemas::ids::{Micros, natural};
use schemas::logs::{AiProcessingLog, AiServiceLog, ImageQualityLog};
use schemas::reason::Reason;
use serde_json::{Value, json};

use super::answers::Answer;
use crate::documents::{self, Documents, Step, sentence};

/// What there is to tell about one upload.
pub(super) struct Told<'a> {
    pub record: &'a Envelope<UploadGraded>,
    pub header: &'a UploadHeader,
    pub answer: Option<&'a Answer>,
    pub fault: Option<&'a Fault>,
    pub started: Micros,
    pub rules_version: &'a str,
}

impl Told<'_> {
    /// All of them. An answer that was read for another upload of the same photo is no new call: nothing is told of it.
    pub fn documents(&self) -> Vec<ActivityLogged> {
        let mut documents = Documents::about(self.header.event_id, self.header.occurred_at);
        let step = Step {
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
        documents.add(0, &documents::processing(self.record, self.header, &step));
        if let Some(answer) = self.answer.filter(|answer| answer.upload_id == self.header.upload_id) {
            documents.add(0, &self.tried(answer));
            documents.add(0, &self.call(answer));
            documents.add(1, &self.box_quality(answer));
        }
        documents.into_records()
    }

    fn request_id(&self) -> String {
        natural(&format!("{}/call/1", self.header.event_id)).to_string()
    }

    fn tried(&self, answer: &Answer) -> AiProcessingLog {
        let result = &answer.result;
        let boxes = boxes(answer);
        AiProcessingLog {
            upload_id: self.header.upload_id.to_string(),
            ai_service_name: result.service.clone(),
            service_endpoint: endpoint(answer),
            request_payload: json!({
                "image_sha256": self.header.image_hash, "width": answer.size.width, "height": answer.size.height,
                "bytes": self.header.file_size, "features": ["odometer"],
            }),
            response_payload: Some(
                json!({"candidates": candidates(&result.candidates, &boxes), "lines": boxes}),
            ),
            processing_time: answer.spent_ms,
            success: result.best.is_some(),
            confidence_score: result.best.as_ref().map(|best| cut(best.confidence)),
            error_details: result.best.is_none().then(|| sentence(Reason::NoOdometer, None)),
            fallback_used: false,
            cost_incurred: Decimal::ZERO,
            service_metadata: json!({
                "request_ids": [self.request_id()],
                "models": models(answer).collect::<Vec<_>>(), "hedged": false, "breaker": "closed",
            }),
        }
    }

    fn call(&self, answer: &Answer) -> AiServiceLog {
        AiServiceLog {
            service_name: answer.result.service.clone(),
            request_id: self.request_id(),
            upload_id: Some(self.header.upload_id.to_string()),
            request_type: "ocr".to_owned(),
            request_payload: json!({
                "method": "call", "url": endpoint(answer), "parameters": {},
                "image_sha256": self.header.image_hash, "bytes": self.header.file_size,
            }),
            response_payload: Some(json!({"lines": boxes(answer)})),
            processing_time: answer.spent_ms,
            success: true,
            error_code: None,
            error_message: None,
            cost_incurred: Decimal::ZERO,
            service_metadata: json!({
                "attempt": 1, "http_status": null, "model": answer.result.reader_version, "provider_request_id": null,
            }),
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

/// `embedded:<models>`, as in `ai_service_configs.endpoint_url`.
fn endpoint(answer: &Answer) -> String {
    let names: Vec<_> = models(answer).map(|model| model.split('@').next().unwrap_or(model)).collect();
    format!("embedded:{}", names.join(","))
}

fn models(answer: &Answer) -> impl Iterator<Item = &str> {
    answer.result.reader_version.split(',')
}

/// The lines as they stand in the event: digits and units, other words masked.
fn boxes(answer: &Answer) -> Vec<Value> {
    match serde_json::from_str::<Value>(&answer.result.bounding_boxes) {
        Ok(Value::Object(mut whole)) => match whole.remove("boxes") {
            Some(Value::Array(boxes)) => boxes,
            _ => Vec::new(),
        },
        _ => Vec::new(),
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
