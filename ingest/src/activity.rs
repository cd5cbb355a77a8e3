//! Documents for the log collections. They go to Kafka without being waited for: a log never holds an upload up.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::journal::{Call, Fault, FaultKind, Journal, Operation, Severity};
use runtime::publish::Delivered;
use schemas::events::UploadReceived;
use schemas::logs::{LogDocument, UploadProcessingLog};
use serde_json::json;
use uuid::Uuid;
use warp::http::StatusCode;

use crate::http::problem::{ApiError, DATABASE_UNAVAILABLE, NOT_PUBLISHED, PHOTO_STORE_UNAVAILABLE};
use crate::http::router::Recorder;

/// Writes log documents.
pub(crate) struct ActivityLog {
    journal: Journal,
    clock: Arc<dyn Clock>,
}

impl ActivityLog {
    /// A log on the gateway's journal.
    pub(crate) fn new(journal: Journal, clock: Arc<dyn Clock>) -> Self {
        Self { journal, clock }
    }

    /// Logs that an upload was taken; `at` is where its event stands. The document's id derives from the event's: publishing
    /// the event again logs nothing new.
    pub(crate) fn log_upload(&self, event: &UploadReceived, at: Delivered) {
        let header = &event.header;
        let micros = (self.clock.now().0 - header.accepted_at.0).max(0);
        let document = UploadProcessingLog {
            upload_id: header.upload_id.to_string(),
            user_id: header.user_id.to_string(),
            processing_stage: "upload".to_owned(),
            stage_duration: Duration::from_micros(micros.unsigned_abs()).as_secs_f64() * 1000.0,
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
        };
        self.journal.log(&document, header.event_id, header.occurred_at);
    }

    /// Logs a document of its own, now.
    pub(crate) fn write<D: LogDocument>(&self, document: &D) {
        self.journal.write(document);
    }
}

impl Recorder for ActivityLog {
    fn fault(&self, error: &ApiError, user: Option<Uuid>) {
        let problem = error.problem();
        let kind = match problem {
            DATABASE_UNAVAILABLE => FaultKind::Database,
            NOT_PUBLISHED | PHOTO_STORE_UNAVAILABLE => FaultKind::ExternalService,
            _ => FaultKind::System,
        };
        self.journal.fault(&Fault {
            kind,
            code: problem.code,
            message: problem.title,
            causes: &error.causes(),
            user,
            severity: Severity::Medium,
        });
    }

    fn call(&self, route: &'static str, status: StatusCode, took: Duration) {
        let failed = status.is_server_error().then(|| status.canonical_reason().unwrap_or("server error"));
        let (operation, status) = (Operation::ApiCall, Some(status.as_u16()));
        self.journal.call(&Call { operation, name: route, took, status, error: failed });
    }
}
