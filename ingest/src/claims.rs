//! `POST /v1/rewards/{id}/claim`: a driver asks for a reward. One claim a reward: asking again gives the first answer again.

use chrono::{DateTime, TimeDelta, Utc};
use schemas::events::RewardClaimed;
use schemas::ids::{EventId, Micros, RewardId, UploadId, UserId, natural};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::accept::json_response;
use crate::body::Body;
use crate::error::ApiError;
use crate::gateway::{Caller, Gateway};
use crate::outbox::announce;
use crate::payout::instant;

/// Bytes of a claim's body, which says nothing: an empty object and the white space of a client that sets it out.
pub(crate) const CLAIM_BYTES: u64 = 64;
/// Days in which an upload's reward may be claimed before the tables show it: a review may take a month.
const DAYS: i64 = 45;
/// Uploads that are looked through for such a reward: 45 days x 20 a day. 900 hashes take below a millisecond.
const CANDIDATES: i64 = 900;

/// A stored claim.
type Claim = (Uuid, DateTime<Utc>);

impl Gateway {
    /// The route.
    pub(crate) async fn post_claim(
        &self,
        caller: &Caller,
        reward: RewardId,
        mut body: Body,
    ) -> Result<Response, ApiError> {
        if !says_nothing(&body.whole().await?) {
            return Err(ApiError::UnexpectedBody);
        }
        self.claim(caller, reward).await
    }

    /// 202 for the first claim, 200 for every other.
    async fn claim(&self, caller: &Caller, reward: RewardId) -> Result<Response, ApiError> {
        let mut tx = self.pool().begin().await?;
        if let Some(claim) = stored(&mut tx, caller.user, reward).await? {
            return Ok(answer(reward, claim, StatusCode::OK));
        }
        if !caller.writable {
            return Err(ApiError::Maintenance);
        }
        let now = self.now();
        claimable(&mut tx, caller.user, reward, now).await?;
        let wallet: Option<Uuid> =
            sqlx::query_scalar("select id from user_wallets where user_id = $1 and is_primary")
                .bind(caller.user.0)
                .fetch_optional(&mut *tx)
                .await?;
        let wallet = wallet.ok_or(ApiError::NoWallet)?;
        let event = RewardClaimed {
            event_id: EventId(natural(&format!("claim/{reward}"))),
            occurred_at: now,
            reward_id: reward,
            user_id: caller.user,
            wallet_id: wallet,
        };
        let made = sqlx::query(
            "insert into reward_claims (reward_id, user_id, wallet_id, event_id, claimed_at) values ($1, $2, $3, $4, $5)
             on conflict (reward_id) do nothing",
        )
        .bind(reward.0)
        .bind(caller.user.0)
        .bind(wallet)
        .bind(event.event_id.0)
        .bind(now.to_utc())
        .execute(&mut *tx)
        .await?;
        if made.rows_affected() == 0 {
            // Another request was faster while this one waited for its row.
            let claim = stored(&mut tx, caller.user, reward).await?.ok_or(ApiError::RewardNotFound)?;
            return Ok(answer(reward, claim, StatusCode::OK));
        }
        announce(&mut tx, self.parts().schemas.reward_claimed, &event, now).await?;
        tx.commit().await?;
        Ok(answer(reward, (wallet, now.to_utc()), StatusCode::ACCEPTED))
    }
}

async fn stored(tx: &mut PgConnection, user: UserId, reward: RewardId) -> Result<Option<Claim>, sqlx::Error> {
    sqlx::query_as("select wallet_id, claimed_at from reward_claims where reward_id = $1 and user_id = $2")
        .bind(reward.0)
        .bind(user.0)
        .fetch_optional(tx)
        .await
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
    match known {
        Some((owner, _)) if owner != user.0 => Err(ApiError::RewardNotFound),
        Some((_, Some(status))) if ["distributed", "cancelled"].contains(&status.as_str()) => {
            Err(ApiError::RewardSettled { status })
        }
        Some(_) => Ok(()),
        None if is_expected(tx, user, reward, now).await? => Ok(()),
        None => Err(ApiError::RewardNotFound),
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

/// No body, or an empty JSON object.
fn says_nothing(body: &[u8]) -> bool {
    let body = body.trim_ascii();
    body.is_empty()
        || serde_json::from_slice::<Map<String, Value>>(body).is_ok_and(|object| object.is_empty())
}

fn answer(reward: RewardId, (wallet_id, claimed_at): Claim, status: StatusCode) -> Response {
    let mut response = json_response(&json!({
        "reward_id": reward,
        "status": "claimed",
        "wallet_id": wallet_id,
        "claimed_at": instant(claimed_at),
    }));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_says_nothing_in_its_body() {
        assert!(["", " \n", "{}", "{ }\n"].iter().all(|body| says_nothing(body.as_bytes())));
        assert!(["null", "[]", "{", "{\"amount\":\"5\"}"].iter().all(|body| !says_nothing(body.as_bytes())));
    }
}
