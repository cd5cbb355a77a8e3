//! What the sink reads.

use runtime::FromRecord;
use schemas::codec::{self, CodecError, RecordSchema};
use schemas::events::{
    BlockAdopted, BlockUndone, ChainStep, Event as _, ModelDeployed, OdometerRead, PayoutUpdated,
    ReadingCorrected, RewardCalculated, RewardCancelled, RewardClaimed, RewardGranted, Stamp,
    UploadAbandoned, UploadDecided, UploadGraded, UploadHeader, UploadReceived, UserErased, UserHeld,
    UserReleased,
};

/// The record types of `uploads.*`, `rewards.*`, `payouts.updated`, `chain.events`, `models.deployed` and `accounts.events`.
#[derive(Clone, Debug)]
pub enum UploadEvent {
    /// Accepted.
    Received(UploadReceived),
    /// Its quality was measured.
    Graded(UploadGraded),
    /// It was read, or could not be.
    Read(Box<OdometerRead>),
    /// Its reading is to be lowered: what comes of that is in the decision about it.
    Corrected(Box<ReadingCorrected>),
    /// An operator ends it: what comes of that is in the decision about it.
    Abandoned(Box<UploadAbandoned>),
    /// It was decided.
    Decided(UploadDecided),
    /// What it earns was worked out.
    Calculated(RewardCalculated),
    /// What of that is owed.
    Granted(RewardGranted),
    /// A driver has asked for it: nothing that these tables hold.
    Claimed(RewardClaimed),
    /// It will not be paid: its payout says so too, and these tables hold that.
    Cancelled(RewardCancelled),
    /// How it is paid.
    Paid(Box<PayoutUpdated>),
    /// A block came or went.
    Chain(Box<ChainStep>),
    /// A model reads photos from now on.
    Deployed(Box<ModelDeployed>),
    /// A person was erased.
    Erased(UserErased),
    /// An account was held or released: nothing that these tables hold.
    Standing,
}

impl FromRecord for UploadEvent {
    fn from_record(schema: &RecordSchema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        match schema.name() {
            UploadReceived::NAME => Some(codec::decode(schema, id, datum).map(Self::Received)),
            UploadGraded::NAME => Some(codec::decode(schema, id, datum).map(Self::Graded)),
            OdometerRead::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Read(Box::new(event))))
            }
            ReadingCorrected::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Corrected(Box::new(event))))
            }
            UploadAbandoned::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Abandoned(Box::new(event))))
            }
            UploadDecided::NAME => Some(codec::decode(schema, id, datum).map(Self::Decided)),
            RewardCalculated::NAME => Some(codec::decode(schema, id, datum).map(Self::Calculated)),
            RewardGranted::NAME => Some(codec::decode(schema, id, datum).map(Self::Granted)),
            RewardClaimed::NAME => Some(codec::decode(schema, id, datum).map(Self::Claimed)),
            RewardCancelled::NAME => Some(codec::decode(schema, id, datum).map(Self::Cancelled)),
            PayoutUpdated::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Paid(Box::new(event))))
            }
            BlockAdopted::NAME => Some(
                codec::decode(schema, id, datum).map(|step| Self::Chain(Box::new(ChainStep::Adopted(step)))),
            ),
            BlockUndone::NAME => Some(
                codec::decode(schema, id, datum).map(|step| Self::Chain(Box::new(ChainStep::Undone(step)))),
            ),
            ModelDeployed::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Deployed(Box::new(event))))
            }
            UserErased::NAME => Some(codec::decode(schema, id, datum).map(Self::Erased)),
            UserHeld::NAME => Some(codec::decode::<UserHeld>(schema, id, datum).map(|_| Self::Standing)),
            UserReleased::NAME => {
                Some(codec::decode::<UserReleased>(schema, id, datum).map(|_| Self::Standing))
            }
            _ => None,
        }
    }
}

impl UploadEvent {
    /// The header and what was stamped, whichever the type.
    /// None for what is about no upload.
    pub(super) fn parts(&self) -> Option<(&UploadHeader, &Stamp)> {
        Some(match self {
            Self::Received(event) => (&event.header, &event.stamp),
            Self::Graded(event) => (&event.header, &event.stamp),
            Self::Read(event) => (&event.header, &event.stamp),
            Self::Decided(event) => (&event.header, &event.stamp),
            Self::Calculated(event) => (&event.header, &event.stamp),
            Self::Granted(event) => (&event.header, &event.stamp),
            Self::Paid(event) => (&event.header, &event.stamp),
            Self::Corrected(_)
            | Self::Abandoned(_)
            | Self::Claimed(_)
            | Self::Cancelled(_)
            | Self::Chain(_)
            | Self::Deployed(_)
            | Self::Erased(_)
            | Self::Standing => return None,
        })
    }
}
