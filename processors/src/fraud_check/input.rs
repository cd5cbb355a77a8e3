//! What `fraud_check` decides about: the record types of `uploads.readings`.

use runtime::{Decided, FromRecord};
use schemas::codec::{self, CodecError, RecordSchema};
use schemas::events::{
    Correction, Event as _, Fault, OdometerRead, ReadingCorrected, UploadAbandoned, UploadHeader,
};
use schemas::ids::EventId;
use schemas::reason::Reason;
use schemas::topic::Topic;

/// A record of `uploads.readings`.
#[derive(Clone, Debug)]
pub enum FraudInput {
    /// A photo was read, a person has decided about it, or an operator has ended it.
    Read(Box<OdometerRead>),
    /// A verified reading is lowered.
    Corrected(Box<ReadingCorrected>),
}

impl FraudInput {
    /// The header of the upload.
    #[must_use]
    pub fn header(&self) -> &UploadHeader {
        match self {
            Self::Read(event) => &event.header,
            Self::Corrected(event) => &event.decided.header,
        }
    }

    /// What it may do only once: one verdict, where that was doubt one of a person, and each correction.
    #[must_use]
    pub fn effect(&self) -> String {
        match self {
            Self::Read(event) => Self::effect_of(event),
            Self::Corrected(event) => {
                Correction::effect(event.decided.header.upload_id, event.correction.number)
            }
        }
    }

    /// The same of a photo that was read.
    pub(super) fn effect_of(event: &OdometerRead) -> String {
        let kind = if event.review.is_some() { "review" } else { "verdict" };
        format!("{kind}:{}", event.header.upload_id)
    }
}

/// What stands in for the reading of an upload that is ended: none, and a fault that is ours. So it has the effect of the reading in whose
/// place it comes, and the one that comes second is a repeat, whichever that is.
#[must_use]
pub fn unread(event: UploadAbandoned) -> OdometerRead {
    let UploadAbandoned { header, stamp, detail, review } = event;
    OdometerRead {
        header,
        stamp,
        image: None,
        quality: None,
        fault: Some(Fault { reason: Reason::Abandoned, detail }),
        reading: None,
        pixel_hash: None,
        pixel_holder: None,
        review,
        look_alike: None,
    }
}

impl FromRecord for FraudInput {
    fn from_record(schema: &RecordSchema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        match schema.name() {
            OdometerRead::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Read(Box::new(event))))
            }
            UploadAbandoned::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Read(Box::new(unread(event)))))
            }
            ReadingCorrected::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Corrected(Box::new(event))))
            }
            _ => None,
        }
    }
}

impl Decided for FraudInput {
    const READS: Topic = OdometerRead::TOPIC;

    fn id(&self) -> EventId {
        match self {
            Self::Read(event) => event.header.event_id,
            Self::Corrected(event) => event.event_id,
        }
    }
}
