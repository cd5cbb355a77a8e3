//! `driver_advice`: turns a decision into the sentence that its driver is told.

use runtime::{Envelope, Processor, StageError, Verdict};
use schemas::events::{UploadDecided, Verdict as Decision};
use schemas::ids::derived;
use schemas::reason::Reason;

use crate::new_events::DriverAdvised;

/// Needs nothing: the sentence belongs to the reason.
pub struct DriverAdvice;

impl Processor for DriverAdvice {
    const NAME: &'static str = "driver_advice";
    type In = UploadDecided;
    type Out = DriverAdvised;

    async fn process(&self, record: &Envelope<UploadDecided>) -> Result<Verdict<DriverAdvised>, StageError> {
        let UploadDecided { header, verdict, reason, .. } = &record.payload;
        let advice = match (verdict, reason) {
            (Decision::Verified, _) => "Thank you: your reading counts.",
            (_, Some(reason)) => reason.advice(),
            // Every other decision has a reason: this one was not made by fraud_check.
            (_, None) => return Ok(Verdict::Reject(Reason::BadDatum)),
        };
        Ok(Verdict::Emit(DriverAdvised {
            event_id: derived(header.event_id, Self::NAME, 0),
            user_id: header.user_id,
            upload_id: header.upload_id,
            occurred_at: header.occurred_at,
            advice: advice.to_owned(),
        }))
    }
}
