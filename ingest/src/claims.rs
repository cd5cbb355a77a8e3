//! `POST /v1/rewards/{id}/claim`: a driver asks for a reward. One claim per reward: asking again gives the first response again.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use runtime::clock::Clock;
use schemas::events::RewardClaimed;
use schemas::ids::{EventId, Micros, RewardId, UploadId, UserId, natural};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::auth::admission::Claimant;
use crate::http::operation::Operation;
use crate::http::problem::{ApiError, NO_WALLET, Problem, REWARD_NOT_FOUND, REWARD_SETTLED, UNEXPECTED_BODY};
use crate::http::reply::Taken;
use crate::http::request::{Dependency, Extract, Path, PathParameter, Request, RequestBody, uuid_schema};
use crate::outbox::announce;
use crate::queries::payout::instant;

/// Bytes of a claim's body, which holds nothing: an empty object and the white space of a client that sets it out.
const CLAIM_BYTES: u64 = 64;
/// Days in which an upload's reward may be claimed before the tables show it: a review may take a month.
const DAYS: i64 = 45;
/// Uploads that are looked through for such a reward: 45 days x 20 per day. 900 hashes take below a millisecond.
const CANDIDATES: i64 = 900;

/// What the route itself refuses.
pub(crate) const REFUSALS: &[Problem] = &[NO_WALLET, REWARD_SETTLED];

/// What claiming works with.
pub(crate) struct Claims {
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    /// The registry's id of `RewardClaimed`.
    pub(crate) schema_id: u32,
}

/// A claim.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Claim {
    reward_id: Uuid,
    #[schema(pattern = "^claimed$")]
    status: &'static str,
    wallet_id: Uuid,
    #[schema(format = DateTime)]
    claimed_at: String,
}

impl PathParameter for RewardId {
    const MISSING: Problem = REWARD_NOT_FOUND;

    fn schema() -> Value {
        uuid_schema()
    }
}

/// No body, or an empty JSON object.
pub(crate) struct NoBody;

impl<S: Sync> Extract<S> for NoBody {
    async fn extract(dependencies: &S, request: &mut Request) -> Result<Self, ApiError> {
        let RequestBody(mut body) = RequestBody::extract(dependencies, request).await?;
        body.allow(CLAIM_BYTES, || UNEXPECTED_BODY.error());
        if is_empty(&body.whole().await?) { Ok(Self) } else { Err(UNEXPECTED_BODY.error()) }
    }

    fn describe(operation: &mut Operation) {
        <RequestBody as Extract<S>>::describe(operation);
        let empty = json!({ "type": "object", "maxProperties": 0 });
        operation.body(false, json!({ "application/json": { "schema": empty } }));
        operation.problems(&[UNEXPECTED_BODY]);
    }
}

/// The route: 202 for the first claim, 200 for every other.
pub(crate) async fn post(
    Dependency(claims): Dependency<Arc<Claims>>,
    Claimant(caller): Claimant,
    Path(reward): Path<RewardId>,
    _: NoBody,
) -> Result<Taken<Claim>, ApiError> {
    let mut tx = claims.pool.begin().await?;
    if let Some(claim) = stored(&mut tx, caller.user, reward).await? {
        return Ok(response(false, claim));
    }
    let now = claims.clock.now();
    claimable(&mut tx, caller.user, reward, now).await?;
    let wallet: Option<Uuid> =
        sqlx::query_scalar("select id from user_wallets where user_id = $1 and is_primary")
            .bind(caller.user.0)
            .fetch_optional(&mut *tx)
            .await?;
    let event = RewardClaimed {
        event_id: EventId(natural(&format!("claim/{reward}"))),
        occurred_at: now,
        reward_id: reward,
        user_id: caller.user,
        wallet_id: wallet.ok_or_else(|| NO_WALLET.error())?,
    };
    if !insert(&mut tx, &event).await? {
        // Another request was faster while this one waited for its row.
        let claim = stored(&mut tx, caller.user, reward).await?.ok_or_else(|| REWARD_NOT_FOUND.error())?;
        return Ok(response(false, claim));
    }
    announce(&mut tx, claims.schema_id, &event, now).await?;
    tx.commit().await?;
    Ok(response(true, claim(reward, event.wallet_id, now.to_utc())))
}

