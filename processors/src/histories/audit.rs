//! What must hold after every record of a history.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use rust_decimal::Decimal;
use schemas::events::{LimitType, Verdict};
use schemas::ids::{RewardId, VehicleId};

use super::world::{Earning, Outcome, REWARDS, World};

/// A vehicle's readings so far, kilometres.
#[derive(Clone, Copy)]
struct Driven {
    first: Decimal,
    newest: Decimal,
    paid: Decimal,
}

/// The books of somebody who sees outcomes alone.
#[derive(Default)]
pub(super) struct Audit {
    driven: BTreeMap<VehicleId, Driven>,
    granted: BTreeMap<RewardId, Decimal>,
    cancelled: BTreeSet<RewardId>,
}

impl Audit {
    /// Notes an outcome, and looks at everything.
    pub fn of(&mut self, world: &World, outcome: Option<&Outcome>) -> Result<(), TestCaseError> {
        match outcome {
            Some(Outcome::Decided { vehicle, verdict, read_km, distance_km, earned }) => {
                prop_assert_eq!(read_km.is_some(), distance_km.is_some());
                prop_assert!(*verdict != Verdict::Failed || (read_km.is_none() && earned.is_none()));
                if let (Some(km), Some(paid)) = (read_km, distance_km) {
                    self.drove(*vehicle, *km, *paid)?;
                }
                if let Some(earning) = earned {
                    self.earned(earning)?;
                }
            }
            Some(Outcome::Refunded { reward, amount }) => {
                self.cancelled.insert(*reward);
                let granted = self.granted.get(reward).copied().unwrap_or_default();
                prop_assert_eq!(*amount, granted, "a cancellation gives back what was granted");
            }
            None => {}
        }
        self.budgets(world)
    }

    /// The distance paid for a vehicle never exceeds its newest minus its first verified reading.
    fn drove(&mut self, vehicle: VehicleId, km: Decimal, paid: Decimal) -> Result<(), TestCaseError> {
        let driven =
            self.driven.entry(vehicle).or_insert(Driven { first: km, newest: km, paid: Decimal::ZERO });
        driven.newest = driven.newest.max(km);
        driven.paid += paid;
        prop_assert!(paid >= Decimal::ZERO);
        prop_assert!(driven.paid <= driven.newest - driven.first, "{} km", driven.paid);
        Ok(())
    }

    /// Parts sum to the total, of which no more than that is granted, once.
    fn earned(&mut self, earning: &Earning) -> Result<(), TestCaseError> {
        prop_assert_eq!(earning.parts.iter().map(|part| part.amount).sum::<Decimal>(), earning.total);
        prop_assert!(earning.total <= REWARDS.tariff.upload_cap);
        prop_assert!(earning.granted >= Decimal::ZERO && earning.granted <= earning.total);
        prop_assert!(earning.granted.scale() <= 8, "{}", earning.granted);
        prop_assert!(earning.charges.iter().all(|charge| charge.amount == earning.granted));
        prop_assert_eq!(self.granted.insert(earning.reward, earning.granted), None, "granted once");
        Ok(())
    }

    /// No limit is exceeded, each budget holds what is charged to it, and granted is owed and cancelled together.
    fn budgets(&self, world: &World) -> Result<(), TestCaseError> {
        let mut charged: BTreeMap<_, Decimal> = BTreeMap::new();
        for charge in world.charges().filter(|charge| !charge.refunded) {
            *charged.entry(charge.key).or_default() += charge.amount;
        }
        let mut held: BTreeMap<LimitType, Decimal> = BTreeMap::new();
        for (key, budget) in &world.budgets {
            prop_assert!(budget.current >= Decimal::ZERO);
            prop_assert!(budget.current <= REWARDS.policy.limit(key.1), "{} of {:?}", budget.current, key);
            prop_assert_eq!(budget.current, charged.get(key).copied().unwrap_or_default());
            *held.entry(key.1).or_default() += budget.current;
        }
        let owed: Decimal = self
            .granted
            .iter()
            .filter(|(reward, _)| !self.cancelled.contains(reward))
            .map(|(_, amount)| amount)
            .sum();
        for (limit_type, held) in held {
            prop_assert_eq!(held, owed, "{:?}", limit_type);
        }
        Ok(())
    }
}

/// What histories have shown.
#[derive(Debug, Default)]
pub(super) struct Seen(BTreeMap<&'static str, usize>);

impl Seen {
    /// Counts an outcome.
    pub fn note(&mut self, outcome: Option<&Outcome>) {
        let mut count = |what| *self.0.entry(what).or_default() += 1;
        match outcome {
            None => count("repeat"),
            Some(Outcome::Refunded { amount, .. }) if amount.is_zero() => count("cancelled before its grant"),
            Some(Outcome::Refunded { .. }) => count("refund"),
            Some(Outcome::Decided { verdict, earned, .. }) => {
                count(match verdict {
                    Verdict::Verified => "verified",
                    Verdict::Rejected => "rejected",
                    Verdict::Review => "review",
                    Verdict::Failed => "failed",
                });
                if let Some(earning) = earned {
                    let (granted, total) = (earning.granted, earning.total);
                    count(if granted == total {
                        "whole grant"
                    } else if granted.is_zero() {
                        "no grant"
                    } else {
                        "cut grant"
                    });
                }
            }
        }
    }

    /// What they have not shown.
    pub fn missing(&self) -> Vec<&'static str> {
        let wanted = [
            "repeat",
            "refund",
            "cancelled before its grant",
            "verified",
            "rejected",
            "review",
            "failed",
            "whole grant",
            "cut grant",
            "no grant",
        ];
        wanted.into_iter().filter(|what| !self.0.contains_key(what)).collect()
    }
}
