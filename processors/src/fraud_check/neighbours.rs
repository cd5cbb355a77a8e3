//! Where a reading stands among the vehicle's verified ones, in the order of acceptance. One that comes late (the gateway could not publish
//! it in time, its record was a dead letter) is judged by the readings around its own place: what came after it says nothing against it.

use rust_decimal::Decimal;
use schemas::ids::Micros;
use serde::{Deserialize, Serialize};

/// Verified readings that a vehicle remembers. Of some 50 bytes each they are 800 bytes of its row, and half a month of a daily photo: what
/// is late by more goes to a person.
pub const REMEMBERED: usize = 16;

/// A verified reading of a vehicle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When its photo was accepted.
    #[serde(rename = "at")]
    pub accepted_at: Micros,
    /// The reading, kilometres, not below any that was accepted before it.
    pub km: Decimal,
    /// Whether nothing of the vehicle that was accepted before it is verified.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
}

impl Verified {
    /// Adds the newest reading.
    pub(super) fn newest(recent: &mut Vec<Self>, accepted_at: Micros, km: Decimal, first: bool) {
        recent.push(Self { accepted_at, km, first });
        forget(recent);
    }
}

fn forget(recent: &mut Vec<Verified>) {
    recent.drain(..recent.len().saturating_sub(REMEMBERED));
}

/// The place of a reading that comes late: a newer photo of the vehicle is verified already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Late {
    /// The verified reading before it; none where none is known.
    pub older_km: Option<Decimal>,
    /// The verified reading after it.
    pub newer_km: Decimal,
    /// Whether nothing before it is verified; false where that is forgotten.
    pub is_first: bool,
    place: usize,
}

impl Late {
    /// The place among these readings of one accepted at this time; none where it is the newest. Of two accepted at one time the first
    /// verified is the older.
    #[must_use]
    pub fn of(recent: &[Verified], accepted_at: Micros) -> Option<Self> {
        let place = recent.partition_point(|verified| verified.accepted_at <= accepted_at);
        let newer = recent.get(place)?;
        let older = place.checked_sub(1).and_then(|before| recent.get(before));
        Some(Self {
            older_km: older.map(|older| older.km),
            newer_km: newer.km,
            is_first: older.is_none() && newer.first,
            place,
        })
    }

    /// Whether a reading fits in between: a display without tenths shows up to `digit_km` less than it has driven.
    #[must_use]
    pub fn holds(&self, km: Decimal, digit_km: Decimal) -> bool {
        let above = self.older_km.map_or(self.is_first, |older| km + digit_km > older);
        above && km <= self.newer_km
    }

    /// Puts a reading that fits into its place.
    pub(super) fn insert(&self, recent: &mut Vec<Verified>, accepted_at: Micros, km: Decimal) {
        if let Some(newer) = recent.get_mut(self.place).filter(|_| self.is_first) {
            newer.first = false;
        }
        let km = self.older_km.map_or(km, |older| km.max(older));
        recent.insert(self.place.min(recent.len()), Verified { accepted_at, km, first: self.is_first });
        forget(recent);
    }
}
