//! `/v1/me/email`: an address is proven by a code that is sent to it. Asking for one is a row of `email_codes`; the `notices` sink draws
//! the code, keeps its hash in the row and sends it, so that the gateway never has a code but the one that somebody types.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::one_time::OneTimeCode;
use serde::Deserialize;
use serde_json::json;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::Account;
use super::audit::Change;
use super::profile::{self, Profile};
use crate::accounts::level::raise;
use crate::auth::admission::{Agent, Caller};
use crate::auth::rates::Rate;
use crate::http::problem::{
    ApiError, EMAIL_CODE_EXPIRED, EMAIL_CODE_WRONG, EMAIL_PROVEN, INTERNAL, INVALID_FIELD, NO_EMAIL, Problem,
    RATE_LIMITED,
};
use crate::http::reply::{NoContent, Uncached};
use crate::http::request::{Dependency, JsonBody};
use crate::login::SignIn;
use crate::login::records::Trace;
use crate::outbox::announce;

/// What asking for a code refuses.
pub(crate) const CODE_REFUSALS: &[Problem] = &[NO_EMAIL, EMAIL_PROVEN];
/// What proving an address refuses.
pub(crate) const PROOF_REFUSALS: &[Problem] =
    &[INVALID_FIELD, NO_EMAIL, EMAIL_PROVEN, EMAIL_CODE_EXPIRED, EMAIL_CODE_WRONG];
/// Proofs that are tried with one code. With five codes a day a stranger's address is guessed in one of 40,000 days.
const TRIES: i32 = 5;
/// Between two codes: the one before may be on its way still.
const BETWEEN: TimeDelta = TimeDelta::seconds(60);

/// The code that was sent to your address. It is not printed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmailProof {
    /// Six digits
    #[schema(pattern = "^[0-9]{6}$")]
    code: String,
}

/// `POST /v1/me/email/code`. A code that was sent before is good no more.
pub(crate) async fn ask(
    Dependency(account): Dependency<Arc<Account>>,
    caller: Caller,
) -> Result<NoContent, ApiError> {
    let (now, rate) = (account.clock.now().to_utc(), account.live.now().rates.email_codes_per_user);
    let mut tx = account.pool.begin().await?;
    let (email, proven): (Option<String>, bool) =
        sqlx::query_as("select email, email_verified_at is not null from users where id = $1 for update")
            .bind(caller.user.0)
            .fetch_one(&mut *tx)
            .await?;
    if email.is_none() || proven {
        return Err(if proven { EMAIL_PROVEN } else { NO_EMAIL }.error());
    }
    let counted = sqlx::query(
        "insert into email_codes as c (user_id, window_start, asked, asked_at, due_at) values ($1, $2, 1, $2, $2)
         on conflict (user_id) do update set asked_at = $2, due_at = $2, attempts = 0, last_error = null,
           code_hash = null, salt = null, expires_at = null, tries = 0,
           window_start = case when c.window_start <= $3 then $2 else c.window_start end,
           asked = case when c.window_start <= $3 then 1 else c.asked + 1 end
         where (c.window_start <= $3 or c.asked < $4) and c.asked_at <= $5",
    )
    .bind(caller.user.0)
    .bind(now)
    .bind(now - window(rate))
    .bind(rate.most())
    .bind(now - BETWEEN)
    .execute(&mut *tx)
    .await?;
    if counted.rows_affected() == 0 {
        return Err(too_early(&mut tx, &caller, rate, now).await?);
    }
    tx.commit().await?;
    Ok(NoContent)
}

fn window(rate: Rate) -> TimeDelta {
    TimeDelta::from_std(rate.window).unwrap_or(TimeDelta::MAX)
}

async fn too_early(
    tx: &mut PgConnection,
    caller: &Caller,
    rate: Rate,
    now: DateTime<Utc>,
) -> Result<ApiError, sqlx::Error> {
    let (begun, asked, asked_at): (DateTime<Utc>, i32, DateTime<Utc>) =
        sqlx::query_as("select window_start, asked, asked_at from email_codes where user_id = $1")
            .bind(caller.user.0)
            .fetch_one(tx)
            .await?;
    let of_window = if asked < rate.most() { now } else { begun + window(rate) };
    let wait = (of_window.max(asked_at + BETWEEN) - now).num_seconds() + 1;
    let wait = u64::try_from(wait).unwrap_or(1);
    Ok(RATE_LIMITED
        .because(format!("a code was sent already: ask for the next one in {wait} s"))
        .retry_after(wait))
}

