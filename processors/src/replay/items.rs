//! A record of `uploads.readings` on its way through the stages, with what was recorded of it.

use std::collections::HashMap;

use runtime::refold::decoded;
use runtime::registry::{RegistryError, SchemaSource};
use runtime::source::RawRecord;
use runtime::{Decided as _, Envelope};
use schemas::events::{RewardCalculated, RewardGranted, UploadDecided};
use schemas::ids::{EventId, derived};

use super::outcome::Outcome;
use super::spec::Steps;
use crate::fraud_check::input::FraudInput;

/// What a record has led to.
#[derive(Clone, Debug, Default)]
pub struct Led {
    pub decided: Option<UploadDecided>,
    pub calculated: Option<RewardCalculated>,
    pub granted: Option<RewardGranted>,
}

impl Led {
    pub fn outcome(&self, steps: Steps) -> Outcome {
        Outcome::of(steps, self.decided.as_ref(), self.calculated.as_ref(), self.granted.as_ref())
    }
}

/// A record on its way.
#[derive(Debug)]
pub struct Item {
    pub reading: Envelope<FraudInput>,
    /// Whether it is decided again; otherwise what was recorded stands.
    pub in_window: bool,
    pub recorded: Led,
    /// Where the recorded reward stands on `rewards.calculated`.
    pub calculated_at: Option<i64>,
    pub replayed: Led,
}

/// The ids of what a reading leads to, stage by stage.
pub fn ids(reading: EventId) -> [EventId; 3] {
    let decided = derived(reading, "fraud_check", 0);
    let calculated = derived(decided, "reward_calculation", 0);
    [decided, calculated, derived(calculated, "limit_check", 0)]
}

impl Item {
    pub async fn new(
        (reading, in_window): (Envelope<FraudInput>, bool),
        recorded: &HashMap<EventId, RawRecord>,
        schemas: &dyn SchemaSource,
    ) -> Result<Self, RegistryError> {
        let found = ids(reading.payload.id()).map(|id| recorded.get(&id));
        let [decided, calculated, granted] = found;
        let mut led = Led::default();
        if let Some(record) = decided {
            led.decided = decoded(schemas, record).await?.map(|event| event.payload);
        }
        if let Some(record) = calculated {
            led.calculated = decoded(schemas, record).await?.map(|event| event.payload);
        }
        if let Some(record) = granted {
            led.granted = decoded(schemas, record).await?.map(|event| event.payload);
        }
        let calculated_at = calculated.map(|record| record.position.offset);
        Ok(Self { reading, in_window, recorded: led, calculated_at, replayed: Led::default() })
    }
}
