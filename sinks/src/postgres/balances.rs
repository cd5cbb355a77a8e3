//! What wallets hold, as the newest transfer to each says that counts: `user_wallets.balance` and `last_sync_at`. A block that is undone
//! gives back what the transfer before it said.

use schemas::payouts::is_mainnet;
use sqlx::{PgConnection, query};

use crate::database::column;

/// Brings the wallets up to date that got something in these blocks (network and id), whether the blocks count or are undone. A division of
/// numerics is rounded at its 16th decimal or so: whole units of 10^-8 B3TR are taken first.
pub(super) async fn follow(tx: &mut PgConnection, blocks: &[(String, String)]) -> sqlx::Result<()> {
    query(
        "with touched as (
            select distinct e.genesis_id, b.network, e.event_data #>> '{decoded,receiver}' as holder
            from unnest($1::text[], $2::text[], $3::text[]) b (genesis_id, block_id, network)
            join blockchain_events e on e.genesis_id = b.genesis_id and e.block_id = b.block_id
            where e.event_type = 'Transfer' and e.event_data #>> '{decoded,balance_after_wei}' is not null
         ), held as (
            select w.id, n.balance, n.at
            from touched t
            join user_wallets w on w.wallet_address = t.holder and w.wallet_type = 'vechain'
                and w.network::text = t.network
            left join lateral (
                select div((e.event_data #>> '{decoded,balance_after_wei}')::numeric, 1e10) / 1e8 as balance,
                    e.block_timestamp as at
                from blockchain_events e
                where e.genesis_id = t.genesis_id and e.event_data #>> '{decoded,receiver}' = t.holder
                    and e.event_type = 'Transfer' and e.canonical
                    and e.event_data #>> '{decoded,balance_after_wei}' is not null
                order by e.block_number desc, e.log_index desc limit 1
            ) n on true
            order by w.id for no key update of w
         )
         update user_wallets w set balance = h.balance, last_sync_at = h.at
         from held h
         where w.id = h.id and (w.balance, w.last_sync_at) is distinct from (h.balance, h.at)",
    )
    .bind(column(blocks, |(genesis, _)| genesis.clone()))
    .bind(column(blocks, |(_, block)| block.clone()))
    .bind(column(blocks, |(genesis, _)| if is_mainnet(genesis) { "mainnet" } else { "testnet" }))
    .execute(tx)
    .await?;
    Ok(())
}
