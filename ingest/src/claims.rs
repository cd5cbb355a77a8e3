//! `POST /v1/rewards/{id}/claim`: a driver asks for a reward. One claim a reward: asking again gives the first answer again.

use chrono::{DateTime, SecondsFormat, Utc};
use schemas::events::RewardClaimed;
use schemas::ids::{EventId, RewardId, UploadId, UserId, natural};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;

use crate::accept::json_response;
use crate::error::ApiError;
use crate::gateway::{Caller, Gateway};
use crate::token::{TokenError, announce};

/// Uploads whose reward may be claimed before the tables show it. A driver sends at most 20 a day.
const RECENT: i64 = 200;

/// A stored claim.
type Claim = (Uuid, DateTime<Utc>);

impl Gateway {
    /// The route. 202 for the first claim, 200 for every other.
    pub(crate) async fn claim(&self, caller: &Caller, reward: RewardId) -> Result<Response, ApiError> {
        let mut tx = self.pool().begin().await?;
        if let Some(claim) = stored(&mut tx, caller.user, reward).await? {
            return Ok(answer(reward, claim, StatusCode::OK));
        }
        if !caller.writable {
            return Err(ApiError::Maintenance);
        }
        claimable(&mut tx, caller.user, reward).await?;
        let wallet: Option<Uuid> =
            sqlx::query_scalar("select id from user_wallets where user_id = $1 and is_primary")
                .bind(caller.user.0)
                .fetch_optional(&mut *tx)
                .await?;
        let wallet = wallet.ok_or(ApiError::NoWallet)?;
        let now = self.now();
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
        let announced = announce(&mut tx, self.parts().schemas.reward_claimed, &event, now).await;
        announced.map_err(|error| match error {
            TokenError::Database(error) => error.into(),
            error => ApiError::Internal { source: error.into() },
        })?;
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
async fn claimable(tx: &mut PgConnection, user: UserId, reward: RewardId) -> Result<(), ApiError> {
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
        None => {
            let uploads: Vec<Uuid> = sqlx::query_scalar(
                "select upload_id from photo_hashes where user_id = $1 order by reserved_at desc limit $2",
            )
            .bind(user.0)
            .bind(RECENT)
            .fetch_all(tx)
            .await?;
            let own = uploads.into_iter().any(|upload| RewardId::of(UploadId(upload)) == reward);
            if own { Ok(()) } else { Err(ApiError::RewardNotFound) }
        }
    }
}

fn answer(reward: RewardId, (wallet_id, claimed_at): Claim, status: StatusCode) -> Response {
    let mut response = json_response(&json!({
        "reward_id": reward,
        "status": "claimed",
        "wallet_id": wallet_id,
        "claimed_at": claimed_at.to_rfc3339_opts(SecondsFormat::Micros, true),
    }));
    *response.status_mut() = status;
    response
}
