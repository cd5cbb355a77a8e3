//! The decision core as one fold: the verdict, what it earns, what of that is granted, and what is given back, with the state of every
//! stage in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use rust_decimal::Decimal;
use schemas::events::{LimitCharge, OdometerRead, RewardCancelled, RewardPart, Verdict};
use schemas::ids::{Micros, RewardId, UploadId, UserId, VehicleId};

use super::drawn::Record;
use crate::fraud_check::conduct::{Became, Conduct};
use crate::fraud_check::facts::{Before, VehicleState};
use crate::fraud_check::judge::judge;
use crate::fraud_check::rules::Rules;
use crate::fraud_check::weeks::DriverWeeks;
use crate::limit_check::books::{Books, Charge};
use crate::limit_check::grant::{Budgets, grant};
use crate::limit_check::policy::Policy;
use crate::limit_check::state::keys_of;
use crate::reward_calculation::bonus::Known;
use crate::reward_rules::{RewardRules, parse};

/// The rules of rewards: the sample, which has every kind of bonus, with budgets that a history of a dozen photos reaches.
pub(super) static REWARDS: LazyLock<RewardRules> = LazyLock::new(|| {
    let mut rules = parse(include_str!("../../../examples/reward-rules.toml")).unwrap();
    let [daily, weekly, monthly] = [8, 15, 25].map(Decimal::from);
    rules.policy = Policy { daily, weekly, monthly, ..rules.policy };
    rules
});

/// A record's key, as the engine has it: one with the same key has had its effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Verdict(UploadId),
    Review(UploadId),
    Refund(RewardId),
}

/// The state of every stage.
#[derive(Clone, Default)]
pub(super) struct World {
    vehicles: BTreeMap<VehicleId, VehicleState>,
    weeks: BTreeMap<UserId, DriverWeeks>,
    conducts: BTreeMap<UserId, Conduct>,
    pub budgets: Budgets,
    books: Books,
    effects: BTreeSet<Effect>,
    /// What waits for a person.
    doubtful: BTreeSet<UploadId>,
}

impl World {
    /// What every reward was charged.
    pub fn charges(&self) -> impl Iterator<Item = &Charge> {
        self.books.all()
    }

    fn parts(&self) -> impl PartialEq + std::fmt::Debug {
        let charges: Vec<Charge> = self.charges().cloned().collect();
        let (vehicles, weeks, budgets) = (self.vehicles.clone(), self.weeks.clone(), self.budgets.clone());
        (
            vehicles,
            weeks,
            self.conducts.clone(),
            budgets,
            charges,
            self.effects.clone(),
            self.doubtful.clone(),
        )
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.parts().fmt(f)
    }
}

/// What a record has brought about.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Outcome {
    Decided {
        vehicle: VehicleId,
        verdict: Verdict,
        /// Kilometres, where verified.
        read_km: Option<Decimal>,
        distance_km: Option<Decimal>,
        earned: Option<Earning>,
    },
    Refunded {
        reward: RewardId,
        amount: Decimal,
    },
}

/// A reward.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Earning {
    pub reward: RewardId,
    pub parts: Vec<RewardPart>,
    pub total: Decimal,
    pub granted: Decimal,
    pub charges: Vec<LimitCharge>,
}

impl World {
    /// Takes the next record; none where it has had its effect, or has none.
    pub fn take(&mut self, record: &Record) -> Option<Outcome> {
        match record {
            Record::Reading(event) => self.decide(event),
            Record::Cancellation(event) => self.cancel(event),
        }
    }

    fn decide(&mut self, event: &OdometerRead) -> Option<Outcome> {
        let upload = event.header.upload_id;
        let effect = if event.review.is_some() {
            // Only what is in doubt comes before a person.
            self.doubtful.contains(&upload).then_some(Effect::Review(upload))?
        } else {
            Effect::Verdict(upload)
        };
        if !self.effects.insert(effect) {
            return None;
        }
        let vehicle = event.header.vehicle_id;
        let user = event.header.user_id;
        let before = Before { vehicle: self.vehicles.get(&vehicle), conduct: self.conducts.get(&user) };
        let mut judgement = judge(event, before, &Rules::current());
        let became = Became { event, verdict: judgement.verdict, reason: judgement.reason };
        let conduct = Conduct::after(before.conduct, &became);
        self.conducts.insert(user, conduct);
        if judgement.verdict == Verdict::Review {
            self.doubtful.insert(upload);
        }
        if let Some(next) = judgement.next_state.take() {
            self.vehicles.insert(vehicle, next);
        }
        let in_km = |mileage: Decimal| (mileage * judgement.unit.in_km()).round_dp(6);
        Some(Outcome::Decided {
            vehicle,
            verdict: judgement.verdict,
            read_km: judgement.final_mileage.map(in_km),
            distance_km: judgement.distance_km,
            earned: judgement.distance_km.and_then(|km| self.earn(event, km)),
        })
    }

    fn earn(&mut self, event: &OdometerRead, km: Decimal) -> Option<Earning> {
        let (header, user) = (&event.header, event.header.user_id);
        let before = self.weeks.get(&user).copied();
        let (driver, weeks) = DriverWeeks::after(before, header.accepted_at, !km.is_zero());
        self.weeks.insert(user, weeks);
        let known = Known { stamp: &event.stamp, accepted_at: header.accepted_at, driver: Some(&driver) };
        let earned = REWARDS.tariff.earned(km, &known).filter(|earned| !earned.total().is_zero())?;
        let event = earned.into_event(header.clone(), event.stamp.clone(), &REWARDS.tariff);
        let granted = grant(&event, &mut self.budgets, &REWARDS.policy, Micros(0))?;
        if !granted.amount.is_zero() {
            self.books.charge(event.reward_id, keys_of(&event), granted.amount, &mut self.budgets);
        }
        Some(Earning {
            reward: event.reward_id,
            total: event.total(),
            parts: event.parts,
            granted: granted.amount,
            charges: granted.charges,
        })
    }

    fn cancel(&mut self, event: &RewardCancelled) -> Option<Outcome> {
        let reward = event.reward_id;
        let amount = self
            .effects
            .insert(Effect::Refund(reward))
            .then(|| self.books.cancel(event, &mut self.budgets))?;
        Some(Outcome::Refunded { reward, amount })
    }
}
