//! Wallets that operators link for a user (`milestream wallet add`). The address is what a payout goes to.

use schemas::ids::{Micros, UserId};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::token::{TokenError, account};
use crate::schema_ids::SchemaIds;

/// Networks of `user_wallets.network`.
const NETWORKS: [&str; 2] = ["mainnet", "testnet"];

/// Why a wallet was not linked.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// Not `0x` and 40 hex digits, or the zero address, which nothing can be paid to.
    #[error("{0:?} is no address: 0x and 40 hex digits, not all zero")]
    Address(String),
    /// Not a network.
    #[error("{0:?} is no network: mainnet or testnet")]
    Network(String),
    /// The address belongs to another account.
    #[error("the address is another account's")]
    Taken,
    /// The account.
    #[error(transparent)]
    Account(#[from] TokenError),
    /// The database.
    #[error(transparent)]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for WalletError {
    fn from(error: sqlx::Error) -> Self {
        // Only an address is unique here and can meet another's: a race that the look before it did not see.
        let taken = error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation);
        if taken { Self::Taken } else { Self::Database(error) }
    }
}

/// Links a VeChain address to a user, making the account where there is none; returns the wallet's id. The user's first wallet is
/// their primary one, which rewards are paid to and which `users.wallet_address` shows. Linking it again changes nothing. `network` is
/// `mainnet` or `testnet`; an address belongs to one account on both.
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
    let shown = |text: &str| text.chars().take(64).collect();
    let address = canonical(address).ok_or_else(|| WalletError::Address(shown(address)))?;
    if !NETWORKS.contains(&network) {
        return Err(WalletError::Network(shown(network)));
    }
    let mut tx = pool.begin().await?;
    // Locks the account's row, so that two first wallets cannot both be primary.
    account(&mut tx, schemas, user, now).await?;
    let id = ensure_linked(&mut tx, user, &address, network, now).await?;
    tx.commit().await?;
    Ok(id)
}

/// The user's wallet of an address (in lower case), linked now where it was not.
///
/// # Errors
/// [`WalletError::Taken`] where it is another account's.
pub(crate) async fn ensure_linked(
    tx: &mut PgConnection,
    user: UserId,
    address: &str,
    network: &str,
    now: Micros,
) -> Result<Uuid, WalletError> {
    let taken: bool = sqlx::query_scalar(
        "select exists (select from user_wallets where wallet_type = 'vechain' and network in ('mainnet', 'testnet')
                         and wallet_address = $2 and user_id <> $1)
             or exists (select from users where wallet_address = $2 and id <> $1)",
    )
    .bind(user.0)
    .bind(address)
    .fetch_one(&mut *tx)
    .await?;
    if taken {
        return Err(WalletError::Taken);
    }
    match linked(tx, user, address, network).await? {
        Some(id) => Ok(id),
        None => Ok(link(tx, user, address, network, now).await?),
    }
}

/// Lower case; none where it is no address.
fn canonical(address: &str) -> Option<String> {
    let lower = address.to_ascii_lowercase();
    let digits = lower.strip_prefix("0x").filter(|digits| digits.len() == 40)?;
    let good = digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && digits.bytes().any(|byte| byte != b'0');
    good.then_some(lower)
}

/// The user's wallet of an address. Another's may have come since it was looked for: then the index refuses the new one.
async fn linked(
    tx: &mut PgConnection,
    user: UserId,
    address: &str,
    network: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "select id from user_wallets
         where wallet_type = 'vechain' and network = $3::user_wallets_network and wallet_address = $2 and user_id = $1",
    )
    .bind(user.0)
    .bind(address)
    .bind(network)
    .fetch_optional(tx)
    .await
}

async fn link(
    tx: &mut PgConnection,
    user: UserId,
    address: &str,
    network: &str,
    now: Micros,
) -> Result<Uuid, sqlx::Error> {
    let (id, primary): (Uuid, bool) = sqlx::query_as(
        "insert into user_wallets (id, user_id, wallet_address, wallet_type, network, is_primary, created_at, updated_at)
         values ($1, $2, $3, 'vechain', $4::user_wallets_network,
            not exists (select from user_wallets where user_id = $2 and is_primary), $5, $5)
         returning id, is_primary",
    )
    .bind(Uuid::now_v7())
    .bind(user.0)
    .bind(address)
    .bind(network)
    .bind(now.to_utc())
    .fetch_one(&mut *tx)
    .await?;
    if primary {
        sqlx::query("update users set wallet_address = $2, updated_at = $3 where id = $1")
            .bind(user.0)
            .bind(address)
            .bind(now.to_utc())
            .execute(tx)
            .await?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_kept_in_lower_case_and_what_is_none_is_refused() {
        let digits = "00aB".repeat(10);
        assert_eq!(canonical(&format!("0X{digits}")), Some(format!("0x{}", digits.to_ascii_lowercase())));
        for text in [
            "",
            "0x",
            &digits,
            &format!("0x{digits}0"),
            &format!("0x{}", "0".repeat(40)),
            &format!("0x{}", "g".repeat(40)),
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
