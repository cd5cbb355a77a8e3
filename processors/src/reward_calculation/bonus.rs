//! Bonuses: per cents of the base for what is known of an upload. What is known is stamped into the event, by the gateway at acceptance and
//! by `fraud_check`, which sees a driver's uploads in their order: nothing is looked up here.

use rust_decimal::Decimal;
use schemas::events::{DriverFacts, PartName, Stamp, UploadDecided};
use schemas::ids::Micros;

/// What is known of an upload.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What was true at acceptance.
    pub stamp: &'a Stamp,
    /// When it was accepted.
    pub accepted_at: Micros,
    /// What the driver's uploads before it say; none where a release before has decided it.
    pub driver: Option<&'a DriverFacts>,
}

impl<'a> Known<'a> {
    /// What a decision says.
    #[must_use]
    pub fn of(event: &'a UploadDecided) -> Self {
        Self { stamp: &event.stamp, accepted_at: event.header.accepted_at, driver: event.driver.as_ref() }
    }
}

/// What a bonus is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The account's verification level: an account that is proven is worth more to the programme than one that anybody can make.
    Level(String),
    /// At least so many ISO weeks in a row with a verified photo, this one's included.
    Streak {
        /// Weeks.
        weeks: i32,
    },
    /// The first photo of the driver in its ISO week that earns something.
    FirstOfWeek,
    /// An acceptance within a window.
    Campaign {
        /// The first instant.
        from: Micros,
        /// The first instant after it.
        until: Micros,
        /// The kinds of vehicle that it is for; empty for all.
        kinds: Vec<String>,
    },
}

impl Fact {
    /// The part of a reward that it makes.
    #[must_use]
    pub fn part(&self) -> PartName {
        match self {
            Self::Level(_) => PartName::VerificationLevel,
            Self::Streak { .. } => PartName::Streak,
            Self::FirstOfWeek => PartName::FirstOfWeek,
            Self::Campaign { .. } => PartName::Campaign,
        }
    }

    fn holds(&self, known: &Known<'_>) -> bool {
        match self {
            Self::Level(level) => known.stamp.verification_level == *level,
            Self::Streak { weeks } => known.driver.is_some_and(|driver| driver.streak_weeks >= *weeks),
            Self::FirstOfWeek => known.driver.is_some_and(|driver| driver.first_of_week),
            Self::Campaign { from, until, kinds } => {
                (*from..*until).contains(&known.accepted_at)
                    && (kinds.is_empty() || kinds.contains(&known.stamp.vehicle_kind))
            }
        }
    }

    /// Weeks of a streak.
    fn weeks(&self) -> Option<i32> {
        if let Self::Streak { weeks } = self { Some(*weeks) } else { None }
    }
}

/// A bonus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bonus {
    /// As the driver is told.
    pub name: String,
    /// What it is for.
    pub fact: Fact,
    /// Per cent of the base.
    pub percent: Decimal,
    /// The most that it adds to one upload, B3TR; none where only the upload's cap bounds it.
    pub at_most: Option<Decimal>,
}

/// The bonuses of an upload. Of several streaks the longest that is reached counts.
pub(super) fn that_apply<'a>(
    bonuses: &'a [Bonus],
    known: &'a Known<'_>,
) -> impl Iterator<Item = &'a Bonus> + use<'a> {
    let reached = bonuses.iter().filter(|bonus| bonus.fact.holds(known));
    let longest = reached.filter_map(|bonus| bonus.fact.weeks()).max();
    bonuses.iter().filter(move |bonus| {
        bonus.fact.holds(known) && bonus.fact.weeks().is_none_or(|weeks| Some(weeks) == longest)
    })
}
