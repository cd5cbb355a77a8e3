//! The documents that every stage writes beside its event.

use reading::FileInfo;
use runtime::Envelope;
use schemas::events::{ActivityLogged, ImageSize, UploadHeader};
use schemas::ids::{EventId, Micros};
use schemas::logs::{LogDocument, UploadProcessingLog};
use schemas::reason::Reason;
use serde_json::{Value, json};

/// Documents of one event, all with its id and time.
pub(crate) struct Documents {
    event_id: EventId,
    at: Micros,
    records: Vec<ActivityLogged>,
}

impl Documents {
    /// None yet.
    pub fn about(event_id: EventId, at: Micros) -> Self {
        Self { event_id, at, records: Vec::new() }
    }

    /// Adds the `ordinal`-th document of this event in its collection. One that is no JSON is a bug, logged and left
    /// out: documents never hold an event up.
    pub fn add<L: LogDocument>(&mut self, ordinal: i32, document: &L) {
        match document.activity(self.event_id, ordinal, self.at) {
            Ok(record) => self.records.push(record),
            Err(error) => {
                tracing::error!(error = %error, collection = L::COLLECTION.name, "log document is no JSON");
            }
        }
    }

    /// What to publish.
    pub fn into_records(self) -> Vec<ActivityLogged> {
        self.records
    }
}

/// How one stage went for one upload.
pub(crate) struct StageRun<'a> {
    /// `validation`, `ai_processing` or `verification`.
    pub name: &'static str,
    /// When the work began; it ended when the event was made.
    pub started: Micros,
    /// The photo's size, where it is known.
    pub image: Option<ImageSize>,
    /// What the stage found, in a word.
    pub verdict: &'static str,
    /// Why, where the upload is not fine.
    pub reason: Option<Reason>,
    /// A sentence of the reason.
    pub detail: Option<&'a str>,
    /// The rules that were applied.
    pub rules_version: &'a str,
}

/// The document of `upload_processing_logs`. A verdict is a success, also one against the upload; our own fault is not.
pub(crate) fn processing<E>(
    record: &Envelope<E>,
    made: &UploadHeader,
    stage_run: &StageRun<'_>,
) -> UploadProcessingLog {
    let failed = stage_run.reason.filter(|reason| reason.is_our_fault());
    UploadProcessingLog {
        upload_id: made.upload_id.to_string(),
        user_id: made.user_id.to_string(),
        processing_stage: stage_run.name.to_owned(),
        stage_duration: stage_run.started.milliseconds_to(made.occurred_at),
        success: failed.is_none(),
        error_message: failed.map(|reason| sentence(reason, stage_run.detail)),
        file_size: made.file_size,
        image_dimensions: stage_run.image.map(dimensions),
        processing_metadata: json!({
            "stage_version": made.stage_version,
            "rules_version": stage_run.rules_version,
            "verdict": stage_run.verdict,
            "reason": stage_run.reason.map(Reason::label),
            "queue_ms": (stage_run.started.0 / 1_000).saturating_sub(record.timestamp_ms).max(0),
            "partition": record.position.partition,
            "offset": record.position.offset,
        }),
        retry_count: i64::from(record.redrive),
    }
}

/// `code: sentence`, as in every error column.
pub(crate) fn sentence(reason: Reason, detail: Option<&str>) -> String {
    format!("{}: {}", reason.label(), detail.unwrap_or(reason.advice()))
}

/// `{width,height}`.
pub(crate) fn dimensions(size: ImageSize) -> Value {
    json!({"width": size.width, "height": size.height})
}

/// A file as it came: `{bytes,format,width,height,orientation}`.
pub(crate) fn file_info(info: &FileInfo) -> Value {
    json!({
        "bytes": info.bytes, "format": info.format.label(), "width": info.width, "height": info.height,
        "orientation": info.orientation,
    })
}
