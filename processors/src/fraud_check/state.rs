//! What is kept of the vehicles and drivers of a batch: read and locked by one statement, folded in order in memory, written back by one.

use std::collections::BTreeSet;

use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::Unit;
use schemas::ids::{Micros, UploadId, UserId, VehicleId};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};

use super::conduct::Conduct;
use super::drivers::Drivers;
use super::facts::VehicleState;
use super::kept::Kept;
use super::neighbours::Verified;
use super::weeks::DriverWeeks;

/// The vehicles of a batch that have a verified reading, and its drivers. A vehicle that changes hands is met in two partitions: its row's
/// lock makes their transactions take turns. A driver is met in one.
#[derive(Debug, Default)]
pub struct State {
    /// The vehicles.
    pub vehicles: Kept<VehicleId, VehicleState>,
    /// The drivers.
    pub(super) drivers: Drivers,
}

/// A look-up a key, in the order of the keys: a join may read a whole table, and then locks in another order.
const LOAD: &str = "select k.*, v.*, w.*, c.*
     from unnest($1::uuid[], $2::uuid[]) as k (vehicle_id, driver_id)
       left join lateral (
         select user_id, last_km, highest_km, unit, unit_shown, last_at, last_upload_id, recent
         from vehicle_readings r where r.vehicle_id = k.vehicle_id for update limit 1) v on true
       left join lateral (
         select newest, verified, earning from driver_weeks d where d.user_id = k.driver_id for update limit 1) w on true
       left join lateral (
         select uploads, frauds from driver_conduct d where d.user_id = k.driver_id for update limit 1) c on true";

/// One table after the other. Of two first readings of a vehicle at once, in two partitions, the second fails and is decided again behind
/// the first.
const STORE: &str = "with asked as materialized (
       select * from unnest($1::uuid[], $2::uuid[], $3::numeric[], $4::numeric[], $5::text[], $6::timestamptz[], $7::uuid[], $8::text[],
                            $9::jsonb[], $10::boolean[])
         as asked (vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id, unit_shown, recent, is_stored)
     ), moved as (
       insert into vehicle_readings (vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id, unit_shown, recent)
       select vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id, unit_shown, recent from asked where is_stored
       on conflict (vehicle_id) do update set user_id = excluded.user_id, last_km = excluded.last_km,
         highest_km = excluded.highest_km, unit = excluded.unit, last_at = excluded.last_at,
         last_upload_id = excluded.last_upload_id, unit_shown = excluded.unit_shown, recent = excluded.recent
       returning 1
     ), added as (
       insert into vehicle_readings (vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id, unit_shown, recent)
       select vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id, unit_shown, recent from asked
       where not is_stored and (select count(*) >= 0 from moved)
       returning 1
     ), weeks as (
       insert into driver_weeks (user_id, newest, verified, earning)
       select w.* from unnest($11::uuid[], $12::int[], $13::bigint[], $14::bigint[]) as w (user_id, newest, verified, earning)
       where (select count(*) >= 0 from added)
       on conflict (user_id) do update set newest = excluded.newest, verified = excluded.verified, earning = excluded.earning
       returning 1
     )
     insert into driver_conduct (user_id, uploads, frauds)
     select c.* from unnest($15::uuid[], $16::jsonb[], $17::jsonb[]) as c (user_id, uploads, frauds)
     where (select count(*) >= 0 from weeks)
     on conflict (user_id) do update set uploads = excluded.uploads, frauds = excluded.frauds";

impl State {
    /// Reads and locks vehicles and drivers, in key order, so that two transactions never wait for one another in a circle.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer or holds a unit that is none.
    pub async fn load(
        tx: &mut PgConnection,
        vehicles: &BTreeSet<VehicleId>,
        drivers: &BTreeSet<UserId>,
    ) -> Result<Self, StageError> {
        let rows = sqlx::query(LOAD)
            .bind(vehicles.iter().map(|vehicle| vehicle.0).collect::<Vec<_>>())
            .bind(drivers.iter().map(|driver| driver.0).collect::<Vec<_>>())
            .fetch_all(tx)
            .await?;
        let mut state = Self::default();
        for row in rows {
            state.read(&row)?;
        }
        Ok(state)
    }

