//! `watch_rewinds`: an operator's orders to tell blocks of the chain again. The watcher reads the newest, and keeps how far it has
//! carried it out in its checkpoint.

use anyhow::{Context as _, Result, ensure};
use chain::BlockId;
use chain::follow::Checkpoint;
use sqlx::types::Json;
use sqlx::{PgConnection, PgPool};
use watch::Rewind;

/// The newest order of a network.
///
/// # Errors
/// Postgres'.
pub async fn newest(pool: &PgPool, genesis: BlockId) -> sqlx::Result<Option<Rewind>> {
    let found: Option<(i64, i64)> = sqlx::query_as(
        "select order_id, to_number from watch_rewinds where genesis_id = $1 order by order_id desc limit 1",
    )
    .bind(genesis.to_string())
    .fetch_optional(pool)
    .await?;
    Ok(found.map(|(order, to)| Rewind { order, to: u32::try_from(to).unwrap_or(u32::MAX) }))
}

/// Orders that every block after `to` that was told is told again; `first` is the lowest height that may be rewound to. Returns the
/// height of the newest block that was told.
///
/// # Errors
/// Where there is nothing to tell again, or an order is still carried out.
pub async fn order(
    tx: &mut PgConnection,
    genesis: BlockId,
    (to, first): (u32, u32),
    reason: &str,
) -> Result<u32> {
    let genesis = genesis.to_string();
    // Orders take turns on the row of the network's cursor.
    let told: Option<Json<Option<Checkpoint>>> =
        sqlx::query_scalar("select checkpoint from chain_cursors where genesis_id = $1 for update")
            .bind(&genesis)
            .fetch_optional(&mut *tx)
            .await?;
    let told = told.and_then(|Json(told)| told).context("no block of the network was told yet")?;
    let tip = told.tip().context("the watcher's checkpoint is damaged")?.number();
    ensure!(to >= first, "blocks up to {first} were never told: watch.start_block says so");
    ensure!(to < tip, "block {tip} is the newest that was told: nothing after {to} can be told again");
    let before: Option<i64> =
        sqlx::query_scalar("select max(order_id) from watch_rewinds where genesis_id = $1")
            .bind(&genesis)
            .fetch_one(&mut *tx)
            .await?;
    let carried_out = before.is_none_or(|before| {
        told.retelling().is_some_and(|told| told.order >= before && told.next > told.last.min(tip))
    });
    ensure!(carried_out, "an earlier rewind is not carried out yet: wait for it, while a watcher runs");
    sqlx::query("insert into watch_rewinds (genesis_id, to_number, reason) values ($1, $2, $3)")
        .bind(&genesis)
        .bind(i64::from(to))
        .bind(reason)
        .execute(tx)
        .await?;
    Ok(tip)
}
