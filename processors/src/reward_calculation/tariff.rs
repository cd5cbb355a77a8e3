//! The tariff: what a kilometre is worth, and which bonuses are added.
//!
//! The arithmetic, with the distance cut to two decimals and a rate of at most four: the base has at most six decimals
//! and is exact; a bonus of whole per cents of it has at most eight and is exact too. Everything therefore lies on the
//! grid of 1e-8 B3TR; finer percentages are cut to it.

use std::collections::BTreeMap;

use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{PartKind, PartName, RewardCalculated, RewardPart, Stamp, UploadHeader};
use schemas::ids::RewardId;

use super::bonus::{self, Bonus, Known};

/// Decimals of an amount: 1e-8 B3TR is 10^10 wei.
const GRID: u32 = 8;
/// First distance, kilometres, that `rewards.distance_traveled` cannot hold.
const DISTANCE_END: Decimal = Decimal::from_parts(100_000_000, 0, 0, false, 0);
const HUNDRED: Decimal = Decimal::ONE_HUNDRED;

/// B3TR per kilometre in ten-thousandths: a fifth decimal, which the column lacks, cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u32);

impl Rate {
    /// B3TR per kilometre.
    #[must_use]
    pub fn per_km(self) -> Decimal {
        Decimal::new(self.0.into(), 4).normalize()
    }
}

/// A version of the tariff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tariff {
    /// Names the version of the rules; stored in every reward.
    pub version: String,
    /// By what the vehicle runs on: the less a kilometre emits, the more it earns.
    pub rates: BTreeMap<String, Rate>,
    /// Of a vehicle of any other kind.
    pub other_rate: Rate,
    /// What is added to the base, in this order.
    pub bonuses: Vec<Bonus>,
    /// The most that one upload earns, B3TR. It bounds what a single misread photo can cost.
    pub upload_cap: Decimal,
}

/// What an upload earns, before any budget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earned {
    /// Kilometres, cut to two decimals.
    pub distance_km: Decimal,
    /// B3TR per kilometre.
    pub rate: Decimal,
    /// B3TR for the distance after the cap.
    pub base: Decimal,
    /// B3TR of the bonuses after the cap.
    pub bonus: Decimal,
    /// Every factor that moved the amount; together base and bonus.
    pub parts: Vec<RewardPart>,
}

impl Earned {
    /// Base and bonus together.
    #[must_use]
    pub fn total(&self) -> Decimal {
        self.base + self.bonus
    }

    /// The event that reports it.
    #[must_use]
    pub fn into_event(self, header: UploadHeader, stamp: Stamp, tariff: &Tariff) -> RewardCalculated {
        RewardCalculated {
            reward_id: RewardId::of(header.upload_id),
            header,
            stamp,
            distance_km: self.distance_km,
            rate: self.rate,
            base: self.base,
            bonus: self.bonus,
            parts: self.parts,
            tariff_version: tariff.version.clone(),
            adjustment: None,
        }
    }
}

impl Tariff {
    /// The rate of a vehicle kind.
    #[must_use]
    pub fn rate(&self, vehicle_kind: &str) -> Rate {
        self.rates.get(vehicle_kind).copied().unwrap_or(self.other_rate)
    }

    /// What a distance earns; none where it is no distance (negative, or beyond its column). Each bonus is worked out from the base alone,
    /// so that their order does not matter. The cap takes from the bonuses first and then from the base.
    #[must_use]
    pub fn earned(&self, distance_km: Decimal, known: &Known<'_>) -> Option<Earned> {
        if distance_km < Decimal::ZERO || distance_km >= DISTANCE_END {
            return None;
        }
        let distance_km = distance_km.round_dp_with_strategy(2, RoundingStrategy::ToZero).normalize();
        let rate = self.rate(&known.stamp.vehicle_kind).per_km();
        let (mut base, mut bonus) = (on_grid(distance_km * rate), Decimal::ZERO);
        let mut parts = Vec::new();
        let mut note = |name, kind, factor, amount: Decimal, label| {
            if !amount.is_zero() {
                parts.push(RewardPart { name, kind, factor, amount, label });
            }
        };
        note(PartName::Base, PartKind::Base, rate, base, None);
        for one in bonus::that_apply(&self.bonuses, known) {
            let share = base * one.percent / HUNDRED;
            let amount = on_grid(one.at_most.map_or(share, |most| share.min(most)));
            bonus += amount;
            note(one.fact.part(), PartKind::Percent, one.percent, amount, Some(one.name.clone()));
        }
        let over = (base + bonus - self.upload_cap).max(Decimal::ZERO);
        let from_bonus = over.min(bonus);
        bonus -= from_bonus;
        base -= over - from_bonus;
        note(PartName::UploadCap, PartKind::Cap, self.upload_cap, -over.normalize(), None);
        Some(Earned { distance_km, rate, base: base.normalize(), bonus: bonus.normalize(), parts })
    }
}

/// An amount on the grid, rounded toward zero: never more than was earned.
fn on_grid(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(GRID, RoundingStrategy::ToZero).normalize()
}
