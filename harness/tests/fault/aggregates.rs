//! The aggregates equal sums over events and tables, whatever was killed.

use std::collections::BTreeMap;

use harness::topics::Decoded;
use rust_decimal::Decimal;
use schemas::events::{UploadDecided, UploadReceived, Verdict};
use schemas::ids::UploadId;
use sqlx::PgPool;

use crate::check::pool;
use crate::run::Run;

/// Every number that is not the sum of what it counts, in words.
pub async fn violations(
    run: &Run,
    received: &[Decoded<UploadReceived>],
    decided: &BTreeMap<UploadId, &UploadDecided>,
) -> Vec<String> {
    let pool = pool(run).await;
    let mut found = Vec::new();
    let uploads: std::collections::BTreeSet<UploadId> =
        received.iter().map(|record| record.event.header.upload_id).collect();
    let done = decided.values().filter(|event| event.verdict != Verdict::Review).count();
    let km: Decimal = decided.values().filter_map(|event| event.distance_km).sum();
    let mut wanted = vec![
        ("uploads_accepted", Decimal::from(uploads.len())),
        ("uploads_decided", Decimal::from(done)),
        ("distance", km),
    ];
    for (metric, query) in [
        ("rewards_calculated", "select coalesce(sum(base_amount + bonus_amount), 0) from rewards"),
        ("rewards_granted", "select coalesce(sum(granted_amount), 0) from rewards"),
        ("rewards_cut", "select coalesce(sum(base_amount + bonus_amount - granted_amount), 0) from rewards"),
        (
            "rewards_paid",
            "select coalesce(sum(amount), 0) from reward_transactions where status = 'confirmed'",
        ),
        (
            "payout_fee",
            "select coalesce(sum(fee_wei), 0) / 1000000000000000000 from blockchain_transactions where status = 'confirmed'",
        ),
    ] {
        wanted.push((metric, sqlx::query_scalar(query).fetch_one(&pool).await.unwrap()));
    }
    for (metric, wanted) in wanted {
        for period in ["hour", "day", "week", "month", "year"] {
            let sum = total(&pool, metric, period).await;
            if sum != wanted {
                found.push(format!("{metric} by {period} sums to {sum}, {wanted} was counted"));
            }
        }
    }
    // A cut's pieces sum to the whole, and outcomes are those of the tables.
    let outcomes: Vec<(String, Decimal)> = sqlx::query_as(
        "select dimension ->> 'outcome', sum(exact_value) from analytics_data
         where metric_name = 'uploads_decided' and time_period = 'day' and dimension ? 'outcome' group by 1 order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let tables: Vec<(String, Decimal)> = sqlx::query_as(
        "select upload_status::text, count(*)::numeric from odometer_uploads
         where upload_status in ('verified', 'rejected', 'failed') group by 1 order by 1",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    if outcomes
        .iter()
        .map(|(name, count)| (name, count.normalize()))
        .ne(tables.iter().map(|(name, count)| (name, count.normalize())))
    {
        found.push(format!("outcomes: the aggregates say {outcomes:?}, the tables {tables:?}"));
    }
    found
}

async fn total(pool: &PgPool, metric: &str, period: &str) -> Decimal {
    sqlx::query_scalar::<_, Decimal>(
        "select coalesce(sum(exact_value), 0) from analytics_data
         where metric_name = $1 and time_period = $2::analytics_data_time_period and dimension = '{}' and user_id is null",
    )
    .bind(metric)
    .bind(period)
    .fetch_one(pool)
    .await
    .unwrap()
    .normalize()
}
