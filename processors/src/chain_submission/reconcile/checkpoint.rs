//! Where the hourly comparison begins: behind what it has found equal before. What is final does not change any more, so that an hour's
//! work is an hour's payments, however many were made since the first one.

use chain::Node;
use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};

use super::{ReconcileError, Report, reconcile};
use crate::chain_submission::network::Network;

/// Compares what was paid since the last comparison that found chain and books equal, as far as the chain is final, and notes how far they
/// are equal now. What differs is found again each time until it is mended: the checkpoint stays before it.
///
/// # Errors
/// [`ReconcileError`].
pub async fn reconcile_on(
    pool: &PgPool,
    node: &Node,
    network: &Network,
    now: DateTime<Utc>,
) -> Result<Report, ReconcileError> {
    let from = equal_upto(pool, network).await?.map(|upto| upto.saturating_add(1));
    let report = reconcile(pool, node, network, (from, None)).await?;
    if let Some(upto) = report.equal_upto {
        raise(pool, network, upto, now).await?;
    }
    Ok(report)
}

/// Has the next comparison begin with the first payment: the books are others.
///
/// # Errors
/// The database's.
pub async fn start_anew(tx: impl PgExecutor<'_>, genesis_id: &str) -> sqlx::Result<()> {
    let all = "delete from payout_reconciliations where genesis_id = $1";
    sqlx::query(all).bind(genesis_id).execute(tx).await.map(drop)
}

async fn equal_upto(pool: &PgPool, network: &Network) -> sqlx::Result<Option<u32>> {
    let found: Option<i64> = sqlx::query_scalar(
        "select equal_upto from payout_reconciliations where genesis_id = $1 and contract = $2 and app_id = $3",
    )
    .bind(network.genesis.to_string())
    .bind(network.pool.to_string())
    .bind(network.app.to_string())
    .fetch_optional(pool)
    .await?;
    Ok(found.and_then(|upto| u32::try_from(upto).ok()))
}

/// It rises no further than blocks that the books know as final, by the word of two nodes where there are two: the one that was asked may
/// call final what is not.
async fn raise(pool: &PgPool, network: &Network, upto: u32, now: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query(
        "insert into payout_reconciliations as c (genesis_id, contract, app_id, equal_upto, compared_at)
         select $1, $2, $3, least($4, finalized_number), $5 from payout_heads where genesis_id = $1
         on conflict (genesis_id, contract, app_id) do update
            set equal_upto = greatest(c.equal_upto, excluded.equal_upto), compared_at = excluded.compared_at",
    )
    .bind(network.genesis.to_string())
    .bind(network.pool.to_string())
    .bind(network.app.to_string())
    .bind(i64::from(upto))
    .bind(now)
    .execute(pool)
    .await?;
    Ok(())
}
