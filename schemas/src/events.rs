//! Every record type: one line of `events!` names its type and its topic, and everything else follows from that. The record's
//! name is `milestream.` and the type's name, its schema stands in `avro/<type>.avsc`, with the type's fields in its order.
//!
//! Decimals are strings in Avro: exact at any scale, without the padding traps of Avro's decimal type. Instants are
//! `timestamp-micros`.

use std::sync::LazyLock;

pub use crate::abandoned::UploadAbandoned;
pub use crate::accounts::{AccountChanged, UserErased, UserHeld, UserReleased};
pub use crate::activity::ActivityLogged;
pub use crate::attempts::{AttemptOutcome, ReadingAttempt};
pub use crate::codec::Event;
use crate::codec::EventSchema;
pub use crate::corrections::Correction;
pub use crate::guard::{PaymentsAudited, SignatureAnnounced};
pub use crate::header::{
    CameraFacts, FirstHolder, OriginFacts, PersonalLimits, Root, Stamp, Unit, UploadHeader,
};
use crate::ids::{EventId, Micros};
pub use crate::models::{ModelDeployed, ModelType};
pub use crate::payouts::{
    AttemptState, BlockAdopted, BlockPlace, BlockUndone, ChainLog, ChainStep, ChainTransaction, PayoutState,
    PayoutTransaction, PayoutUpdated, RewardClaimed,
};
pub use crate::rewards::{
    Adjustment, LimitCharge, LimitType, PartKind, PartName, RewardCalculated, RewardCancelled, RewardGranted,
    RewardPart,
};
use crate::shared;
use crate::topic::Topic;
pub use crate::uploads::{
    Candidate, DriverFacts, Fault, FrameQuality, ImageSize, Lighting, LookAlike, OdometerRead, PixelHolder,
    ReadingCorrected, ReadingResult, Review, UploadDecided, UploadGraded, UploadReceived, Verdict,
};

/// Something that is done for every record type.
pub trait EachEvent {
    /// Does it for one.
    fn event<E: Event>(&mut self);
}

/// `Type on Topic;` for an event with a header: its id and time stand there, and its user is the record's key.
/// `Type on Topic: |event| id, key, time;` for any other.
macro_rules! events {
    ($($type:ident on $topic:ident $(: |$this:ident| $id:expr, $key:expr, $at:expr)?;)*) => {
        $(events!(@event $type, $topic $(, |$this| $id, $key, $at)?);)*

        /// Visits every record type.
        pub fn each_event(visitor: &mut impl EachEvent) {
            $(visitor.event::<$type>();)*
        }
    };
    (@event $type:ident, $topic:ident) => {
        events!(@event $type, $topic, |e| e.header.event_id, e.header.user_id.to_string(), e.header.occurred_at);
    };
    (@event $type:ident, $topic:ident, |$this:ident| $id:expr, $key:expr, $at:expr) => {
        impl Event for $type {
            const NAME: &'static str = concat!("milestream.", stringify!($type));
            const TOPIC: Topic = Topic::$topic;
            #[allow(clippy::expect_used, reason = "built in; a unit test parses every schema")]
            fn event_schema() -> &'static EventSchema {
                static SCHEMA: LazyLock<EventSchema> = LazyLock::new(|| {
                    shared::composed(include_str!(concat!("../avro/", stringify!($type), ".avsc")))
                        .and_then(EventSchema::built_in)
                        .expect("the built-in schema parses")
                });
                &SCHEMA
            }
            fn event_id(&self) -> EventId {
                let $this = self;
                $id
            }
            fn key(&self) -> String {
                let $this = self;
                $key
            }
            fn occurred_at(&self) -> Micros {
                let $this = self;
                $at
            }
        }
    };
}

events! {
    UploadReceived on UploadsReceived;
    UploadGraded on UploadsGraded;
    OdometerRead on UploadsReadings;
    UploadDecided on UploadsDecided;
    ActivityLogged on ActivityLogs: |e| e.event_id, e.event_id.to_string(), e.occurred_at;
    AccountChanged on AccountsChanged: |e| e.event_id, e.user_id.to_string(), e.occurred_at;
    RewardCalculated on RewardsCalculated;
    RewardGranted on RewardsGranted;
    RewardClaimed on RewardsGranted: |e| e.event_id, e.user_id.to_string(), e.occurred_at;
    PayoutUpdated on PayoutsUpdated: |e| e.header.event_id, e.reward_id.to_string(), e.header.occurred_at;
    BlockAdopted on ChainEvents: |e| e.event_id, e.genesis_id.clone(), e.occurred_at;
    BlockUndone on ChainEvents: |e| e.event_id, e.genesis_id.clone(), e.occurred_at;
    ModelDeployed on ModelsDeployed: |e| e.event_id, format!("{}@{}", e.model_name, e.model_version), e.occurred_at;
    SignatureAnnounced on PayoutsGuard: |e| e.event_id, e.tx_id.clone(), e.occurred_at;
    PaymentsAudited on PayoutsGuard: |e| e.event_id, e.key(), e.occurred_at;
    RewardCancelled on RewardsCalculated;
    UserErased on AccountsEvents: |e| e.event_id, e.user_id.to_string(), e.occurred_at;
    UserHeld on AccountsEvents: |e| e.event_id, e.user_id.to_string(), e.occurred_at;
    UserReleased on AccountsEvents: |e| e.event_id, e.user_id.to_string(), e.occurred_at;
    ReadingCorrected on UploadsReadings: |e| e.event_id, e.decided.header.user_id.to_string(), e.correction.corrected_at;
    UploadAbandoned on UploadsReadings;
}

/// Topic, name and schema text of every record type: what `milestream topics apply` registers.
#[must_use]
pub fn registry_subjects() -> Vec<(Topic, &'static str, &'static str)> {
    #[derive(Default)]
    struct Rows(Vec<(Topic, &'static str, &'static str)>);
    impl EachEvent for Rows {
        fn event<E: Event>(&mut self) {
            self.0.push((E::TOPIC, E::NAME, E::schema_text()));
        }
    }
    let mut rows = Rows::default();
    each_event(&mut rows);
    rows.0
}
