//! The vehicles of a batch: locked, folded in order in memory, written back in one statement.

use std::collections::{BTreeMap, BTreeSet};

use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::Unit;
use schemas::ids::{Micros, UploadId, UserId, VehicleId};
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};

use super::facts::VehicleState;
use super::neighbours::Verified;

/// The vehicles of a batch, as far as they have a verified reading. One that changes hands is met in two partitions: its row's lock makes
/// their transactions take turns.
#[derive(Debug, Default)]
pub struct Vehicles {
    states: BTreeMap<VehicleId, VehicleState>,
    /// Those that have a row.
    stored: BTreeSet<VehicleId>,
    changed: BTreeSet<VehicleId>,
}

/// Rows that are there are moved; of two first readings of a vehicle at once, in two partitions, the second fails and is decided again
/// behind the first.
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
     )
     insert into vehicle_readings (vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id, unit_shown, recent)
     select vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id, unit_shown, recent from asked
     where not is_stored and (select count(*) >= 0 from moved)";

impl Vehicles {
    /// Reads and locks the vehicles, in key order, so that two transactions never wait for one another in a circle.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer or holds a unit that is none.
    pub async fn load(tx: &mut PgConnection, keys: &BTreeSet<VehicleId>) -> Result<Self, StageError> {
        // A look-up a key, in the order of the keys: a join may read the whole table, and then locks in another order.
        let rows = sqlx::query(
            "select v.* from unnest($1::uuid[]) as k (vehicle_id) cross join lateral (
                select vehicle_id, user_id, last_km, highest_km, unit, unit_shown, last_at, last_upload_id, recent
                from vehicle_readings r where r.vehicle_id = k.vehicle_id for update limit 1
             ) v",
        )
        .bind(keys.iter().map(|vehicle| vehicle.0).collect::<Vec<_>>())
        .fetch_all(tx)
        .await?;
        let mut states = BTreeMap::new();
        for row in rows {
            let key = VehicleId(row.try_get("vehicle_id")?);
            let state = VehicleState {
                last_km: row.try_get::<Decimal, _>("last_km")?.normalize(),
                highest_km: row.try_get::<Decimal, _>("highest_km")?.normalize(),
                unit: unit(row.try_get("unit")?)?,
                unit_shown: row.try_get::<Option<&str>, _>("unit_shown")?.map(unit).transpose()?,
                last_at: Micros::from(row.try_get::<DateTime<Utc>, _>("last_at")?),
                last_upload_id: UploadId(row.try_get("last_upload_id")?),
                recent: row.try_get::<Json<Vec<Verified>>, _>("recent")?.0,
                owner: UserId(row.try_get("user_id")?),
            };
            states.insert(key, state);
        }
        let stored = states.keys().copied().collect();
        Ok(Self { states, stored, changed: BTreeSet::new() })
    }

    /// The vehicle now: after what was decided earlier in this batch.
    #[must_use]
    pub fn get(&self, key: &VehicleId) -> Option<&VehicleState> {
        self.states.get(key)
    }

    /// Moves a vehicle.
    pub fn set(&mut self, key: VehicleId, state: VehicleState) {
        self.states.insert(key, state);
        self.changed.insert(key);
    }

    /// Writes what moved.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn store(&self, tx: &mut PgConnection) -> Result<(), StageError> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let rows = || self.changed.iter().filter_map(|key| Some((key, self.states.get(key)?)));
        sqlx::query(STORE)
            .bind(rows().map(|(key, _)| key.0).collect::<Vec<_>>())
            .bind(rows().map(|(_, state)| state.owner.0).collect::<Vec<_>>())
            .bind(rows().map(|(_, state)| state.last_km).collect::<Vec<_>>())
            .bind(rows().map(|(_, state)| state.highest_km).collect::<Vec<_>>())
            .bind(rows().map(|(_, state)| state.unit.label()).collect::<Vec<_>>())
            .bind(rows().map(|(_, state)| state.last_at.to_utc()).collect::<Vec<_>>())
            .bind(rows().map(|(_, state)| state.last_upload_id.0).collect::<Vec<_>>())
            .bind(rows().map(|(_, state)| state.unit_shown.map(Unit::label)).collect::<Vec<_>>())
            .bind(rows().map(|(_, state)| Json(&state.recent)).collect::<Vec<_>>())
            .bind(rows().map(|(key, _)| self.stored.contains(key)).collect::<Vec<_>>())
            .execute(tx)
            .await?;
        Ok(())
    }
}

fn unit(label: &str) -> Result<Unit, StageError> {
    [Unit::Km, Unit::Miles]
        .into_iter()
        .find(|unit| unit.label() == label)
        .ok_or_else(|| StageError::new("vehicle_readings", format!("{label} is no unit")))
}
