//! What a driver's verified uploads say at one of them: `fraud_check` sees them in their order, and stamps it into the decision, so that
//! rewards are worked out without a look-up.

use schemas::events::DriverFacts;
use schemas::ids::Micros;

/// Days, in microseconds.
const DAY_US: i64 = 86_400_000_000;
/// Days from Monday to the Thursday that 1970-01-01 was.
const THURSDAY: i64 = 3;

/// In which of the last 64 ISO weeks a driver has verified photos.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriverWeeks {
    /// The newest, counted from that of 1970-01-01.
    pub newest: i32,
    /// Bit n: whether there was a verified photo n weeks before the newest.
    pub verified: u64,
    /// The same of those that earned something.
    pub earning: u64,
}

/// The ISO week of an instant, UTC, counted from that of 1970-01-01.
fn week(at: Micros) -> i32 {
    let day = at.0.div_euclid(DAY_US);
    // At most 15 million, for every instant that 64 bits of microseconds hold.
    i32::try_from((day + THURSDAY).div_euclid(7)).unwrap_or(i32::MAX)
}

impl DriverWeeks {
    /// What is to be said of a verified upload, and the weeks after it. One that comes late counts in the week of its acceptance; one from
    /// before all that is held says nothing and moves nothing.
    #[must_use]
    pub fn after(before: Option<Self>, accepted_at: Micros, earns: bool) -> (DriverFacts, Self) {
        let week = week(accepted_at);
        let mut weeks = before.unwrap_or(Self { newest: week, ..Self::default() });
        let ahead = week.saturating_sub(weeks.newest);
        if ahead > 0 {
            let forward = |bits: u64| bits.checked_shl(ahead.unsigned_abs()).unwrap_or(0);
            weeks = Self { newest: week, verified: forward(weeks.verified), earning: forward(weeks.earning) };
        }
        let back = weeks.newest.saturating_sub(week).unsigned_abs();
        let Some(bit) = 1_u64.checked_shl(back) else {
            return (DriverFacts { streak_weeks: 0, first_of_week: false }, weeks);
        };
        let first_of_week = earns && weeks.earning & bit == 0;
        weeks.verified |= bit;
        if earns {
            weeks.earning |= bit;
        }
        let streak = (weeks.verified >> back).trailing_ones();
        (DriverFacts { streak_weeks: i32::try_from(streak).unwrap_or(i32::MAX), first_of_week }, weeks)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chrono::{DateTime, Datelike as _, Utc};
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> Micros {
        Micros::from(text.parse::<DateTime<Utc>>().unwrap())
    }

    /// What each verified upload says: its streak, and whether it is the first of its week.
    fn facts(uploads: &[(&str, bool)]) -> Vec<(i32, bool)> {
        let mut weeks = None;
        uploads
            .iter()
            .map(|(accepted, earns)| {
                let (facts, after) = DriverWeeks::after(weeks, at(accepted), *earns);
                weeks = Some(after);
                (facts.streak_weeks, facts.first_of_week)
            })
            .collect()
    }

    #[test]
    fn a_streak_is_of_iso_weeks_of_utc_and_the_first_photo_of_a_week_is_the_first_that_earns() {
        let days = [
            ("2026-03-01T23:59:59Z", false),
            ("2026-03-02T00:00:00Z", false),
            ("2026-03-03T12:00:00Z", true),
            ("2026-03-08T23:59:59Z", true),
            ("2026-03-09T00:00:00Z", true),
            ("2026-03-23T00:00:00Z", true),
        ];
        assert_eq!(facts(&days), [(1, false), (2, false), (2, true), (2, false), (3, true), (1, true)]);
        assert_eq!(facts(&[("2026-12-31T12:00:00Z", true), ("2027-01-01T12:00:00Z", true)])[1], (1, false));
    }

    #[test]
    fn what_a_person_verifies_later_counts_in_its_own_week_and_closes_the_gap_for_what_follows() {
        let days = [
            ("2026-03-02T00:00:00Z", true),
            ("2026-03-16T00:00:00Z", true),
            ("2026-03-09T00:00:00Z", true),
            ("2026-03-17T00:00:00Z", true),
        ];
        assert_eq!(facts(&days), [(1, true), (1, true), (2, true), (3, false)]);
    }

    #[test]
    fn what_is_older_than_all_that_is_held_says_nothing_and_a_long_pause_begins_anew() {
        let days = [("2026-03-02T00:00:00Z", true), ("2024-03-02T00:00:00Z", true)];
        assert_eq!(facts(&days)[1], (0, false));
        let days = [("2024-03-02T00:00:00Z", true), ("2026-03-02T00:00:00Z", true)];
        assert_eq!(facts(&days)[1], (1, true));
        let (_, weeks) = DriverWeeks::after(None, Micros(i64::MIN), true);
        let (newest, _) = DriverWeeks::after(Some(weeks), Micros(i64::MAX), true);
        assert_eq!((newest.streak_weeks, newest.first_of_week), (1, true));
    }

    proptest! {
        #![proptest_config(crate::properties::tried(16_384))]

        #[test]
        fn in_any_order_each_week_has_one_first_photo_and_a_streak_is_what_a_calendar_counts(
            days in prop::collection::vec((19_000_i64..19_400, any::<bool>()), 1..40),
        ) {
            let (mut weeks, mut verified, mut paid) = (None, BTreeSet::new(), BTreeSet::new());
            for (day, earns) in days {
                let accepted = Micros(day * DAY_US + 5);
                let (facts, after) = DriverWeeks::after(weeks, accepted, earns);
                weeks = Some(after);
                let date = accepted.to_utc().date_naive();
                let monday = day - i64::from(date.weekday().num_days_from_monday());
                verified.insert(monday);
                let streak = (0..).take_while(|back| verified.contains(&(monday - 7 * back))).count();
                prop_assert_eq!(usize::try_from(facts.streak_weeks).unwrap(), streak.min(64));
                prop_assert_eq!(facts.first_of_week, earns && paid.insert(monday));
            }
        }
    }
}
