//! Vehicles that are offered: told to the account that the wallet belongs to, where there is one. Nobody else learns whether there is.

use chrono::{DateTime, SecondsFormat, Utc};
use runtime::SinkError;
use schemas::ids::natural;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::event::Told;
use super::{OLDEST, service};

/// An open offer that was not told: its id, its first and last instant, and whom it is made to.
type Offer = (Uuid, DateTime<Utc>, DateTime<Utc>, Option<Uuid>);

/// Writes what is to be told of open offers. Cut off anywhere it writes the same once more.
pub(super) async fn tell(
    pool: &PgPool,
    channels: &[&'static str],
    now: DateTime<Utc>,
    limit: i64,
) -> Result<(), SinkError> {
    let failed = |error| crate::database::sink_error(error, "an offer", "vehicle_transfers");
    let offers: Vec<Offer> = sqlx::query_as(
        "select t.id, t.created_at, t.expires_at, w.user_id from vehicle_transfers t
         left join user_wallets w on w.wallet_address = t.to_address and w.wallet_type = 'vechain'
             and w.verified_at is not null and w.removed_at is null
         where t.outcome is null and t.told_at is null order by t.created_at limit $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(failed)?;
    if offers.is_empty() {
        return Ok(());
    }
    let told: Vec<Told> = offers
        .iter()
        .filter(|(_, created_at, expires_at, _)| now - *created_at < OLDEST && now < *expires_at)
        .filter_map(|(id, created_at, expires_at, user)| {
            Some(Told {
                key: natural(&format!("vehicle_offered/{id}")),
                user: (*user)?,
                kind: "vehicle_offered",
                document: json!({
                    "transfer_id": id,
                    "expires_at": expires_at.to_rfc3339_opts(SecondsFormat::Secs, true),
                }),
                occurred_at: (*created_at).into(),
            })
        })
        .collect();
    service::insert(pool, &told, channels, now).await?;
    sqlx::query("update vehicle_transfers set told_at = $2 where id = any($1) and told_at is null")
        .bind(offers.iter().map(|(id, ..)| *id).collect::<Vec<_>>())
        .bind(now)
        .execute(pool)
        .await
        .map_err(failed)?;
    Ok(())
}
