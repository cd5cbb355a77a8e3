//! `/v1/vehicles`: what somebody drives. A vehicle has one owner. Its kind is stamped into photos that are accepted from then on.

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemas::impact::VEHICLE_KINDS;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use uuid::Uuid;

use super::audit::Change;
use super::{Account, given};
use crate::auth::admission::{Agent, Caller};
use crate::http::operation::{one_of, one_of_or_null};
use crate::http::problem::{ApiError, INVALID_FIELD, Problem, VEHICLE_LIMIT, VEHICLE_NOT_FOUND};
use crate::http::reply::{Created, Json};
use crate::http::request::{Dependency, JsonBody, Path, PathParameter, uuid_schema};
use crate::queries::page::{Page, PageQuery};
use crate::queries::payout::instant;

/// What a new vehicle can be refused for.
pub(crate) const ADD_REFUSALS: &[Problem] = &[INVALID_FIELD, VEHICLE_LIMIT];
/// What a change can be refused for.
pub(crate) const CHANGE_REFUSALS: &[Problem] = &[INVALID_FIELD];
/// Vehicles of an account that are not retired: a small fleet.
pub(super) const MOST: i64 = 50;
/// Characters of a name.
const NAME_MAX: usize = 100;
const UNITS: [&str; 2] = ["km", "miles"];

/// A vehicle's id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnVehicle(pub(super) Uuid);

impl FromStr for OwnVehicle {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl PathParameter for OwnVehicle {
    const MISSING: Problem = VEHICLE_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// A vehicle's row.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Row {
    id: Uuid,
    kind: String,
    unit: Option<String>,
    name: Option<String>,
    created_at: DateTime<Utc>,
    pub(super) retired_at: Option<DateTime<Utc>>,
}

/// A vehicle of yours
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VehicleDocument {
    /// Goes into vehicle_id of an upload
    vehicle_id: Uuid,
    #[schema(schema_with = kinds)]
    kind: String,
    /// The unit of its odometer
    #[schema(schema_with = units)]
    unit: Option<String>,
    name: Option<String>,
    /// Whether it is driven no more
    retired: bool,
    #[schema(format = DateTime)]
    created_at: String,
}

/// A vehicle
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewVehicle {
    /// unknown where it is left out
    #[serde(default)]
    #[schema(schema_with = kinds)]
    kind: Option<String>,
    #[serde(default)]
    #[schema(schema_with = units)]
    unit: Option<String>,
    /// 1 to 100 characters
    #[serde(default)]
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
}

/// What to change; what is left out stays as it is
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::option_option, reason = "left out, null, or a value")]
pub(crate) struct VehicleChange {
    #[serde(default)]
    #[schema(schema_with = kinds)]
    kind: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(schema_with = units)]
    unit: Option<Option<String>>,
    /// 1 to 100 characters; null takes it away
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 100)]
    name: Option<Option<String>>,
    #[serde(default)]
    retired: Option<bool>,
}

fn kinds() -> Schema {
    one_of(&VEHICLE_KINDS)
}

fn units() -> Schema {
    one_of_or_null(&UNITS)
}

impl Row {
    fn document(&self) -> VehicleDocument {
        VehicleDocument {
            vehicle_id: self.id,
            kind: self.kind.clone(),
            unit: self.unit.clone(),
            name: self.name.clone(),
            retired: self.retired_at.is_some(),
            created_at: instant(self.created_at),
        }
    }

    fn shown(&self) -> Value {
        json!({ "kind": self.kind, "unit": self.unit, "name": self.name, "retired": self.retired_at.is_some() })
    }
}

