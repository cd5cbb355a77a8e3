//! How many photos of a user and of a vehicle are accepted, in `upload_counts`: money hangs on it, so that it holds over restarts and over
//! all gateways. A window is fixed: one of a day begins at midnight UTC, as the budgets of rewards do, and all that it allows may be taken
//! at once. What is counted is what is reserved: a photo that is refused, or known already, does not count.

use chrono::{DateTime, Utc};
use schemas::ids::{Micros, UserId, VehicleId};
use sqlx::{FromRow, PgConnection};

use crate::auth::rates::{Rate, Rates};
use crate::http::problem::{ApiError, RATE_LIMITED};

/// What is allowed of a user and of a vehicle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    pub(crate) user: Rate,
    pub(crate) vehicle: Rate,
}

impl Allowed {
    pub(crate) fn of(rates: &Rates) -> Self {
        Self { user: rates.uploads_per_user, vehicle: rates.uploads_per_vehicle }
    }
}

impl Rate {
    /// As the column has it.
    pub(crate) fn most(&self) -> i32 {
        i32::try_from(self.requests).unwrap_or(i32::MAX)
    }
}

/// What is counted before a photo is kept.
#[derive(Clone, Copy, Debug, Default, FromRow)]
pub(crate) struct Counts {
    user_window: Option<DateTime<Utc>>,
    user_taken: Option<i32>,
    vehicle_window: Option<DateTime<Utc>>,
    vehicle_taken: Option<i32>,
}

impl Counts {
    /// Refuses a photo that would be one too many. Reserving counts: this spares keeping what is refused there.
    pub(crate) fn check(&self, allowed: &Allowed, now: Micros) -> Result<(), ApiError> {
        let counts = [
            (allowed.user, self.user_window, self.user_taken, "you have"),
            (allowed.vehicle, self.vehicle_window, self.vehicle_taken, "this vehicle has"),
        ];
        for (rate, window, taken, whose) in counts {
            if window >= Some(window_start(rate, now.to_utc())) && taken.unwrap_or(0) >= rate.most() {
                return Err(refusal(rate, whose, now));
            }
        }
        Ok(())
    }
}

/// When the window of an instant began.
pub(crate) fn window_start(rate: Rate, at: DateTime<Utc>) -> DateTime<Utc> {
    let window = i64::try_from(rate.window.as_secs()).unwrap_or(i64::MAX).max(1);
    DateTime::from_timestamp(at.timestamp() - at.timestamp().rem_euclid(window), 0).unwrap_or(at)
}

fn refusal(rate: Rate, whose: &str, now: Micros) -> ApiError {
    let begun = window_start(rate, now.to_utc()).timestamp();
    let ends = begun.saturating_add(i64::try_from(rate.window.as_secs()).unwrap_or(i64::MAX));
    let wait = u64::try_from(ends - now.to_utc().timestamp()).unwrap_or(1).max(1);
    let most = rate.requests;
    RATE_LIMITED
        .because(format!("{whose} {most} photos already: send the next one in {wait} s"))
        .retry_after(wait)
}

/// Counts a photo, or refuses it: the transaction is rolled back then.
pub(crate) async fn count(
    tx: &mut PgConnection,
    (user, vehicle): (UserId, VehicleId),
    allowed: &Allowed,
    now: Micros,
) -> Result<(), ApiError> {
    let subjects = [(user.0, allowed.user), (vehicle.0, allowed.vehicle)];
    let counted: Vec<bool> = sqlx::query_scalar(
        "insert into upload_counts as c (subject, of_vehicle, window_start, taken, most)
         select subject, of_vehicle, window_start, 1, most from unnest($1::uuid[], $2::timestamptz[], $3::int[], array[false, true])
           as asked (subject, window_start, most, of_vehicle) order by subject, of_vehicle
         on conflict (subject, of_vehicle) do update set window_start = greatest(c.window_start, excluded.window_start), most = excluded.most,
           taken = 1 + case when excluded.window_start > c.window_start then 0 else c.taken end
         where case when excluded.window_start > c.window_start then 0 else c.taken end < excluded.most
         returning c.of_vehicle",
    )
    .bind(subjects.map(|(subject, _)| subject))
    .bind(subjects.map(|(_, rate)| window_start(rate, now.to_utc())))
    .bind(subjects.map(|(_, rate)| rate.most()))
    .fetch_all(tx)
    .await?;
    let refused = |of_vehicle, rate, whose| match counted.contains(&of_vehicle) {
        true => Ok(()),
        false => Err(refusal(rate, whose, now)),
    };
    refused(false, allowed.user, "you have")?;
    refused(true, allowed.vehicle, "this vehicle has")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_day_begins_at_midnight_and_ends_at_the_next() {
        let day = Rate::new(20, Duration::from_secs(86_400));
        let at: DateTime<Utc> = "2026-03-04T23:59:30Z".parse().unwrap();
        assert_eq!(window_start(day, at).to_rfc3339(), "2026-03-04T00:00:00+00:00");
        let counts =
            Counts { user_window: Some(window_start(day, at)), user_taken: Some(20), ..Counts::default() };
        let allowed = Allowed { user: day, vehicle: day };
        let error = counts.check(&allowed, at.into()).unwrap_err();
        assert!(error.to_string().ends_with("in 30 s"), "{error}");
        counts.check(&allowed, (at + chrono::TimeDelta::seconds(30)).into()).unwrap();
    }
}
