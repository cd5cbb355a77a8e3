//! What `fraud_check` says: the decided event and the documents about it.

use runtime::{Decider as _, Envelope, Position};
use schemas::events::{
    ActivityLogged, DriverFacts, OdometerRead, ReadingCorrected, Root, UploadDecided, UploadHeader,
};
use schemas::ids::{Micros, derived};
use schemas::logs::SecurityEvent;
use schemas::reason::Reason;
use serde_json::json;

use super::FraudCheck;
use super::input::FraudInput;
use super::judge::Judgement;
use crate::documents::{self, Documents, StageRun};

/// The event of a judgement.
pub(super) fn decided(
    (event, position): (&OdometerRead, &Position),
    judgement: &Judgement,
    driver: Option<DriverFacts>,
    now: Micros,
) -> UploadDecided {
    let OdometerRead { header, stamp, .. } = event;
    let root = Root { partition: position.partition, offset: position.offset };
    UploadDecided {
        header: header.next(FraudCheck::NAME, crate::VERSION, now, root),
        stamp: stamp.clone(),
        verdict: judgement.verdict,
        reason: judgement.reason,
        detail: judgement.detail.clone(),
        unit: judgement.unit,
        claimed_mileage: judgement.claimed,
        ai_mileage: judgement.ai,
        final_mileage: judgement.final_mileage,
        confidence: judgement.confidence,
        previous_mileage: judgement.previous,
        distance_km: judgement.distance_km,
        baseline: judgement.baseline,
        signals: judgement.signals.to_string(),
        review: event.review.clone(),
        driver,
        correction: None,
    }
}

/// The event of a correction: the decision as it is from now on, under an id of its own.
pub(super) fn corrected(event: &ReadingCorrected, decided: UploadDecided, now: Micros) -> UploadDecided {
    let header = UploadHeader {
        event_id: derived(event.event_id, FraudCheck::NAME, 0),
        occurred_at: now,
        stage_version: crate::VERSION.to_owned(),
        ..decided.header
    };
    UploadDecided { header, ..decided }
}

/// One document of the stage, and one for the security desk where a photo was shared or edited, or many accounts share the device.
pub(super) fn logs(
    (record, event): (&Envelope<FraudInput>, &OdometerRead),
    decided: &UploadDecided,
    rules_version: &str,
    started: Micros,
) -> Vec<ActivityLogged> {
    let header = &decided.header;
    let mut documents = Documents::about(header.event_id, header.occurred_at);
    let stage_run = StageRun {
        name: "verification",
        started,
        image: event.image,
        verdict: decided.verdict.label(),
        reason: decided.reason,
        detail: decided.detail.as_deref(),
        rules_version,
    };
    documents.add(0, &documents::processing(record, header, &stage_run));
    let security = match decided.reason {
        Some(Reason::DuplicatePhoto) => Some(("shared_photo", "medium")),
        Some(Reason::SharedDevice) => Some(("shared_device", "medium")),
        Some(Reason::EditedPhoto) => Some(("edited_photo", "high")),
        _ => None,
    };
    if let Some((event_type, severity)) = security {
        let security = SecurityEvent {
            user_id: Some(header.user_id.to_string()),
            event_type: event_type.to_owned(),
            severity: severity.to_owned(),
            ip_address: None,
            // The stage knows the photo, not where it was sent from: the gateway's documents of this upload do.
            location_data: json!({"country": null, "city": null, "coordinates": null, "source": "unknown"}),
            device_info: json!({"browser": null, "os": null, "device_type": "unknown"}),
            resolved: false,
            admin_notes: None,
        };
        documents.add(0, &security);
    }
    documents.into_records()
}
