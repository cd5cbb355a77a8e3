//! What the sink reads.

use runtime::FromRecord;
use schemas::codec::{self, CodecError, RecordSchema};
use schemas::events::{
    Event, OdometerRead, PayoutUpdated, ReadingCorrected, RewardCalculated, RewardCancelled, RewardClaimed,
    RewardGranted, UploadAbandoned, UploadDecided, UploadReceived,
};

/// The record types of the topics that are added up.
#[derive(Clone, Debug)]
pub enum AnalyticsEvent {
    /// An upload was accepted.
    Received(Box<UploadReceived>),
    /// It was read, or could not be.
    Read(Box<OdometerRead>),
    /// Its reading is to be lowered: known, and not counted.
    Corrected(Box<ReadingCorrected>),
    /// An operator ends it: what is counted is the decision.
    Abandoned(Box<UploadAbandoned>),
    /// It was decided.
    Decided(Box<UploadDecided>),
    /// What it earns was worked out.
    Calculated(Box<RewardCalculated>),
    /// What of that is owed.
    Granted(Box<RewardGranted>),
    /// A driver has asked for it: known, and not counted.
    Claimed(RewardClaimed),
    /// It will not be paid: its payout says so too, and is counted.
    Cancelled(Box<RewardCancelled>),
    /// How it is paid.
    Paid(Box<PayoutUpdated>),
}

impl FromRecord for AnalyticsEvent {
    fn from_record(schema: &RecordSchema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        fn boxed<E: Event>(schema: &RecordSchema, id: u32, datum: &[u8]) -> Result<Box<E>, CodecError> {
            codec::decode(schema, id, datum).map(Box::new)
        }
        match schema.name() {
            UploadReceived::NAME => Some(boxed(schema, id, datum).map(Self::Received)),
            OdometerRead::NAME => Some(boxed(schema, id, datum).map(Self::Read)),
            ReadingCorrected::NAME => Some(boxed(schema, id, datum).map(Self::Corrected)),
            UploadAbandoned::NAME => Some(boxed(schema, id, datum).map(Self::Abandoned)),
            UploadDecided::NAME => Some(boxed(schema, id, datum).map(Self::Decided)),
            RewardCalculated::NAME => Some(boxed(schema, id, datum).map(Self::Calculated)),
            RewardGranted::NAME => Some(boxed(schema, id, datum).map(Self::Granted)),
            RewardClaimed::NAME => Some(codec::decode(schema, id, datum).map(Self::Claimed)),
            RewardCancelled::NAME => Some(boxed(schema, id, datum).map(Self::Cancelled)),
            PayoutUpdated::NAME => Some(boxed(schema, id, datum).map(Self::Paid)),
            _ => None,
        }
    }
}
