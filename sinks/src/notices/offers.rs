//! Vehicles that are offered: told to the account that the wallet belongs to, where there is one. Nobody else learns whether there is.

use chrono::{DateTime, SecondsFormat, Utc};
use runtime::SinkError;
use runtime::worker::ErrorReport;
use schemas::ids::natural;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::event::Told;
use super::{OLDEST, service};

/// An open offer that was not told: its id, its first and last instant, and whom it is made to.
type Offer = (Uuid, DateTime<Utc>, DateTime<Utc>, Option<Uuid>);

/// Writes what is to be told of open offers. Cut off anywhere it writes the same once more. One that cannot be told is logged and told to
/// nobody, so that the others are: whoever looks finds it.
pub(super) async fn tell(
    pool: &PgPool,
    channels: &[&'static str],
    now: DateTime<Utc>,
    limit: i64,
) -> Result<(), SinkError> {
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
    if offers.is_empty() || write(pool, &offers, channels, now).await.is_ok() {
        return Ok(());
    }
    for offer in &offers {
        let Err(error) = write(pool, std::slice::from_ref(offer), channels, now).await else { continue };
        let (id, ..) = offer;
        // Where the database is away this fails as well, and nothing is given up.
        mark(pool, &[*id], now).await?;
        tracing::error!(offer = %id, error = %ErrorReport(&error), "an offer cannot be told");
    }
    Ok(())
}

async fn write(
    pool: &PgPool,
    offers: &[Offer],
    channels: &[&'static str],
    now: DateTime<Utc>,
) -> Result<(), SinkError> {
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
    mark(pool, &offers.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), now).await
}

async fn mark(pool: &PgPool, offers: &[Uuid], now: DateTime<Utc>) -> Result<(), SinkError> {
    sqlx::query("update vehicle_transfers set told_at = $2 where id = any($1) and told_at is null")
        .bind(offers)
        .bind(now)
        .execute(pool)
        .await
        .map_err(failed)?;
    Ok(())
}

fn failed(error: sqlx::Error) -> SinkError {
    crate::database::sink_error(error, "an offer", "vehicle_transfers")
}
