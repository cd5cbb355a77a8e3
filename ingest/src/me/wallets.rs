//! `/v1/wallets`: a wallet is added by its own signature. One of them is the primary one, which photos that are accepted from then on are
//! paid to; a wallet that an operator linked and that never signed cannot be made it.

use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Account;
use super::audit::Change;
use crate::accounts::level::raise;
use crate::accounts::primary;
use crate::auth::admission::{Agent, Caller};
use crate::http::problem::{
    ApiError, INVALID_FIELD, LAST_WALLET, Problem, WALLET_IN_USE, WALLET_IS_PRIMARY, WALLET_NOT_FOUND,
    WALLET_UNPROVEN,
};
use crate::http::reply::{Json, NoContent, Uncached};
use crate::http::request::{Dependency, JsonBody, Path, PathParameter, uuid_schema};
use crate::login::SignIn;
use crate::login::challenge::{ChallengeDocument, ChallengeRequest, Purpose};
use crate::login::proof::Proof;
use crate::queries::page::{Page, PageQuery};
use crate::queries::payout::instant;

/// What making a wallet the primary one refuses.
pub(crate) const CHANGE_REFUSALS: &[Problem] = &[INVALID_FIELD, WALLET_UNPROVEN];
/// What removing a wallet refuses.
pub(crate) const REMOVE_REFUSALS: &[Problem] = &[WALLET_IS_PRIMARY, WALLET_IN_USE, LAST_WALLET];

/// A wallet's id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WalletId(Uuid);

