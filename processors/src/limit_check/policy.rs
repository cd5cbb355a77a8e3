//! The budgets of a version of the rules, and their periods.

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveTime, Utc};
use rust_decimal::Decimal;
use schemas::events::{LimitType, PersonalLimits};
use schemas::ids::Micros;

/// What happens to a reward that a budget does not hold whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverBudget {
    /// What is left is granted.
    Partial,
    /// Nothing is granted.
    Nothing,
}

/// A version of the budgets of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Names the version of the rules; stored in `decisions.rules_version` and in every grant.
    pub version: String,
    /// B3TR of a day.
    pub daily: Decimal,
    /// B3TR of an ISO week.
    pub weekly: Decimal,
    /// B3TR of a calendar month.
    pub monthly: Decimal,
    /// What happens over budget.
    pub over: OverBudget,
    /// B3TR that all users together are paid at most, checked when a payment is signed.
    pub pools: Vec<(LimitType, Decimal)>,
}

impl Policy {
    /// The budget of a type, B3TR.
    #[must_use]
    pub fn limit(&self, limit_type: LimitType) -> Decimal {
        match limit_type {
            LimitType::Daily => self.daily,
            LimitType::Weekly => self.weekly,
            LimitType::Monthly => self.monthly,
        }
    }

    /// The budget of a type for somebody who wants to earn so much at most, and whether that is what counts: it lowers a budget and never
    /// raises one.
    #[must_use]
    pub fn limited(&self, limit_type: LimitType, personal: Option<PersonalLimits>) -> (Decimal, bool) {
        let budget = self.limit(limit_type);
        let own = personal.and_then(|personal| match limit_type {
            LimitType::Daily => personal.daily,
            LimitType::Weekly => personal.weekly,
            LimitType::Monthly => personal.monthly,
        });
        match own {
            Some(own) if own < budget => (own.max(Decimal::ZERO), true),
            _ => (budget, false),
        }
    }
}

/// A day, ISO week or month of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Its first instant.
    pub start: Micros,
    /// The first instant of the next one.
    pub end: Micros,
}

impl Period {
    /// The period that an instant lies in. Instants beyond chrono's calendar have a period of that one instant.
    #[must_use]
    pub fn of(limit_type: LimitType, at: Micros) -> Self {
        let day = at.to_utc().date_naive();
        let ends = || {
            let start = match limit_type {
                LimitType::Daily => day,
                LimitType::Weekly => {
                    day.checked_sub_days(Days::new(day.weekday().num_days_from_monday().into()))?
                }
                LimitType::Monthly => day.with_day(1)?,
            };
            let end = match limit_type {
                LimitType::Daily => start.checked_add_days(Days::new(1)),
                LimitType::Weekly => start.checked_add_days(Days::new(7)),
                LimitType::Monthly => start.checked_add_months(Months::new(1)),
            };
            Some(Self { start: midnight(start), end: midnight(end?) })
        };
        ends().unwrap_or(Self { start: at, end: Micros(at.0.saturating_add(1)) })
    }
}

fn midnight(day: NaiveDate) -> Micros {
    Micros::from(DateTime::<Utc>::from_naive_utc_and_offset(day.and_time(NaiveTime::MIN), Utc))
}
