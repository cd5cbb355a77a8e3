//! `milestream wallet add`, and what an upload is stamped with after it.

use futures::future::join_all;
use ingest::wallets::{WalletError, add_wallet};
use schemas::ids::{Micros, UserId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{Bench, Form, SCHEMAS, database, jpeg};

const NOW: Micros = Micros(1_770_000_000_000_000);

fn address(n: u8) -> String {
    format!("0x{}", hex::encode([n; 20]))
}

async fn add(pool: &PgPool, user: UserId, address: &str, network: &str) -> Result<Uuid, WalletError> {
    add_wallet(pool, SCHEMAS(), user, address, network, NOW).await
}

async fn shown(pool: &PgPool, user: UserId) -> Option<String> {
    sqlx::query_scalar("select wallet_address from users where id = $1")
        .bind(user.0)
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn the_first_wallet_makes_the_account_is_its_primary_and_shows_in_users() {
    let (pool, user) = (database().await, UserId(Uuid::now_v7()));
    let first = add(&pool, user, &address(0xab).to_uppercase().replace("0X", "0x"), "testnet").await.unwrap();
    assert_eq!(shown(&pool, user).await, Some(address(0xab)), "in lower case");
    let second = add(&pool, user, &address(2), "testnet").await.unwrap();
    let third = add(&pool, user, &address(0xab), "mainnet").await.unwrap();
    assert!(first != second && first != third);
    assert_eq!(add(&pool, user, &address(0xab), "testnet").await.unwrap(), first, "again changes nothing");
    assert_eq!(shown(&pool, user).await, Some(address(0xab)));
    let rows: Vec<(Uuid, String, bool)> =
        sqlx::query_as("select id, wallet_type::text, is_primary from user_wallets order by id")
            .fetch_all(&pool)
            .await
            .unwrap();
    let vechain = "vechain".to_owned();
    assert_eq!(
        rows,
        [(first, vechain.clone(), true), (second, vechain.clone(), false), (third, vechain, false)]
    );
    let (preferences, seen): (i64, bool) = sqlx::query_as(
        "select (select count(*) from user_preferences), exists (select from users where last_login_at is not null)",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!((preferences, seen), (1, false), "an operator's command is no login");
    let topics: Vec<String> =
        sqlx::query_scalar("select topic from outbox order by id").fetch_all(&pool).await.unwrap();
    assert_eq!(
        topics,
        ["accounts.changed"],
        "the account is new once, and a wallet changes none of its flags"
    );
}

#[tokio::test]
async fn an_address_belongs_to_one_account_and_what_is_refused_writes_nothing() {
    let pool = database().await;
    let (owner, other) = (UserId(Uuid::now_v7()), UserId(Uuid::now_v7()));
    add(&pool, owner, &address(1), "testnet").await.unwrap();
    for network in ["testnet", "mainnet"] {
        assert!(matches!(add(&pool, other, &address(1), network).await, Err(WalletError::Taken)));
    }
    assert!(matches!(add(&pool, other, "0x01", "testnet").await, Err(WalletError::Address(_))));
    assert!(matches!(add(&pool, other, &address(0), "testnet").await, Err(WalletError::Address(_))));
    assert!(matches!(add(&pool, other, &address(3), "solo").await, Err(WalletError::Network(_))));
    let users: i64 = sqlx::query_scalar("select count(*) from users").fetch_one(&pool).await.unwrap();
    assert_eq!(users, 1, "the other account was not made");
}

#[tokio::test]
async fn first_wallets_at_once_have_one_primary_and_one_address_at_once_has_one_owner() {
    let (pool, user) = (database().await, UserId(Uuid::now_v7()));
    let addresses: Vec<String> = (1..=6).map(address).collect();
    for added in join_all(addresses.iter().map(|address| add(&pool, user, address, "testnet"))).await {
        added.unwrap();
    }
    let primaries: Vec<String> =
        sqlx::query_scalar("select wallet_address from user_wallets where is_primary and user_id = $1")
            .bind(user.0)
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!((primaries.len(), primaries.first().cloned()), (1, shown(&pool, user).await));

    let users: Vec<UserId> = (0..6).map(|_| UserId(Uuid::now_v7())).collect();
    let wanted = address(9);
    let results = join_all(users.iter().map(|user| add(&pool, *user, &wanted, "testnet"))).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(results.iter().all(|result| matches!(result, Ok(_) | Err(WalletError::Taken))), "{results:?}");
}

#[tokio::test]
async fn an_upload_is_stamped_with_the_primary_wallet_and_with_the_drivers_wish_to_claim() {
    let bench = Bench::start().await;
    let (user, token) = bench.driver().await;
    bench.post(&token, &Form::photo(&jpeg(1))).await;
    let wallet = add(&bench.pool, user, &address(1), "testnet").await.unwrap();
    add(&bench.pool, user, &address(2), "testnet").await.unwrap();
    bench.post(&token, &Form::photo(&jpeg(2))).await;
    let run = async |sql: &'static str| sqlx::query(sql).execute(&bench.pool).await.unwrap();
    run("update user_preferences set reward_preferences = reward_preferences || '{\"auto_claim\": false}'")
        .await;
    bench.post(&token, &Form::photo(&jpeg(3))).await;
    run("delete from user_preferences").await;
    bench.post(&token, &Form::photo(&jpeg(4))).await;
    let stamps: Vec<(Option<Uuid>, bool)> =
        bench.kafka.events().iter().map(|event| (event.stamp.wallet_id, event.stamp.auto_claim)).collect();
    assert_eq!(stamps, [(None, true), (Some(wallet), true), (Some(wallet), false), (Some(wallet), true)]);
}
