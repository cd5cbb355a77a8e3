//! Where an instant falls: the hour, day, ISO week, month and year that hold it, UTC. Weeks do not nest in months, so each event is
//! added to every window itself.

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, TimeDelta, Timelike as _, Utc};

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// From a full hour.
    Hour,
    /// From midnight.
    Day,
    /// From Monday (ISO 8601).
    Week,
    /// From the 1st.
    Month,
    /// From January 1st.
    Year,
}

impl Period {
    /// Every period.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// The label of the column's enum.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }
}

/// A window of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    /// How long.
    pub period: Period,
    /// First instant.
    pub start: DateTime<Utc>,
    /// First instant after it.
    pub end: DateTime<Utc>,
}

impl Window {
    /// The window of a period that holds an instant; none at the far ends of the calendar.
    #[must_use]
    pub fn of(period: Period, at: DateTime<Utc>) -> Option<Self> {
        let day = at.date_naive();
        let midnight = |date: NaiveDate| Some(date.and_hms_opt(0, 0, 0)?.and_utc());
        let (start, end) = match period {
            Period::Hour => {
                let start = day.and_hms_opt(at.hour(), 0, 0)?.and_utc();
                (start, start.checked_add_signed(TimeDelta::hours(1))?)
            }
            Period::Day => (midnight(day)?, midnight(day.succ_opt()?)?),
            Period::Week => {
                let monday = day.checked_sub_days(Days::new(day.weekday().num_days_from_monday().into()))?;
                (midnight(monday)?, midnight(monday.checked_add_days(Days::new(7))?)?)
            }
            Period::Month => {
                let first = day.with_day(1)?;
                (midnight(first)?, midnight(first.checked_add_months(Months::new(1))?)?)
            }
            Period::Year => {
                let first = NaiveDate::from_ymd_opt(day.year(), 1, 1)?;
                (midnight(first)?, midnight(NaiveDate::from_ymd_opt(day.year() + 1, 1, 1)?)?)
            }
        };
        Some(Self { period, start, end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn windows_begin_where_the_calendar_says() {
        // 2027-01-01 is a Friday: its ISO week begins in the year before.
        let found: Vec<String> = Period::ALL
            .map(|period| Window::of(period, at("2027-01-01T13:59:59Z")).unwrap())
            .iter()
            .map(|window| format!("{} {}", window.start.format("%F %H"), window.end.format("%F %H")))
            .collect();
        assert_eq!(
            found,
            [
                "2027-01-01 13 2027-01-01 14",
                "2027-01-01 00 2027-01-02 00",
                "2026-12-28 00 2027-01-04 00",
                "2027-01-01 00 2027-02-01 00",
                "2027-01-01 00 2028-01-01 00"
            ]
        );
    }

    proptest! {
        #[test]
        fn every_instant_lies_in_its_windows_and_an_end_begins_the_next(seconds in 0_i64..8_000_000_000) {
            let at = DateTime::from_timestamp(seconds, 0).unwrap();
            for period in Period::ALL {
                let window = Window::of(period, at).unwrap();
                prop_assert!(window.start <= at && at < window.end);
                prop_assert_eq!(Window::of(period, window.start), Some(window));
                prop_assert_eq!(Window::of(period, window.end).unwrap().start, window.end);
            }
        }
    }
}
