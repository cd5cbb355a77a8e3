//! A record of `uploads.readings` on its way through the stages, with what was recorded of it.

use std::collections::HashMap;

use runtime::refold::decoded;
use runtime::registry::{RegistryError, SchemaSource};
use runtime::source::RawRecord;
use runtime::{Decided as _, Envelope};
use schemas::events::{RewardCalculated, RewardGranted, UploadDecided, Verdict};
use schemas::ids::{EventId, UploadId, derived};

use super::outcome::Outcome;
use super::spec::Steps;
use crate::fraud_check::input::FraudInput;

/// What a record has led to.
#[derive(Clone, Debug, Default)]
pub struct Led {
    pub decided: Option<UploadDecided>,
    pub calculated: Option<RewardCalculated>,
    pub granted: Option<RewardGranted>,
    /// The newest grant that answers an adjustment: what counts.
    pub adjusted: Option<RewardGranted>,
}

impl Led {
    pub fn outcome(&self, steps: Steps) -> Outcome {
        let calculated = match &self.adjusted {
            Some(adjusted) => Some(adjusted.calculated),
            None => self.calculated.as_ref().map(RewardCalculated::total),
        };
        let granted = self.adjusted.as_ref().or(self.granted.as_ref());
        Outcome::of(steps, self.decided.as_ref(), calculated, granted)
    }

    /// Whether a reward may come of it.
    pub fn earns(&self) -> bool {
        let decided = self.decided.as_ref();
        decided.is_some_and(|decided| decided.verdict == Verdict::Verified && decided.correction.is_none())
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

/// Of each upload the newest grant that answers an adjustment.
pub fn newest(adjusted: impl IntoIterator<Item = RewardGranted>) -> HashMap<UploadId, RewardGranted> {
    let number = |event: &RewardGranted| event.adjustment.as_ref().map_or(0, |adjustment| adjustment.number);
    let mut newest: HashMap<UploadId, RewardGranted> = HashMap::new();
    for event in adjusted {
        let upload = event.header.upload_id;
        if newest.get(&upload).is_none_or(|known| number(known) < number(&event)) {
            newest.insert(upload, event);
        }
    }
    newest
}

impl Item {
    pub async fn new(
        (reading, in_window): (Envelope<FraudInput>, bool),
        (recorded, adjusted): (&HashMap<EventId, RawRecord>, &HashMap<UploadId, RewardGranted>),
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
        if led.earns() {
            led.adjusted = adjusted.get(&reading.payload.header().upload_id).cloned();
        }
        let calculated_at = calculated.map(|record| record.position.offset);
        Ok(Self { reading, in_window, recorded: led, calculated_at, replayed: Led::default() })
    }
}
