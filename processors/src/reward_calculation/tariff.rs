//! The tariff: what a kilometre is worth, in versions. A changed value is a new version with the instant from which it
//! holds; what was accepted before is rewarded by the old one, also in a replay.
//!
//! The arithmetic, with the distance cut to two decimals and a rate of at most four: the base has at most six decimals
//! and is exact; a bonus of whole per cents of it has at most eight and is exact too. Everything therefore lies on the
//! grid of 1e-8 B3TR; the cut to it stands for a tariff with finer percentages.

use rust_decimal::{Decimal, RoundingStrategy};
use schemas::events::{PartKind, PartName, RewardCalculated, RewardPart, Stamp, UploadHeader};
use schemas::ids::{Micros, RewardId};

/// Decimals of an amount: 1e-8 B3TR is 10^10 wei.
const GRID: u32 = 8;
/// First distance, kilometres, that `rewards.distance_traveled` cannot hold.
const DISTANCE_END: Decimal = Decimal::from_parts(100_000_000, 0, 0, false, 0);
const HUNDRED: Decimal = Decimal::ONE_HUNDRED;

/// B3TR per kilometre in ten-thousandths: a fifth decimal, which the column lacks, cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u32);

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
    /// Names this version; stored in every reward.
    pub version: &'static str,
    /// The first acceptance that it holds for.
    pub from: Micros,
    /// B3TR per kilometre by what the vehicle runs on: the less a kilometre emits, the more it earns.
    pub rates: &'static [(&'static str, Rate)],
    /// B3TR per kilometre of a vehicle of any other kind.
    pub other_rate: Rate,
    /// Per cent of the base by the account's verification level: an account that is proven is worth more to the
    /// programme than one that anybody can make.
    pub level_percent: &'static [(&'static str, Decimal)],
    /// The most that one upload earns, B3TR: 2,000 km with petrol, more than a month of a usual driver. It bounds what a
    /// single misread photo can cost.
    pub upload_cap: Decimal,
}

/// Every version, oldest first. The first holds from the beginning of time.
pub const TARIFFS: &[Tariff] = &[Tariff {
    version: "1",
    from: Micros(i64::MIN),
    rates: &[
        ("petrol", Rate(100)),
        ("diesel", Rate(100)),
        ("lpg", Rate(120)),
        ("hybrid", Rate(150)),
        ("plug_in", Rate(200)),
        ("electric", Rate(250)),
    ],
    other_rate: Rate(100),
    level_percent: &[("verified", Decimal::from_parts(5, 0, 0, false, 0)), ("premium", Decimal::TEN)],
    upload_cap: Decimal::from_parts(20, 0, 0, false, 0),
}];

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
            tariff_version: tariff.version.to_owned(),
        }
    }
}

impl Tariff {
    /// The version in force at an acceptance.
    #[must_use]
    pub fn in_force(accepted_at: Micros) -> &'static Tariff {
        TARIFFS.iter().rev().find(|tariff| tariff.from <= accepted_at).unwrap_or(&TARIFFS[0])
    }

    /// The rate of a vehicle kind.
    #[must_use]
    pub fn rate(&self, vehicle_kind: &str) -> Rate {
        let found = self.rates.iter().find(|(kind, _)| *kind == vehicle_kind);
        found.map_or(self.other_rate, |(_, rate)| *rate)
    }

    /// What a distance earns; none where it is no distance (negative, or beyond its column). The cap takes from the bonus
    /// first and then from the base.
    #[must_use]
    pub fn earned(&self, distance_km: Decimal, stamp: &Stamp) -> Option<Earned> {
        if distance_km < Decimal::ZERO || distance_km >= DISTANCE_END {
            return None;
        }
        let distance_km = distance_km.round_dp_with_strategy(2, RoundingStrategy::ToZero).normalize();
        let rate = self.rate(&stamp.vehicle_kind).per_km();
        let (mut base, mut bonus) = (on_grid(distance_km * rate), Decimal::ZERO);
        let mut parts = Vec::new();
        let mut note = |name, kind, factor, amount: Decimal| {
            if !amount.is_zero() {
                parts.push(RewardPart { name, kind, factor, amount });
            }
        };
        note(PartName::Base, PartKind::Base, rate, base);
        let level = self.level_percent.iter().find(|(level, _)| *level == stamp.verification_level);
        if let Some((_, percent)) = level {
            bonus = on_grid(base * percent / HUNDRED);
            note(PartName::VerificationLevel, PartKind::Percent, *percent, bonus);
        }
        let over = (base + bonus - self.upload_cap).max(Decimal::ZERO);
        let from_bonus = over.min(bonus);
        bonus -= from_bonus;
        base -= over - from_bonus;
        note(PartName::UploadCap, PartKind::Cap, self.upload_cap, -over.normalize());
        Some(Earned { distance_km, rate, base: base.normalize(), bonus: bonus.normalize(), parts })
    }
}

/// An amount on the grid, rounded toward zero: never more than was earned.
fn on_grid(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(GRID, RoundingStrategy::ToZero).normalize()
}
