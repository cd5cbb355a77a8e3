//! `/v1/transfers`: a vehicle changes hands when its owner offers it to a wallet and that wallet's owner accepts it. Until then nothing
//! changes. An offer names an address, not an account: it tells nobody whether there is one.

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use schemas::ids::VehicleId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Account;
use super::audit::Change;
use super::vehicles::{self, MOST, OwnVehicle};
use crate::auth::admission::{Agent, Caller};
use crate::http::problem::{
    ApiError, DEFAULT_VEHICLE, INVALID_ADDRESS, Problem, TRANSFER_NOT_FOUND, TRANSFER_OPEN, TRANSFER_OVER,
    VEHICLE_LIMIT, VEHICLE_RETIRED, VEHICLE_UNDECIDED,
};
use crate::http::reply::{Created, Json, NoContent};
use crate::http::request::{Dependency, JsonBody, Path, PathParameter, uuid_schema};
use crate::login::challenge::read_address;
use crate::queries::page::{Page, PageQuery};
use crate::queries::payout::instant;
use crate::uploads::reserve::default_vehicle;

/// What an offer can be refused for.
pub(crate) const OFFER_REFUSALS: &[Problem] =
    &[INVALID_ADDRESS, VEHICLE_RETIRED, DEFAULT_VEHICLE, TRANSFER_OPEN];
/// What accepting can be refused for.
pub(crate) const ACCEPT_REFUSALS: &[Problem] =
    &[TRANSFER_OVER, VEHICLE_UNDECIDED, VEHICLE_RETIRED, VEHICLE_LIMIT];
/// What declining, or taking back, can be refused for.
pub(crate) const ANSWER_REFUSALS: &[Problem] = &[TRANSFER_OVER];
/// How long an offer stands: over a week-end and the days in which a car is sold.
const LIFE: TimeDelta = TimeDelta::days(7);
/// A photo that nobody has decided for longer than this never will be: its record is a dead letter. It holds nobody up.
const UNDECIDED: TimeDelta = TimeDelta::days(30);

/// A transfer's id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransferId(Uuid);

impl FromStr for TransferId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl PathParameter for TransferId {
    const MISSING: Problem = TRANSFER_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// Whom to offer it to
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTransfer {
    /// A wallet that its next owner signs in with: 0x and 40 hex digits; where the letters carry a checksum (EIP-55), it must be right
    #[schema(max_length = 42)]
    address: String,
}

/// A vehicle that you offer, or that is offered to you
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransferDocument {
    transfer_id: Uuid,
    vehicle_id: Uuid,
    /// As in a vehicle
    kind: String,
    unit: Option<String>,
    /// Whether it is you who offers it
    offered_by_you: bool,
    /// The primary wallet of whoever offers it
    from_address: Option<String>,
    to_address: Option<String>,
    /// open, accepted, declined, cancelled or expired
    status: String,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    expires_at: String,
}

#[derive(Clone, Debug, FromRow)]
struct Row {
    id: Uuid,
    vehicle_id: Uuid,
    kind: String,
    unit: Option<String>,
    is_own: bool,
    from_user: Uuid,
    from_address: Option<String>,
    to_address: Option<String>,
    to_user: Option<Uuid>,
    outcome: Option<String>,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

impl Row {
    fn document(&self, now: DateTime<Utc>) -> TransferDocument {
        let open = if self.expires_at > now { "open" } else { "expired" };
        TransferDocument {
            transfer_id: self.id,
            vehicle_id: self.vehicle_id,
            kind: self.kind.clone(),
            unit: self.unit.clone(),
            offered_by_you: self.is_own,
            from_address: self.from_address.clone(),
            to_address: self.to_address.clone(),
            status: self.outcome.clone().unwrap_or_else(|| open.to_owned()),
            created_at: instant(self.created_at),
            expires_at: instant(self.expires_at),
        }
    }

    fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.outcome.is_none() && self.expires_at > now
    }
}

/// Transfers `t` that the user `$1` may see at `$2`: their own offers, what they have answered, and what is open to one of their wallets.
macro_rules! select {
    ($where:literal) => {
        concat!(
            "select t.id, t.vehicle_id, v.kind, v.unit, t.from_user = $1 as is_own, t.from_user, f.wallet_address as from_address,
                    t.to_address, t.to_user, t.outcome, t.created_at, t.expires_at
             from vehicle_transfers t join vehicles v on v.id = t.vehicle_id join users f on f.id = t.from_user
             where (t.from_user = $1 or t.to_user = $1
                    or t.outcome is null and t.expires_at > $2 and t.to_address in (
                      select w.wallet_address from user_wallets w where w.user_id = $1 and w.wallet_type = 'vechain'
                        and w.verified_at is not null and w.removed_at is null)) ",
            $where
        )
    };
}

/// The caller's transfer.
async fn find(tx: &mut PgConnection, caller: &Caller, id: Uuid, now: DateTime<Utc>) -> Result<Row, ApiError> {
    let found: Option<Row> = sqlx::query_as(select!("and t.id = $3"))
        .bind(caller.user.0)
        .bind(now)
        .bind(id)
        .fetch_optional(tx)
        .await?;
    found.ok_or_else(|| TRANSFER_NOT_FOUND.error())
}

/// `GET /v1/transfers`.
pub(crate) async fn list(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<TransferDocument>, ApiError> {
    let now = account.clock.now().to_utc();
    let rows: Vec<Row> = sqlx::query_as(select!(
        "and (t.created_at, t.id) < ($3, $4) order by t.created_at desc, t.id desc limit $5"
    ))
    .bind(caller.user.0)
    .bind(now)
    .bind(query.after.0)
    .bind(query.after.1)
    .bind(query.rows())
    .fetch_all(&account.pool)
    .await?;
    Ok(query.page(&rows, |row| (row.created_at, row.id), |row| row.document(now)))
}

/// `POST /v1/vehicles/{id}/transfers`: offers a vehicle.
pub(crate) async fn offer(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
    Path(OwnVehicle(vehicle)): Path<OwnVehicle>,
    JsonBody(new): JsonBody<NewTransfer>,
) -> Result<Created<TransferDocument>, ApiError> {
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    // Of two offers at once the second finds the first.
    let row = vehicles::find(&mut tx, &caller, vehicle).await?;
    let address = read_address(&new.address)?.to_string();
    if VehicleId(vehicle) == default_vehicle(caller.user) {
        return Err(DEFAULT_VEHICLE.error());
    }
    if row.retired_at.is_some() {
        return Err(VEHICLE_RETIRED.error());
    }
    let (own, open): (bool, bool) = sqlx::query_as(
        "select exists (select from user_wallets where user_id = $1 and wallet_address = $2),
                exists (select from vehicle_transfers where vehicle_id = $3 and outcome is null and expires_at > $4)",
    )
    .bind(caller.user.0)
    .bind(&address)
    .bind(vehicle)
    .bind(now.to_utc())
    .fetch_one(&mut *tx)
    .await?;
    if own {
        return Err(INVALID_ADDRESS
            .because("the address is not usable: the wallet is your own")
            .field("address"));
    }
    if open {
        return Err(TRANSFER_OPEN.error());
    }
    sqlx::query(
        "update vehicle_transfers set outcome = 'expired', ended_at = expires_at where vehicle_id = $1 and outcome is null",
    )
    .bind(vehicle)
    .execute(&mut *tx)
    .await?;
    let id: Uuid = sqlx::query_scalar(
        "insert into vehicle_transfers (id, vehicle_id, from_user, to_address, created_at, expires_at)
         values ($1, $2, $3, $4, $5, $6) returning id",
    )
    .bind(Uuid::now_v7())
    .bind(vehicle)
    .bind(caller.user.0)
    .bind(&address)
    .bind(now.to_utc())
    .bind(now.to_utc() + LIFE)
    .fetch_one(&mut *tx)
    .await?;
    let offered = find(&mut tx, &caller, id, now.to_utc()).await?;
    record(&account, &mut tx, &caller, agent.as_deref(), &offered, "offered").await?;
    tx.commit().await?;
    Ok(Created(offered.document(now.to_utc())))
}

/// `POST /v1/transfers/{id}/accept`. The vehicle's readings go with it; its name does not.
pub(crate) async fn accept(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
    Path(TransferId(id)): Path<TransferId>,
) -> Result<Json<TransferDocument>, ApiError> {
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    // Of two vehicles at once the second counts the first.
    sqlx::query("select from users where id = $1 for update").bind(caller.user.0).execute(&mut *tx).await?;
    let row = answered(&mut tx, &caller, id, now.to_utc()).await?;
    if row.outcome.as_deref() == Some("accepted") {
        return Ok(Json(row.document(now.to_utc())));
    }
    if !row.is_open(now.to_utc()) {
        return Err(TRANSFER_OVER.error());
    }
    // A reservation of a photo shares the row, and is either seen below or finds the next owner.
    let retired: Option<bool> = sqlx::query_scalar(
        "select v.retired_at is not null from vehicles v join users u on u.id = v.user_id and u.is_active
         where v.id = $1 and v.user_id = $2 for update of v",
    )
    .bind(row.vehicle_id)
    .bind(row.from_user)
    .fetch_optional(&mut *tx)
    .await?;
    if retired.ok_or_else(|| TRANSFER_OVER.error())? {
        return Err(VEHICLE_RETIRED.error());
    }
    if !close(&mut tx, &row, ("accepted", Some(caller.user.0)), now.to_utc()).await? {
        return Err(TRANSFER_OVER.error());
    }
    if is_undecided(&mut tx, &row, now.to_utc()).await? {
        return Err(VEHICLE_UNDECIDED.error());
    }
    let count: i64 =
        sqlx::query_scalar("select count(*) from vehicles where user_id = $1 and retired_at is null")
            .bind(caller.user.0)
            .fetch_one(&mut *tx)
            .await?;
    if count >= MOST {
        return Err(VEHICLE_LIMIT.error());
    }
    sqlx::query("update vehicles set user_id = $2, name = null, updated_at = $3 where id = $1")
        .bind(row.vehicle_id)
        .bind(caller.user.0)
        .bind(now.to_utc())
        .execute(&mut *tx)
        .await?;
    record(&account, &mut tx, &caller, agent.as_deref(), &row, "accepted").await?;
    let row = find(&mut tx, &caller, id, now.to_utc()).await?;
    tx.commit().await?;
    Ok(Json(row.document(now.to_utc())))
}

/// `POST /v1/transfers/{id}/decline`.
pub(crate) async fn decline(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
    Path(TransferId(id)): Path<TransferId>,
) -> Result<Json<TransferDocument>, ApiError> {
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let row = answered(&mut tx, &caller, id, now.to_utc()).await?;
    if row.outcome.as_deref() == Some("declined") {
        return Ok(Json(row.document(now.to_utc())));
    }
    let open = row.is_open(now.to_utc());
    if !open || !close(&mut tx, &row, ("declined", Some(caller.user.0)), now.to_utc()).await? {
        return Err(TRANSFER_OVER.error());
    }
    record(&account, &mut tx, &caller, agent.as_deref(), &row, "declined").await?;
    let row = find(&mut tx, &caller, id, now.to_utc()).await?;
    tx.commit().await?;
    Ok(Json(row.document(now.to_utc())))
}

/// `DELETE /v1/transfers/{id}`: takes an offer back.
pub(crate) async fn cancel(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    Agent(agent): Agent,
    Path(TransferId(id)): Path<TransferId>,
) -> Result<NoContent, ApiError> {
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let row = find(&mut tx, &caller, id, now.to_utc()).await?;
    if !row.is_own {
        return Err(TRANSFER_NOT_FOUND.error());
    }
    if row.outcome.as_deref() == Some("cancelled") {
        return Ok(NoContent);
    }
    let open = row.is_open(now.to_utc());
    if !open || !close(&mut tx, &row, ("cancelled", None), now.to_utc()).await? {
        return Err(TRANSFER_OVER.error());
    }
    record(&account, &mut tx, &caller, agent.as_deref(), &row, "cancelled").await?;
    tx.commit().await?;
    Ok(NoContent)
}

/// The transfer that the caller answers: one of somebody else's.
async fn answered(
    tx: &mut PgConnection,
    caller: &Caller,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<Row, ApiError> {
    let row = find(tx, caller, id, now).await?;
    if row.is_own && row.to_user != Some(caller.user.0) { Err(TRANSFER_NOT_FOUND.error()) } else { Ok(row) }
}

/// Closes an open one; false where somebody else was faster.
async fn close(
    tx: &mut PgConnection,
    row: &Row,
    (outcome, answered_by): (&str, Option<Uuid>),
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let ended = sqlx::query(
        "update vehicle_transfers set outcome = $2, to_user = $3, ended_at = $4 where id = $1 and outcome is null",
    )
    .bind(row.id)
    .bind(outcome)
    .bind(answered_by)
    .bind(now)
    .execute(tx)
    .await?;
    Ok(ended.rows_affected() == 1)
}

/// Whether a photo of the vehicle is on its way to a verdict, or waits for a person.
async fn is_undecided(tx: &mut PgConnection, row: &Row, now: DateTime<Utc>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (
           select from photo_hashes p left join odometer_uploads o on o.id = p.upload_id
             left join reviews r on r.upload_id = p.upload_id
           where p.user_id = $1 and coalesce(p.vehicle_id, o.vehicle_id, $2) = $2 and p.reserved_at > $3
             and (r.upload_id is null and coalesce(o.upload_status::text, '') not in ('verified', 'rejected', 'failed')
                    and not exists (select from decisions where stage = 'fraud_check' and effect_id = 'verdict:' || p.upload_id)
                  or r.upload_id is not null
                    and not exists (select from decisions where stage = 'fraud_check' and effect_id = 'review:' || p.upload_id)))",
    )
    .bind(row.from_user)
    .bind(row.vehicle_id)
    .bind(now - UNDECIDED)
    .fetch_one(tx)
    .await
}

/// Whose it was and is stands in the transfer's row: the log, which each may take along, names the transfer.
async fn record(
    account: &Account,
    tx: &mut PgConnection,
    caller: &Caller,
    agent: Option<&str>,
    row: &Row,
    outcome: &str,
) -> Result<(), sqlx::Error> {
    let change = Change {
        module: "users",
        action: "user.update",
        target: row.vehicle_id,
        before: Value::Null,
        after: json!({ "transfer": row.id, "address": row.to_address, "outcome": outcome }),
        agent,
    };
    change.record(tx, caller, account.clock.now()).await
}
