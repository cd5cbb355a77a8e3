//! `quality_check`: fetches the photo, decodes it and measures its quality. A photo that is not worth reading travels on
//! with its fault, so that order holds and `fraud_check` alone decides.

use reading::{FileInfo, Graded};
use runtime::{Envelope, Processor, StageError, Verdict};
use rust_decimal::Decimal;
use schemas::events::{Fault, ImageSize, Root, UploadGraded, UploadHeader, UploadReceived};
use schemas::ids::{Micros, natural};
use schemas::logs::{AiServiceLog, ImageQualityLog};
use schemas::reason::Reason;
use serde_json::{Value, json};

use crate::documents::{self, Documents, StageRun};
use crate::models::SERVICE;
use crate::photos::{PhotoContext, processing_failed};
use crate::workers::PHOTOS_IN_FLIGHT;

/// Measures photos.
pub struct QualityCheck(PhotoContext);

impl QualityCheck {
    pub(crate) fn new(context: PhotoContext) -> Self {
        Self(context)
    }

    async fn examine(&self, header: &UploadHeader) -> Result<Examined, StageError> {
        let bytes = match self.0.photos.fetch(header).await? {
            Ok(bytes) => bytes,
            Err(fault) => return Ok(Examined { fault: Some(fault), ..Examined::default() }),
        };
        let looked_at = bytes.clone();
        let size = self.0.workers.run(None, move || reading::inspect(&looked_at).ok()).await?;
        // What has no size cannot be decoded, and takes no memory for it.
        let size = size.ok().flatten().map(|info| info.size());
        let examined = self.0.workers.run(size, move || Examined::of(&bytes)).await?;
        Ok(examined.unwrap_or_else(|_| Examined {
            fault: Some(processing_failed("measuring the photo failed")),
            ..Examined::default()
        }))
    }
}

impl Processor for QualityCheck {
    const NAME: &'static str = "quality_check";
    const IN_FLIGHT: usize = PHOTOS_IN_FLIGHT;
    type In = UploadReceived;
    type Out = UploadGraded;

    async fn process(&self, record: &Envelope<UploadReceived>) -> Result<Verdict<UploadGraded>, StageError> {
        let started = self.0.clock.now();
        let examined = self.examine(&record.payload.header).await?;
        Ok(self.graded(record, started, examined))
    }

    async fn dependencies_respond(&self) -> bool {
        self.0.photos.answer().await
    }

    fn give_up(&self, record: &Envelope<UploadReceived>, _: &StageError) -> Option<Verdict<UploadGraded>> {
        let fault = Some(processing_failed("the photo could not be fetched or measured, while others could"));
        Some(self.graded(record, self.0.clock.now(), Examined { fault, ..Examined::default() }))
    }
}

impl QualityCheck {
    /// What travels on, with the documents about it.
    fn graded(
        &self,
        record: &Envelope<UploadReceived>,
        started: Micros,
        examined: Examined,
    ) -> Verdict<UploadGraded> {
        let UploadReceived { header, stamp } = &record.payload;
        let now = self.0.clock.now();
        let root = Root { partition: record.position.partition, offset: record.position.offset };
        let header = header.next(Self::NAME, crate::VERSION, now, root);
        let mut documents = Documents::about(header.event_id, now);
        let stage_run = StageRun {
            name: "validation",
            started,
            image: examined.size,
            verdict: if examined.fault.is_some() { "faulty" } else { "readable" },
            reason: examined.fault.as_ref().map(|fault| fault.reason),
            detail: examined.fault.as_ref().map(|fault| fault.detail.as_str()),
            rules_version: self.0.rules_version,
        };
        documents.add(0, &documents::processing(record, &header, &stage_run));
        if let Some(document) = examined.quality_document(&header) {
            documents.add(0, &document);
        }
        if let Some(document) = examined.service_document(&header, started) {
            documents.add(0, &document);
        }
        let quality = examined.graded.map(|graded| graded.quality);
        let graded = UploadGraded {
            header,
            stamp: stamp.clone(),
            image: examined.size,
            quality,
            fault: examined.fault,
            pixel_hash: examined.pixel_hash,
        };
        Verdict::EmitWith(graded, documents.into_records())
    }
}

