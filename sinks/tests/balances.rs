//! What wallets hold, as the blocks of the chain say it.

use chain::abi::topic;
use schemas::events::{BlockAdopted, BlockPlace, BlockUndone, ChainLog, ChainStep, ChainTransaction};
use schemas::ids::Micros;
use schemas::payouts::chain_event_id;
use sinks::postgres::UploadEvent;
use uuid::Uuid;

use crate::logs::{POOL, SIGNER, padded};
use crate::payments::{GENESIS, sink, write};
use crate::support::Schema;

/// B3TR.
const TOKEN: &str = "0x3333333333333333333333333333333333333333";
/// The driver's wallet.
const WALLET: &str = "0x4444444444444444444444444444444444444444";

/// A block at a height that tells of transfers to the wallet, each with what it holds then.
fn adopted(seq: i64, (number, branch): (i64, char), balances: &[&str]) -> UploadEvent {
    let id = block_id(number, branch);
    let log = |(index, balance): (i32, &&str)| ChainLog {
        clause_index: 0,
        log_index: index,
        address: TOKEN.into(),
        topics: vec![topic::TRANSFER.to_string(), padded(POOL), padded(WALLET)],
        data: format!("0x{:064x}", 5),
        balance_after_wei: (!balance.is_empty()).then(|| (*balance).to_owned()),
    };
    UploadEvent::Chain(Box::new(ChainStep::Adopted(BlockAdopted {
        event_id: chain_event_id(GENESIS, "adopted", &id, 1),
        occurred_at: Micros(seq),
        seq,
        genesis_id: GENESIS.into(),
        parent_id: block_id(number - 1, 'a'),
        adoption: 1,
        finalized_number: 0,
        transactions: vec![ChainTransaction {
            id: format!("0x{:0>64}", format!("{number}{}", u32::from(branch))),
            index: 0,
            origin: SIGNER.into(),
            gas_payer: SIGNER.into(),
            gas_used: 21_000,
            paid_wei: "1".into(),
            reverted: false,
            logs: (0..).zip(balances).map(log).collect(),
        }],
        retold: false,
        block: BlockPlace { id, number, timestamp: Micros(number * 10_000_000) },
    })))
}

fn undone(seq: i64, (number, branch): (i64, char)) -> UploadEvent {
    let block_id = block_id(number, branch);
    UploadEvent::Chain(Box::new(ChainStep::Undone(BlockUndone {
        event_id: chain_event_id(GENESIS, "undone", &block_id, 1),
        occurred_at: Micros(seq),
        seq,
        genesis_id: GENESIS.into(),
        number,
        block_id,
        adoption: 1,
    })))
}

fn block_id(number: i64, branch: char) -> String {
    format!("0x{number:08x}{}", branch.to_string().repeat(56))
}

/// The wallet's balance, and the second of its block.
async fn held(schema: &Schema) -> Option<String> {
    let text = "select balance::text || ' at ' || extract(epoch from last_sync_at)::bigint from user_wallets";
    sqlx::query_scalar(text).fetch_one(&schema.pool).await.unwrap()
}

#[tokio::test]
async fn a_wallet_holds_what_its_newest_transfer_that_counts_says_and_an_undone_block_gives_back_what_was_before()
 {
    let schema = Schema::new().await;
    let user = Uuid::from_u128(7);
    sqlx::query("insert into users (id) values ($1)").bind(user).execute(&schema.pool).await.unwrap();
    sqlx::query(
        "insert into user_wallets (id, user_id, wallet_address, wallet_type, network)
         values ($1, $1, $2, 'vechain', 'testnet')",
    )
    .bind(user)
    .bind(WALLET)
    .execute(&schema.pool)
    .await
    .unwrap();
    let sink = sink(&schema).await;
    assert_eq!(held(&schema).await, None);
    // Eight decimals, toward zero; of two transfers in a block the later one.
    write(&sink, [adopted(1, (10, 'a'), &["1", "1500000009999999999"])]).await;
    assert_eq!(held(&schema).await.as_deref(), Some("1.50000000 at 100"));
    write(&sink, [adopted(2, (11, 'a'), &["2500000019999999999"])]).await;
    assert_eq!(held(&schema).await.as_deref(), Some("2.50000001 at 110"));
    // A transfer whose balance the node did not say changes nothing.
    write(&sink, [adopted(3, (12, 'a'), &[""])]).await;
    assert_eq!(held(&schema).await.as_deref(), Some("2.50000001 at 110"));
    write(&sink, [undone(4, (12, 'a')), undone(5, (11, 'a'))]).await;
    assert_eq!(held(&schema).await.as_deref(), Some("1.50000000 at 100"));
    write(
        &sink,
        [adopted(6, (11, 'b'), &["1700000000000000000"]), undone(7, (11, 'b')), undone(8, (10, 'a'))],
    )
    .await;
    assert_eq!(held(&schema).await, None, "nothing counts any more");
    // Told again, in one batch and out of order.
    write(
        &sink,
        [
            undone(5, (11, 'a')),
            adopted(2, (11, 'a'), &["2500000019999999999"]),
            adopted(9, (10, 'c'), &["3"]),
        ],
    )
    .await;
    assert_eq!(held(&schema).await.as_deref(), Some("0.00000000 at 100"));
}