/// `GET /v1/vehicles`.
pub(crate) async fn list(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<VehicleDocument>, ApiError> {
    let rows: Vec<Row> = sqlx::query_as(
        "select id, kind, unit, name, created_at, retired_at from vehicles
         where user_id = $1 and (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4",
    )
    .bind(caller.user.0)
    .bind(query.after.0)
    .bind(query.after.1)
    .bind(query.rows())
    .fetch_all(&account.pool)
    .await?;
    Ok(query.page(&rows, |row| (row.created_at, row.id), Row::document))
}

/// `POST /v1/vehicles`.
pub(crate) async fn add(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
    JsonBody(new): JsonBody<NewVehicle>,
) -> Result<Created<VehicleDocument>, ApiError> {
    check(new.kind.as_deref(), new.unit.as_deref(), new.name.as_deref())?;
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    // Of two at once the second counts the first.
    sqlx::query("select from users where id = $1 for update").bind(caller.user.0).execute(&mut *tx).await?;
    let count: i64 =
        sqlx::query_scalar("select count(*) from vehicles where user_id = $1 and retired_at is null")
            .bind(caller.user.0)
            .fetch_one(&mut *tx)
            .await?;
    if count >= MOST {
        return Err(VEHICLE_LIMIT.error());
    }
    let row: Row = sqlx::query_as(
        "insert into vehicles (id, user_id, kind, unit, name, created_at, updated_at)
         values ($1, $2, coalesce($3, 'unknown'), $4, $5, $6, $6)
         returning id, kind, unit, name, created_at, retired_at",
    )
    .bind(Uuid::now_v7())
    .bind(caller.user.0)
    .bind(&new.kind)
    .bind(&new.unit)
    .bind(new.name.as_deref().map(str::trim))
    .bind(now.to_utc())
    .fetch_one(&mut *tx)
    .await?;
    let record = Change {
        module: "users",
        action: "user.update",
        target: row.id,
        before: Value::Null,
        after: row.shown(),
        agent: agent.as_deref(),
    };
    record.record(&mut tx, &caller, now).await?;
    tx.commit().await?;
    Ok(Created(row.document()))
}

/// `PATCH /v1/vehicles/{id}`.
pub(crate) async fn change(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
    Path(OwnVehicle(vehicle)): Path<OwnVehicle>,
    JsonBody(change): JsonBody<VehicleChange>,
) -> Result<Json<VehicleDocument>, ApiError> {
    let (unit, name) = (change.unit.as_ref(), change.name.as_ref());
    check(change.kind.as_deref(), unit.and_then(Option::as_deref), name.and_then(Option::as_deref))?;
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let before = find(&mut tx, &caller, vehicle).await?;
    sqlx::query(
        "update vehicles set kind = coalesce($2, kind), unit = case when $3 then $4 else unit end,
           name = case when $5 then $6 else name end, updated_at = $7,
           retired_at = case $8 when true then coalesce(retired_at, $7) when false then null else retired_at end
         where id = $1",
    )
    .bind(vehicle)
    .bind(&change.kind)
    .bind(change.unit.is_some())
    .bind(change.unit.clone().flatten())
    .bind(change.name.is_some())
    .bind(change.name.clone().flatten().map(|name| name.trim().to_owned()))
    .bind(now.to_utc())
    .bind(change.retired)
    .execute(&mut *tx)
    .await?;
    let after = find(&mut tx, &caller, vehicle).await?;
    let record = Change {
        module: "users",
        action: "user.update",
        target: vehicle,
        before: before.shown(),
        after: after.shown(),
        agent: agent.as_deref(),
    };
    record.record(&mut tx, &caller, now).await?;
    tx.commit().await?;
    Ok(Json(after.document()))
}

/// The caller's vehicle, its row locked.
pub(super) async fn find(tx: &mut PgConnection, caller: &Caller, vehicle: Uuid) -> Result<Row, ApiError> {
    let found: Option<Row> = sqlx::query_as(
        "select id, kind, unit, name, created_at, retired_at from vehicles where id = $1 and user_id = $2 for update",
    )
    .bind(vehicle)
    .bind(caller.user.0)
    .fetch_optional(tx)
    .await?;
    found.ok_or_else(|| VEHICLE_NOT_FOUND.error())
}

fn check(kind: Option<&str>, unit: Option<&str>, name: Option<&str>) -> Result<(), ApiError> {
    let unusable = |field: &'static str, wanted: String| {
        Err(INVALID_FIELD.because(format!("the field {field} is not usable: {wanted}")).field(field))
    };
    if kind.is_some_and(|kind| !VEHICLE_KINDS.contains(&kind)) {
        return unusable("kind", format!("one of {} is wanted", VEHICLE_KINDS.join(", ")));
    }
    if unit.is_some_and(|unit| !UNITS.contains(&unit)) {
        return unusable("unit", "km or miles is wanted".to_owned());
    }
    let is_name = |name: &str| {
        (1..=NAME_MAX).contains(&name.trim().chars().count()) && !name.chars().any(char::is_control)
    };
    if name.is_some_and(|name| !is_name(name)) {
        return unusable("name", format!("1 to {NAME_MAX} characters are wanted"));
    }
    Ok(())
}
