//! Documents for the log collections. They go to Kafka without being waited for: a log never holds an upload up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use runtime::clock::Clock;
use runtime::producer::{Ack, Message, Outbound};
use runtime::publish::Delivered;
use schemas::codec;
use schemas::events::{ActivityLogged, Event as _, UploadReceived};
use schemas::ids::{EventId, Micros};
use schemas::logs::{ErrorLog, LogDocument, UploadProcessingLog};
use serde_json::json;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::http::problem::{ApiError, DATABASE_UNAVAILABLE, NOT_PUBLISHED, PHOTO_STORE_UNAVAILABLE};

/// Error documents of one code in one minute; the rest is in the process' own log.
const ERRORS_PER_MINUTE: u32 = 10;
/// Longest chain of causes in a document (data map: 8 KiB).
const STACK_BYTES: usize = 8 * 1024;

/// Counts error documents by code and minute. Bounded by the closed set of codes.
#[derive(Debug, Default)]
pub(crate) struct ErrorBudget(Mutex<HashMap<&'static str, (i64, u32)>>);

impl ErrorBudget {
    fn take(&self, code: &'static str, now: Micros) -> bool {
        let minute = now.0.div_euclid(60_000_000);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(code).or_insert((minute, 0));
        if count.0 != minute {
            *count = (minute, 0);
        }
        count.1 += 1;
        count.1 <= ERRORS_PER_MINUTE
    }
}

/// Writes log documents.
pub(crate) struct ActivityLog {
    outbound: Arc<dyn Outbound>,
    clock: Arc<dyn Clock>,
    /// With the environment's prefix.
    topic: String,
    schema_id: u32,
    errors: ErrorBudget,
}

impl ActivityLog {
    /// A log; `schema_id` is the registry's of `ActivityLogged`.
    pub(crate) fn new(
        outbound: Arc<dyn Outbound>,
        clock: Arc<dyn Clock>,
        topic_prefix: &str,
        schema_id: u32,
    ) -> Self {
        let topic = format!("{topic_prefix}{}", ActivityLogged::TOPIC.name());
        Self { outbound, clock, topic, schema_id, errors: ErrorBudget::default() }
    }

    /// Logs that an upload was taken; `at` is where its event stands. The document's id derives from the event's: publishing
    /// the event again logs nothing new.
    pub(crate) fn log_upload(&self, event: &UploadReceived, at: Delivered) {
        let header = &event.header;
        let micros = (self.clock.now().0 - header.accepted_at.0).max(0);
        self.log(
            &UploadProcessingLog {
                upload_id: header.upload_id.to_string(),
                user_id: header.user_id.to_string(),
                processing_stage: "upload".to_owned(),
                stage_duration: std::time::Duration::from_micros(micros.unsigned_abs()).as_secs_f64()
                    * 1000.0,
                success: true,
                error_message: None,
                file_size: header.file_size,
                image_dimensions: None,
                processing_metadata: json!({
                    "stage_version": header.stage_version,
                    "rules_version": header.rules_version,
                    "partition": at.partition,
                    "offset": at.offset,
                }),
                retry_count: 0,
            },
            header.event_id,
            header.occurred_at,
        );
    }

    /// Logs a fault of ours.
    pub(crate) fn log_error(&self, error: &ApiError) {
        let problem = error.problem();
        let now = self.clock.now();
        if !self.errors.take(problem.code, now) {
            return;
        }
        let error_type = match problem {
            DATABASE_UNAVAILABLE => "database",
            NOT_PUBLISHED | PHOTO_STORE_UNAVAILABLE => "external_service",
            _ => "system",
        };
        let mut stack_trace = error.causes();
        stack_trace.truncate(stack_trace.floor_char_boundary(STACK_BYTES));
        self.write(&ErrorLog {
            error_type: error_type.to_owned(),
            error_code: problem.code.to_owned(),
            error_message: problem.title.to_owned(),
            stack_trace,
            user_id: None,
            module: "ingest".to_owned(),
            severity: "medium".to_owned(),
            resolved: false,
            resolution_notes: None,
        });
    }

    /// Logs a document of its own, now.
    pub(crate) fn write<D: LogDocument>(&self, document: &D) {
        self.log(document, EventId(Uuid::now_v7()), self.clock.now());
    }

    fn log<D: LogDocument>(&self, document: &D, event_id: EventId, at: Micros) {
        let bytes = document.activity(event_id, 0, at).map_err(|error| error.to_string()).and_then(|event| {
            let bytes = codec::encode(self.schema_id, &event);
            bytes.map(|bytes| (event.key(), bytes)).map_err(|error| error.to_string())
        });
        let sent = bytes.and_then(|(key, payload)| {
            let message = Message {
                topic: &self.topic,
                key: Some(key.as_bytes()),
                payload: Some(&payload),
                headers: &[],
            };
            // Nobody waits for this acknowledgement.
            let ack = Ack::Waiter(oneshot::channel().0);
            self.outbound.send(&message, ack).map_err(|_| "the producer did not take it".to_owned())
        });
        if let Err(error) = sent {
            tracing::warn!(collection = D::COLLECTION.name, error, "a log document is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_error_documents_of_a_code_pass_in_a_minute() {
        let budget = ErrorBudget::default();
        let passed = (0..30).filter(|_| budget.take("internal", Micros(5))).count();
        assert_eq!(passed, 10);
        assert!(budget.take("busy", Micros(5)));
        assert!(budget.take("internal", Micros(60_000_000)));
    }
}
