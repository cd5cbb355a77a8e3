//! What became of a record, as far as a driver or the books can tell.

use rust_decimal::Decimal;
use schemas::events::{RewardGranted, UploadDecided};
use schemas::reason::Reason;
use serde::{Deserialize, Serialize};

use super::spec::{Step, Steps};

/// Verdict, reason, distance and amounts; none of what was not decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// `verified`, `rejected`, `failed` or `review`.
    pub verdict: Option<String>,
    /// Why not verified.
    pub reason: Option<String>,
    /// The mileage that was accepted.
    pub mileage: Option<Decimal>,
    /// Kilometres that were driven.
    pub distance_km: Option<Decimal>,
    /// B3TR by the tariff.
    pub calculated: Option<Decimal>,
    /// B3TR within the budgets.
    pub granted: Option<Decimal>,
    /// Why less was granted.
    pub grant_reason: Option<String>,
}

impl Outcome {
    /// Of what the stages that are compared have made; `calculated` is B3TR by the tariff.
    #[must_use]
    pub fn of(
        steps: Steps,
        decided: Option<&UploadDecided>,
        calculated: Option<Decimal>,
        granted: Option<&RewardGranted>,
    ) -> Self {
        let calculated = calculated.filter(|_| steps.run(Step::RewardCalculation));
        let granted = granted.filter(|_| steps.run(Step::LimitCheck));
        let label = |reason: Option<Reason>| reason.map(|reason| reason.label().to_owned());
        let plain = |amount: Decimal| amount.normalize();
        Self {
            verdict: decided.map(|decided| decided.verdict.label().to_owned()),
            reason: decided.and_then(|decided| label(decided.reason)),
            mileage: decided.and_then(|decided| decided.final_mileage).map(plain),
            distance_km: decided.and_then(|decided| decided.distance_km).map(plain),
            calculated: calculated.map(plain),
            granted: granted.map(|granted| plain(granted.granted)),
            grant_reason: granted.and_then(|granted| label(granted.reason)),
        }
    }

    /// Each thing by its name, in the order in which it is told.
    #[must_use]
    pub fn told(&self) -> [(&'static str, String); 7] {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(none);
        let number = |number: Option<Decimal>| number.map_or_else(none, |number| number.to_string());
        [
            ("verdict", text(&self.verdict)),
            ("reason", text(&self.reason)),
            ("mileage", number(self.mileage)),
            ("distance_km", number(self.distance_km)),
            ("calculated", number(self.calculated)),
            ("granted", number(self.granted)),
            ("grant_reason", text(&self.grant_reason)),
        ]
    }
}

fn none() -> String {
    "-".to_owned()
}
