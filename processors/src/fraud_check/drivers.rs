//! The drivers of a batch: what is taken down of each upload, and what is said of it.

use rust_decimal::Decimal;
use schemas::events::{DriverFacts, Verdict};
use schemas::ids::UserId;

use super::conduct::{Became, Conduct};
use super::kept::Kept;
use super::weeks::DriverWeeks;

/// The drivers of a batch, as far as anything is kept of them.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    pub weeks: Kept<UserId, DriverWeeks>,
    pub conduct: Kept<UserId, Conduct>,
}

impl Drivers {
    /// Takes down what has become of an upload, and says what is to be said of it: something where it is verified.
    pub fn note(&mut self, became: &Became<'_>, distance_km: Option<Decimal>) -> Option<DriverFacts> {
        let header = &became.event.header;
        let user = header.user_id;
        let before = self.conduct.get(&user);
        let after = Conduct::after(before, became);
        // Of somebody of whom nothing is kept there is no row.
        if before.map_or(after != Conduct::default(), |before| *before != after) {
            self.conduct.set(user, after);
        }
        if became.verdict != Verdict::Verified {
            return None;
        }
        let before = self.weeks.get(&user).copied();
        let earns = distance_km.is_some_and(|km| !km.is_zero());
        let (facts, after) = DriverWeeks::after(before, header.accepted_at, earns);
        if before != Some(after) {
            self.weeks.set(user, after);
        }
        Some(facts)
    }
}