/// Stores a claim; false where the reward is claimed already. No column is named in the conflict: the event's id derives from the reward's
/// and is unique as well, and of two claims at the same moment one may meet the other there first, as an error if it is not covered.
async fn insert(tx: &mut PgConnection, event: &RewardClaimed) -> Result<bool, sqlx::Error> {
    let made = sqlx::query(
        "insert into reward_claims (reward_id, user_id, wallet_id, event_id, claimed_at) values ($1, $2, $3, $4, $5)
         on conflict do nothing",
    )
    .bind(event.reward_id.0)
    .bind(event.user_id.0)
    .bind(event.wallet_id)
    .bind(event.event_id.0)
    .bind(event.occurred_at.to_utc())
    .execute(tx)
    .await?;
    Ok(made.rows_affected() == 1)
}

async fn stored(tx: &mut PgConnection, user: UserId, reward: RewardId) -> Result<Option<Claim>, sqlx::Error> {
    let found: Option<(Uuid, DateTime<Utc>)> = sqlx::query_as(
        "select wallet_id, claimed_at from reward_claims where reward_id = $1 and user_id = $2",
    )
    .bind(reward.0)
    .bind(user.0)
    .fetch_optional(tx)
    .await?;
    Ok(found.map(|(wallet_id, claimed_at)| claim(reward, wallet_id, claimed_at)))
}

fn claim(reward: RewardId, wallet_id: Uuid, claimed_at: DateTime<Utc>) -> Claim {
    Claim { reward_id: reward.0, status: "claimed", wallet_id, claimed_at: instant(claimed_at) }
}

fn response(now: bool, document: Claim) -> Taken<Claim> {
    Taken { now, location: None, document }
}

/// Refuses a reward that is not the caller's, or is past claiming. One that the tables do not show yet is the caller's when it is that
/// of one of their uploads: its id follows from the upload's.
async fn claimable(
    tx: &mut PgConnection,
    user: UserId,
    reward: RewardId,
    now: Micros,
) -> Result<(), ApiError> {
    let known: Option<(Uuid, Option<String>)> =
        sqlx::query_as("select user_id, status::text from rewards where id = $1")
            .bind(reward.0)
            .fetch_optional(&mut *tx)
            .await?;
    // Locked until the claim is stored: what ends because nobody has claimed it in time is cancelled before or not at all.
    let payout: Option<(String, Option<String>)> =
        sqlx::query_as("select state, reason from payouts where reward_id = $1 and user_id = $2 for share")
            .bind(reward.0)
            .bind(user.0)
            .fetch_optional(&mut *tx)
            .await?;
    match known {
        Some((owner, _)) if owner != user.0 => Err(REWARD_NOT_FOUND.error()),
        _ if payout.as_ref().is_some_and(|(state, _)| state == "cancelled") => {
            let why = payout.and_then(|(_, reason)| reason?.split_once(": ").map(|(_, why)| why.to_owned()));
            let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
            Err(REWARD_SETTLED
                .because(format!("the reward is cancelled already{why}: there is nothing to claim")))
        }
        Some((_, Some(status))) if ["distributed", "cancelled"].contains(&status.as_str()) => {
            Err(REWARD_SETTLED.because(format!("the reward is {status} already: there is nothing to claim")))
        }
        Some(_) => Ok(()),
        None if is_expected(tx, user, reward, now).await? => Ok(()),
        None => Err(REWARD_NOT_FOUND.error()),
    }
}

/// Whether the reward is that of a recent upload of the user's that may still earn one.
async fn is_expected(
    tx: &mut PgConnection,
    user: UserId,
    reward: RewardId,
    now: Micros,
) -> Result<bool, sqlx::Error> {
    let uploads: Vec<Uuid> = sqlx::query_scalar(
        "select p.upload_id from photo_hashes p
         where p.user_id = $1 and p.reserved_at > $2
           and not exists (select from rewards r where r.upload_id = p.upload_id)
           and not exists (select from odometer_uploads o
                           where o.id = p.upload_id and o.upload_status in ('rejected', 'failed'))
         order by p.reserved_at desc limit $3",
    )
    .bind(user.0)
    .bind(now.to_utc() - TimeDelta::days(DAYS))
    .bind(CANDIDATES)
    .fetch_all(tx)
    .await?;
    Ok(uploads.into_iter().any(|upload| RewardId::of(UploadId(upload)) == reward))
}

fn is_empty(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    body.is_empty()
        || serde_json::from_slice::<Map<String, Value>>(body).is_ok_and(|object| object.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_empty_in_its_body() {
        assert!(["", " \n", "{}", "{ }\n"].iter().all(|body| is_empty(body.as_bytes())));
        assert!(["null", "[]", "{", "{\"amount\":\"5\"}"].iter().all(|body| !is_empty(body.as_bytes())));
    }
}