impl FromStr for WalletId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl PathParameter for WalletId {
    const MISSING: Problem = WALLET_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// A wallet's row.
#[derive(Clone, Debug, FromRow)]
struct Row {
    id: Uuid,
    wallet_address: String,
    network: String,
    is_primary: bool,
    verified_at: Option<DateTime<Utc>>,
    balance: Option<Decimal>,
    created_at: DateTime<Utc>,
    primary_from: Option<DateTime<Utc>>,
}

/// A wallet of yours
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WalletDocument {
    wallet_id: Uuid,
    address: String,
    /// mainnet or testnet
    network: String,
    /// Whether rewards are paid to it
    is_primary: bool,
    /// When rewards are paid to it in place of the wallet before; null where that is not asked for
    #[schema(format = DateTime)]
    primary_from: Option<String>,
    /// When it signed last; null where an operator linked it
    #[schema(format = DateTime)]
    verified_at: Option<String>,
    /// B3TR, as the chain's events show it
    balance: Option<Decimal>,
    #[schema(format = DateTime)]
    created_at: String,
}

/// What to change
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WalletChange {
    /// true: some time from now on (a day where nothing else is set) rewards are paid to it, until then to the wallet before; on that
    /// wallet, or with false on this one: not after all
    is_primary: bool,
}

impl Row {
    fn document(&self) -> WalletDocument {
        WalletDocument {
            wallet_id: self.id,
            address: self.wallet_address.clone(),
            network: self.network.clone(),
            is_primary: self.is_primary,
            primary_from: self.primary_from.map(instant),
            verified_at: self.verified_at.map(instant),
            balance: self.balance,
            created_at: instant(self.created_at),
        }
    }
}

/// Columns of [`Row`].
macro_rules! columns {
    () => {
        "id, wallet_address, network::text as network, coalesce(is_primary, false) as is_primary, verified_at, balance,
         coalesce(created_at, to_timestamp(0)) as created_at,
         (select c.due_at from wallet_changes c where c.wallet_id = user_wallets.id) as primary_from"
    };
}

/// The caller's wallet, with the account's row locked: of two changes at once one waits.
async fn find(tx: &mut PgConnection, caller: &Caller, wallet: Uuid) -> Result<Row, ApiError> {
    sqlx::query("select from users where id = $1 for update").bind(caller.user.0).execute(&mut *tx).await?;
    let found: Option<Row> = sqlx::query_as(concat!(
        "select ",
        columns!(),
        " from user_wallets where id = $1 and user_id = $2 and wallet_type = 'vechain' and removed_at is null"
    ))
    .bind(wallet)
    .bind(caller.user.0)
    .fetch_optional(tx)
    .await?;
    found.ok_or_else(|| WALLET_NOT_FOUND.error())
}

/// `GET /v1/wallets`.
pub(crate) async fn list(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
    query: PageQuery,
) -> Result<Page<WalletDocument>, ApiError> {
    let rows: Vec<Row> = sqlx::query_as(concat!(
        "select * from (select ",
        columns!(),
        " from user_wallets where user_id = $1 and wallet_type = 'vechain' and removed_at is null) w
         where (created_at, id) < ($2, $3) order by created_at desc, id desc limit $4"
    ))
    .bind(caller.user.0)
    .bind(query.after.0)
    .bind(query.after.1)
    .bind(query.rows())
    .fetch_all(&account.pool)
    .await?;
    Ok(query.page(&rows, |row| (row.created_at, row.id), Row::document))
}

/// `POST /v1/wallets/challenge`: what the wallet is to sign. A signature for signing in links nothing.
pub(crate) async fn challenge(
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    caller: Caller,
    JsonBody(request): JsonBody<ChallengeRequest>,
) -> Result<Uncached<ChallengeDocument>, ApiError> {
    Ok(Uncached(sign_in.issue(Purpose::LinkWallet(caller.user), &request)?))
}

/// `POST /v1/wallets`: again changes nothing but when the wallet was seen.
pub(crate) async fn add(
    Dependency(account): Dependency<Arc<Account>>,
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    caller: Caller,
    Agent(agent): Agent,
    JsonBody(proof): JsonBody<Proof>,
) -> Result<Json<WalletDocument>, ApiError> {
    let (mut tx, wallet) = sign_in.link_wallet(&caller, agent.clone(), &proof).await?;
    let row = find(&mut tx, &caller, wallet).await?;
    let record = Change {
        module: "wallets",
        action: "wallet.add",
        target: wallet,
        before: Value::Null,
        after: json!({ "address": row.wallet_address, "is_primary": row.is_primary }),
        agent: agent.as_deref(),
    };
    record.record(&mut tx, &caller, account.clock.now()).await?;
    tx.commit().await?;
    Ok(Json(row.document()))
}

/// `PATCH /v1/wallets/{id}`: has it become the primary one, after the cooling time; or takes that back.
pub(crate) async fn change(
    Dependency(account): Dependency<Arc<Account>>,
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    caller: Caller,
    Agent(agent): Agent,
    Path(WalletId(wallet)): Path<WalletId>,
    JsonBody(change): JsonBody<WalletChange>,
) -> Result<Json<WalletDocument>, ApiError> {
    let now = sign_in.clock.now();
    let mut tx = sign_in.pool.begin().await?;
    let row = find(&mut tx, &caller, wallet).await?;
    let step = match (change.is_primary, row.is_primary, row.primary_from) {
        (true, true, _) | (false, false, Some(_)) => Step::TakeBack,
        (true, false, Some(_)) => return Ok(Json(row.document())),
        (true, false, None) if row.verified_at.is_none() => return Err(WALLET_UNPROVEN.error()),
        (true, false, None) => Step::Request,
        (false, _, _) => {
            let detail =
                "the field is_primary is not usable: have another wallet become the primary one instead";
            return Err(INVALID_FIELD.because(detail).field("is_primary"));
        }
    };
    let changed = match step {
        Step::TakeBack => taken_back(&mut tx, &caller).await?,
        Step::Request => {
            let due_at =
                now.to_utc() + TimeDelta::from_std(account.wallet_cooling).unwrap_or(TimeDelta::days(30));
            sign_in.warn_of_wallet_change(&mut tx, &caller, agent.clone(), &row.wallet_address).await?;
            let change = requested(&mut tx, &caller, wallet, (now.to_utc(), due_at)).await?;
            // Where there was none it is the primary one by now.
            raise(&mut tx, sign_in.schemas.account_changed, caller.user, now).await?;
            Some(change)
        }
    };
    let Some((before, after)) = changed else { return Ok(Json(row.document())) };
    let record = Change {
        module: "wallets",
        action: "wallet.set_primary",
        target: wallet,
        before,
        after,
        agent: agent.as_deref(),
    };
    record.record(&mut tx, &caller, now).await?;
    let row = find(&mut tx, &caller, wallet).await?;
    tx.commit().await?;
    Ok(Json(row.document()))
}

/// What a change comes to.
enum Step {
    /// Another wallet is to become the primary one.
    Request,
    /// None is.
    TakeBack,
}

/// Requests a change, or makes it where there is nothing to wait for; what is audited.
async fn requested(
    tx: &mut PgConnection,
    caller: &Caller,
    wallet: Uuid,
    (now, due_at): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(Value, Value), sqlx::Error> {
    let before: Option<Uuid> =
        sqlx::query_scalar("select id from user_wallets where user_id = $1 and is_primary")
            .bind(caller.user.0)
            .fetch_optional(&mut *tx)
            .await?;
    if before.is_none() || due_at <= now {
        primary::take_back(tx, caller.user.0).await?;
        primary::set(tx, caller.user.0, wallet, now).await?;
        return Ok((json!({ "primary": before }), json!({ "primary": wallet })));
    }
    primary::request(tx, caller.user.0, wallet, (now, due_at)).await?;
    Ok((
        json!({ "primary": before }),
        json!({ "primary": before, "requested": wallet, "due_at": instant(due_at) }),
    ))
}

/// Takes a request back; what is audited, where there was one.
async fn taken_back(tx: &mut PgConnection, caller: &Caller) -> Result<Option<(Value, Value)>, sqlx::Error> {
    let requested = primary::take_back(tx, caller.user.0).await?;
    Ok(requested.map(|requested| (json!({ "requested": requested }), Value::Null)))
}

/// `DELETE /v1/wallets/{id}`. The row stays, marked, since payments name it.
pub(crate) async fn remove(
    Dependency(account): Dependency<Arc<Account>>,
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    caller: Caller,
    Agent(agent): Agent,
    Path(WalletId(wallet)): Path<WalletId>,
) -> Result<NoContent, ApiError> {
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let row = find(&mut tx, &caller, wallet).await?;
    let (others, waiting): (bool, bool) = sqlx::query_as(
        "select exists (select from user_wallets where user_id = $1 and id <> $2 and removed_at is null),
                exists (select from payouts where wallet_id = $2 and state in ('waiting', 'ready', 'in_flight', 'quarantined'))",
    )
    .bind(caller.user.0)
    .bind(wallet)
    .fetch_one(&mut *tx)
    .await?;
    if waiting {
        return Err(WALLET_IN_USE.error());
    }
    if !others {
        return Err(LAST_WALLET.error());
    }
    if row.is_primary {
        return Err(WALLET_IS_PRIMARY.error());
    }
    if row.primary_from.is_some() {
        primary::take_back(&mut tx, caller.user.0).await?;
    }
    sqlx::query("update user_wallets set removed_at = $2, updated_at = $2 where id = $1")
        .bind(wallet)
        .bind(now.to_utc())
        .execute(&mut *tx)
        .await?;
    let record = Change {
        module: "wallets",
        action: "wallet.remove",
        target: wallet,
        before: json!({ "address": row.wallet_address }),
        after: Value::Null,
        agent: agent.as_deref(),
    };
    record.record(&mut tx, &caller, now).await?;
    sign_in.log_disconnected(&mut tx, &caller, agent, &row.wallet_address).await?;
    tx.commit().await?;
    Ok(NoContent)
}