/// `POST /v1/me/email/proof`.
pub(crate) async fn prove(
    Dependency(account): Dependency<Arc<Account>>,
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    caller: Caller,
    Agent(agent): Agent,
    JsonBody(proof): JsonBody<EmailProof>,
) -> Result<Uncached<Profile>, ApiError> {
    let wanted = "the field code is not usable: the six digits of the e-mail are wanted";
    let code = OneTimeCode::typed(&proof.code).ok_or_else(|| INVALID_FIELD.because(wanted).field("code"))?;
    let trace = Trace::by(&caller, "verification", agent).with("method", "email");
    match tried(&account, &caller, code).await {
        Ok(proven) => settle((&account, &sign_in), &caller, &proven, &trace).await,
        Err(error) => {
            if [EMAIL_CODE_WRONG, EMAIL_CODE_EXPIRED].contains(&error.problem()) {
                sign_in.log.write(&trace.log(Some(format!("code_refused: {error}"))));
            }
            Err(error)
        }
    }
}

/// The address that a code proves, and the hash that it was kept as.
struct Proven {
    email: String,
    hash: Vec<u8>,
}

/// Tries a code. The try is counted before it is looked at: of many at once five are.
async fn tried(account: &Account, caller: &Caller, code: OneTimeCode) -> Result<Proven, ApiError> {
    let now = account.clock.now().to_utc();
    let kept: Option<(String, Vec<u8>, Vec<u8>, i32)> = sqlx::query_as(
        "update email_codes c set tries = c.tries + 1 from users u
         where c.user_id = $1 and u.id = $1 and u.email is not null and u.email_verified_at is null
           and c.code_hash is not null and c.tries < $2 and c.expires_at > $3
         returning u.email, c.salt, c.code_hash, c.tries",
    )
    .bind(caller.user.0)
    .bind(TRIES)
    .bind(now)
    .fetch_optional(&account.pool)
    .await?;
    let Some((email, salt, hash, tries)) = kept else { return Err(none_is_good(account, caller).await?) };
    let looked = tokio::task::spawn_blocking(move || {
        code.proves(&email, &salt, &hash).then_some(Proven { email, hash })
    });
    let proven = looked.await.map_err(|error| INTERNAL.caused_by(error))?;
    proven.ok_or_else(|| {
        let left = TRIES - tries;
        EMAIL_CODE_WRONG.because(format!("the code is not the one that was sent: {left} tries are left"))
    })
}

/// Why no code is good now.
async fn none_is_good(account: &Account, caller: &Caller) -> Result<ApiError, sqlx::Error> {
    let (email, proven, waits, failed): (bool, bool, bool, bool) = sqlx::query_as(
        "select u.email is not null, u.email_verified_at is not null,
                coalesce(c.code_hash is null and c.due_at is not null, false),
                coalesce(c.due_at is null and c.last_error is not null, false)
         from users u left join email_codes c on c.user_id = u.id where u.id = $1",
    )
    .bind(caller.user.0)
    .fetch_one(&account.pool)
    .await?;
    Ok(match (email, proven, waits, failed) {
        (false, ..) => NO_EMAIL.error(),
        (_, true, ..) => EMAIL_PROVEN.error(),
        (_, _, true, _) => EMAIL_CODE_EXPIRED.because("the code is on its way still: wait for it"),
        (.., true) => EMAIL_CODE_EXPIRED.because("the code could not be sent: ask for a new one later"),
        _ => EMAIL_CODE_EXPIRED.error(),
    })
}

/// Notes that the address is proven, unless it was changed or the code used meanwhile.
async fn settle(
    (account, sign_in): (&Account, &SignIn),
    caller: &Caller,
    proven: &Proven,
    trace: &Trace,
) -> Result<Uncached<Profile>, ApiError> {
    let now = account.clock.now();
    let mut tx = account.pool.begin().await?;
    let before = profile::find(&mut tx, caller).await?;
    let noted = sqlx::query(
        "with used as (
           update email_codes set code_hash = null, salt = null, expires_at = null, due_at = null
           where user_id = $1 and code_hash = $3 returning user_id
         )
         update users u set email_verified_at = $4, updated_at = $4 from used
         where u.id = used.user_id and u.email = $2 and u.email_verified_at is null",
    )
    .bind(caller.user.0)
    .bind(&proven.email)
    .bind(&proven.hash)
    .bind(now.to_utc())
    .execute(&mut *tx)
    .await?;
    if noted.rows_affected() == 0 {
        return Err(EMAIL_CODE_EXPIRED.error());
    }
    raise(&mut tx, sign_in.schemas.account_changed, caller.user, now).await?;
    let after = profile::find(&mut tx, caller).await?;
    let shown = |row: &profile::Row| json!({ "email_verified": row.email_verified, "verification_level": row.verification_level });
    let record = Change {
        module: "users",
        action: "user.update",
        target: caller.user.0,
        before: shown(&before),
        after: shown(&after),
        agent: trace.agent.as_deref(),
    };
    record.record(&mut tx, caller, now).await?;
    announce(&mut tx, sign_in.schemas.activity_logged, &trace.success(now)?, now).await?;
    tx.commit().await?;
    Ok(Uncached(after.document()))
}
