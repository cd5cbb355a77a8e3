//! The vehicles of a batch: locked, folded in order in memory, written back in one statement.

use std::collections::{BTreeMap, BTreeSet};

use runtime::StageError;
use rust_decimal::Decimal;
use schemas::events::{Unit, UploadHeader};
use schemas::ids::{Micros, UploadId, UserId, VehicleId};
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{PgConnection, Row as _};

use super::facts::VehicleState;
use super::neighbours::Verified;

/// A vehicle under one owner: a new owner begins with a baseline.
pub type VehicleKey = (VehicleId, UserId);

/// The vehicles of a batch, as far as they have a verified reading.
#[derive(Debug, Default)]
pub struct Vehicles {
    states: BTreeMap<VehicleKey, VehicleState>,
    changed: BTreeSet<VehicleKey>,
}

/// The vehicle that an upload is about.
#[must_use]
pub fn key_of(header: &UploadHeader) -> VehicleKey {
    (header.vehicle_id, header.user_id)
}

impl Vehicles {
    /// Reads and locks the vehicles, in key order, so that two transactions never wait for one another in a circle.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer or holds a unit that is none.
    pub async fn load(tx: &mut PgConnection, keys: &BTreeSet<VehicleKey>) -> Result<Self, StageError> {
        let (vehicles, users): (Vec<_>, Vec<_>) =
            keys.iter().map(|(vehicle, user)| (vehicle.0, user.0)).unzip();
        // A look-up a key, in the order of the keys: a join may read the whole table, and then locks in another order.
        let rows = sqlx::query(
            "select v.* from unnest($1::uuid[], $2::uuid[]) as k (vehicle_id, user_id) cross join lateral (
                select vehicle_id, user_id, last_km, highest_km, unit, unit_shown, last_at, last_upload_id, recent
                from vehicle_readings r
                where r.vehicle_id = k.vehicle_id and r.user_id = k.user_id for update limit 1
             ) v",
        )
        .bind(vehicles)
        .bind(users)
        .fetch_all(tx)
        .await?;
        let mut states = BTreeMap::new();
        for row in rows {
            let key = (VehicleId(row.try_get("vehicle_id")?), UserId(row.try_get("user_id")?));
            let state = VehicleState {
                last_km: row.try_get::<Decimal, _>("last_km")?.normalize(),
                highest_km: row.try_get::<Decimal, _>("highest_km")?.normalize(),
                unit: unit(row.try_get("unit")?)?,
                unit_shown: row.try_get::<Option<&str>, _>("unit_shown")?.map(unit).transpose()?,
                last_at: Micros::from(row.try_get::<DateTime<Utc>, _>("last_at")?),
                last_upload_id: UploadId(row.try_get("last_upload_id")?),
                recent: row.try_get::<Json<Vec<Verified>>, _>("recent")?.0,
            };
            states.insert(key, state);
        }
        Ok(Self { states, changed: BTreeSet::new() })
    }

    /// The vehicle now: after what was decided earlier in this batch.
    #[must_use]
    pub fn get(&self, key: &VehicleKey) -> Option<&VehicleState> {
        self.states.get(key)
    }

    /// Moves a vehicle.
    pub fn set(&mut self, key: VehicleKey, state: VehicleState) {
        self.states.insert(key, state);
        self.changed.insert(key);
    }

    /// Writes what moved.
    ///
    /// # Errors
    /// [`StageError`] when Postgres does not answer.
    pub async fn store(&self, tx: &mut PgConnection) -> Result<(), StageError> {
        let rows = || self.changed.iter().filter_map(|key| Some((key, self.states.get(key)?)));
        sqlx::query(
            "insert into vehicle_readings (vehicle_id, user_id, last_km, highest_km, unit, last_at, last_upload_id, unit_shown, recent)
             select * from unnest($1::uuid[], $2::uuid[], $3::numeric[], $4::numeric[], $5::text[],
                $6::timestamptz[], $7::uuid[], $8::text[], $9::jsonb[])
             on conflict (vehicle_id, user_id) do update set last_km = excluded.last_km,
                highest_km = excluded.highest_km, unit = excluded.unit, last_at = excluded.last_at,
                last_upload_id = excluded.last_upload_id, unit_shown = excluded.unit_shown, recent = excluded.recent",
        )
        .bind(rows().map(|(key, _)| key.0.0).collect::<Vec<_>>())
        .bind(rows().map(|(key, _)| key.1.0).collect::<Vec<_>>())
        .bind(rows().map(|(_, state)| state.last_km).collect::<Vec<_>>())
        .bind(rows().map(|(_, state)| state.highest_km).collect::<Vec<_>>())
        .bind(rows().map(|(_, state)| state.unit.label()).collect::<Vec<_>>())
        .bind(rows().map(|(_, state)| state.last_at.to_utc()).collect::<Vec<_>>())
        .bind(rows().map(|(_, state)| state.last_upload_id.0).collect::<Vec<_>>())
        .bind(rows().map(|(_, state)| state.unit_shown.map(Unit::label)).collect::<Vec<_>>())
        .bind(rows().map(|(_, state)| Json(&state.recent)).collect::<Vec<_>>())
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
