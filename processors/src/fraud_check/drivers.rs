//! The drivers of a batch: locked, folded in order in memory, written back in one statement.

use std::collections::{BTreeMap, BTreeSet};

use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::{DriverFacts, Verdict};
use schemas::ids::UserId;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};

use super::conduct::{Became, Conduct};
use super::weeks::DriverWeeks;

/// The drivers of a batch, as far as anything is kept of them.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    weeks: Kept<DriverWeeks>,
    conduct: Kept<Conduct>,
}

/// What one table keeps of drivers.
#[derive(Debug)]
struct Kept<T> {
    of: BTreeMap<UserId, T>,
    changed: BTreeSet<UserId>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<T> Kept<T> {
    fn set(&mut self, user: UserId, value: T) {
        self.of.insert(user, value);
        self.changed.insert(user);
    }

    /// What changed, in the order of the keys.
    fn changed(&self) -> impl Iterator<Item = (&UserId, &T)> {
        self.changed.iter().filter_map(|user| Some((user, self.of.get(user)?)))
    }

    fn users(&self) -> Vec<sqlx::types::Uuid> {
        self.changed().map(|(user, _)| user.0).collect()
    }
}

/// A look-up a key and table, in the order of the keys: see [`Vehicles`](super::state::Vehicles).
const LOAD: &str = "select k.user_id, w.newest, w.verified, w.earning, c.uploads, c.frauds
     from unnest($1::uuid[]) as k (user_id)
       left join lateral (
         select newest, verified, earning from driver_weeks where driver_weeks.user_id = k.user_id for update limit 1) w on true
       left join lateral (
         select uploads, frauds from driver_conduct where driver_conduct.user_id = k.user_id for update limit 1) c on true";

/// The one table before the other, in every transaction.
const STORE: &str = "with weeks as (
       insert into driver_weeks (user_id, newest, verified, earning)
       select * from unnest($1::uuid[], $2::int[], $3::bigint[], $4::bigint[])
       on conflict (user_id) do update set newest = excluded.newest, verified = excluded.verified, earning = excluded.earning
       returning 1
     )
     insert into driver_conduct (user_id, uploads, frauds)
     select c.* from unnest($5::uuid[], $6::jsonb[], $7::jsonb[]) as c (user_id, uploads, frauds)
     where (select count(*) >= 0 from weeks)
     on conflict (user_id) do update set uploads = excluded.uploads, frauds = excluded.frauds";

impl Drivers {
    /// Reads and locks the drivers, in key order, as [`Vehicles`](super::state::Vehicles) does with vehicles.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn load(tx: &mut PgConnection, users: &BTreeSet<UserId>) -> Result<Self, StageError> {
        let users: Vec<_> = users.iter().map(|user| user.0).collect();
        let mut drivers = Self::default();
        for row in sqlx::query(LOAD).bind(users).fetch_all(tx).await? {
            let user = UserId(row.try_get("user_id")?);
            if let Some(newest) = row.try_get("newest")? {
                let bits = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
                let weeks = DriverWeeks { newest, verified: bits("verified")?, earning: bits("earning")? };
                drivers.weeks.of.insert(user, weeks);
            }
            if let Some(Json(uploads)) = row.try_get("uploads")? {
                let Json(frauds) = row.try_get("frauds")?;
                drivers.conduct.of.insert(user, Conduct { uploads, frauds });
            }
        }
        Ok(drivers)
    }

    /// How a driver behaves now: after what was decided earlier in this batch.
    pub fn conduct(&self, user: &UserId) -> Option<&Conduct> {
        self.conduct.of.get(user)
    }

    /// Takes down what has become of an upload, and says what is to be said of it: something where it is verified.
    pub fn note(&mut self, became: &Became<'_>, distance_km: Option<Decimal>) -> Option<DriverFacts> {
        let header = &became.event.header;
        let user = header.user_id;
        let after = Conduct::after(self.conduct.of.get(&user), became);
        // Of somebody of whom nothing is kept there is no row.
        if self.conduct.of.get(&user).map_or(after != Conduct::default(), |before| *before != after) {
            self.conduct.set(user, after);
        }
        if became.verdict != Verdict::Verified {
            return None;
        }
        let before = self.weeks.of.get(&user).copied();
        let earns = distance_km.is_some_and(|km| !km.is_zero());
        let (facts, after) = DriverWeeks::after(before, header.accepted_at, earns);
        if before != Some(after) {
            self.weeks.set(user, after);
        }
        Some(facts)
    }

    /// Writes what changed.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn store(&self, tx: &mut PgConnection) -> Result<(), StageError> {
        if self.weeks.changed.is_empty() && self.conduct.changed.is_empty() {
            return Ok(());
        }
        let (weeks, conduct) = (|| self.weeks.changed(), || self.conduct.changed());
        sqlx::query(STORE)
            .bind(self.weeks.users())
            .bind(weeks().map(|(_, weeks)| weeks.newest).collect::<Vec<_>>())
            .bind(weeks().map(|(_, weeks)| weeks.verified.cast_signed()).collect::<Vec<_>>())
            .bind(weeks().map(|(_, weeks)| weeks.earning.cast_signed()).collect::<Vec<_>>())
            .bind(self.conduct.users())
            .bind(conduct().map(|(_, conduct)| Json(&conduct.uploads)).collect::<Vec<_>>())
            .bind(conduct().map(|(_, conduct)| Json(&conduct.frauds)).collect::<Vec<_>>())
            .execute(tx)
            .await?;
        Ok(())
    }
}