    /// A row has a vehicle, a driver, or both: the next of either.
    fn read(&mut self, row: &PgRow) -> Result<(), StageError> {
        if let (Some(key), Some(last_km)) = (row.try_get("vehicle_id")?, row.try_get("last_km")?) {
            self.vehicles.read(VehicleId(key), vehicle(row, last_km)?);
        }
        let Some(driver) = row.try_get::<Option<_>, _>("driver_id")?.map(UserId) else { return Ok(()) };
        if let Some(newest) = row.try_get("newest")? {
            let bits = |column| row.try_get::<i64, _>(column).map(i64::cast_unsigned);
            let weeks = DriverWeeks { newest, verified: bits("verified")?, earning: bits("earning")? };
            self.drivers.weeks.read(driver, weeks);
        }
        if let Some(Json(uploads)) = row.try_get("uploads")? {
            let Json(frauds) = row.try_get("frauds")?;
            self.drivers.conduct.read(driver, Conduct { uploads, frauds });
        }
        Ok(())
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn store(&self, tx: &mut PgConnection) -> Result<(), StageError> {
        let Self { vehicles, drivers: Drivers { weeks, conduct } } = self;
        if !vehicles.has_changed() && !weeks.has_changed() && !conduct.has_changed() {
            return Ok(());
        }
        sqlx::query(STORE)
            .bind(vehicles.column(|key, _| key.0))
            .bind(vehicles.column(|_, state| state.owner.0))
            .bind(vehicles.column(|_, state| state.last_km))
            .bind(vehicles.column(|_, state| state.highest_km))
            .bind(vehicles.column(|_, state| state.unit.label()))
            .bind(vehicles.column(|_, state| state.last_at.to_utc()))
            .bind(vehicles.column(|_, state| state.last_upload_id.0))
            .bind(vehicles.column(|_, state| state.unit_shown.map(Unit::label)))
            .bind(vehicles.column(|_, state| Json(&state.recent)))
            .bind(vehicles.column(|key, _| vehicles.is_stored(key)))
            .bind(weeks.column(|user, _| user.0))
            .bind(weeks.column(|_, weeks| weeks.newest))
            .bind(weeks.column(|_, weeks| weeks.verified.cast_signed()))
            .bind(weeks.column(|_, weeks| weeks.earning.cast_signed()))
            .bind(conduct.column(|user, _| user.0))
            .bind(conduct.column(|_, conduct| Json(&conduct.uploads)))
            .bind(conduct.column(|_, conduct| Json(&conduct.frauds)))
            .execute(tx)
            .await?;
        Ok(())
    }
}

fn vehicle(row: &PgRow, last_km: Decimal) -> Result<VehicleState, StageError> {
    Ok(VehicleState {
        last_km: last_km.normalize(),
        highest_km: row.try_get::<Decimal, _>("highest_km")?.normalize(),
        unit: unit(row.try_get("unit")?)?,
        unit_shown: row.try_get::<Option<&str>, _>("unit_shown")?.map(unit).transpose()?,
        last_at: Micros::from(row.try_get::<DateTime<Utc>, _>("last_at")?),
        last_upload_id: UploadId(row.try_get("last_upload_id")?),
        recent: row.try_get::<Json<Vec<Verified>>, _>("recent")?.0,
        owner: UserId(row.try_get("user_id")?),
    })
}

fn unit(label: &str) -> Result<Unit, StageError> {
    [Unit::Km, Unit::Miles]
        .into_iter()
        .find(|unit| unit.label() == label)
        .ok_or_else(|| StageError::new("vehicle_readings", format!("{label} is no unit")))
}