/// What came of looking at the photo.
#[derive(Default)]
struct Examined {
    info: Option<FileInfo>,
    size: Option<ImageSize>,
    graded: Option<Graded>,
    fault: Option<Fault>,
    /// None where the photo is not worth reading: all photos in the dark are one.
    pixel_hash: Option<String>,
}

impl Examined {
    fn of(bytes: &[u8]) -> Self {
        match reading::decode(bytes) {
            Ok(photo) => {
                let graded = reading::grade(&photo);
                let fault = graded.fault.clone();
                let pixel_hash = fault.is_none().then(|| photo.pixel_hash());
                let (info, size) = (Some(photo.info()), Some(photo.size()));
                Self { info, size, graded: Some(graded), fault, pixel_hash }
            }
            Err(fault) => Self { info: reading::inspect(bytes).ok(), fault: Some(fault), ..Self::default() },
        }
    }

    /// Frame quality; none where the photo could not be looked at for a fault of ours.
    fn quality_document(&self, header: &UploadHeader) -> Option<ImageQualityLog> {
        let reason = self.fault.as_ref().map(|fault| fault.reason);
        if reason == Some(Reason::ProcessingFailed) {
            return None;
        }
        let original = match &self.info {
            Some(info) => documents::file_info(info),
            None => {
                let format = header.mime_type.trim_start_matches("image/");
                json!({"bytes": header.file_size, "format": format})
            }
        };
        let undecodable = match reason {
            Some(Reason::TruncatedImage) => vec!["truncated".into()],
            Some(Reason::LowResolution) => vec!["low_resolution".into()],
            _ => Vec::new(),
        };
        let labels = |labels: &[&'static str]| labels.iter().copied().map(Value::from).collect::<Vec<_>>();
        let graded = self.graded.as_ref();
        Some(ImageQualityLog {
            upload_id: header.upload_id.to_string(),
            quality_metrics: graded.map_or(json!({"scope": "frame"}), metrics),
            detected_issues: graded.map_or(undecodable, |graded| labels(&graded.issues)),
            preprocessing_applied: graded.map_or(Vec::new(), |graded| labels(&graded.preprocessing)),
            original_file_info: original,
            processed_file_info: graded.map(|graded| measured_info(graded.measured)),
        })
    }

    /// The quality pass as a call of the embedded service; none where nothing was measured.
    fn service_document(&self, header: &UploadHeader, started: Micros) -> Option<AiServiceLog> {
        let graded = self.graded.as_ref()?;
        Some(AiServiceLog {
            service_name: SERVICE.to_owned(),
            request_id: natural(&format!("{}/call/1", header.event_id)).to_string(),
            upload_id: Some(header.upload_id.to_string()),
            request_type: "quality_check".to_owned(),
            request_payload: json!({
                "method": "call", "url": "embedded:quality", "parameters": {},
                "image_sha256": header.image_hash, "bytes": header.file_size,
            }),
            response_payload: Some(metrics(graded)),
            processing_time: started.milliseconds_to(header.occurred_at),
            success: true,
            error_code: None,
            error_message: None,
            cost_incurred: Decimal::ZERO,
            service_metadata: json!({"attempt": 1, "http_status": null, "model": null, "provider_request_id": null}),
        })
    }
}

fn metrics(graded: &Graded) -> Value {
    let quality = &graded.quality;
    json!({
        "scope": "frame", "brightness": quality.mean, "contrast": quality.p99 - quality.p5,
        "sharpness": quality.tenengrad, "score": quality.score, "mean": quality.mean, "p5": quality.p5,
        "p99": quality.p99, "ten": quality.tenengrad, "blob": quality.blob, "lighting": quality.lighting.label(),
    })
}

/// The picture that was measured: one byte of luma a pixel, upright.
fn measured_info(size: ImageSize) -> Value {
    json!({
        "bytes": i64::from(size.width) * i64::from(size.height), "format": "luma8", "width": size.width,
        "height": size.height, "orientation": 1,
    })
}
