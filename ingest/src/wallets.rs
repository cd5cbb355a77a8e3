//! Wallets that operators link for a user (`milestream wallet add`). The address is what a payout goes to.

use schemas::ids::{Micros, UserId};
use sqlx::PgPool;
use uuid::Uuid;

use crate::token::{SchemaIds, TokenError, account};

/// Why a wallet was not linked.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// Not `0x` and 40 hex digits, or the zero address, which nothing can be paid to.
    #[error("{0:?} is no address: 0x and 40 hex digits, not all zero")]
    Address(String),
    /// The address belongs to another account.
    #[error("the address is another account's")]
    Taken,
    /// The account.
    #[error(transparent)]
    Account(#[from] TokenError),
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Links a VeChain address to a user, making the account where there is none; returns the wallet's id. The user's first wallet is
/// their primary one, which rewards are paid to. Linking it again changes nothing. `network` is `mainnet` or `testnet`.
///
/// # Errors
/// [`WalletError`]; nothing is written then.
pub async fn add_wallet(
    pool: &PgPool,
    schemas: SchemaIds,
    user: UserId,
    address: &str,
    network: &str,
    now: Micros,
) -> Result<Uuid, WalletError> {
    let lower = address.to_ascii_lowercase();
    let digits = lower.strip_prefix("0x").filter(|digits| digits.len() == 40);
    let good = digits.is_some_and(|digits| {
        digits.bytes().all(|b| b.is_ascii_hexdigit()) && digits.bytes().any(|b| b != b'0')
    });
    if !good {
        return Err(WalletError::Address(address.chars().take(64).collect()));
    }
    let mut tx = pool.begin().await?;
    account(&mut tx, schemas, user, now).await?;
    // Locked with the account, so that two first wallets cannot both be primary.
    sqlx::query("select from users where id = $1 for update").bind(user.0).execute(&mut *tx).await?;
    sqlx::query(
        "insert into user_wallets (id, user_id, wallet_address, wallet_type, network, is_primary, created_at, updated_at)
         values ($1, $2, $3, 'vechain', $4::user_wallets_network,
            not exists (select from user_wallets where user_id = $2 and is_primary), $5, $5)
         on conflict (wallet_type, network, wallet_address) do nothing",
    )
    .bind(Uuid::now_v7())
    .bind(user.0)
    .bind(&lower)
    .bind(network)
    .bind(now.to_utc())
    .execute(&mut *tx)
    .await?;
    let (id, owner, primary): (Uuid, Uuid, bool) = sqlx::query_as(
        "select id, user_id, is_primary from user_wallets
         where wallet_type = 'vechain' and network = $2::user_wallets_network and wallet_address = $1",
    )
    .bind(&lower)
    .bind(network)
    .fetch_one(&mut *tx)
    .await?;
    if owner != user.0 {
        return Err(WalletError::Taken);
    }
    if primary {
        sqlx::query("update users set wallet_address = $2, updated_at = $3 where id = $1 and wallet_address is distinct from $2")
            .bind(user.0)
            .bind(&lower)
            .bind(now.to_utc())
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(id)
}
